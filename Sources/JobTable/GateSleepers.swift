// Threads that wait for something in a gate to change.

import Synchronization

/// Who sleeps until a gate has changed, under whose lock the gate is looked at.
struct GateSleepers: ~Copyable {
    private let changes: Atomic<UInt32>
    private let count: Atomic<UInt32>

    init() {
        changes = Atomic(0)
        count = Atomic(0)
    }

    /// After a change, under the lock. True when the caller must `wake` once it has let it go.
    func noteChangeLocked() -> Bool {
        if count.load(ordering: .relaxed) == 0 { return false }
        // Release pairs with the acquire in awaitUntil().
        changes.wrappingAdd(1, ordering: .releasing)
        return true
    }

    func wake() { changes.wake() }

    /// Waits until `isReadyLocked`, which is asked under `lock`. False at once, when it is not and
    /// the caller may not wait. `asKernel`: without being interrupted, as the kernel's io_submit is
    /// not in the requests that are waited for.
    func awaitUntil(
        _ lock: borrowing FutexLock, _ mayWait: Bool, asKernel: Bool, _ isReadyLocked: () -> Bool
    ) -> Bool {
        while true {
            lock.lock()
            let seen = changes.load(ordering: .acquiring)
            let isReady = isReadyLocked()
            if !isReady && mayWait { count.wrappingAdd(1, ordering: .relaxed) }
            lock.unlock()
            if isReady || !mayWait { return isReady }
            if asKernel { CurrentThread().blockUntilLeaving() }
            _ = changes.wait(while: seen, until: .max)
            count.wrappingSubtract(1, ordering: .relaxed)
        }
    }
}

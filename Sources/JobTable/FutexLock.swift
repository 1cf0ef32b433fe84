// The lock of the layer.
//
// A thread counts the locks that it holds (CurrentThread.swift). A call of the layer that
// finds the count non-zero was made by a signal handler that interrupted the layer in this very
// thread; it must answer without taking any lock, or it would wait for itself.

import CLibAIO
import Synchronization

/// A futex lock: 0 free, 1 held. Zeroed memory is a free lock.
///
/// To free it takes a plain store: a locked instruction is a fiftieth of a cached read, which takes
/// three locks. The price is that a thread on its way to sleep may not see the lock free yet, nor
/// be seen by who frees it, for as long as a processor keeps a store to itself. So nobody sleeps
/// for long without looking again.
public struct FutexLock: ~Copyable {
    private let word = Atomic<UInt32>(0)
    /// Those who sleep, or are about to.
    private let sleepers = Atomic<UInt32>(0)

    /// Some microseconds at most.
    private static let spins = 40
    private static let sleepNs: UInt64 = 1_000_000

    /// A free lock.
    public init() {}

    /// Waits until the lock is this thread's. Not recursive: a handler must ask `interruptedLayer`
    /// first.
    @inline(__always)
    public borrowing func lock() {
        CurrentThread().enterCritical()
        // Acquire pairs with the release in unlock(); the release half keeps the count above
        // from sinking below the exchange, where a signal handler would miss it.
        if !tryLock() { lockSlowly() }
    }

    @inline(__always)
    private borrowing func tryLock() -> Bool {
        word.compareExchange(expected: 0, desired: 1, ordering: .acquiringAndReleasing).exchanged
    }

    @inline(never)
    private borrowing func lockSlowly() {
        // It is held for less time than it takes to fall asleep, unless its holder sleeps.
        for _ in 0..<Self.spins {
            ioctx_pause()
            if word.load(ordering: .relaxed) == 0 && tryLock() { return }
        }
        sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        while !tryLock() {
            _ = word.wait(while: 1, until: System.monotonicNs() &+ Self.sleepNs)
        }
        sleepers.wrappingSubtract(1, ordering: .relaxed)
    }

    /// Only by the thread that has locked it.
    @inline(__always)
    public borrowing func unlock() {
        // Release pairs with the acquire in lock().
        word.store(0, ordering: .releasing)
        // A handler must not find the count lowered while the lock is held.
        ioctx_compiler_barrier()
        if sleepers.load(ordering: .relaxed) != 0 { word.wake(1) }
        CurrentThread().leaveCritical()
    }
}

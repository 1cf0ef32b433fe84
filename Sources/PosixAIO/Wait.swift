// Waiting for requests: aio_suspend, aio_waitcomplete, and LIO_WAIT.
//
// A thread whose requests are all with the kernel's AIO sleeps for the kernel's events, where it
// may: see KernelReaper.swift. Everybody else sleeps on a futex.
//
// A sleeper of aio_suspend picks a bit by its thread and sets it in each job that it waits for;
// whoever publishes such a job wakes that bit. Nothing is locked and nothing left behind but bits,
// so a handler may sleep here. A thread that is cancelled in its sleep goes back to the exported
// function and ends there (system.h): what it has to take back, it takes back on the way.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

/// What a sleep comes to in which the thread was cancelled: no errno, and nobody's but its
/// caller's.
private let threadCancelled = -Int(IOCTX_THREAD_CANCELLED)

extension Atomic<UInt32> {
    /// Sleeps while the word is `expected`, until woken with one of these bits, as a cancellation
    /// point. 0, -EAGAIN, -EINTR, -ETIMEDOUT or `threadCancelled`. Always with a deadline: see
    /// `wait`, and a child that a handler has forked must not sleep on.
    fileprivate borrowing func cancellableWait(
        while expected: UInt32, bits: UInt32, until deadlineNs: UInt64
    ) -> Int {
        var deadline = timespec(nanoseconds: deadlineNs)
        return unsafe withUnsafePointer(to: self) { word in
            unsafe withUnsafeMutablePointer(to: &deadline) {
                unsafe Int(
                    ioctx_cancellable_wait(
                        UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self), expected,
                        bits, $0))
            }
        }
    }
}

/// The moment on the monotonic clock at which a relative time-out ends: UInt64.max without one,
/// 0 for no time at all, nil for an invalid one.
func deadline(_ timeout: UInt) -> UInt64? {
    guard let time = Ref<timespec>(address: timeout) else { return .max }
    let seconds = time.it.tv_sec
    let nanoseconds = time.it.tv_nsec
    if seconds < 0 || nanoseconds < 0 || nanoseconds >= 1_000_000_000 { return nil }
    if seconds == 0 && nanoseconds == 0 { return 0 }
    if seconds > 1 << 32 { return .max }
    return System.monotonicNs() &+ UInt64(seconds) &* 1_000_000_000 &+ UInt64(nanoseconds)
}

extension Ref where Pointee == PosixFace {
    /// aio_suspend: 0 when one of the requests is done and has been notified of, or -EAGAIN or
    /// -EINTR.
    func suspend(_ blocks: UInt, _ count: Int, until deadlineNs: UInt64) -> Int {
        let result = awaitOne(blocks, count, until: deadlineNs)
        if result != 0 { return result }
        for index in 0..<UInt(bitPattern: count) {
            if let pointer = Ref<UInt>(address: blocks &+ index &* 8),
                let block = BlockRef(address: pointer.it)
            {
                awaitNotification(of: block)
            }
        }
        return 0
    }

    /// The status of a request is there before its signal or function, which may ask for it. Who
    /// learns by a call that waits that it is done may then change what becomes of the signal, as
    /// with the C library, whose calls wait for its lock here. (By aio_error alone he may not.)
    func awaitNotification(of block: BlockRef) {
        if block.it.notification.kind == Int32(IOCTX_SIGEV_NONE)
            || block.it.error.load(ordering: .acquiring) == EINPROGRESS
        {
            return
        }
        // Some microseconds; a bound, for whoever sends it may have lost the processor.
        for _ in 0..<1000 where job(of: block) != nil { System.sleep(nanoseconds: 10_000) }
    }

    /// Whether a sleep that a signal has ended is one that ends for the program. As in the C
    /// library, whose sleeps go on after SIGSTOP and after its own signals, by which all threads
    /// change their user, and without a time-out after a handler with SA_RESTART. Which it was
    /// nobody tells: some handler that ends sleeps is enough.
    private func isInterrupted(until deadlineNs: UInt64) -> Bool {
        if CurrentThread.haveHandler(restarting: false) {
            it.endsSleeps.store(true, ordering: .relaxed)
        }
        return it.endsSleeps.load(ordering: .relaxed)
            || deadlineNs != .max && CurrentThread.haveHandler(restarting: true)
    }

    private func awaitOne(_ blocks: UInt, _ count: Int, until deadlineNs: UInt64) -> Int {
        let thread = CurrentThread().name
        var mayWatch = true
        var reason = 0
        var namesAtFirst: UInt64?
        while true {
            let seen = it.changes.load(ordering: .sequentiallyConsistent)
            let (found, names) = pending(blocks, count, of: thread)
            if found == .none { return 0 }
            // One that is done may have been collected, and its block made another request's.
            if namesAtFirst ?? names != names { return 0 }
            namesAtFirst = names
            if takeFromKernel() { continue }
            if reason != 0 { return reason }
            if deadlineNs == 0 { return failure(EAGAIN) }
            // A handler that interrupted a call of another face in a lock: what it would wait for
            // may need that lock.
            if CurrentThread().interruptedLayer { return failure(EINTR) }
            let slept: Int
            if found == .ownWithKernel, mayWatch,
                let watch = it.engine.watchKernel(thread, among: 1)
            {
                slept = sleep(watch, blocks, count, of: thread, until: deadlineNs, &mayWatch)
            } else {
                let bit = UInt32(1) << (thread % 31)
                let again = pending(blocks, count, of: thread, bit: bit)
                if again.found == .none || again.names != names { return 0 }
                it.engine.ensureKernelReaper()
                it.engine.nudge()
                slept = it.changes.cancellableWait(
                    while: seen, bits: bit, until: deadlineNs)
            }
            if slept == threadCancelled || slept == failure(EINTR) && !isStillThere {
                return slept
            }
            // Whether that was the very request is looked at once more.
            if slept == failure(EINTR) && isInterrupted(until: deadlineNs) { reason = slept }
            if slept == failure(ETIMEDOUT) { reason = failure(EAGAIN) }
        }
    }

    /// Sleeps for the kernel's events and publishes them. `mayWatch` becomes false when there were
    /// none: it may go on longer than a watch does.
    private func sleep(
        _ watch: KernelWatch, _ blocks: UInt, _ count: Int, of thread: UInt32,
        until deadlineNs: UInt64, _ mayWatch: inout Bool
    ) -> Int {
        // Whoever took events before has published them; nobody does from now on.
        let slept =
            pending(blocks, count, of: thread).found == .none
            ? 0 : watch.sleep(until: deadlineNs, isCancellable: true)
        if slept == failure(EINTR) && !isStillThere { return slept }
        mayWatch = withSignalsBlocked { watch.end() } > 0
        if slept == threadCancelled { return slept }
        return slept == 0 && System.isPast(deadlineNs) ? failure(ETIMEDOUT) : slept
    }

    /// Publishes what the kernel has and nobody takes; true when there was something.
    func takeFromKernel() -> Bool {
        if !it.engine.hasKernelEvents() || CurrentThread().interruptedLayer { return false }
        return withSignalsBlocked { it.engine.takeKernelEvents() } > 0
    }

    private enum Pending {
        /// Some request is done, or there is none.
        case none
        /// All were made by this thread, and are with the kernel's AIO.
        case ownWithKernel
        case others
    }

    /// What requests of the list are pending while none is done. Each has the sleeper's bit then;
    /// `names` is the sum of their names.
    private func pending(
        _ blocks: UInt, _ count: Int, of thread: UInt32, bit: UInt32 = 0
    ) -> (found: Pending, names: UInt64) {
        var result = Pending.none
        var names: UInt64 = 0
        for index in 0..<UInt(bitPattern: count) {
            guard let pointer = Ref<UInt>(address: blocks &+ index &* 8),
                let block = BlockRef(address: pointer.it)
            else { continue }
            if block.it.error.load(ordering: .acquiring) != EINPROGRESS { return (.none, 0) }
            guard let job = job(of: block) else { return (.none, 0) }
            names &+= block.it.job.load(ordering: .relaxed)
            if bit != 0 { job.it.sleepers.bitwiseOr(bit, ordering: .sequentiallyConsistent) }
            let isOwn =
                block.it.result.load(ordering: .relaxed) == PosixFace.withKernel(thread)
            // Pairs with publish(), which stores the error and then looks at the bits.
            if block.it.error.load(ordering: .sequentiallyConsistent) != EINPROGRESS {
                return (.none, 0)
            }
            if !isOwn { result = .others }
            if result == .none { result = .ownWithKernel }
        }
        return (result, names)
    }

    /// aio_waitcomplete: collects the request that was done first. Its value, or the negated
    /// errno of the request or, with `block` 0, of the call.
    func waitComplete(_ block: inout UInt, until deadlineNs: UInt64) -> Int {
        var reason = 0
        // Sequentially consistent: pairs with store(), which opens the entry, and announce(), which
        // then looks for collectors.
        it.collectors.wrappingAdd(1, ordering: .sequentiallyConsistent)
        defer {
            if isStillThere { it.collectors.wrappingSubtract(1, ordering: .sequentiallyConsistent) }
        }
        while true {
            let seen = it.changes.load(ordering: .sequentiallyConsistent)
            if let first = withSignalsBlocked({ it.done.takeFirst() }) {
                block = first.address
                let error = first.it.error.load(ordering: .acquiring)
                return error == 0 ? first.it.result.load(ordering: .relaxed) : failure(error)
            }
            if takeFromKernel() { continue }
            if reason != 0 { return reason }
            if deadlineNs == 0 { return failure(EAGAIN) }
            if CurrentThread().interruptedLayer { return failure(EINTR) }
            it.engine.ensureKernelReaper()
            it.engine.nudge()
            let slept = it.changes.cancellableWait(
                while: seen, bits: PosixFace.collectorBit, until: deadlineNs)
            if slept == threadCancelled || slept == failure(EINTR) && !isStillThere {
                return slept
            }
            if slept == failure(EINTR) { reason = failure(EINTR) }
            if slept == failure(ETIMEDOUT) { reason = failure(EAGAIN) }
        }
    }

    /// LIO_WAIT: until all requests of the list are done. 0, -EINTR, or -EIO when one failed. No
    /// cancellation point: <aio.h> says that the function throws nothing.
    func awaitAll(_ list: ListRef) -> Int {
        var result = 0
        it.engine.ensureKernelReaper()
        it.engine.nudge()
        while case let left = list.it.references.load(ordering: .sequentiallyConsistent),
            left > 1, result == 0
        {
            let slept = list.it.references.wait(while: left, until: .max)
            if slept == failure(EINTR) && !isStillThere { return slept }
            if slept == failure(EINTR) && isInterrupted(until: .max) { result = slept }
        }
        if result == 0 && list.it.failures.load(ordering: .relaxed) > 0 {
            result = failure(EIO)
        }
        withSignalsBlocked { leave(list) }
        return result
    }
}

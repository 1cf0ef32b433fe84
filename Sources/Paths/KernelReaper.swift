// Who takes the events of the kernel's AIO: a thread of the program that waits for its own
// requests, or the daemon.
//
// To wake a thread that wakes another takes a good part of the time that a disk needs. So a thread
// *watches*: it sleeps for the kernel's event itself and publishes what it finds, while the daemon
// sleeps on a futex. In aio_suspend it does where its request is the only one with the kernel, in
// io_getevents where all requests of its context are there and it has made them.
// Whoever depends on events and cannot watch calls the daemon, which then takes them until none is
// in flight: sleepers on a futex, requests that notify, exit. Whoever looks at a request that is
// under way takes what is there. A program that only reads the ring of its context does not look:
// for some time after each request of a context the daemon does that, every few milliseconds.
//
// One word says who may take events. A watcher takes none while it sleeps: it only learns that
// there is one (ioctx_await_event), so it may be cancelled, or run a handler that makes any
// call of the face, or leave that handler by longjmp. For the same reason the word may name a
// watcher that is not coming back. It is trusted for a time, and sleeps for less than that: when
// the daemon takes its place, it is awake or on its way.

import CLibAIO
import JobTable
import Synchronization

struct KernelReaper: ~Copyable {
    static let nobody: UInt64 = 0
    static let daemon: UInt64 = 1
    /// Somebody, for the time of one call in a critical section: a handler that interrupts it takes
    /// none.
    static let taker: UInt64 = 2
    /// All other values are a watcher's: what its thread's name comes to in these bits, and since
    /// when in those above. Of two threads that come to the same, one may take the other's place,
    /// who then sleeps on for some milliseconds.
    fileprivate static let threadMask: UInt64 = (1 << 22) - 1

    /// How long a watcher sleeps, and for how long it is trusted.
    fileprivate static let watchNs: UInt64 = 10_000_000
    fileprivate static let trustNs: UInt64 = 25_000_000
    /// The daemon looks after events for a ring every 2 ms, or every 10 ms while threads of the
    /// program take events, and stops after so many looks in vain.
    static let lookNs: UInt64 = 2_000_000
    fileprivate static let seldomNs: UInt64 = 10_000_000
    fileprivate static let looksMax: UInt32 = 32

    let holder = Atomic<UInt64>(KernelReaper.nobody)
    /// Somebody depends on events and cannot watch: whoever stops taking them calls the daemon.
    let isWanted = Atomic<Bool>(false)
    /// A thread would have watched, had the daemon not been there.
    let isInTheWay = Atomic<Bool>(false)
    /// Changes when the daemon has something to do.
    let bell = Atomic<UInt32>(0)

    fileprivate static func isWatcher(_ holder: UInt64) -> Bool { holder > taker }

    /// The time until which a watcher is trusted.
    fileprivate static func trustEnd(_ holder: UInt64) -> UInt64 {
        (holder & ~threadMask) &+ trustNs
    }

    /// The names of threads differ little in their lower bits: they are multiplied by the golden
    /// ratio first.
    fileprivate static func bits(of thread: UInt32) -> UInt64 {
        UInt64((thread &* 0x9e37_79b1) >> 10)
    }

    /// What `holder` becomes when a thread that took its place leaves it again; nil when the thread
    /// may not take it. It may be nobody's, a watcher's that has not come back, or the thread's
    /// own: then it runs a handler, and goes on watching after that.
    fileprivate static func successor(
        of holder: UInt64, for thread: UInt32
    ) -> UInt64? {
        if holder == nobody { return nobody }
        if !isWatcher(holder) { return nil }
        if holder & threadMask == bits(of: thread) { return holder }
        return isOverdue(holder) ? nobody : nil
    }

    fileprivate static func isOverdue(_ holder: UInt64) -> Bool {
        System.monotonicNs() > trustEnd(holder)
    }
}

/// A thread's right to sleep for the kernel's events.
public struct KernelWatch {
    fileprivate let station: Ref<Station>
    /// The kernel's context, as it was when the right was given: the next daemon has another.
    fileprivate let context: UInt
    fileprivate let claim: UInt64
    fileprivate let next: UInt64

    /// How long one sleep lasts at most.
    private static let longestNs = KernelReaper.watchNs

    /// Sleeps until the kernel has an event, which stays there, or until the time on the monotonic
    /// clock, or for the longest time: 0, -EINTR, or -IOCTX_THREAD_CANCELLED. For one event, even
    /// if more are wanted: fewer than it asks for do not wake a thread there, and nobody could
    /// interrupt it.
    public func sleep(until deadlineNs: UInt64, isCancellable: Bool = false) -> Int {
        var leftNs = KernelWatch.longestNs
        if deadlineNs != .max {
            let now = System.monotonicNs()
            if now >= deadlineNs { return 0 }
            leftNs = min(deadlineNs &- now, leftNs)
        }
        let result = ioctx_await_event(
            context, leftNs, isCancellable ? 1 : 0)
        return result == -EINTR || result == -IOCTX_THREAD_CANCELLED ? Int(result) : 0
    }

    /// Ends it, publishes what there is, and returns how much that was.
    public func end() -> Int {
        // A handler that interrupted it may have taken the events, and the daemon may have left
        // since.
        guard station.retain() else { return 0 }
        defer { station.release() }
        return station.take(from: claim, leaving: next)
    }
}

extension Ref where Pointee == EngineRecord {
    /// The station of the kernel's AIO if requests are with it.
    private var busyKernelStation: Ref<Station>? {
        guard let station = it.nativeStation.current,
            station.it.running.load(ordering: .sequentiallyConsistent) != 0
        else { return nil }
        return station
    }

    /// True when this job goes to the kernel's AIO; asked before it is handed over.
    public func isForKernel(_ job: JobRef) -> Bool {
        Ref<Station>(address: job.it.station.load(ordering: .relaxed))?.it.kind == .native
    }

    /// True when the kernel has events that nobody has taken.
    public func hasKernelEvents() -> Bool {
        guard let station = busyKernelStation, station.retain() else { return false }
        defer { station.release() }
        return !station.it.native.ring.isEmpty
    }

    /// Publishes what the kernel has, unless somebody else does that; how many requests.
    public func takeKernelEvents() -> Int {
        guard let station = busyKernelStation, station.retain() else { return 0 }
        defer { station.release() }
        let holder = station.it.native.reaper.holder.load(ordering: .sequentiallyConsistent)
        guard let next = KernelReaper.successor(of: holder, for: CurrentThread().name) else {
            return 0
        }
        return station.take(from: holder, leaving: next)
    }

    /// For the calling thread, which waits for requests that it has given to the kernel. nil when
    /// others take the events, and when there are more than `most` requests: in aio_suspend, a
    /// thread that is woken by each of many makes the next one by one, which costs a device more
    /// than many at once.
    public func watchKernel(_ thread: UInt32, among most: UInt32) -> KernelWatch? {
        guard let station = busyKernelStation,
            station.it.running.load(ordering: .relaxed) <= most
        else { return nil }
        let holder = station.it.native.reaper.holder.load(ordering: .sequentiallyConsistent)
        if holder == KernelReaper.daemon {
            station.it.native.reaper.isInTheWay.store(true, ordering: .relaxed)
        }
        let claim =
            System.monotonicNs() & ~KernelReaper.threadMask | KernelReaper.bits(of: thread)
        guard let next = KernelReaper.successor(of: holder, for: thread),
            station.it.native.reaper.replace(holder, by: claim)
        else { return nil }
        return KernelWatch(
            station: station, context: station.it.native.context, claim: claim, next: next)
    }

    /// Ends the sleep of a watcher that has something else to do. What the kernel finds ready is an
    /// event at once; where there is no descriptor for that, the watcher wakes a little later.
    public func interruptKernelWatcher() {
        guard let station = it.nativeStation.current, station.retain() else { return }
        defer { station.release() }
        let holder = station.it.native.reaper.holder.load(ordering: .sequentiallyConsistent)
        // It may have left by longjmp: nobody would take the event.
        if !KernelReaper.isWatcher(holder) || KernelReaper.isOverdue(holder) { return }
        let made = systemCall(Int32(SYS_eventfd2), 1, Int(O_CLOEXEC))
        if made < 0 { return }
        let descriptor = System.awayFromStandardStreams(Int32(truncatingIfNeeded: made))
        var iocb = iocb()
        iocb.aio_data = NativeDaemon.interruptName
        iocb.aio_lio_opcode = UInt16(IOCB_CMD_POLL)
        iocb.aio_fildes = descriptor
        iocb.aio_buf = UInt64(POLLIN)
        withAddress(of: &iocb) { iocbAddress in
            var pointer = UInt(bitPattern: iocbAddress)
            withAddress(of: &pointer) {
                _ = KernelAIO.submit(station.it.native.context, 1, UInt(bitPattern: $0))
            }
        }
        System.close(descriptor)
    }

    /// For whoever depends on the kernel's events and does not watch: they will be taken.
    public func ensureKernelReaper() {
        guard let station = busyKernelStation else { return }
        station.it.native.reaper.isWanted.store(true, ordering: .sequentiallyConsistent)
        let thread = CurrentThread().name
        while true {
            let holder = station.it.native.reaper.holder.load(ordering: .sequentiallyConsistent)
            if KernelReaper.successor(of: holder, for: thread) == nil {
                // The daemon looks after a watcher, if it is told each time: with nothing in flight
                // it stops.
                if KernelReaper.isWatcher(holder) { station.ringReaper() }
                return
            }
            // In a handler, the thread that it interrupted does not watch now.
            if station.it.native.reaper.replace(holder, by: KernelReaper.daemon) {
                return station.ringReaper()
            }
        }
    }
}

extension KernelReaper {
    /// Sequentially consistent, as all uses of `holder` and `isWanted`: who leaves the place to
    /// nobody looks then whether the daemon is wanted; who wants the daemon looks then who is
    /// there.
    fileprivate borrowing func replace(_ holder: UInt64, by other: UInt64) -> Bool {
        self.holder.compareExchange(
            expected: holder, desired: other, ordering: .sequentiallyConsistent
        ).exchanged
    }
}

extension Ref where Pointee == Station {
    /// Takes events in the place of `holder`, and leaves it to `next`. 0 when that was not to be
    /// had.
    fileprivate func take(from holder: UInt64, leaving next: UInt64) -> Int {
        // A handler that came in between would wait for the thread that it interrupted.
        CurrentThread().enterCritical()
        defer { CurrentThread().leaveCritical() }
        if !it.native.reaper.replace(holder, by: KernelReaper.taker) { return 0 }
        let count = takeEvents(atLeast: 0, withinMs: 0)
        if count > 0 && CurrentThread().station == 0 {
            it.native.takings.wrappingAdd(1, ordering: .relaxed)
        }
        it.native.reaper.holder.store(next, ordering: .sequentiallyConsistent)
        if it.native.reaper.isWanted.load(ordering: .sequentiallyConsistent)
            && it.running.load(ordering: .sequentiallyConsistent) != 0
        {
            if next == KernelReaper.nobody { callDaemon() } else { ringReaper() }
        }
        return max(count, 0)
    }

    /// Puts the daemon where nobody is.
    fileprivate func callDaemon() {
        if it.native.reaper.replace(KernelReaper.nobody, by: KernelReaper.daemon) { ringReaper() }
    }

    fileprivate func ringReaper() {
        it.native.reaper.bell.wrappingAdd(1, ordering: .sequentiallyConsistent)
        it.native.reaper.bell.wake(1)
    }

    /// After a hand-over for a context: its events will be looked after.
    func expectRingReader() {
        // Sequentially consistent, both: pairs with looksAfterRings(), which stops looking and then
        // reads the count once more.
        it.native.ringHandOvers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if !it.native.isLooking.load(ordering: .sequentiallyConsistent) { ringReaper() }
    }

    // MARK: The daemon

    /// Whether the daemon is to look after events for rings now: for some time after each request.
    func looksAfterRings() -> Bool {
        if it.native.ringHandOvers.load(ordering: .relaxed) == it.native.ringsSeen {
            if it.native.looksLeft == 0 { return false }
            it.native.looksLeft &-= 1
            if it.native.looksLeft > 0 { return true }
            if it.running.load(ordering: .sequentiallyConsistent) == 0 {
                it.native.isLooking.store(false, ordering: .sequentiallyConsistent)
            }
        }
        let count = it.native.ringHandOvers.load(ordering: .sequentiallyConsistent)
        if count == it.native.ringsSeen && !it.native.isLooking.load(ordering: .relaxed) {
            return false
        }
        it.native.ringsSeen = count
        it.native.looksLeft = KernelReaper.looksMax
        it.native.isLooking.store(true, ordering: .sequentiallyConsistent)
        return true
    }

    /// How long the daemon sleeps until it looks again, if nobody calls.
    func nsUntilNextLook() -> UInt64 {
        let takings = it.native.takings.load(ordering: .relaxed)
        defer { it.native.takingsSeen = takings }
        return takings == it.native.takingsSeen ? KernelReaper.lookNs : KernelReaper.seldomNs
    }

    /// Resets what the station's last daemon has left.
    func forgetReaper() {
        it.native.reaper.holder.store(KernelReaper.nobody, ordering: .sequentiallyConsistent)
        it.native.reaper.isWanted.store(false, ordering: .sequentiallyConsistent)
        it.native.isLooking.store(false, ordering: .sequentiallyConsistent)
        it.native.looksLeft = 0
    }

    /// Sleeps until somebody has called, or takes the place of a watcher that others depend on and
    /// that does not come back. False when the time is over.
    func awaitCall(within ns: UInt64) -> Bool {
        let seen = it.native.reaper.bell.load(ordering: .sequentiallyConsistent)
        let holder = it.native.reaper.holder.load(ordering: .sequentiallyConsistent)
        if holder == KernelReaper.daemon { return true }
        let isWanted =
            it.native.reaper.isWanted.load(ordering: .sequentiallyConsistent)
            && it.running.load(ordering: .sequentiallyConsistent) != 0
        if !isWanted || holder == KernelReaper.taker {
            return it.native.reaper.bell.wait(while: seen, until: System.monotonicNs() &+ ns)
                != failure(ETIMEDOUT)
        }
        if holder == KernelReaper.nobody || KernelReaper.isOverdue(holder) {
            _ = it.native.reaper.replace(holder, by: KernelReaper.daemon)
            return true
        }
        _ = it.native.reaper.bell.wait(while: seen, until: KernelReaper.trustEnd(holder) &+ 1)
        return true
    }

    /// With nothing in flight, the daemon leaves its place to those whom it kept from watching.
    func leavePlaceIfInTheWay() {
        if it.native.reaper.holder.load(ordering: .relaxed) != KernelReaper.daemon
            || !it.native.reaper.isInTheWay.exchange(false, ordering: .relaxed)
        {
            return
        }
        it.native.reaper.isWanted.store(false, ordering: .sequentiallyConsistent)
        if it.running.load(ordering: .sequentiallyConsistent) != 0 { return }
        it.native.reaper.holder.store(KernelReaper.nobody, ordering: .sequentiallyConsistent)
        // A request that came just now, and somebody who still saw the daemon here.
        if it.running.load(ordering: .sequentiallyConsistent) != 0
            && it.native.reaper.isWanted.load(ordering: .sequentiallyConsistent)
        {
            _ = it.native.reaper.replace(KernelReaper.nobody, by: KernelReaper.daemon)
        }
    }
}

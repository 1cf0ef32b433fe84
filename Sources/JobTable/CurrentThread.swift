// What a thread of the process knows of itself inside the layer: one record for each, zero at
// first.
//
// Signal handlers are the reason. A handler may interrupt the layer, or anything else, in its own
// thread and call the layer again; what it may do then depends on what it has interrupted.

import CLibAIO

/// What this thread knows of itself inside the layer.
@safe
public struct CurrentThread {
    private let record: UnsafeMutablePointer<ioctx_thread>

    /// The calling thread's.
    @inline(__always)
    public init() { unsafe record = ioctx_thread_self() }

    /// True when the caller is a signal handler that interrupted a critical section of ours.
    @inline(__always)
    public var interruptedLayer: Bool { unsafe record.pointee.critical != 0 }

    /// True when the caller is a signal handler that interrupted any call of the layer.
    @inline(__always)
    public var isNested: Bool { unsafe record.pointee.calls > 1 }

    /// Differs between living threads, but for one in a great many, and is not 0. A later thread
    /// may have the same.
    @inline(__always)
    public var name: UInt32 {
        unsafe UInt32(truncatingIfNeeded: UInt(bitPattern: record) >> 4) | 1
    }

    /// In a daemon, the address of its station; 0 in a thread of the program.
    public var station: UInt {
        get { unsafe record.pointee.station }
        nonmutating set { unsafe record.pointee.station = newValue }
    }

    /// The context of the thread's outermost open call.
    @inline(__always)
    public var context: UInt {
        get { unsafe record.pointee.context }
        nonmutating set { unsafe record.pointee.context = newValue }
    }

    /// Counts a request; true once in 61, when what is known by a hint should be looked up. A prime
    /// number, so that no descriptor of a program that takes its files in turn is always spared.
    @inline(__always)
    public func isTimeToDoubt() -> Bool {
        unsafe record.pointee.requests &+= 1
        if unsafe record.pointee.requests < 61 { return false }
        unsafe record.pointee.requests = 0
        return true
    }

    /// The I/O priority of the thread's requests without IOCB_FLAG_IOPRIO, as ioprio_set(2) has it;
    /// 0 for the usual one. Asked for once in 16 times: a new one may come so many calls late.
    public func ioPriority() -> UInt16 {
        var usesLeft = unsafe record.pointee.io_priority_uses
        if usesLeft == 0 {
            unsafe record.pointee.io_priority = Self.ioPriorityNow
            usesLeft = 16
        }
        unsafe record.pointee.io_priority_uses = usesLeft &- 1
        return unsafe record.pointee.io_priority
    }

    private static var ioPriorityNow: UInt16 {
        let found = systemCall(Int32(SYS_ioprio_get), 1, 0)
        var priority = found < 0 ? 0 : UInt16(truncatingIfNeeded: found)
        if priority >> 13 == 0 {
            // Without a class of its own it has that of its scheduling: block/ioprio.c,
            // __get_task_ioprio, and include/linux/ioprio.h.
            let policy = systemCall(Int32(SYS_sched_getscheduler), 0)
            switch policy & ~Int(IOCTX_SCHED_RESET_ON_FORK) {
            case Int(SCHED_FIFO), Int(SCHED_RR), Int(IOCTX_SCHED_DEADLINE): priority = 1 << 13 | 4
            case Int(IOCTX_SCHED_IDLE): priority = 3 << 13
            default: return 0
            }
        }
        // It may have come from a parent with more privileges. A request that asks for it fails, so
        // it asks for the best of those that everybody may have.
        return priority >> 13 == 1 && !mayBeRealTime ? 2 << 13 : priority
    }

    /// Whether the thread may ask for the real-time class of I/O: CAP_SYS_ADMIN or CAP_SYS_NICE
    /// (block/ioprio.c, ioprio_check_cap).
    public static var mayBeRealTime: Bool {
        var header = (UInt32(0x2008_0522), Int32(0))
        var sets = (UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0))
        let result = withAddress(of: &header) { headerAddress in
            withAddress(of: &sets) { systemCall(Int32(SYS_capget), headerAddress, $0) }
        }
        return result == 0 && sets.0 & (1 << 21 | 1 << 23) != 0
    }

    /// Until `leaveCritical`, a handler that interrupts this thread is told to try again.
    @inline(__always)
    public func enterCritical() { unsafe record.pointee.critical &+= 1 }

    /// Ends what `enterCritical` began.
    @inline(__always)
    public func leaveCritical() { unsafe record.pointee.critical &-= 1 }

    /// A call of the layer begins: one that comes before `leaveCall` is a handler's.
    @inline(__always)
    public func enterCall() { unsafe record.pointee.calls &+= 1 }

    /// Ends what `enterCall` began.
    @inline(__always)
    public func leaveCall() {
        unsafe record.pointee.calls &-= 1
        if unsafe record.pointee.is_blocked { unblock() }
    }

    // MARK: Signals

    /// Blocks signals but for the C library's own two, as pthread_sigmask does: setuid() must reach
    /// every thread. And but for SIGSYS, for a program that lets its seccomp filter trap calls of
    /// ours would be killed. The mask before, for `restoreSignals`.
    @inline(__always)
    func blockSignals() -> UInt64 {
        var all = ~(UInt64(3) << 31 | UInt64(1) << UInt64(SIGSYS - 1))
        var before: UInt64 = 0
        withAddress(of: &all) { allAddress in
            withAddress(of: &before) {
                _ = systemCall(Int32(SYS_rt_sigprocmask), Int(SIG_SETMASK), allAddress, $0, 8)
            }
        }
        unsafe record.pointee.blockers &+= 1
        return before
    }

    /// Ends what `blockSignals` began.
    @inline(__always)
    func restoreSignals(_ before: UInt64) {
        unsafe record.pointee.blockers &-= 1
        var before = before
        _ = withAddress(of: &before) {
            systemCall(Int32(SYS_rt_sigprocmask), Int(SIG_SETMASK), $0, 0, 8)
        }
    }

    /// Whether a signal has come while it was blocked.
    public func isPending(_ signal: Int32) -> Bool {
        var set: UInt64 = 0
        withAddress(of: &set) { _ = systemCall(Int32(SYS_rt_sigpending), $0, 8) }
        return set >> UInt64(signal &- 1) & 1 != 0
    }

    /// Takes a signal that has come while it was blocked, so that it is not delivered later.
    public func dropPending(_ signal: Int32) {
        var set = UInt64(1) << UInt64(signal &- 1)
        var none = timespec(tv_sec: 0, tv_nsec: 0)
        withAddress(of: &set) { setAddress in
            withAddress(of: &none) {
                _ = systemCall(Int32(SYS_rt_sigtimedwait), setAddress, 0, $0, 8)
            }
        }
    }

    /// Blocks signals until the outermost open call ends, as the kernel delivers none while a call
    /// of its own waits for a disk. A handler that ran sooner might fork, and its child would
    /// return into a call that knows memory which the child does not have. Who has blocked them
    /// already ends that himself.
    func blockUntilLeaving() {
        if unsafe record.pointee.blockers != 0 || record.pointee.calls == 0 { return }
        unsafe record.pointee.mask_before = blockSignals()
        unsafe record.pointee.is_blocked = true
    }

    @inline(never)
    private func unblock() {
        if unsafe record.pointee.calls != 0 { return }
        unsafe record.pointee.is_blocked = false
        unsafe restoreSignals(record.pointee.mask_before)
    }

    /// Takes the signals that are blocked now for those that are outside of handlers. For calls
    /// that handlers do not make, as a rule.
    public func noteUsualMask() {
        unsafe record.pointee.usual_mask = programMask
        unsafe record.pointee.is_mask_known = true
    }

    /// True when a signal that has a handler is blocked and was not when they were noted last, as
    /// in that handler, which may have interrupted anything: pthread_create allocates, and would
    /// wait for the malloc that it interrupted. In a thread of which nothing was noted, it is now.
    public var mayBeInHandler: Bool {
        // A call of POSIX AIO that blocks them makes requests, as handlers may not.
        if unsafe record.pointee.blockers != 0 && !record.pointee.is_blocked { return false }
        if unsafe !record.pointee.is_mask_known { noteUsualMask() }
        let isLikely = unsafe Self.haveHandler(programMask & ~record.pointee.usual_mask)
        if isLikely { unsafe record.pointee.was_taken_for_handler = true }
        return isLikely
    }

    /// The thread waits for events, as handlers seldom do: if it was taken for one, it has only
    /// blocked more signals since they were noted.
    @inline(__always)
    public func waitsOutsideOfHandlers() {
        if unsafe record.pointee.was_taken_for_handler && !isNested {
            unsafe record.pointee.was_taken_for_handler = false
            unsafe record.pointee.is_mask_known = false
        }
    }

    /// Whether the program has a handler installed, for any signal. Those with SA_RESTART count
    /// only with `restarting`.
    public static func haveHandler(restarting: Bool) -> Bool {
        // All but the C library's own two; SA_RESTART.
        haveHandler(~(UInt64(3) << 31), without: restarting ? 0 : 0x1000_0000)
    }

    /// Whether a handler is installed for one of the signals of a mask, without those flags.
    /// Programs that read their signals from a descriptor block them, and have none.
    private static func haveHandler(_ mask: UInt64, without flags: UInt = 0) -> Bool {
        var left = mask
        while left != 0 {
            let signal = left.trailingZeroBitCount &+ 1
            left &= left &- 1
            // struct sigaction as the kernel has it: the handler, flags, the restorer, a mask.
            var action = InlineArray<4, UInt>(repeating: 0)
            let result = withAddress(of: &action) {
                systemCall(Int32(SYS_rt_sigaction), signal, 0, $0, 8)
            }
            // SIG_DFL is 0, SIG_IGN 1.
            if (result < 0 || action[0] > 1) && action[1] & flags == 0 { return true }
        }
        return false
    }

    /// The program's own, where `blockUntilLeaving` has replaced it.
    private var programMask: UInt64 {
        if unsafe record.pointee.is_blocked { return unsafe record.pointee.mask_before }
        var mask: UInt64 = 0
        _ = withAddress(of: &mask) {
            systemCall(Int32(SYS_rt_sigprocmask), Int(SIG_SETMASK), 0, $0, 8)
        }
        return mask
    }
}

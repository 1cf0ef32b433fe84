// What a seccomp filter allows, found out without hurting the process that asks: in a child.

import CLibAIO
import JobTable

enum SandboxProbe {
    /// No errnos: the child was killed, and none could be had.
    static let killed = -10_000
    static let childless = -10_001

    /// -EPERM when a seccomp filter is active and kills a process that tries the calls of such
    /// daemons, -EAGAIN when nobody can try them now; else 0.
    static func refusal(of kind: Station.Kind) -> Int {
        if !System.isFiltered { return 0 }
        let result =
            switch kind {
            case .uring: runInChild { SandboxProbe.tryUringDaemon() }
            case .pool: runInChild { SandboxProbe.tryPrivateTable() }
            case .native: runInChild { SandboxProbe.tryDaemon() }
            }
        return result == killed ? failure(EPERM) : result == childless ? failure(EAGAIN) : 0
    }

    /// True when kcmp(2) may be called; where a seccomp filter is active, a child finds out.
    static func mayCompareFiles() -> Bool {
        !System.filterForbids { SandboxProbe.compareFiles() } && compareFiles() == 0
    }

    /// Compares this thread's descriptor 0 with itself.
    static func compareFiles() -> Int {
        let thread = Int(System.threadIdentifier())
        return systemCall(Int32(SYS_kcmp), thread, thread, 0, 0, 0)
    }

    /// What `body` comes to in a child, or `killed`, or `childless`.
    static func runInChild(_ body: @convention(c) () -> Int) -> Int {
        let page = systemCall(
            Int32(SYS_mmap), 0, Memory.pageBytes, Int(PROT_READ | PROT_WRITE),
            Int(MAP_SHARED | MAP_ANONYMOUS), -1, 0)
        guard page > 0, let probe = Ref<Probe>(address: UInt(bitPattern: page)) else {
            return childless
        }
        defer { Memory.unmap(probe.address, bytes: Memory.pageBytes) }
        probe.it.result = killed
        probe.it.body = body
        let status = unsafe ioctx_run_in_child(
            { argument in
                guard let probe = Ref<Probe>(address: UInt(bitPattern: argument)) else { return }
                if let body = probe.it.body { probe.it.result = body() }
            }, UnsafeMutableRawPointer(probe.pointer))
        // Whoever else may have waited for the child, its answer is in the shared page, or it is
        // taken for killed.
        return status < 0 && probe.it.result == killed && status != -ECHILD
            ? childless : probe.it.result
    }

    private struct Probe {
        var result: Int
        var body: (@convention(c) () -> Int)?
    }

    /// 0 when the daemon's rings can be made and the kernel has what they need.
    static func tryUring() -> Int {
        var ring = Ring()
        let flags =
            UInt32(URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN)
            | UInt32(URING_SETUP_SUBMIT_ALL)
        let result = ring.open(entryCount: 4, completionCount: 8, flags: flags)
        if result < 0 { return result }
        let supported = ring.checkOperations()
        let entered = ring.enter(minComplete: 0)
        ring.close()
        if entered < 0 { return entered }
        return supported
    }

    /// The same, and by the way that the daemon leaves the program's descriptor table: for a child.
    static func tryUringDaemon() -> Int {
        let result = tryUring()
        _ = tryDaemon()
        _ = systemCall(Int32(SYS_pipe2), 0, 0)
        _ = systemCall(
            Int32(IOCTX_SYS_close_range), Int(UInt32.max), Int(UInt32.max),
            Int(IOCTX_CLOSE_RANGE_UNSHARE))
        return result
    }

    /// What every daemon does: pthread_create, and files of its own. The calls fail; 0.
    private static func tryDaemon() -> Int {
        _ = systemCall(Int32(SYS_clone3), 0, 0)
        _ = systemCall(Int32(SYS_eventfd2), 0, -1)
        return 0
    }

    /// 0 when daemons can have a descriptor table of their own and files can be sent to it. For a
    /// child, as well.
    static func tryPrivateTable() -> Int {
        _ = tryDaemon()
        var result = systemCall(
            Int32(IOCTX_SYS_close_range), 3, Int(UInt32.max), Int(IOCTX_CLOSE_RANGE_UNSHARE))
        // Old container profiles answer EPERM to calls that they do not know.
        if result == failure(ENOSYS) || result == failure(EPERM) {
            result = systemCall(Int32(SYS_unshare), 0x400)  // CLONE_FILES
        }
        if result < 0 { return result }
        result = systemCall(Int32(SYS_socket), Int(AF_UNIX), Int(SOCK_DGRAM.rawValue), 0)
        if result < 0 { return result }
        // An unbound socket that sends to nobody, and a set of nothing.
        _ = systemCall(Int32(SYS_bind), result, 0, 0)
        _ = systemCall(Int32(SYS_connect), result, 0, 0)
        _ = systemCall(Int32(SYS_getsockname), result, 0, 0)
        _ = systemCall(Int32(SYS_sendmsg), result, 0, 0)
        _ = systemCall(Int32(SYS_recvmsg), result, 0, Int(MSG_DONTWAIT))
        _ = systemCall(Int32(SYS_epoll_create1), 0)
        _ = systemCall(Int32(SYS_epoll_ctl), -1, 0, 0, 0)
        _ = systemCall(Int32(SYS_epoll_pwait), -1, 0, 0, 0, 0, 0)
        _ = systemCall(Int32(SYS_fsync), -1)
        _ = systemCall(Int32(SYS_fdatasync), -1)
        return 0
    }

    /// True when threads may be asked for their CPUs, scheduling class and I/O priority, and given
    /// others; where a seccomp filter is active, a child finds out.
    static func mayTuneThreads() -> Bool {
        !System.filterForbids { SandboxProbe.tuneThread() }
    }

    private static func tuneThread() -> Int {
        _ = systemCall(Int32(SYS_sched_getscheduler), 0)
        _ = systemCall(Int32(SYS_sched_setaffinity), 0, 0, 0)
        _ = systemCall(Int32(SYS_sched_setscheduler), 0, Int(SCHED_OTHER), 0)
        _ = systemCall(Int32(SYS_ioprio_get), 1, 0)
        _ = systemCall(Int32(SYS_ioprio_set), 1, 0, 0)
        _ = CurrentThread.mayBeRealTime
        return 0
    }
}

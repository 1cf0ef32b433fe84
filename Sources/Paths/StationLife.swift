// How the daemon of a station starts and leaves.
//
// Life: dead ──► starting ──► ready ──► leaving ──► dead, and ready again when a request came
// while it was deciding to leave; a start that fails ends in dead as well, by way of failed.
// Stations are started under the engine's start lock, and leave by themselves. A daemon begins
// by giving back what it has inherited from the thread that started it; where it has a
// descriptor table of its own, nothing of the program's is in that.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// Starts the daemon and waits until it is ready. The caller holds the engine's start lock.
    /// 0 or a negated errno.
    func start() -> Int {
        it.isLost.store(false, ordering: .relaxed)
        it.startResult = 0
        it.state.store(Station.starting, ordering: .releasing)
        if it.kind == .pool {
            let result = openSender()
            if result < 0 {
                it.state.store(Station.dead, ordering: .releasing)
                return result
            }
        }
        typealias Life = @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?
        let life: Life =
            switch it.kind {
            case .uring: { unsafe UringDaemon.main($0) }
            case .native: { unsafe NativeDaemon.main($0) }
            case .pool: { unsafe PoolDaemons.main($0) }
            }
        let error = unsafe ioctx_thread_start(
            life, UnsafeMutableRawPointer(pointer), Int(IOCTX_DAEMON_STACK_BYTES))
        if error != 0 {
            if it.kind == .pool { closeSender() }
            it.state.store(Station.dead, ordering: .releasing)
            return failure(error)
        }
        while it.state.load(ordering: .acquiring) == Station.starting {
            _ = it.state.wait(while: Station.starting, until: .max)
        }
        if it.state.load(ordering: .acquiring) != Station.failed {
            let connected = it.kind == .pool ? connectSender() : 0
            // A station that nobody can reach leaves by itself.
            if connected < 0 { it.isLost.store(true, ordering: .sequentiallyConsistent) }
            return connected
        }
        let result = it.startResult
        if it.kind == .pool { closeSender() }
        it.state.store(Station.dead, ordering: .releasing)
        return result
    }

    /// Called by the starting daemon when it is ready, or has failed and returns at once.
    func started(_ result: Int) {
        it.startResult = result
        // Release pairs with the acquire in start(); after `failed` the daemon touches nothing.
        it.state.store(result < 0 ? Station.failed : Station.ready, ordering: .releasing)
        it.state.wake()
    }

    /// Called by the daemon when it has no job. True when it has left and must return, having
    /// closed what is its own in `cleanUp`.
    func tryToLeave(_ cleanUp: () -> Void) -> Bool {
        it.state.store(Station.leaving, ordering: .sequentiallyConsistent)
        if it.users.load(ordering: .sequentiallyConsistent) != 0
            || it.queue.count.load(ordering: .sequentiallyConsistent) != 0
            || it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0
            || it.running.load(ordering: .sequentiallyConsistent) != 0
        {
            it.state.store(Station.ready, ordering: .sequentiallyConsistent)
            return false
        }
        it.engine.forget(self)
        cleanUp()
        it.state.store(Station.dead, ordering: .releasing)
        return true
    }

    /// What a thread of ours must not have inherited from the submitter that started it: its
    /// rights to memory, its pinning, its scheduling class, and its I/O priority.
    func becomeDaemon(named name: StaticString) {
        CurrentThread().station = address
        ioctx_open_memory_keys()
        it.table.it.counters.it.daemons.raise()
        _ = unsafe systemCall(
            Int32(SYS_prctl), Int(PR_SET_NAME), Int(bitPattern: name.utf8Start))
        if it.engine.it.mayTuneThreads.load(ordering: .relaxed) { tuneDaemon() }
    }

    private func tuneDaemon() {
        // As many CPUs as any kernel is built for (NR_CPUS of x86-64 and arm64).
        var everywhere = InlineArray<128, UInt64>(repeating: .max)
        _ = withAddress(of: &everywhere) {
            systemCall(Int32(SYS_sched_setaffinity), 0, 128 &* 8, $0)
        }
        if systemCall(Int32(SYS_sched_getscheduler), 0) != Int(SCHED_OTHER) {
            var parameter = sched_param()
            parameter.sched_priority = 0
            _ = withAddress(of: &parameter) {
                systemCall(Int32(SYS_sched_setscheduler), 0, Int(SCHED_OTHER), $0)
            }
        }
        _ = systemCall(Int32(SYS_ioprio_set), 1, 0, 0)
    }

    /// The last act of a daemon.
    func endDaemon() { it.table.it.counters.it.daemons.lower() }

    /// Gives the calling thread a descriptor table of its own with nothing of the program's in
    /// it: 0 to 2 are eventfds of nobody's, so that no received file lands there. 0 or a negated
    /// errno.
    func leaveDescriptorTable() -> Int {
        var result = systemCall(
            Int32(IOCTX_SYS_close_range), 0, Int(UInt32.max), Int(IOCTX_CLOSE_RANGE_UNSHARE))
        // Old container profiles answer EPERM to calls that they do not know.
        if result == failure(ENOSYS) || result == failure(EPERM) {
            result = systemCall(Int32(SYS_unshare), 0x400)  // CLONE_FILES
            if result < 0 { return result }
            let count = max(65_536, min(System.softLimit(RLIMIT_NOFILE) ?? 0, 1 << 20))
            for descriptor in 0..<Int32(truncatingIfNeeded: count) { System.close(descriptor) }
        }
        if result < 0 { return result }
        for _ in 0..<3 { _ = systemCall(Int32(SYS_eventfd2), 0, Int(O_CLOEXEC)) }
        return 0
    }
}

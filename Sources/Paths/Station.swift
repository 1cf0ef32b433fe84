// A station: a daemon (or a pool of them) together with what reaches it.
//
// Life: dead ──► starting ──► ready ──► leaving ──► dead, and ready again when a request came
// while it was deciding to leave. A submitter retains the station while it hands over; a daemon
// leaves only when nobody retains it and nothing is queued or running. A station whose
// descriptor the program closed is lost: it finishes what it has and leaves.

import CLibAIO
import JobTable
import Synchronization

struct Station: ~Copyable {
    static let dead: UInt32 = 0
    static let starting: UInt32 = 1
    static let ready: UInt32 = 2
    static let leaving: UInt32 = 3
    static let failed: UInt32 = 4

    let kind: Engine  // constant
    let engine: Ref<EngineRecord>  // constant
    let table: Ref<JobTable>  // constant
    var nextStation: UInt = 0  // written once, under the engine's start lock

    let state = Atomic<UInt32>(0)
    /// Why the start failed; a negated errno, written before state becomes failed.
    var startResult = 0
    /// Submitters between retain and release.
    let users = Atomic<UInt32>(0)
    let isLost = Atomic<Bool>(false)
    /// 1 while some job of the table may have an unseen cancellation request.
    let cancellations = Atomic<UInt32>(0)
    var queue = RunQueue()
    var files: HeldFiles

    /// 1 while the daemon sleeps or is about to; whoever takes it to 0 wakes the daemon.
    let sleeping = Atomic<UInt32>(0)
    let doorbell = Atomic<UInt32>(0)
    /// Cold reads that run on the work ring: each of them ends soon, as a rule, and the daemon looks
    /// at the queue when it does.
    let readsRunning = Atomic<UInt32>(0)

    /// Device and inode of the descriptor in the program's table that leads here.
    var gateDevice: UInt64 = 0
    var gateInode: UInt64 = 0

    var uring = UringDaemon()
    var pool = PoolDaemons()
    var native = NativeDaemon()

    private init(kind: Engine, engine: Ref<EngineRecord>, files: consuming HeldFiles) {
        self.kind = kind
        self.engine = engine
        table = engine.it.table
        self.files = files
    }

    static func make(_ kind: Engine, engine: Ref<EngineRecord>) -> Ref<Station>? {
        // Both a table of registered files and a descriptor table are bounded by RLIMIT_NOFILE.
        let open = Int(clamping: System.softLimit(RLIMIT_NOFILE) ?? 1024)
        let room = kind == .threads ? open - 24 : open
        let capacity = UInt32(clamping: min(max(room, 4), 4096))
        guard let files = HeldFiles(capacity: capacity),
            let station = Memory.record(Station.self)
        else { return nil }
        unsafe station.pointer.initialize(
            to: Station(kind: kind, engine: engine, files: files))
        return station
    }
}

extension Ref where Pointee == Station {
    // MARK: Submitters

    /// Keeps the daemon from leaving. False when the station takes no hand-overs.
    func retain() -> Bool {
        // Sequentially consistent: pairs with tryToLeave(), which stores leaving and then reads
        // the users.
        it.users.add(1, ordering: .sequentiallyConsistent)
        if it.state.load(ordering: .sequentiallyConsistent) == Station.ready
            && !it.isLost.load(ordering: .sequentiallyConsistent)
        {
            return true
        }
        release()
        return false
    }

    func release() { it.users.subtract(1, ordering: .sequentiallyConsistent) }

    /// True when the descriptor that leads to the daemon is still ours: programs close what they
    /// do not know, and the number may be a stranger's by now.
    func isReachable() -> Bool {
        it.kind == .native
            || isGate(it.kind == .uring ? it.uring.parking.descriptor : it.pool.sender)
    }

    func isGate(_ descriptor: Int32) -> Bool {
        var status = stat()
        return descriptor >= 0 && System.status(of: descriptor, into: &status) == 0
            && UInt64(status.st_dev) == it.gateDevice && UInt64(status.st_ino) == it.gateInode
    }

    func rememberGate(_ descriptor: Int32) {
        var status = stat()
        _ = System.status(of: descriptor, into: &status)
        it.gateDevice = UInt64(status.st_dev)
        it.gateInode = UInt64(status.st_ino)
    }

    /// Makes the daemon look at its queue and at cancellations.
    func kick() {
        switch it.kind {
        case .uring: ringDoorbell()
        case .threads: kickPool()
        // Nothing of the kernel's waits in a queue.
        default: break
        }
    }

    /// The same for a station that cannot be reached through the program's descriptors.
    func wakeWithoutDescriptor() {
        if it.kind == .uring { ringDoorbell() }
    }

    func ringDoorbell() {
        // Sequentially consistent: pairs with the daemon, which stores 1 and then looks at the
        // queue; one of the two sees the other.
        if it.sleeping.exchange(0, ordering: .sequentiallyConsistent) == 1 {
            it.doorbell.wrappingAdd(1, ordering: .sequentiallyConsistent)
            it.doorbell.wake(1)
        }
    }

    /// Queues a chain of jobs for the daemon on io_uring and wakes it, unless the batch can wait until
    /// it looks by itself. `mustWake` is asked about that after the queuing: with true when that is
    /// likely to be soon, for a read that runs will end; else with one of its looks now and then.
    func handOverToUring(_ batch: borrowing Batch, mustWake: (_ looksSoon: Bool) -> Bool) {
        guard let first = batch.first, let last = batch.last else { return }
        it.queue.append(it.table, first: first, last: last, count: batch.count)
        // Sequentially consistent: pairs with the daemon, which changes it before it looks at the
        // queue for the last time.
        let isLooking = it.uring.isLooking.load(ordering: .sequentiallyConsistent)
        let looksSoon =
            it.readsRunning.load(ordering: .relaxed) > 0
            && it.queue.count.load(ordering: .relaxed) < 8
        if batch.isUrgent || !isLooking || mustWake(looksSoon) { ringDoorbell() }
    }

    // MARK: Starting and leaving

    /// Starts the daemon and waits until it is ready. The caller holds the engine's start lock.
    /// 0 or a negated errno.
    func start() -> Int {
        it.isLost.store(false, ordering: .relaxed)
        it.startResult = 0
        it.state.store(Station.starting, ordering: .releasing)
        if it.kind == .threads {
            let result = openSender()
            if result < 0 {
                it.state.store(Station.dead, ordering: .releasing)
                return result
            }
        }
        let argument = unsafe UnsafeMutableRawPointer(pointer)
        let stack = Int(IOCTX_DAEMON_STACK_BYTES)
        let error =
            switch it.kind {
            case .uring: unsafe ioctx_thread_start({ unsafe UringDaemon.main($0) }, argument, stack)
            case .native:
                unsafe ioctx_thread_start({ unsafe NativeDaemon.main($0) }, argument, stack)
            default: unsafe ioctx_thread_start({ unsafe PoolDaemons.main($0) }, argument, stack)
            }
        if error != 0 {
            if it.kind == .threads { closeSender() }
            it.state.store(Station.dead, ordering: .releasing)
            return failure(error)
        }
        while it.state.load(ordering: .acquiring) == Station.starting {
            _ = it.state.wait(while: Station.starting, until: .max)
        }
        if it.state.load(ordering: .acquiring) != Station.failed {
            let connected = it.kind == .threads ? connectSender() : 0
            // A station that nobody can reach leaves by itself.
            if connected < 0 { it.isLost.store(true, ordering: .sequentiallyConsistent) }
            return connected
        }
        let result = it.startResult
        if it.kind == .threads { closeSender() }
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
            || it.pool.running.load(ordering: .sequentiallyConsistent) != 0
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
    /// pinning, its scheduling class, and its I/O priority.
    func becomeDaemon(named name: StaticString) {
        CurrentThread().station = address
        it.table.it.counters.it.daemons.raise()
        _ = unsafe systemCall(
            Int32(SYS_prctl), Int(PR_SET_NAME), Int(bitPattern: name.utf8Start))
        var everywhere = (UInt64.max, UInt64.max, UInt64.max, UInt64.max)
        _ = withAddress(of: &everywhere) {
            systemCall(Int32(SYS_sched_setaffinity), 0, 32, $0)
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
    /// it: 0 to 2 are /dev/null, so that no received file lands there. 0 or a negated errno.
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
        for _ in 0..<3 {
            let path: StaticString = "/dev/null"
            let opened = unsafe systemCall(
                Int32(SYS_openat), Int(AT_FDCWD), Int(bitPattern: path.utf8Start),
                Int(O_RDWR | O_CLOEXEC))
            // Without /dev/null any harmless file will do.
            if opened < 0 { _ = systemCall(Int32(SYS_eventfd2), 0, Int(O_CLOEXEC)) }
        }
        return 0
    }

    // MARK: Finishing, for both kinds of daemon

    /// Drops the job's reference on a held file; empties and recycles it after the last.
    func dropHeld(_ index: UInt32) {
        if index == Job.none { return }
        if !it.files.dropReference(index) { return }
        switch it.kind {
        case .uring: giveUpSlot(index)
        default:
            // In a submitter that had to do the job itself, the number would be one of the program's.
            if CurrentThread().station != address && it.files[index].it.isMoved {
                return it.files.abandon(index)
            }
            giveUpNumber(index)
        }
        it.files.recycle(index)
    }

    /// Sets the job's result and publishes its event. The program's eventfd and its sleepers
    /// come after, in `announce`.
    func finish(_ job: JobRef, from state: JobState, result: Int) {
        job.it.result = Int64(result)
        // In the submitter the signal has come by itself.
        if result == failure(EPIPE) && job.it.operation == .write && CurrentThread().station != 0 {
            raisePipeSignal(job)
        }
        if job.it.isStream || job.it.isExclusive {
            if let next = it.engine.it.streams.leave(it.table, job) { requeue(next) }
        } else if job.it.face == .linux {
            it.engine.it.gate.leave(it.table, job)
        }
        dropHeld(job.it.heldFile)
        job.it.heldFile = Job.none
        _ = job.transition(from: state, to: .finished)
        if job.it.operation != .notify {
            it.table.hooks(of: job.it.face).publish?(job.address)
        }
        // After that: when an aio_fsync is done, so are those that it waited for.
        var next = it.engine.it.syncs.leave(it.table, job)
        while let sync = next {
            next = sync.it.queueNext == Job.none ? nil : it.table.job(at: sync.it.queueNext)
            requeue(sync)
        }
    }

    /// Gives a job that was parked in a gate back to its daemon.
    func requeue(_ job: JobRef) {
        guard let station = Ref<Station>(address: job.it.station.load(ordering: .relaxed)) else {
            return
        }
        if job.it.isExclusive && station.it.kind == .threads {
            station.it.pool.running.add(1, ordering: .acquiringAndReleasing)
            station.it.pool.work.append(it.table, first: job, last: job, count: 1)
            // The worker that has done the one before it will look for it now. A daemon of another
            // station cannot call the manager, but it can wake a worker.
            if CurrentThread().station != station.address && station.wakeWorkers(1) == 0 {
                station.kick()
            }
        } else {
            station.it.queue.append(it.table, first: job, last: job, count: 1)
            station.kick()
        }
        station.release()
    }

    /// For the daemon that took a job: true when it may start it now. A parked job keeps the
    /// daemon, which holds its file, from leaving.
    func mayStart(_ job: JobRef) -> Bool {
        let isOrdered = job.it.isStream || job.it.isExclusive
        if !isOrdered && !job.it.operation.isSync { return true }
        it.users.add(1, ordering: .sequentiallyConsistent)
        let mayStart =
            isOrdered
            ? it.engine.it.streams.mayStart(it.table, job)
            : it.engine.it.syncs.mayStart(it.table, job)
        // Cancelled before it was parked: nobody else will give it back.
        if mayStart || job.state == .cancelled && it.engine.unpark(job) {
            release()
            return true
        }
        return false
    }

    /// Wakes the sleepers of a published job and frees it.
    func announce(_ job: JobRef) {
        let owner = job.it.owner
        let isNotify = job.it.operation == .notify
        let face = job.it.face
        dropHeld(job.it.heldEventfd)
        it.table.free(job, from: .finished)
        if !isNotify { it.table.hooks(of: face).wake?(owner) }
    }

    /// The signal that the kernel would have sent to the thread that submitted the write.
    private func raisePipeSignal(_ job: JobRef) {
        let process = systemCall(Int32(SYS_getpid))
        if systemCall(Int32(SYS_tgkill), process, Int(job.it.submitter), Int(SIGPIPE)) < 0 {
            _ = systemCall(Int32(SYS_kill), process, Int(SIGPIPE))
        }
    }

    /// What a finished transfer reports: the bytes of all its parts, or the error of the first.
    func totalResult(_ job: JobRef, last: Int) -> Int {
        last > 0 ? job.it.progress &+ last : (job.it.progress > 0 ? job.it.progress : last)
    }
}

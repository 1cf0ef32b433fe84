// A station: a daemon (or a pool of them) together with what reaches it.
//
// A submitter retains the station while it hands over; a daemon leaves only when nobody retains
// it and nothing is queued or running (StationLife.swift). A station whose descriptor the
// program closed is lost: it finishes what it has and leaves.

import CLibAIO
import JobTable
import Synchronization

struct Station: ~Copyable {
    static let dead: UInt32 = 0
    static let starting: UInt32 = 1
    static let ready: UInt32 = 2
    static let leaving: UInt32 = 3
    static let failed: UInt32 = 4

    /// What the daemons are.
    enum Kind {
        /// One thread with an io_uring.
        case uring
        /// A manager and workers that block for the program.
        case pool
        /// The kernel's own AIO, and a thread that takes its events when nobody else does.
        case native
    }

    let kind: Kind  // constant
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
    /// What keeps the station from leaving, beside its queue. Of a pool, the jobs that are with the
    /// workers or under way, and a worker that is just leaving; of the kernel's AIO, the jobs that
    /// it has.
    let running = Atomic<UInt32>(0)
    var queue = RunQueue()
    /// Reads of cold files that nobody has tried: io_getevents does them, unless it does not come
    /// (ColdReads.swift). Of a daemon on io_uring.
    var coldReads = RunQueue()
    /// Somebody waits for cold reads who does not do them: they are the daemon's now.
    let wantsColdReads = Atomic<Bool>(false)
    var files: HeldFiles

    /// 1 while the daemon sleeps or is about to; whoever takes it to 0 wakes the daemon.
    let sleeping = Atomic<UInt32>(0)
    let doorbell = Atomic<UInt32>(0)
    /// Cold reads that run on the work ring: each of them ends soon, as a rule, and the daemon
    /// looks at the queue when it does.
    let readsRunning = Atomic<UInt32>(0)

    /// Device and inode of the way in: the descriptor in the program's table that leads here.
    var wayInDevice: UInt64 = 0
    var wayInInode: UInt64 = 0

    var uring = UringDaemon()
    var pool = PoolDaemons()
    var native = NativeDaemon()

    private init(kind: Kind, engine: Ref<EngineRecord>, files: consuming HeldFiles) {
        self.kind = kind
        self.engine = engine
        table = engine.it.table
        self.files = files
    }

    /// How many files a station can hold at the moment. Both a table of registered files and a
    /// descriptor table are bounded by RLIMIT_NOFILE. A pool has seven of its own in its table:
    /// three eventfds of nobody's, two receivers, the epoll set, the bell; some more are to spare.
    /// The last slot of a ring is its tombstone's.
    static func filesMax(_ kind: Kind) -> UInt32 {
        let open = Int(clamping: System.softLimit(RLIMIT_NOFILE) ?? 1024)
        return UInt32(clamping: min(open &- (kind == .pool ? 24 : 1), 4096))
    }

    static func make(_ kind: Kind, engine: Ref<EngineRecord>) -> Ref<Station>? {
        guard let files = HeldFiles(capacity: max(filesMax(kind), 4)),
            let station = Memory.record(Station.self)
        else { return nil }
        unsafe station.pointer.initialize(
            to: Station(kind: kind, engine: engine, files: files))
        return station
    }
}

extension Ref where Pointee == Station {
    /// Keeps the daemon from leaving. False when the station takes no hand-overs.
    func retain() -> Bool {
        // Sequentially consistent: pairs with tryToLeave(), which stores leaving and then reads
        // the users.
        it.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if it.state.load(ordering: .sequentiallyConsistent) == Station.ready
            && !it.isLost.load(ordering: .sequentiallyConsistent)
        {
            return true
        }
        release()
        return false
    }

    func release() { it.users.wrappingSubtract(1, ordering: .sequentiallyConsistent) }

    /// True when the descriptor that leads to the daemon is still ours: programs close what they
    /// do not know, and the number may be a stranger's by now.
    func isReachable() -> Bool {
        it.kind == .native
            || isWayIn(it.kind == .uring ? it.uring.parking.descriptor : it.pool.sender)
    }

    func isWayIn(_ descriptor: Int32) -> Bool {
        var status = FileStatus()
        return descriptor >= 0 && status.look(at: descriptor) == 0
            && status.device == it.wayInDevice && status.inode == it.wayInInode
    }

    func rememberWayIn(_ descriptor: Int32) {
        var status = FileStatus()
        _ = status.look(at: descriptor)
        it.wayInDevice = status.device
        it.wayInInode = status.inode
    }

    /// Makes the daemon look at its queue and at cancellations.
    func kick() {
        switch it.kind {
        case .uring: ringDoorbell()
        case .pool: kickPool()
        // Nothing of the kernel's waits in a queue.
        case .native: break
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
}

// A job: one request of either face while it is not complete.
//
// Lock key of the fields:
//   (s) the state: atomic, changed only by `transition`
//   (w) written by whoever the state says owns the job: the submitter while preparing, the
//       daemon that won it while running or waiting; a canceller only takes it back, and writes
//       nothing
//   (o) the owner's lock (LinuxAIO: the context's)
//   (q) the lock of the queue that the job is linked into
//   (g) the lock of the gate that the job is in
//   (t) the job table's lock

import CLibAIO
public import Synchronization

/// What a job does to its file.
public enum JobOperation: UInt8, Sendable {
    case read
    case write
    case fsync
    case fdatasync
    case poll
    /// Signals an eventfd of the program when a sleeper in io_pgetevents must wake.
    case notify

    /// It comes after earlier writes, and moves no bytes of the program's.
    public var isSync: Bool { self == .fsync || self == .fdatasync }
}

/// The interface that a request came by; its hooks are told when the job is done.
public enum Face: UInt8, Sendable {
    case linux
    case posix
}

/// struct iovec, with the address as a number: the layer never follows it.
public struct Vector {
    /// Address in the program's memory.
    public var base: UInt
    /// Bytes.
    public var length: Int

    @inline(__always)
    public init(base: UInt, length: Int) {
        self.base = base
        self.length = length
    }
}

/// One request while it is not complete: a record of the table, used again and again. Its state
/// says who may touch it; a name (index and generation) tells a later use from an earlier.
public struct Job: ~Copyable {
    /// Vectors that fit into the job itself; longer arrays take a vector block.
    static let inlineVectors = 2
    /// The kernel's UIO_MAXIOV.
    public static let vectorsMax = 1024
    /// Stands for no job, no held file, no vector block.
    public static let none = UInt32.max

    let state: Atomic<UInt32>  // (s)
    /// The record's place in the table.
    public internal(set) var index: UInt32  // constant once opened
    /// Changes each time the job is freed.
    let generation: Atomic<UInt32>  // (t) to write
    /// The next in a run queue, a batch, or a daemon's own list: an index, or `none`.
    public var queueNext: UInt32  // (q)
    /// Neighbours in the owner's request queue: indexes, or `none`.
    public var ownerPrevious: UInt32  // (o)
    public var ownerNext: UInt32  // (o)
    /// Neighbours in a gate: see GateList.
    var gatePrevious: UInt32  // (g)
    var gateNext: UInt32  // (g)
    /// Bytes of the file that the job covers, from the first to the one behind the last.
    var gateStart: Int64  // (g)
    var gateEnd: Int64  // (g)

    /// By which interface it came.
    public var face: Face  // (w)
    public var operation: JobOperation  // (w)
    /// The place in the run queue: 0 comes first.
    public var priority: UInt8  // (w)
    /// A buffered read or write: under the kernel's AIO it would have completed in io_submit.
    public var isBuffered: Bool  // (w)
    /// On a pipe, socket, terminal or the like: waits for readiness, a short read is final.
    public var isStream: Bool  // (w)
    /// A write to a socket, and to which.
    public var socket: SocketKind  // (w)
    /// With a daemon on io_uring: what its ring was asked last. The daemon's alone.
    public var asked: RingQuestion
    /// One at a time on its file: a direct write that makes it longer, a deferred buffered write,
    /// an fsync that comes after one.
    public var isExclusive: Bool  // (w)
    /// A write that blocks though its file is ready, as on a terminal: for a thread of its own.
    public var blocksWhenReady: Bool  // (w)
    /// A buffered read that nobody has tried yet.
    public var mustStartDisk: Bool  // (w), then (q)
    /// The daemon has seen it: among the cold reads, which it leaves to io_getevents for a while,
    /// or under way, where it hangs if it is seen again.
    public var wasSeen: Bool  // (w), then (q)
    /// In a gate.
    var isGated: Bool  // (g) to write once others know the job; its owner may read it
    /// In a stream or sync gate behind an earlier job; no queue has it.
    var isParked: Bool  // (g), as isGated
    /// Set by a canceller; the daemon looks at it when told that cancellations are pending.
    public let cancelRequested: Atomic<Bool>
    /// The face's own: who sleeps for this very job, as bits.
    public let sleepers: Atomic<UInt32>
    /// The face's own: the program's record that the job is for, until that has been told.
    public let subject: Atomic<UInt>
    /// The face's own, under its lock: where whoever waits in aio_cancel wants to be told the
    /// result; an address, or 0.
    public var canceller: UInt
    /// The face's own: set by whoever publishes the job, a daemon or a canceller.
    public let isPublished: Atomic<Bool>
    /// RWF_* as in preadv2(2).
    public var rwFlags: Int32  // (w)
    /// As in ioprio_set(2); 0 for none.
    public var ioPriority: UInt16  // (w)
    /// POLL* as in poll(2).
    public var pollEvents: UInt32  // (w)
    /// The thread that made it. For a stream of the Linux face its number in the kernel, because
    /// SIGPIPE goes to it; for all others `CurrentThread.name`.
    public var submitter: UInt32  // (w)

    /// Files held for the job: indexes into the station's table of held files, or `none`.
    public var heldFile: UInt32  // (w)
    /// The descriptors by their numbers in the program's table: for a job that its submitter must
    /// run itself, and for nobody else.
    public var descriptor: Int32  // (w)
    public var resfd: Int32  // (w)
    /// The eventfd to signal, held: an index, or `none`.
    public var heldEventfd: UInt32  // (w)

    /// Index of a vector block, or `none`.
    var vectorBlock: UInt32  // (w)
    public var vectorCount: UInt32  // (w)
    /// Vectors before this one are done.
    public var vectorFirst: UInt32  // (w)
    /// In the file, of the first byte not yet transferred.
    public var offset: Int64  // (w)
    /// Bytes not yet transferred.
    public var length: Int  // (w)
    /// Bytes transferred so far.
    public var progress: Int  // (w)

    /// The vectors, where there are no more than `Job.inlineVectors`.
    var inlineVectors: (Vector, Vector)  // (w)

    /// Bytes, or a negated errno; valid from finished on.
    public var result: Int64  // (w)
    /// Address of the face's record: a context, or a list.
    public var owner: UInt  // (w)
    /// io_event.obj and io_event.data, as they came. Of POSIX AIO the second is the address of a
    /// copy of the attributes of its notification's thread, or 0.
    public var userObject: UInt64  // (w)
    public var userData: UInt64  // (w)
    /// Whose daemons have, or will have, its files; looked at by all daemons that look for
    /// cancelled jobs.
    public let station: Atomic<UInt>
    /// Identity of the file, for the gates: st_dev and st_ino, 0 where there is none.
    public var device: UInt64  // (w)
    public var inode: UInt64  // (w)
}

/// Sockets, as what becomes of a write amid which the peer goes away differs.
public enum SocketKind: UInt8 {
    case none
    /// AF_UNIX: who waits takes the error, and gets no signal (net/unix/af_unix.c and
    /// net/core/sock.c, sock_alloc_send_pskb).
    case local
    /// An error that comes once something was sent is the next request's, and brings no signal
    /// (net/ipv4/tcp.c, tcp_sendmsg_locked).
    case remote
}

/// What a ring is asked for a job.
public enum RingQuestion: UInt8 {
    /// The request itself.
    case itself
    /// Of a write to a remote socket that has moved something: whether there is room for the rest.
    case room
    /// Of such a write, the rest, however long it takes: there is no room, and yet a poll for it
    /// would fire each time.
    case rest
    /// Of a POLL that has fired for nothing that it is about: each change from now on.
    case changes
}

/// A job by its address, which stays good for the life of the process.
public typealias JobRef = Ref<Job>

extension Ref where Pointee == Job {
    /// Index and generation in one word, the job's name outside the table.
    @inline(__always)
    public var name: UInt64 {
        UInt64(it.generation.load(ordering: .relaxed)) << 32 | UInt64(it.index)
    }

    /// What keeps its order in the stream gate: requests on streams, and what is done one at a time
    /// on its file.
    public var isInStreamGate: Bool { it.isStream || it.isExclusive }

    /// True for what waits for a pipe or the like, and holds no thread meanwhile.
    public var awaitsReadiness: Bool { it.isStream || it.operation == .poll }

    /// False once it is done, whatever a ring may still have to say about it.
    public var isOnRing: Bool { state == (awaitsReadiness ? .waiting : .running) }

    /// The result of a job that was taken back: what it had transferred by then, if that was with a
    /// stream, for a file is read again. The kernel's io_cancel gives a cancelled poll the result
    /// 0.
    public var cancelledResult: Int {
        if it.isStream && it.progress > 0 { return it.progress }
        return it.operation == .poll ? 0 : failure(ECANCELED)
    }

    /// Whether the result of a finished job tells that it was taken back. A stream that broke off
    /// tells no less than one that was cancelled: what it had transferred by then.
    public var wasCancelled: Bool {
        it.result == Int64(cancelledResult)
            && (it.progress == 0 || it.cancelRequested.load(ordering: .acquiring))
    }

    /// Acquire pairs with the transition of whoever owned the job before.
    @inline(__always)
    public var state: JobState {
        JobState(rawValue: it.state.load(ordering: .acquiring)) ?? .free
    }

    /// Makes a transition if the job is in state `from`; false when somebody else was faster.
    /// Release pairs with the acquire of whoever takes the job over; acquire with its last owner.
    @inline(__always)
    public func transition(from: JobState, to: JobState) -> Bool {
        assert(from.allows(to), "illegal job transition")
        return it.state.compareExchange(
            expected: from.rawValue, desired: to.rawValue, ordering: .acquiringAndReleasing
        ).exchanged
    }
}

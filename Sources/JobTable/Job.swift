// A job: one request of either face while it is not complete.
//
// Lock key of the fields:
//   (s) the state: atomic, changed only by `transition`
//   (w) written by whoever the state says owns the job: the submitter while preparing, the
//       daemon that won it while running or waiting, the canceller of nothing
//   (o) the owner's lock (LinuxAIO: the context's)
//   (q) the lock of the queue that the job is linked into
//   (g) the lock of the gate that the job is in
//   (t) the job table's lock

import CLibAIO
public import Synchronization

public enum JobOperation: UInt8, Sendable {
    case read
    case write
    case fsync
    case fdatasync
    case poll
    /// Signals an eventfd of the program when a sleeper in io_pgetevents must wake.
    case notify

    public var isSync: Bool { self == .fsync || self == .fdatasync }
}

/// The interface that a request came by; its hooks are told when the job is done.
public enum Face: UInt8, Sendable {
    case linux
    case posix
}

/// struct iovec, with the address as a number: the layer never follows it.
public struct Vector {
    public var base: UInt
    /// Bytes.
    public var length: Int

    @inline(__always)
    public init(base: UInt, length: Int) {
        self.base = base
        self.length = length
    }
}

public struct Job: ~Copyable {
    /// Vectors that fit into the job itself; longer arrays take a vector block.
    public static let inlineVectors = 2
    /// The kernel's UIO_MAXIOV.
    public static let vectorsMax = 1024
    /// Stands for no job, no held file, no vector block.
    public static let none = UInt32.max

    let state: Atomic<UInt32>  // (s)
    public internal(set) var index: UInt32  // constant once opened
    public let generation: Atomic<UInt32>  // (t) to write
    public var queueNext: UInt32  // (q)
    public var ownerPrevious: UInt32  // (o)
    public var ownerNext: UInt32  // (o)
    public var gatePrevious: UInt32  // (g)
    public var gateNext: UInt32  // (g)
    public var gateStart: Int64  // (g) bytes that the gated read covers
    public var gateEnd: Int64  // (g)

    public var face: Face  // (w)
    public var operation: JobOperation  // (w)
    /// The place in the run queue: 0 comes first.
    public var priority: UInt8  // (w)
    /// A buffered read or write: under the kernel's AIO it would have completed in io_submit.
    public var isBuffered: Bool  // (w)
    /// On a pipe, socket, terminal or the like: waits for readiness, a short read is final.
    public var isStream: Bool  // (w)
    /// One at a time on its file: a direct write that makes it longer, a deferred buffered write, an
    /// fsync that comes after one.
    public var isExclusive: Bool  // (w)
    /// A buffered read that nobody has tried yet.
    public var mustStartDisk: Bool  // (w), then (q)
    public var isGated: Bool  // (g)
    /// In a StreamGate behind an earlier job; no queue has it.
    public var isParked: Bool  // (g)
    /// Set by a canceller; the daemon looks at it when told that cancellations are pending.
    public let cancelRequested: Atomic<Bool>
    /// The face's own: who sleeps for this very job, as bits.
    public let sleepers: Atomic<UInt32>
    /// The face's own: the program's record that the job is for, until the job is used again.
    public let subject: Atomic<UInt>
    /// The face's own: set by whoever publishes the job, a daemon or a canceller.
    public let isPublished: Atomic<Bool>
    public var rwFlags: Int32  // (w)
    public var ioPriority: UInt16  // (w)
    public var pollEvents: UInt32  // (w)
    public var submitter: Int32  // (w) thread to which a SIGPIPE would have gone

    /// Files held for the job: indexes into the station's table of held files, or `none`.
    public var heldFile: UInt32  // (w)
    /// The descriptors by their numbers in the program's table: for a job that its submitter must
    /// run itself, and for nobody else.
    public var descriptor: Int32  // (w)
    public var resfd: Int32  // (w)
    public var heldEventfd: UInt32  // (w)

    public var vectorBlock: UInt32  // (w) index of a vector block, or `none`
    public var vectorCount: UInt32  // (w)
    public var vectorFirst: UInt32  // (w) vectors before this one are done
    public var offset: Int64  // (w) of the first byte not yet transferred
    public var length: Int  // (w) bytes not yet transferred
    public var progress: Int  // (w) bytes transferred so far

    public var inlineVectors: (Vector, Vector)  // (w)

    public var result: Int64  // (w) valid from finished on
    public var owner: UInt  // (w) the face's record: a context
    public var userObject: UInt64  // (w) io_event.obj
    public var userData: UInt64  // (w) io_event.data
    /// Whose daemons have, or will have, its files; looked at by all daemons that look for
    /// cancelled jobs.
    public let station: Atomic<UInt>
    public var device: UInt64  // (w) identity of the file, for the gates
    public var inode: UInt64  // (w)
}

public typealias JobRef = Ref<Job>

extension Ref where Pointee == Job {
    /// Index and generation in one word, the job's name outside the table.
    @inline(__always)
    public var name: UInt64 {
        UInt64(it.generation.load(ordering: .relaxed)) << 32 | UInt64(it.index)
    }

    /// True for what waits for a pipe or the like, and holds no thread meanwhile.
    public var awaitsReadiness: Bool { it.isStream || it.operation == .poll }

    /// The result of a job that was taken back: the kernel's io_cancel gives a cancelled poll
    /// the result 0.
    public var cancelledResult: Int { it.operation == .poll ? 0 : failure(ECANCELED) }

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

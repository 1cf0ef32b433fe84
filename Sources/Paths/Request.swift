// What the faces and the paths say to each other: a request, what became of it, and the batch of
// deferred ones that its call hands to a daemon.

import CLibAIO
public import JobTable

/// One request of a face, validated as far as that needs no look at the file.
public struct Request {
    /// By which interface it came.
    public var face = Face.linux
    /// Its place in the run queue: 0 comes first. All jobs of a batch must have the same.
    public var priority: UInt8 = 0
    public var operation: JobOperation
    /// In the program's table.
    public var descriptor: Int32
    /// Address of `vectorCount` vectors, readable until `start` returns.
    public var vectors: UInt
    /// 0 to Job.vectorsMax.
    public var vectorCount: Int
    /// Bytes of all vectors together.
    public var length: Int
    /// Bytes, in the file.
    public var offset: Int64
    /// RWF_*.
    public var rwFlags: Int32
    /// As ioprio_set(2) has it; 0 for the submitter's.
    public var ioPriority: UInt16
    /// POLL*, for a POLL.
    public var pollEvents: UInt32
    /// What the kernel's checks of the priority and of the buffers would answer: a negated errno
    /// or 0. The face finds out, `start` answers in the kernel's order.
    public var priorityError = 0
    public var bufferError = 0
    /// An eventfd to signal, or -1.
    public var resfd: Int32
    /// What a read with RWF_NOWAIT came to that was tried on the strength of the hint, in vain.
    public var attempted: Int?

    /// A request without buffers, flags or an eventfd.
    @inline(__always)
    public init(operation: JobOperation, descriptor: Int32) {
        self.operation = operation
        self.descriptor = descriptor
        vectors = 0
        vectorCount = 0
        length = 0
        offset = 0
        rwFlags = 0
        ioPriority = 0
        pollEvents = 0
        resfd = -1
    }
}

/// What became of a request.
public enum Outcome {
    /// Done; the result goes into the event.
    case completed(Int)
    /// The job is in the batch and runs when the batch is handed over. The face fills in owner,
    /// userObject and userData before that.
    case deferred(JobRef)
    /// Not accepted: a negated errno for the submitter, and no event.
    case refused(Int)
}

/// What a submission has asked the kernel, once for all its requests.
struct Submission {
    /// What is known of the descriptor of the last request; -1 for none.
    private var descriptor: Int32 = -1
    private var facts = FileFacts()
    private var fileBytesMax: UInt64?
    /// What becomes of reads of cold files.
    let coldReads: ColdReads

    init(coldReads: ColdReads) {
        self.coldReads = coldReads
    }

    /// 0, or what FileFacts.of answers.
    @inline(__always)
    mutating func facts(of descriptor: Int32, _ result: inout FileFacts) -> Int {
        if self.descriptor != descriptor || descriptor < 0 {
            self.descriptor = -1
            let found = FileFacts.of(descriptor, &facts)
            if found < 0 { return found }
            self.descriptor = descriptor
        }
        result = facts
        return 0
    }

    /// After the file may have changed.
    mutating func forgetFacts() { descriptor = -1 }

    /// RLIMIT_FSIZE.
    mutating func sizeLimit() -> UInt64 {
        if let fileBytesMax { return fileBytesMax }
        let bytes = System.softLimit(RLIMIT_FSIZE) ?? .max
        fileBytesMax = bytes
        return bytes
    }
}

/// The jobs that one submission hands to a daemon, all at once.
public struct Batch: ~Copyable {
    /// A file held for a job of this batch.
    struct Held {
        var descriptor: Int32 = -1
        var index = Job.none
    }

    /// Places in `lastHeld`.
    static let file = 0
    static let eventfd = 1

    var submission: Submission
    var station: Ref<Station>?
    var first: JobRef?
    var last: JobRef?
    var count: UInt32 = 0
    /// All of it always blocks whoever does it, and may have a station of its own.
    var isBlocking = false
    /// All of it is done one at a time, on one file.
    var isExclusive = false
    /// threads: something in it is for the manager, not for a worker.
    var needsManager = false
    /// Something in it gains from the daemon being woken at once.
    public var isUrgent = false
    /// All of it may be left to those who wait for it.
    var isForWaiters = true
    /// Files claimed for this batch that are not yet with the daemon.
    var newFiles: UInt32 = 0
    /// The file and the eventfd that were held last, for the next job on the same descriptors.
    var lastHeld: InlineArray<2, Held> = [Held(), Held()]
    /// Whose requests these are, for the kernel's AIO, which serves one user at a time: 0 for one
    /// whose direct requests must take another path.
    let kernelUser: UInt
    /// Jobs for the kernel's AIO, and their station.
    var native: Ref<Station>?
    var nativeFirst: JobRef?
    var nativeLast: JobRef?
    /// The only one of these is an fsync whose file nobody has looked at.
    var isUnseen = false

    /// An empty batch. `coldReads` are only left to somebody where the program is expected in
    /// io_getevents.
    @inline(__always)
    public init(coldReads: ColdReads = .tried, kernelUser: UInt = Batch.posixFace) {
        submission = Submission(coldReads: coldReads)
        self.kernelUser = kernelUser
    }

    /// `kernelUser` for all requests of POSIX AIO, which is no address.
    public static let posixFace: UInt = 1

    /// Nothing waits for the hand-over.
    @inline(__always)
    public var isEmpty: Bool { first == nil && nativeFirst == nil }

    /// True when the batch should be handed over before more is added.
    var isFull: Bool { count >= 256 || newFiles >= UInt32(PoolDaemons.filesPerMessage - 4) }
}

// The job table: one per process, shared by every context of every face.
//
// It hands out jobs, counts them and keeps their memory. A request that completes inline never
// enters it; it is only counted.
//
// Invariants: a job is named by index and generation, and the generation changes each time the
// job is freed; nothing is allocated on the way of a request except by opening reserved memory.

import CLibAIO
import Synchronization

/// Called by whoever finishes a job: a daemon, a submitter that had to do it itself, a thread of
/// the program that takes the kernel's events. Never with a lock of the paths held.
public typealias CompletionHook = @convention(c) (UInt) -> Void

/// How the table tells a face that one of its jobs is done.
public struct FaceHooks {
    /// Makes the result visible; the argument is the job's address.
    public var publish: CompletionHook?
    /// Lets sleepers see it; the argument is the job's owner, for the job is free by then. The
    /// program's eventfd is signalled between the two.
    public var wake: CompletionHook?

    /// The hooks of a face; nil for one that does not exist yet.
    public init(publish: CompletionHook?, wake: CompletionHook?) {
        self.publish = publish
        self.wake = wake
    }
}

/// One array of 1,024 vectors, for requests with more vectors than fit into the job.
struct VectorBlock: ~Copyable {
    var next: UInt32
    // 1,024 vectors of 16 bytes; only the address of the first is ever taken.
    var storage: Vector

    static var strideBytes: Int { Job.vectorsMax * MemoryLayout<Vector>.stride }
}

/// The process's jobs: free lists, limits, counters, and the way up to the faces.
public struct JobTable: ~Copyable {
    /// (t) guards everything below that says (t); never held over a system call but mprotect.
    let lock: FutexLock
    var jobs: Reserve<Job>  // (t) to grow
    var freeHead: UInt32  // (t)
    var vectorBase: UInt  // constant
    let vectorCapacity: UInt32  // constant
    var vectorOpened: UInt32  // (t) blocks that have been used at least once
    var vectorFreeHead: UInt32  // (t)

    /// Read from the environment when the table was made.
    public let limits: Limits  // constant

    /// What outsiders may read. Its numQueueCount is the jobs that are not free, under (t).
    public let counters: Ref<Counters>  // constant

    /// What each face does with its finished jobs; constant once the face exists.
    public var linuxHooks: FaceHooks
    public var posixHooks: FaceHooks

    static let vectorBlocksMax = 4096

    /// The process's table, made if necessary. The caller holds the root's creation lock.
    /// nil without memory.
    public static func createLocked(in root: Ref<ProcessRoot>) -> Ref<JobTable>? {
        if let table = Ref<JobTable>(address: root.it.jobTable.load(ordering: .acquiring)) {
            return table
        }
        let limits = Limits.fromEnvironment()
        guard let jobs = Reserve<Job>(capacity: limits.jobsMax),
            let counters = Counters.make(limits)
        else { return nil }
        guard let table = Memory.record(JobTable.self) else {
            Memory.unmap(counters.address, bytes: Memory.pageBytes)
            return nil
        }
        let blocks = min(vectorBlocksMax, Memory.reserveBytesMax / VectorBlock.strideBytes)
        let vectors =
            blocks == 0
            ? 0 : Memory.map(bytes: blocks &* VectorBlock.strideBytes, protection: PROT_NONE)
        unsafe table.pointer.initialize(
            to: JobTable(
                jobs: jobs, vectorBase: vectors,
                vectorCapacity: vectors == 0 ? 0 : UInt32(blocks), limits: limits,
                counters: counters))
        // Release pairs with the acquire of every reader of the root.
        root.it.jobTable.store(table.address, ordering: .releasing)
        return table
    }

    private init(
        jobs: consuming Reserve<Job>, vectorBase: UInt, vectorCapacity: UInt32, limits: Limits,
        counters: Ref<Counters>
    ) {
        lock = FutexLock()
        self.jobs = jobs
        freeHead = Job.none
        self.vectorBase = vectorBase
        self.vectorCapacity = vectorCapacity
        vectorOpened = 0
        vectorFreeHead = Job.none
        self.limits = limits
        self.counters = counters
        linuxHooks = FaceHooks(publish: nil, wake: nil)
        posixHooks = FaceHooks(publish: nil, wake: nil)
    }

    /// Jobs that are not free.
    public var jobsInUse: UInt64 { counters.it.numQueueCount.current }
}

extension Ref where Pointee == JobTable {
    /// As many jobs are in use as there may be; else it is memory that is short.
    public var isFull: Bool { it.jobsInUse >= UInt64(it.limits.jobsMax) }

    /// A job in state preparing, or nil when max_aio_queue_per_proc or memory is reached.
    public func allocate() -> JobRef? {
        it.lock.lock()
        if it.freeHead == Job.none && !growLocked() {
            it.lock.unlock()
            return nil
        }
        let job = it.jobs[it.freeHead]
        it.freeHead = job.it.queueNext
        it.counters.it.numQueueCount.setLocked(it.jobsInUse &+ 1)
        it.lock.unlock()
        _ = job.transition(from: .free, to: .preparing)
        job.it.queueNext = Job.none
        job.it.isBuffered = false
        job.it.isStream = false
        job.it.socket = .none
        job.it.asked = .itself
        job.it.isExclusive = false
        job.it.mustStartDisk = false
        job.it.wasSeen = false
        job.it.isGated = false
        job.it.isParked = false
        job.it.cancelRequested.store(false, ordering: .relaxed)
        job.it.sleepers.store(0, ordering: .relaxed)
        job.it.subject.store(0, ordering: .relaxed)
        // Release pairs with the acquire of a canceller, who looks at `subject` next: he does not
        // find the last use's.
        job.it.isPublished.store(false, ordering: .releasing)
        job.it.face = .linux
        job.it.priority = 0
        job.it.rwFlags = 0
        job.it.ioPriority = 0
        job.it.pollEvents = 0
        job.it.heldFile = Job.none
        job.it.heldEventfd = Job.none
        job.it.vectorBlock = Job.none
        job.it.vectorCount = 0
        job.it.vectorFirst = 0
        job.it.progress = 0
        job.it.length = 0
        job.it.offset = 0
        return job
    }

    /// Gives a job back from state `state` (preparing or finished).
    public func free(_ job: JobRef, from state: JobState) {
        it.lock.lock()
        if job.it.vectorBlock != Job.none { releaseVectorsLocked(job.it.vectorBlock) }
        job.it.generation.wrappingAdd(1, ordering: .relaxed)
        let changed = job.transition(from: state, to: .free)
        assert(changed, "freed a job that somebody else owned")
        job.it.queueNext = it.freeHead
        it.freeHead = job.it.index
        it.counters.it.numQueueCount.setLocked(it.jobsInUse &- 1)
        it.lock.unlock()
    }

    /// The job with that index, which was opened once: in use or free.
    @inline(__always)
    public func job(at index: UInt32) -> JobRef { it.jobs[index] }

    /// The next in a chain of jobs linked by `queueNext`; whoever ends one asks before, for its
    /// link is used again.
    @inline(__always)
    public func successor(of job: JobRef) -> JobRef? {
        job.it.queueNext == Job.none ? nil : it.jobs[job.it.queueNext]
    }

    /// The job of that name if it still is that job, for completions that may be late.
    @inline(__always)
    public func job(named name: UInt64) -> JobRef? {
        let index = UInt32(truncatingIfNeeded: name)
        if index >= it.jobs.opened { return nil }
        let job = it.jobs[index]
        let generation = job.it.generation.load(ordering: .relaxed)
        return generation == UInt32(truncatingIfNeeded: name >> 32) ? job : nil
    }

    /// The hooks of the face that a job belongs to.
    @inline(__always)
    public func hooks(of face: Face) -> FaceHooks {
        face == .linux ? it.linuxHooks : it.posixHooks
    }

    /// Waits until no write or fsync on a file is queued or running, at most 30 s: at exit,
    /// nothing that was accepted as a write may be lost. Reads go with the process.
    public func awaitWrites() {
        let deadlineNs = System.monotonicNs() &+ 30_000_000_000
        repeat {
            // In a child that a handler forked meanwhile, nothing of it is there.
            let isStillThere = ProcessRoot.current?.it.jobTable.load(ordering: .relaxed) == address
            if !isStillThere || it.jobsInUse == 0 || !hasWrites() { return }
            System.sleep(nanoseconds: 1_000_000)
        } while !System.isPast(deadlineNs)
    }

    private func hasWrites() -> Bool {
        var found = false
        forEachJob { job in
            let state = job.state
            if (state == .queued || state == .running) && !job.it.isStream
                && job.it.operation != .read && job.it.operation != .poll
                && job.it.operation != .notify
            {
                found = true
            }
        }
        return found
    }

    /// Calls `body` with every job that was ever used; for cancellation, which is rare.
    public func forEachJob(_ body: (JobRef) -> Void) {
        for index in 0..<it.jobs.opened { body(it.jobs[index]) }
    }

    private func growLocked() -> Bool {
        it.jobs.grow(freeHead: &it.freeHead) { job, index, next in
            job.it.index = index
            job.it.queueNext = next
        }
    }

    // MARK: Vectors

    /// Room for `count` vectors (at most `Job.vectorsMax`) in the job; their address, or 0 when
    /// memory is exhausted.
    public func reserveVectors(_ job: JobRef, count: Int) -> UInt {
        job.it.vectorCount = UInt32(truncatingIfNeeded: count)
        if count <= Job.inlineVectors { return vectorsAddress(job) }
        job.it.vectorBlock = borrowVectorBlock()
        return job.it.vectorBlock == Job.none ? 0 : blockAddress(job.it.vectorBlock)
    }

    /// A block for `Job.vectorsMax` vectors; `Job.none` when memory is exhausted.
    public func borrowVectorBlock() -> UInt32 {
        it.lock.lock()
        var block = it.vectorFreeHead
        if block != Job.none {
            it.vectorFreeHead = vectorBlock(block).it.next
        } else if it.vectorOpened < it.vectorCapacity
            && systemCall(
                Int32(SYS_mprotect), Int(bitPattern: blockAddress(it.vectorOpened)),
                VectorBlock.strideBytes, Int(PROT_READ | PROT_WRITE)) >= 0
        {
            block = it.vectorOpened
            it.vectorOpened &+= 1
        }
        it.lock.unlock()
        return block
    }

    /// Gives back a block that no job has taken.
    public func returnVectorBlock(_ block: UInt32) {
        it.lock.lock()
        releaseVectorsLocked(block)
        it.lock.unlock()
    }

    /// The address of the job's first vector that is not done.
    public func vectorsAddress(_ job: JobRef) -> UInt {
        let first =
            job.it.vectorBlock == Job.none
            ? UInt(bitPattern: withAddress(of: &job.it.inlineVectors) { $0 })
            : blockAddress(job.it.vectorBlock)
        return first &+ UInt(job.it.vectorFirst) &* UInt(MemoryLayout<Vector>.stride)
    }

    /// Records that `count` more bytes are done: moves the job's offset and vectors on.
    public func advance(_ job: JobRef, by count: Int) {
        job.it.progress &+= count
        job.it.length &-= count
        // -1 is the file's own position, on pipes and sockets.
        if job.it.offset >= 0 { job.it.offset &+= Int64(count) }
        var left = UInt(bitPattern: count)
        while left > 0, job.it.vectorFirst < job.it.vectorCount,
            let vector = Ref<Vector>(address: vectorsAddress(job))
        {
            let step = Swift.min(left, UInt(bitPattern: vector.it.length))
            vector.it.base &+= step
            vector.it.length &-= Int(bitPattern: step)
            left &-= step
            if vector.it.length == 0 { job.it.vectorFirst &+= 1 }
        }
    }

    /// The address of a block's first vector.
    public func blockAddress(_ block: UInt32) -> UInt {
        it.vectorBase &+ UInt(block) &* UInt(VectorBlock.strideBytes)
    }

    private func vectorBlock(_ block: UInt32) -> Ref<VectorBlock> {
        unsafe Ref<VectorBlock>(address: blockAddress(block)).unsafelyUnwrapped
    }

    private func releaseVectorsLocked(_ block: UInt32) {
        vectorBlock(block).it.next = it.vectorFreeHead
        it.vectorFreeHead = block
    }
}

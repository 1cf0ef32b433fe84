// The choice of path for one request, and the hand-over of those that a daemon must run.
//
// A job takes the cheapest path that cannot block its submitter:
//   inline     cached buffered reads, memory-backed files, buffered writes (kernel order)
//   readiness  pipes, sockets, terminals, POLL: tried at once, else waited for without a thread
//   daemon     everything that would block: cold reads, O_DIRECT, fsync
// Where no daemon can be had, the request runs inline and may block, as in the kernel.

import CLibAIO
public import JobTable
import Synchronization

/// One request of a face, validated as far as that needs no look at the file.
public struct Request {
    public var face = Face.linux
    /// Its place in the run queue: 0 comes first. All jobs of a batch must have the same.
    public var priority: UInt8 = 0
    public var operation: JobOperation
    public var descriptor: Int32
    /// Address of `vectorCount` vectors, readable until `start` returns.
    public var vectors: UInt
    public var vectorCount: Int
    /// Bytes of all vectors together.
    public var length: Int
    public var offset: Int64
    public var rwFlags: Int32
    public var ioPriority: UInt16
    public var pollEvents: UInt32
    /// What the kernel's checks of the priority and of the buffers would answer: a negated errno
    /// or 0. The face finds out, `start` answers in the kernel's order.
    public var priorityError = 0
    public var bufferError = 0
    /// An eventfd to signal, or -1.
    public var resfd: Int32
    /// What a read with RWF_NOWAIT came to that was tried on the strength of the hint, in vain.
    public var attempted: Int?

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
    private var ownPriority: UInt16?
    private var fileBytesMax: UInt64?

    /// 0, or -EBADF.
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

    /// The submitter's own I/O priority, which a request without IOCB_FLAG_IOPRIO has; 0 when it
    /// has none.
    mutating func priority() -> UInt16 {
        if let ownPriority { return ownPriority }
        let priority = systemCall(Int32(SYS_ioprio_get), 1, 0)
        // Class 0 (none) leaves the priority to the nice value.
        let result = priority > 0 && priority >> 13 != 0 ? UInt16(truncatingIfNeeded: priority) : 0
        ownPriority = result
        return result
    }

    /// RLIMIT_FSIZE.
    mutating func sizeLimit() -> UInt64 {
        if let fileBytesMax { return fileBytesMax }
        var limit = rlimit(rlim_cur: 0, rlim_max: 0)
        let result = withAddress(of: &limit) {
            systemCall(Int32(SYS_prlimit64), 0, Int(RLIMIT_FSIZE.rawValue), 0, $0)
        }
        let bytes = result < 0 ? .max : UInt64(limit.rlim_cur)
        fileBytesMax = bytes
        return bytes
    }
}

/// The jobs that one submission hands to a daemon, all at once.
public struct Batch: ~Copyable {
    var submission = Submission()
    var station: Ref<Station>?
    var first: JobRef?
    var last: JobRef?
    var count: UInt32 = 0
    /// It is alone of what always blocks whoever does it, which may have a station of its own.
    var isBlocking = false
    /// All of it is done one at a time, on one file.
    var isExclusive = false
    /// threads: something in it is for the manager, not for a worker.
    var needsManager = false
    /// Something in it gains from the daemon being woken at once.
    var isUrgent = false
    /// Files claimed for this batch that are not yet with the daemon.
    var newFiles: UInt32 = 0
    /// The file that the last job of this batch holds, for the next job on the same descriptor.
    var lastDescriptor: Int32 = -1
    var lastIndex = Job.none
    var lastEventfd: Int32 = -1
    var lastEventfdIndex = Job.none
    /// Jobs for the kernel's AIO, and their station.
    var native: Ref<Station>?
    var nativeFirst: JobRef?
    var nativeLast: JobRef?

    @inline(__always)
    public init() {}

    @inline(__always)
    public var isEmpty: Bool { first == nil }

    /// True when the batch should be handed over before more is added.
    public var isFull: Bool { count >= 256 || newFiles >= UInt32(PoolDaemons.filesPerMessage - 4) }
}

extension Ref where Pointee == EngineRecord {
    /// A transfer of one buffer of `length` bytes, done in the submitter if the hint says that the
    /// file's pages were cached last time and nothing stands against it. Its result; nil when
    /// the file must be looked at, with nothing transferred that may not be transferred again.
    /// `attempted` receives the result of a read with RWF_NOWAIT that was not enough.
    @inline(__always)
    public func transferAtOnce(
        isWrite: Bool, _ descriptor: Int32, _ vector: UInt, _ length: Int, _ offset: Int64,
        attempted: inout Int?
    ) -> Int? {
        if isWrite { return writeAtOnce(descriptor, vector, length, offset) }
        let result: Int
        if let flags = flagsToReadAtOnce(descriptor) {
            result = readAtOnce(descriptor, vector, offset, flags)
            if result != length && flags != 0 { attempted = result }
        } else if hint(descriptor) == .quick && !mayHaveDeferredWrites {
            result = readTimed(descriptor, vector, 1, offset, 0)
        } else {
            return nil
        }
        return result == length ? result : nil
    }

    /// A write has kernel order: it is done in the submitter, and waits only for deferred reads.
    @inline(__always)
    private func writeAtOnce(
        _ descriptor: Int32, _ vector: UInt, _ length: Int, _ offset: Int64
    ) -> Int? {
        if it.writesAreAsync || !hint(descriptor).isBuffered
            || it.gate.count.load(ordering: .acquiring) != 0
            || isDoubted(descriptor)
        {
            return nil
        }
        let result = System.transfer(isWrite: true, descriptor, vector, 1, offset, 0)
        return FileChecks.isRefusal(result) ? nil : result
    }

    /// The flags with which a read of that descriptor may be tried at once, in the submitter: nil
    /// unless the hint says that its last read came from memory.
    @inline(__always)
    public func flagsToReadAtOnce(_ descriptor: Int32) -> Int32? {
        let hint = hint(descriptor)
        if hint != .cached && hint != .memory || mayHaveDeferredWrites || isDoubted(descriptor) {
            return nil
        }
        return hint == .cached ? Int32(IOCTX_RWF_NOWAIT) : 0
    }

    /// A read of one buffer with such flags: its result, or why it cannot be done at once.
    @inline(__always)
    public func readAtOnce(
        _ descriptor: Int32, _ vector: UInt, _ offset: Int64, _ flags: Int32
    ) -> Int {
        System.transfer(isWrite: false, descriptor, vector, 1, offset, flags)
    }

    /// Now and then a hint is held against the file: a descriptor that leads to an O_DIRECT file now
    /// would block its submitters for ever. Everything else is told by the results of its reads.
    @inline(__always)
    private func isDoubted(_ descriptor: Int32) -> Bool {
        CurrentThread().isTimeToDoubt() && !isConfirmed(descriptor)
    }

    @inline(never)
    private func isConfirmed(_ descriptor: Int32) -> Bool {
        let flags = System.fileFlags(descriptor)
        if flags >= 0 && flags & Int(IOCTX_O_DIRECT) == 0 && hint(descriptor) == .cached {
            return true
        }
        setHint(descriptor, .unknown)
        return false
    }

    /// Starts a request on the path that suits its file.
    @inline(__always)
    public func start(_ request: inout Request, _ batch: inout Batch) -> Outcome {
        // The usual case, decided by the hint alone: a read from memory.
        if request.attempted == nil && request.operation == .read
            && request.bufferError | request.priorityError == 0 && request.offset >= 0,
            let flags = flagsToReadAtOnce(request.descriptor)
        {
            let result = System.transfer(
                isWrite: false, request.descriptor, request.vectors, request.vectorCount,
                request.offset, request.rwFlags | flags)
            if result == request.length { return .completed(result) }
            if flags != 0 { request.attempted = result }
        }
        return startSlowly(&request, &batch)
    }

    /// Looks the file up and decides.
    @inline(never)
    public func startSlowly(_ request: inout Request, _ batch: inout Batch) -> Outcome {
        var facts = FileFacts()
        let found = batch.submission.facts(of: request.descriptor, &facts)
        if found < 0 { return .refused(found) }
        forgetHint(request.descriptor, unless: facts.kind)
        if mayHaveDeferredWrites && !awaitWrites(before: request, &batch, facts) {
            return .refused(failure(EAGAIN))
        }
        switch request.operation {
        case .read, .write:
            return startTransfer(&request, &batch, facts)
        case .fsync, .fdatasync:
            // fs/aio.c, aio_fsync.
            if !FileChecks.hasFsync(request.descriptor, facts) { return .refused(failure(EINVAL)) }
            if let outcome = postponeNativeSync(request, &batch, facts) { return outcome }
        case .poll:
            let ready = System.readiness(of: request.descriptor, request.pollEvents)
            if ready != 0 { return ready < 0 ? .refused(ready) : .completed(ready) }
            // A file that nobody can wait for: fs/aio.c, aio_poll.
            if facts.kind != .stream { return .refused(failure(EINVAL)) }
        case .notify:
            break
        }
        return postpone(&request, &batch, facts, done: 0)
    }

    // MARK: Reads and writes

    private func startTransfer(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome {
        let refusal =
            request.face == .linux
            ? FileChecks.refusal(of: request, facts) : FileChecks.accessRefusal(of: request, facts)
        if refusal < 0 { return .refused(refusal) }
        let outcome = chooseTransfer(&request, &batch, facts)
        // Flags that the file does not take are refused, not reported in an event.
        if case .completed(failure(EOPNOTSUPP)) = outcome, request.rwFlags != 0,
            !FileChecks.answersInEvent(request, facts)
        {
            return .refused(failure(EOPNOTSUPP))
        }
        return outcome
    }

    private func chooseTransfer(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome {
        let isWrite = request.operation == .write
        switch facts.kind {
        case .memory:
            setHint(request.descriptor, .memory)
            return .completed(transferNow(request))
        case .stream:
            return startStream(&request, &batch, facts)
        case .direct:
            if !isWrite || !appends(request, facts),
                let outcome = postponeNative(request, &batch, facts)
            {
                return outcome
            }
            if isWrite && mustNotDefer(request, &batch, facts) {
                batch.submission.forgetFacts()
                return .completed(transferNow(request))
            }
            if isWrite && !awaitReads(request, &batch, facts) { return .refused(failure(EAGAIN)) }
            return postpone(&request, &batch, facts, done: 0)
        default:
            break
        }
        if isWrite {
            if !awaitReads(request, &batch, facts) { return .refused(failure(EAGAIN)) }
            if hint(request.descriptor) == .unknown { setHint(request.descriptor, facts.kind) }
            if mayDefer(request, &batch, facts) {
                return postpone(&request, &batch, facts, done: 0)
            }
            batch.submission.forgetFacts()
            return .completed(transferNow(request))
        }
        return startBufferedRead(&request, &batch, facts)
    }

    private func startBufferedRead(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome {
        let descriptor = request.descriptor
        let hinted = hint(descriptor)
        if hinted == .slow && !isTimeToRetry(descriptor) {
            return postpone(&request, &batch, facts, done: 0)
        }
        if hinted == .quick && request.rwFlags & Int32(IOCTX_RWF_NOWAIT) == 0 {
            return .completed(readTimed(request))
        }
        var result = request.attempted ?? failure(EINTR)
        // Any other error may be that of a file which has left the descriptor meanwhile.
        if result < 0 && result != failure(EAGAIN) && result != failure(EOPNOTSUPP) {
            result = System.transfer(
                isWrite: false, descriptor, request.vectors, request.vectorCount, request.offset,
                request.rwFlags | Int32(IOCTX_RWF_NOWAIT))
        }
        if result == failure(EOPNOTSUPP) {
            if request.rwFlags & Int32(IOCTX_RWF_NOWAIT) != 0 { return .refused(result) }
            return readWithoutNowait(request, facts)
        }
        setHint(descriptor, .cached)
        if result == request.length { return .completed(result) }
        if request.rwFlags & Int32(IOCTX_RWF_NOWAIT) != 0 { return .completed(result) }
        if result > 0 {
            // Short: the end of the file, or the end of what is cached. The daemon finds out,
            // unless the file is no longer than that.
            if Int(facts.status.st_size) <= Int(request.offset) &+ result && facts.isRegular {
                return .completed(result)
            }
            return postpone(&request, &batch, facts, done: result)
        }
        if result == failure(EAGAIN) { return postpone(&request, &batch, facts, done: 0) }
        if result == failure(EINTR) { result = transferNow(request) }
        return .completed(result)
    }

    /// A buffered read on a file system that cannot say "not now": plain reads as long as they
    /// are quick, a daemon once one was slow, and now and then another try.
    private func readWithoutNowait(_ request: Request, _ facts: FileFacts) -> Outcome {
        let descriptor = request.descriptor
        if facts.kindWithoutNowait(descriptor) == .memory {
            setHint(descriptor, .memory)
            return .completed(transferNow(request))
        }
        return .completed(readTimed(request))
    }

    private func readTimed(_ request: Request) -> Int {
        readTimed(
            request.descriptor, request.vectors, request.vectorCount, request.offset,
            request.rwFlags)
    }

    private func readTimed(
        _ descriptor: Int32, _ vectors: UInt, _ count: Int, _ offset: Int64, _ rwFlags: Int32
    ) -> Int {
        let start = System.monotonicNs()
        let result = System.transfer(
            isWrite: false, descriptor, vectors, count, offset, rwFlags)
        let isSlow = System.monotonicNs() &- start > FileHints.slowReadNs
        setHint(descriptor, isSlow ? .slow : .quick)
        return result
    }

    private func startStream(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome {
        // sock_read_iter and sock_write_iter in net/socket.c; POSIX has no offset there.
        if facts.isSocket && request.offset != 0 && request.face == .linux {
            return .completed(failure(ESPIPE))
        }
        // The C library's calls never ask such a file for nothing; the kernel's AIO does, and
        // counters want eight bytes.
        if facts.isAnonymous && request.length == 0 { return .completed(failure(EINVAL)) }
        if facts.isSocket || facts.isPipe { request.offset = -1 }
        let isWrite = request.operation == .write
        let mayWait =
            !facts.isNonBlocking && request.rwFlags & Int32(IOCTX_RWF_NOWAIT) == 0
        if mayWait && !facts.isAnonymous
            && it.streams.isOccupied(
                it.table, device: facts.device, inode: facts.inode, isWrite: isWrite)
        {
            return postpone(&request, &batch, facts, done: 0)
        }
        let result = StreamTransfer.attempt(
            isWrite: isWrite, request.descriptor, request.vectors, request.vectorCount,
            request.offset, request.rwFlags)
        if !mayWait { return .completed(result) }
        if result == failure(EAGAIN) { return postpone(&request, &batch, facts, done: 0) }
        if isWrite && result > 0 && result < request.length {
            return postpone(&request, &batch, facts, done: result)
        }
        return .completed(result)
    }

    /// A transfer in the submitter, which may block.
    private func transferNow(_ request: Request) -> Int {
        System.transfer(
            isWrite: request.operation == .write, request.descriptor, request.vectors,
            request.vectorCount, request.offset, request.rwFlags)
    }

    /// Direct writes that only the submitter can do right: appends, whose place is that of their
    /// submission, and those that exceed RLIMIT_FSIZE, whose signal is the submitter's.
    private func mustNotDefer(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if appends(request, facts) { return true }
        let end = UInt64(bitPattern: request.offset) &+ UInt64(bitPattern: Int64(request.length))
        return end > batch.submission.sizeLimit()
    }

    /// A buffered write that IOCTX_WRITES=async leaves to a daemon. One with flags may be refused,
    /// which its submitter is told at once.
    private func mayDefer(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        it.writesAreAsync && request.face == .linux && facts.kind == .cached
            && request.rwFlags == 0 && !mustNotDefer(request, &batch, facts)
    }

    /// False in the usual case, where there are none that a request could overtake.
    @inline(__always)
    private var mayHaveDeferredWrites: Bool { it.writesAreAsync && !it.streams.isEmpty }

    /// Waits for the deferred writes that a request would overtake; those that wait for their turn
    /// themselves go behind them. False when a signal handler would have to wait for what it
    /// interrupted.
    private func awaitWrites(
        before request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        let isTransfer = request.operation == .read || request.operation == .write
        if !isTransfer || facts.kind == .stream
            || request.operation == .write && isExclusive(request, &batch, facts)
        {
            return true
        }
        // They may be in this very batch.
        handOver(&batch)
        nudge()
        let isAnywhere = request.operation == .write && appends(request, facts)
        return it.streams.awaitWrites(
            it.table, device: facts.device, inode: facts.inode,
            start: isAnywhere ? 0 : request.offset,
            end: isAnywhere ? .max : request.offset &+ Int64(request.length),
            mayWait: !CurrentThread().isNested)
    }

    /// True for what is done one at a time on its file: see StreamGate.
    func isExclusive(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if request.face != .linux { return false }
        switch request.operation {
        case .write:
            return facts.isExtended(by: request.offset &+ Int64(request.length))
                || mayDefer(request, &batch, facts)
        case .fsync, .fdatasync:
            return it.streams.isOccupied(
                it.table, device: facts.device, inode: facts.inode, isWrite: true)
        default: return false
        }
    }

    /// True when a request might have to wait for deferred ones of another context.
    @inline(__always)
    public var mayHaveDeferred: Bool {
        it.gate.count.load(ordering: .acquiring) != 0 || mayHaveDeferredWrites
    }

    /// Waits until no deferred request is left that one on those bytes would overtake: reads before
    /// a write, writes before any.
    public func awaitDeferred(
        before descriptor: Int32, isWrite: Bool, offset: Int64, length: Int
    ) {
        var facts = FileFacts()
        if FileFacts.of(descriptor, &facts) < 0 { return }
        nudge()
        if mayHaveDeferredWrites {
            _ = it.streams.awaitWrites(
                it.table, device: facts.device, inode: facts.inode, start: offset,
                end: offset &+ Int64(length), mayWait: !CurrentThread().isNested)
        }
        if !isWrite { return }
        _ = it.gate.awaitReads(
            it.table, device: facts.device, inode: facts.inode, start: offset,
            end: offset &+ Int64(length), mayWait: !CurrentThread().isNested)
    }

    /// False when a signal handler would have to wait for what it interrupted.
    private func awaitReads(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if it.gate.count.load(ordering: .acquiring) == 0 || request.face == .posix { return true }
        // The reads may be in this very batch.
        handOver(&batch)
        nudge()
        let size = Int64(facts.status.st_size)
        var start = request.offset
        var end = request.offset &+ Int64(request.length)
        if facts.isRegular && (end > size || appends(request, facts)) {
            // A longer file changes what a read across its end returns.
            start = min(start, size)
            end = .max
        }
        return it.gate.awaitReads(
            it.table, device: facts.device, inode: facts.inode, start: start, end: end,
            mayWait: !CurrentThread().isNested)
    }

    private func appends(_ request: Request, _ facts: FileFacts) -> Bool {
        facts.flags & Int(O_APPEND) != 0 || request.rwFlags & Int32(IOCTX_RWF_APPEND) != 0
    }
}

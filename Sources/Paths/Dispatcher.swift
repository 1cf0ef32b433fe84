// The choice of path for one request.
//
// A job takes the cheapest path that cannot block its submitter:
//   inline     cached buffered reads, memory-backed files, buffered writes (kernel order)
//   readiness  pipes, sockets, terminals, POLL: tried at once, else waited for without a thread
//   native     the kernel's AIO: O_DIRECT, of one user at a time, and a lone fsync
//              (NativeDaemon.swift). Contexts with the kernel's ring never come here
//   daemon     everything else that would block: cold reads, other O_DIRECT, several fsyncs
// Where no daemon can be had, the request runs inline and may block, as in the kernel.

import CLibAIO
public import JobTable
import Synchronization

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
        if it.writesAreAsync || !hint(descriptor).isBuffered || mayHaveDeferred
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

    /// Now and then a hint is held against the file: a descriptor that leads to an O_DIRECT file
    /// now would block its submitters for ever. Everything else is told by the results of its
    /// reads.
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
        keepOrder(&batch, before: request.descriptor)
        // The usual case, decided by the hint alone: a read from memory.
        if request.attempted == nil && request.operation == .read && request.length > 0
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
        if let outcome = startDirectRead(request, &batch) { return outcome }
        if request.operation.isSync && request.face == .linux && !mayHaveDeferredWrites,
            let outcome = postponeUnseenSync(request, &batch)
        {
            return outcome
        }
        var facts = FileFacts()
        let found = batch.submission.facts(of: request.descriptor, &facts)
        if found == failure(EBADF) { return .refused(found) }
        // What is wrong with it, the request itself is told; a POLL looks in its own way.
        if found < 0 && request.operation != .poll {
            return runInline(request, &batch, FileFacts(), done: 0)
        }
        forgetHint(request.descriptor, unless: facts.kind)
        if mayHaveDeferredWrites && found >= 0 {
            if !awaitWrites(before: request, &batch, facts) { return .refused(failure(EAGAIN)) }
            let found = batch.submission.facts(of: request.descriptor, &facts)
            if found < 0 { return .refused(found) }
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
            if facts.kind != .stream && !FileChecks.canBeAwaited(request.descriptor) {
                return .refused(failure(EINVAL))
            }
        case .notify:
            break
        }
        return postpone(&request, &batch, facts, done: 0)
    }

    // MARK: Reads and writes

    /// A read for the kernel's AIO of a file that was read with O_DIRECT last time. Only its flags
    /// are asked for, and now and then it is looked at in full; nil: look at it.
    private func startDirectRead(_ request: Request, _ batch: inout Batch) -> Outcome? {
        if request.operation != .read || request.face != .linux
            || hint(request.descriptor) != .direct || !mayGoToKernel(request, batch)
            || mayHaveDeferredWrites || CurrentThread().isTimeToDoubt()
        {
            return nil
        }
        guard let facts = FileFacts(ofDirectFile: request.descriptor),
            FileChecks.refusal(of: request, facts) == 0
        else { return nil }
        return postponeNative(request, &batch, facts)
    }

    private func startTransfer(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome {
        let refusal =
            request.face == .linux
            ? FileChecks.refusal(of: request, facts) : FileChecks.accessRefusal(of: request, facts)
        if refusal < 0 { return .refused(refusal) }
        if request.face == .posix {
            if request.bufferError != 0 { return .completed(request.bufferError) }
            if request.length == 0 && request.vectorCount == 1 && facts.kind != .stream {
                return .completed(transferNothing(request))
            }
        }
        if exceedsLimit(request, &batch, facts) { return .completed(failure(EFBIG)) }
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
            setHint(request.descriptor, .direct)
            if isWrite && !awaitReads(request, &batch, facts) { return .refused(failure(EAGAIN)) }
            if !isWrite || !appends(request, facts),
                let outcome = postponeNative(request, &batch, facts)
            {
                return outcome
            }
            if isWrite && mustNotDefer(request, &batch, facts) {
                // Reads before it end where the file ended when they were made.
                handOver(&batch)
                batch.submission.forgetFacts()
                return .completed(transferNow(request))
            }
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
        let mayWait = request.rwFlags & Int32(IOCTX_RWF_NOWAIT) == 0
        let isForDaemon =
            hinted == .slow || hinted == .cold && batch.submission.coldReads != .tried
        if isForDaemon && mayWait && !isTimeToRetry(descriptor) {
            return postpone(&request, &batch, facts, done: 0)
        }
        if hinted == .quick && mayWait { return .completed(readTimed(request)) }
        var result = request.attempted ?? failure(EINTR)
        // Any other error may be that of a file which has left the descriptor meanwhile.
        if result < 0 && result != failure(EAGAIN) && result != failure(EOPNOTSUPP) {
            result = System.transfer(
                isWrite: false, descriptor, request.vectors, request.vectorCount, request.offset,
                request.rwFlags | Int32(IOCTX_RWF_NOWAIT))
        }
        if result == failure(EOPNOTSUPP) {
            return mayWait ? readWithoutNowait(request, facts) : .refused(result)
        }
        // Short: the end of the file, or the end of what is cached. The daemon finds out, unless
        // the file is no longer than that.
        let isShort =
            result > 0 && result < request.length
            && !(facts.status.size <= request.offset &+ Int64(result) && facts.isRegular)
        if mayWait && (isShort || result == failure(EAGAIN)) {
            hintMiss(descriptor, .cached)
            request.attempted = result
            return postpone(&request, &batch, facts, done: max(result, 0))
        }
        if result >= 0 { hintQuick(descriptor, .cached) }
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
        let elapsedNs = System.monotonicNs() &- start
        if elapsedNs > FileHints.slowReadNs(length: result) {
            hintMiss(descriptor, .quick)
        } else {
            hintQuick(descriptor, .quick)
        }
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
        if mayWait && isWrite && facts.blocksWriters {
            return postpone(&request, &batch, facts, done: 0)
        }
        let mayDrop =
            isWrite && request.face == .posix && !CurrentThread().isPending(SIGPIPE)
        let result = StreamTransfer.attempt(
            isWrite: isWrite, request.descriptor, request.vectors, request.vectorCount,
            request.offset, request.rwFlags)
        // The C library's threads, which do this there, block it.
        if result == failure(EPIPE) && mayDrop { CurrentThread().dropPending(SIGPIPE) }
        if !mayWait { return .completed(result) }
        if result == failure(EAGAIN) || result == failure(EOPNOTSUPP) && isWrite && facts.isPipe {
            return postpone(&request, &batch, facts, done: 0)
        }
        if isWrite && result > 0 && result < request.length {
            return postpone(&request, &batch, facts, done: result)
        }
        return .completed(result)
    }

    /// A transfer of no bytes: preadv2 and pwritev2 do not ask the file, and the C library's pread
    /// and pwrite do, upon which some fail.
    private func transferNothing(_ request: Request) -> Int {
        systemCall(
            request.operation == .write ? Int32(SYS_pwrite64) : Int32(SYS_pread64),
            Int(request.descriptor),
            Int(bitPattern: Ref<Vector>(address: request.vectors)?.it.base ?? 0), 0,
            Int(request.offset))
    }

    /// A transfer in the submitter, which may block.
    private func transferNow(_ request: Request) -> Int {
        StreamTransfer.transfer(
            request.operation == .write, request.descriptor, request.vectors,
            request.vectorCount, request.offset, request.rwFlags)
    }
}

// Kernel order: what a request waits for before it may start, and what must not be left to a
// daemon.
//
// Under the kernel a buffered request is complete when io_submit returns, and so is a direct write
// that makes its file longer. Here cold reads are deferred, in the order gate of the job table; and
// such direct writes are, and with IOCTX_WRITES=async buffered writes, in the stream gate. What
// would overtake them waits in its submitter:
//   a write, buffered or direct    for deferred reads of the same bytes, buffered ones and direct
//                                  ones beyond the end of the file
//   a read or a write              for deferred writes of the same bytes
//   what reaches past the file's   for those that reach beyond it as well
//   end, and an append
// Writes that are done one at a time on their file, and an fsync beside such writes, do not wait
// for writes: they go through the stream gate themselves, behind what is there.
//
// What holds in all of it:
//   - Before anybody waits, his own batch is handed over and the daemon nudged: else he might wait
//     for what nobody has begun.
//   - Who waits has signals blocked until the end of its call: the kernel's io_submit is not
//     interrupted in such a wait, and a child that a handler forked there could not go on. (Not who
//     must do a request on a stream itself, for want of a daemon: that may take for ever.)
//   - A call in a signal handler that interrupted one of ours never waits: what it would wait for
//     may be waiting for the interrupted thread. It is refused with EAGAIN.
//   - With nothing deferred, which is the usual case, the price is a look at a counter.
//   - The reads of POSIX AIO are in none of these two gates, and its writes wait for none of them:
//     it promises no order but that of appends and of fsync, which the sync gate keeps.

import CLibAIO
public import JobTable
import Synchronization

extension Ref where Pointee == EngineRecord {
    /// False in the usual case, where there are none that a request could overtake.
    @inline(__always)
    var mayHaveDeferredWrites: Bool { it.streams.hasExclusiveWrites }

    /// True when a request might have to wait for deferred ones of another context.
    @inline(__always)
    public var mayHaveDeferred: Bool {
        it.reads.count.load(ordering: .acquiring) != 0 || mayHaveDeferredWrites
    }

    /// False when a signal handler would have to wait for what it interrupted.
    func awaitReads(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if it.reads.count.load(ordering: .acquiring) == 0 || request.face == .posix { return true }
        let range = range(of: request, facts)
        return waiting(&batch) {
            it.reads.awaitReads(
                it.table, device: facts.device, inode: facts.inode, start: range.start,
                end: range.end, mayWait: $0)
        }
    }

    /// Waits for the deferred writes that a request would overtake; those that wait for their turn
    /// themselves go behind them. False when a signal handler would have to wait for what it
    /// interrupted.
    func awaitWrites(
        before request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        let isWrite = request.operation == .write
        if !isWrite && request.operation != .read || facts.kind == .stream
            || request.face == .posix && !(isWrite && appends(request, facts))
            || isWrite && isExclusive(request, &batch, facts)
        {
            return true
        }
        return awaitOverlapping(request, &batch, facts)
    }

    private func awaitOverlapping(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        let range = range(of: request, facts)
        return waiting(&batch) {
            it.streams.awaitWrites(
                it.table, device: facts.device, inode: facts.inode, start: range.start,
                end: range.end, mayWait: $0)
        }
    }

    /// The bytes of a file that other requests must not have before them when this one starts. What
    /// it comes to past the file's end, or where it appends, depends on all that makes the file
    /// longer.
    private func range(of request: Request, _ facts: FileFacts) -> (start: Int64, end: Int64) {
        let end = request.offset &+ Int64(request.length)
        let size = facts.status.size
        let isAppend = request.operation == .write && appends(request, facts)
        return facts.isRegular && (end > size || isAppend)
            ? (min(request.offset, size), .max) : (request.offset, end)
    }

    /// Calls `wait`, which may wait if it is told so, and is false if it would have to and may not.
    func waiting(_ batch: inout Batch, _ wait: (_ mayWait: Bool) -> Bool) -> Bool {
        if wait(false) { return true }
        // What it waits for may be in this very batch, and may make the file longer.
        handOver(&batch)
        nudge()
        batch.submission.forgetFacts()
        return wait(!CurrentThread().isNested)
    }

    /// Waits for all that a request of a context which the kernel serves would overtake. False when
    /// a signal handler would have to wait for what it interrupted.
    public func awaitDeferred(before request: Request) -> Bool {
        var facts = FileFacts()
        if FileFacts.of(request.descriptor, &facts) < 0 { return true }
        var batch = Batch()
        if request.operation == .write && !awaitReads(request, &batch, facts) { return false }
        return awaitOverlapping(request, &batch, facts)
    }

    /// True for what is done one at a time on its file: see StreamGate.
    func isExclusive(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if request.operation == .write && facts.blocksWriters { return true }
        if request.face != .linux { return false }
        switch request.operation {
        case .write:
            return facts.isExtended(by: request.offset &+ Int64(request.length))
                && !mustNotDefer(request, &batch, facts) || mayDefer(request, &batch, facts)
        case .fsync, .fdatasync:
            return it.streams.isOccupied(
                it.table, device: facts.device, inode: facts.inode, isWrite: true)
        default: return false
        }
    }

    /// A buffered write that IOCTX_WRITES=async leaves to a daemon. One with flags may be refused,
    /// which its submitter is told at once.
    func mayDefer(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        it.writesAreAsync && request.face == .linux && facts.kind == .cached
            && request.rwFlags == 0 && !mustNotDefer(request, &batch, facts)
    }

    /// Direct writes that only the submitter can do right: appends, whose place is that of their
    /// submission, and those that exceed RLIMIT_FSIZE, whose signal is the submitter's.
    func mustNotDefer(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if appends(request, facts) { return true }
        let end = UInt64(bitPattern: request.offset) &+ UInt64(bitPattern: Int64(request.length))
        return end > batch.submission.sizeLimit()
    }

    /// A write of POSIX AIO that has no room below RLIMIT_FSIZE: the C library's threads block the
    /// SIGXFSZ that it would bring the submitter here.
    func exceedsLimit(_ request: Request, _ batch: inout Batch, _ facts: FileFacts) -> Bool {
        if request.face != .posix || request.operation != .write || !facts.isRegular {
            return false
        }
        // What no file can hold is wrong in itself (fs/read_write.c, rw_verify_area).
        let isImpossible = request.offset.addingReportingOverflow(Int64(request.length)).overflow
        let start = appends(request, facts) ? facts.status.size : request.offset
        return request.length > 0 && !isImpossible
            && UInt64(clamping: start) >= batch.submission.sizeLimit()
    }

    func appends(_ request: Request, _ facts: FileFacts) -> Bool {
        facts.flags & Int(O_APPEND) != 0 || request.rwFlags & Int32(IOCTX_RWF_APPEND) != 0
    }
}

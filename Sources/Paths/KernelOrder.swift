// Kernel order: what a request waits for before it may start, and what must not be left to a daemon.
//
// Under the kernel a buffered request is complete when io_submit returns. Here cold reads are
// deferred, and with IOCTX_WRITES=async buffered writes, too; they are in the order gate and in the
// stream gate of the job table. What would overtake them waits in its submitter:
//   a write, buffered or direct    for deferred reads of the same bytes
//   a write past the file's end    for deferred reads that reach beyond it as well
//   a read or a direct write       for deferred writes of the same bytes
//   an append                      for all deferred writes of its file
// Writes that are done one at a time on their file, and an fsync beside such writes, do not wait
// for writes: they go through the stream gate themselves, behind what is there.
//
// What holds in all of it:
//   - Before anybody waits, his own batch is handed over and the daemon nudged: else he might wait
//     for what nobody has begun.
//   - A call in a signal handler that interrupted one of ours never waits: what it would wait for
//     may be waiting for the interrupted thread. It is refused with EAGAIN.
//   - With nothing deferred, which is the usual case, the price is a look at a counter.
//   - The reads of POSIX AIO are in no gate, and its writes wait for none: it promises no order but
//     that of appends and of fsync, which the sync gate keeps.

import CLibAIO
public import JobTable
import Synchronization

extension Ref where Pointee == EngineRecord {
    /// False in the usual case, where there are none that a request could overtake.
    @inline(__always)
    var mayHaveDeferredWrites: Bool { it.writesAreAsync && !it.streams.isEmpty }

    /// True when a request might have to wait for deferred ones of another context.
    @inline(__always)
    public var mayHaveDeferred: Bool {
        it.gate.count.load(ordering: .acquiring) != 0 || mayHaveDeferredWrites
    }

    /// False when a signal handler would have to wait for what it interrupted.
    func awaitReads(
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

    /// Waits for the deferred writes that a request would overtake; those that wait for their turn
    /// themselves go behind them. False when a signal handler would have to wait for what it
    /// interrupted.
    func awaitWrites(
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

    func appends(_ request: Request, _ facts: FileFacts) -> Bool {
        facts.flags & Int(O_APPEND) != 0 || request.rwFlags & Int32(IOCTX_RWF_APPEND) != 0
    }
}

// Kernel order: what was buffered had completed when io_submit returned.
//
// Of buffered requests cold reads are deferred (and with IOCTX_WRITES=async writes, which the
// stream gate keeps in order). A later write of the process to the same bytes of the same file must
// not overtake the read, so it waits here until that is done: the kernel's io_submit would have
// waited for that very read. So would a write that makes the file longer change what a direct read
// beyond its end comes to. Reads do not wait for reads, and writes elsewhere do not wait at all.

import CLibAIO
public import Synchronization

/// Deferred reads, buffered ones and direct ones beyond the end of their file, by device, inode and
/// range, and who waits for them.
public struct OrderGate: ~Copyable {
    let lock: FutexLock
    private var reads = GateList()  // (g)
    /// Deferred reads; looked at without the lock to skip the gate, which is the usual case.
    public let count: Atomic<UInt32>
    private let sleepers = GateSleepers()

    /// An empty gate.
    public init() {
        lock = FutexLock()
        count = Atomic(0)
    }

    /// Enters a deferred read; before it is handed over.
    public mutating func enter(_ table: Ref<JobTable>, _ job: JobRef) {
        lock.lock()
        reads.append(table, job)
        count.wrappingAdd(1, ordering: .relaxed)
        lock.unlock()
    }

    /// Takes a finished read out and lets writers look again; before its event is published.
    public mutating func leave(_ table: Ref<JobTable>, _ job: JobRef) {
        if !job.it.isGated { return }
        lock.lock()
        reads.remove(table, job)
        count.wrappingSubtract(1, ordering: .relaxed)
        let isAwaited = sleepers.noteChangeLocked()
        lock.unlock()
        if isAwaited { sleepers.wake() }
    }

    /// Waits until no deferred read of the file overlaps [start, end). Not more than the
    /// kernel's io_submit would have waited, which had done those reads itself. False at once,
    /// when there is such a read and the caller may not wait.
    public func awaitReads(
        _ table: Ref<JobTable>, device: UInt64, inode: UInt64, start: Int64, end: Int64,
        mayWait: Bool
    ) -> Bool {
        sleepers.awaitUntil(lock, mayWait, asKernel: true) {
            reads.first(table) { $0.covers(device, inode, start, end) } == nil
        }
    }
}

// The order of requests on pipes, sockets and terminals that could not be served at once.
//
// The kernel's io_submit blocks on such a file until the request is done, so requests in one
// direction are done one after the other. Here they wait without a thread, and the gate keeps
// their order: of all deferred jobs on a file in one direction only the first is with a daemon,
// and a new request is not tried inline while one is deferred. Files without an inode of their
// own (eventfds, timerfds) have no identity and are not ordered.
//
// Writes that the file system does one at a time go through the gate as well, direct ones that
// make their file longer and buffered ones that are deferred (IOCTX_WRITES=async): threads that
// wait for their turn there would cost more than a queue here. What must come after such writes
// waits for them.

import CLibAIO
import Synchronization

/// For each file and direction, the deferred jobs in their order; the first is with its daemon, the
/// others are parked.
public struct StreamGate: ~Copyable {
    private static let buckets = 1024

    let lock: FutexLock
    /// Jobs in the gate; looked at without the lock to skip it.
    private let count: Atomic<UInt32>
    /// Those of them that are writes done one at a time; looked at in the same way.
    private let exclusiveWrites: Atomic<UInt32>
    private let sleepers = GateSleepers()
    private let lists: Records<GateList>  // (g)

    /// An empty gate; nil without memory.
    public init?() {
        guard let records = Records<GateList>(count: Self.buckets) else { return nil }
        lock = FutexLock()
        count = Atomic(0)
        exclusiveWrites = Atomic(0)
        lists = records
    }

    /// True while a write that is done one at a time is deferred, on any file.
    @inline(__always)
    public var hasExclusiveWrites: Bool { exclusiveWrites.load(ordering: .acquiring) != 0 }

    /// True when a deferred job on that file in that direction comes before a new request.
    public func isOccupied(
        _ table: Ref<JobTable>, device: UInt64, inode: UInt64, isWrite: Bool
    ) -> Bool {
        if count.load(ordering: .acquiring) == 0 { return false }
        lock.lock()
        defer { lock.unlock() }
        return firstLocked(table, device, inode, isWrite) != nil
    }

    /// Enters a job behind all others on its file; before it is handed over.
    public func enter(_ table: Ref<JobTable>, _ job: JobRef) {
        if job.it.inode == 0 { return }
        lock.lock()
        list(job.it.inode, job.it.operation != .read).it.append(table, job)
        count.wrappingAdd(1, ordering: .relaxed)
        if isExclusiveWrite(job) { exclusiveWrites.wrappingAdd(1, ordering: .relaxed) }
        lock.unlock()
    }

    /// True when the first of the writes on that file is another than `job` and with the same
    /// station; `job` is only compared, and may be done and free by now.
    public func isBehind(
        _ table: Ref<JobTable>, _ job: JobRef, station: UInt, device: UInt64, inode: UInt64
    ) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        guard let first = firstLocked(table, device, inode, true) else { return false }
        return first != job && first.it.station.load(ordering: .relaxed) == station
    }

    /// Asked by the daemon that took the job. False when an earlier one is not done: the job is
    /// parked, and `leave` of that one, or `unpark`, gives it back.
    public func mayStart(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        if !job.it.isGated { return true }
        lock.lock()
        defer { lock.unlock() }
        job.it.isParked = hasEarlierLocked(table, job)
        return !job.it.isParked
    }

    private func hasEarlierLocked(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        var previous = table.gatePredecessor(of: job)
        while let earlier = previous {
            if isSameFile(earlier, job) { return true }
            previous = table.gatePredecessor(of: earlier)
        }
        return false
    }

    /// True when `next` is the one after `job` on their file.
    public func follows(_ table: Ref<JobTable>, _ next: JobRef, _ job: JobRef) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return followerLocked(table, job) == next
    }

    /// Takes a finished job out. The next job on its file, if that was parked: the caller queues
    /// it with its station.
    public func leave(_ table: Ref<JobTable>, _ job: JobRef) -> JobRef? {
        if !job.it.isGated { return nil }
        lock.lock()
        let isFirst = !hasEarlierLocked(table, job)
        list(job.it.inode, job.it.operation != .read).it.remove(table, job)
        count.wrappingSubtract(1, ordering: .relaxed)
        if isExclusiveWrite(job) { exclusiveWrites.wrappingSubtract(1, ordering: .relaxed) }
        var parked = isFirst ? followerLocked(table, job) : nil
        // A job that is not parked yet will find itself first.
        if parked?.it.isParked == false { parked = nil }
        parked?.it.isParked = false
        let isAwaited = sleepers.noteChangeLocked()
        lock.unlock()
        if isAwaited { sleepers.wake() }
        return parked
    }

    /// Waits until no write on the file that is one at a time overlaps [start, end). False at once,
    /// when there is one and the caller may not wait.
    public func awaitWrites(
        _ table: Ref<JobTable>, device: UInt64, inode: UInt64, start: Int64, end: Int64,
        mayWait: Bool
    ) -> Bool {
        sleepers.awaitUntil(lock, mayWait, asKernel: true) {
            list(inode, true).it.first(table) {
                isExclusiveWrite($0) && $0.covers(device, inode, start, end)
            } == nil
        }
    }

    /// Waits until no job on that file in that direction is left, for a request that no daemon will
    /// do. False at once, when there is one and the caller may not wait. A wait for a stream may be
    /// interrupted, for it may be a long one.
    public func awaitVacancy(
        _ table: Ref<JobTable>, device: UInt64, inode: UInt64, isWrite: Bool, isStream: Bool,
        mayWait: Bool
    ) -> Bool {
        inode == 0
            || sleepers.awaitUntil(lock, mayWait, asKernel: !isStream) {
                firstLocked(table, device, inode, isWrite) == nil
            }
    }

    /// The same for a job that is in the gate, until none is left before it.
    public func awaitTurn(_ table: Ref<JobTable>, of job: JobRef, mayWait: Bool) -> Bool {
        !job.it.isGated
            || sleepers.awaitUntil(lock, mayWait, asKernel: !job.it.isStream) {
                !hasEarlierLocked(table, job)
            }
    }

    /// Takes a job that was cancelled out of its parking; true when the caller must queue it, so
    /// that its daemon finishes it.
    public func unpark(_ job: JobRef) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        let wasParked = job.it.isParked
        job.it.isParked = false
        return wasParked
    }

    /// The first job on that file in that direction.
    private func firstLocked(
        _ table: Ref<JobTable>, _ device: UInt64, _ inode: UInt64, _ isWrite: Bool
    ) -> JobRef? {
        list(inode, isWrite).it.first(table) { isOn($0, device, inode, isWrite) }
    }

    /// The job after this one on its file.
    private func followerLocked(_ table: Ref<JobTable>, _ job: JobRef) -> JobRef? {
        var next = table.gateSuccessor(of: job)
        while let later = next {
            if isSameFile(later, job) { return later }
            next = table.gateSuccessor(of: later)
        }
        return nil
    }

    private func isSameFile(_ one: JobRef, _ other: JobRef) -> Bool {
        isOn(one, other.it.device, other.it.inode, other.it.operation != .read)
    }

    private func isExclusiveWrite(_ job: JobRef) -> Bool {
        job.it.isExclusive && job.it.operation == .write
    }

    /// An fsync goes with the writes.
    private func isOn(
        _ job: JobRef, _ device: UInt64, _ inode: UInt64, _ isWrite: Bool
    ) -> Bool {
        job.it.inode == inode && job.it.device == device
            && (job.it.operation != .read) == isWrite
    }

    private func list(_ inode: UInt64, _ isWrite: Bool) -> Ref<GateList> {
        lists[Int(truncatingIfNeeded: (inode &* 2 &+ (isWrite ? 1 : 0)) % UInt64(Self.buckets))]
    }
}

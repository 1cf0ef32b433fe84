// The order that POSIX gives to aio_fsync: it comes after the requests on its file that were made
// before it, and waits for no others.
//
// Every deferred POSIX request on a file is in the gate, in the order of the calls. An aio_fsync
// that has an earlier request of its file before it is parked: its daemon holds the file and goes
// on with other jobs, and whoever finishes the last of the earlier ones gives it back.

import CLibAIO

/// Deferred requests of POSIX AIO in the order of the calls, and the aio_fsyncs parked behind them.
public struct SyncGate: ~Copyable {
    let lock: FutexLock
    private var requests = GateList()  // (g)
    /// Jobs in the gate that are parked.
    private var parkedCount: UInt32 = 0  // (g)

    /// An empty gate.
    public init() { lock = FutexLock() }

    /// Enters a job behind all others; before it is handed over.
    public mutating func enter(_ table: Ref<JobTable>, _ job: JobRef) {
        lock.lock()
        requests.append(table, job)
        lock.unlock()
    }

    /// True when a request on that file is not done.
    public func isOccupied(_ table: Ref<JobTable>, device: UInt64, inode: UInt64) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return requests.first(table) {
            !$0.it.operation.isSync && $0.it.inode == inode && $0.it.device == device
        } != nil
    }

    /// True when a request on the file of that job, which is in the gate, is not done and was made
    /// before it.
    public func hasEarlier(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return hasEarlierLocked(table, job)
    }

    /// Asked by the daemon that took the job. False when it must come after another that is not
    /// done: the job is parked, and `leave` of the last of those, or `unpark`, gives it back.
    public mutating func mayStart(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        if !job.it.isGated || !job.it.operation.isSync { return true }
        lock.lock()
        defer { lock.unlock() }
        job.it.isParked = hasEarlierLocked(table, job)
        if job.it.isParked { parkedCount &+= 1 }
        return !job.it.isParked
    }

    /// Takes a finished job out. The jobs that waited for it and may start now, as a chain linked
    /// by `queueNext`: the caller queues each with its station.
    public mutating func leave(_ table: Ref<JobTable>, _ job: JobRef) -> JobRef? {
        if !job.it.isGated { return nil }
        lock.lock()
        defer { lock.unlock() }
        requests.remove(table, job)
        var chain: JobRef?
        var next =
            parkedCount == 0 || job.it.operation.isSync ? nil : table.gateSuccessor(of: job)
        while let later = next {
            if later.it.isParked && isSameFile(later, job) && !hasEarlierLocked(table, later) {
                later.it.isParked = false
                parkedCount &-= 1
                later.it.queueNext = chain?.it.index ?? Job.none
                chain = later
            }
            next = table.gateSuccessor(of: later)
        }
        return chain
    }

    /// Takes a job that was cancelled out of its parking; true when the caller must queue it, so
    /// that its daemon finishes it.
    public mutating func unpark(_ job: JobRef) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        let wasParked = job.it.isParked
        job.it.isParked = false
        if wasParked { parkedCount &-= 1 }
        return wasParked
    }

    private func hasEarlierLocked(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        var previous = table.gatePredecessor(of: job)
        while let earlier = previous {
            if !earlier.it.operation.isSync && isSameFile(earlier, job) { return true }
            previous = table.gatePredecessor(of: earlier)
        }
        return false
    }

    private func isSameFile(_ one: JobRef, _ other: JobRef) -> Bool {
        one.it.inode == other.it.inode && one.it.device == other.it.device
    }
}

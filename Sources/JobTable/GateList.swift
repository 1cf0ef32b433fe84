// The jobs of a gate in the order in which they entered it.
//
// Everything here is under the gate's lock. Links are indexes plus one, so zeroed memory is an
// empty list.

/// A list of jobs, linked both ways by their fields of that purpose: a job is in one gate at most.
struct GateList {
    private var firstLink: UInt32 = 0  // (g)
    private var lastLink: UInt32 = 0  // (g)

    /// The job that has been here longest.
    func first(_ table: Ref<JobTable>) -> JobRef? { table.job(linked: firstLink) }

    /// Of those that are so, the job that has been here longest.
    func first(_ table: Ref<JobTable>, where isSo: (JobRef) -> Bool) -> JobRef? {
        var next = first(table)
        while let job = next {
            if isSo(job) { return job }
            next = table.gateSuccessor(of: job)
        }
        return nil
    }

    /// Enters a job behind all others, with the bytes of the file that it covers.
    mutating func append(_ table: Ref<JobTable>, _ job: JobRef) {
        job.it.isGated = true
        job.it.gateStart = job.it.offset
        job.it.gateEnd = job.it.offset &+ Int64(job.it.length)
        job.it.gatePrevious = lastLink
        job.it.gateNext = 0
        let link = job.it.index &+ 1
        if let last = table.job(linked: lastLink) {
            last.it.gateNext = link
        } else {
            firstLink = link
        }
        lastLink = link
    }

    /// Takes a job out. Its own links still lead to its neighbours.
    mutating func remove(_ table: Ref<JobTable>, _ job: JobRef) {
        if let previous = table.job(linked: job.it.gatePrevious) {
            previous.it.gateNext = job.it.gateNext
        } else {
            firstLink = job.it.gateNext
        }
        if let next = table.job(linked: job.it.gateNext) {
            next.it.gatePrevious = job.it.gatePrevious
        } else {
            lastLink = job.it.gatePrevious
        }
        job.it.isGated = false
    }
}

extension Ref where Pointee == Job {
    /// True when a job in a gate is on that file and covers some of those bytes.
    func covers(_ device: UInt64, _ inode: UInt64, _ start: Int64, _ end: Int64) -> Bool {
        it.inode == inode && it.device == device && start < it.gateEnd && it.gateStart < end
    }
}

extension Ref where Pointee == JobTable {
    fileprivate func job(linked link: UInt32) -> JobRef? { link == 0 ? nil : job(at: link &- 1) }

    /// The job that entered the gate before this one, of those that are still there.
    func gatePredecessor(of job: JobRef) -> JobRef? { self.job(linked: job.it.gatePrevious) }

    /// The job that entered the gate after this one, of those that are still there.
    func gateSuccessor(of job: JobRef) -> JobRef? { self.job(linked: job.it.gateNext) }
}

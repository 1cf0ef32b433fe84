// What the tests of this module share: tables of their own.

import CLibAIO
import Glibc
import Synchronization
import TestSupport

@testable import JobTable

/// A job table that has nothing to do with the process's own.
func makeTable() -> Ref<JobTable> {
    JobTable.createLocked(in: Memory.record(ProcessRoot.self)!)!
}

extension Ref where Pointee == JobTable {
    /// Jobs in state queued, to be linked into queues.
    func allocateQueued() -> JobRef {
        let job = allocate()!
        precondition(job.transition(from: .preparing, to: .queued))
        return job
    }

    /// The way from queued to free.
    func finishAndFree(_ job: JobRef) {
        precondition(job.transition(from: .queued, to: .running))
        precondition(job.transition(from: .running, to: .finished))
        free(job, from: .finished)
    }

    var jobsInUse: UInt64 { it.jobsInUse }
}

extension Ref where Pointee == Job {
    /// The job's index, for key paths, which do not pass through what cannot be copied.
    var number: UInt32 { it.index }
}

// What the tests of this module share: tables of their own, threads, and a bound in time.

import CLibAIO
import Glibc
import Synchronization

@testable import JobTable

/// A job table that has nothing to do with the process's own.
func makeTable() -> Ref<JobTable> {
    JobTable.createLocked(in: Memory.record(ProcessRoot.self)!)!
}

/// The first line of every exit test: whatever hangs ends with SIGALRM, which is a failure.
func boundedInTime() { alarm(100) }

private final class ThreadBody {
    let body: (Int) -> Void
    let index: Int

    init(_ body: @escaping (Int) -> Void, _ index: Int) {
        self.body = body
        self.index = index
    }
}

/// Runs body(0) ... body(count - 1), each in a thread of its own, and waits for all of them.
func concurrently(_ count: Int, _ body: (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        let threads = (0..<count).map { index in
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(ThreadBody(body, index)).toOpaque()
            let error = pthread_create(
                &thread, nil,
                { argument in
                    let body = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
                    body.body(body.index)
                    return nil
                }, argument)
            precondition(error == 0, "no thread")
            return thread
        }
        for thread in threads { pthread_join(thread, nil) }
    }
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

    var jobsInUse: UInt32 { it.inUse.load(ordering: .acquiring) }
}

extension Ref where Pointee == Job {
    /// The job's index, for key paths, which do not pass through what cannot be copied.
    var number: UInt32 { it.index }
}

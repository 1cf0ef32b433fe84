// io_cancel, and the ending of what a context that is dying has in flight: a request that no
// daemon has won is taken back, one that waits for readiness is ended, and one that runs is left
// alone.
//
// Whoever cancels never publishes: the daemon that has the job, or takes it from its queue,
// finishes it, and its event comes through the ring.

import CLibAIO
import JobTable
import Paths
import Synchronization

extension Ref where Pointee == LinuxFace {
    /// Takes back the oldest request with that iocb if it is still queued, or ends it if it waits
    /// for readiness; the event arrives through the ring.
    func cancel(_ context: ContextRef, _ iocb: UInt64) -> Int {
        if context.isAdopted {
            return KernelAIO.cancel(
                context.it.address.load(ordering: .relaxed), UInt(truncatingIfNeeded: iocb))
        }
        var announce = false
        var result = failure(EINVAL)
        context.it.lock.lock()
        var next = context.it.jobsHead
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.ownerNext
            // A buffered write is done by now in the kernel.
            if job.it.userObject != iocb || job.it.isBuffered && job.it.operation == .write {
                continue
            }
            if takeBack(job) {
                result = failure(EINPROGRESS)
                break
            }
            // A daemon that has just won it will see the request before it lets it wait.
            let mayWait = job.awaitsReadiness
            let state = job.state
            if (state == .waiting || mayWait && state == .running)
                && !job.it.cancelRequested.load(ordering: .relaxed)
            {
                job.it.cancelRequested.store(true, ordering: .releasing)
                announce = true
                result = failure(EINPROGRESS)
                break
            }
        }
        context.it.lock.unlock()
        if announce { it.engine.announceCancellations() } else { it.engine.nudge() }
        return result
    }

    /// Takes a queued job back; its daemon will finish it. False when a daemon has won it.
    func takeBack(_ job: JobRef) -> Bool {
        if !job.transition(from: .queued, to: .cancelled) { return false }
        it.engine.deliverCancelled(job)
        return true
    }

    /// Ends everything of the context that may never end by itself: what waits for readiness.
    func cancelAll(of context: ContextRef) {
        var any = false
        context.it.lock.lock()
        var next = context.it.jobsHead
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.ownerNext
            // I/O on files ends by itself, and an accepted write must be written.
            if !job.awaitsReadiness { continue }
            if !takeBack(job) {
                job.it.cancelRequested.store(true, ordering: .releasing)
                any = true
            }
        }
        context.it.lock.unlock()
        if any { it.engine.announceCancellations() } else { it.engine.nudge() }
    }
}

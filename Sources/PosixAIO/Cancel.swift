// aio_cancel: a request that no daemon has won is taken back, one that waits for readiness is
// ended, and one that runs is left alone.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

extension Ref where Pointee == PosixFace {
    /// Cancels one request, or with nil all of a descriptor. One of the three answers.
    func cancel(_ descriptor: Int32, _ block: BlockRef?) -> Int {
        // What is done is not with the kernel any more.
        _ = it.engine.takeKernelEvents()
        if let block {
            guard block.it.error.load(ordering: .acquiring) == EINPROGRESS,
                let job = job(of: block)
            else {
                awaitNotification(of: block)
                return Int(IOCTX_AIO_ALLDONE)
            }
            return cancel(job, block.address, of: descriptor)
        }
        var cancelled = 0
        var others = 0
        it.table.forEachJob { job in
            let subject = job.it.subject.load(ordering: .acquiring)
            // Whether it is published is looked at under the lock: before, its outcome may be
            // missing.
            if subject == 0 || job.state == .free { return }
            switch cancel(job, subject, of: descriptor) {
            case Int(IOCTX_AIO_CANCELED): cancelled += 1
            case Int(IOCTX_AIO_NOTCANCELED): others += 1
            default: break
            }
        }
        if others > 0 { return Int(IOCTX_AIO_NOTCANCELED) }
        return cancelled > 0 ? Int(IOCTX_AIO_CANCELED) : Int(IOCTX_AIO_ALLDONE)
    }

    /// Cancels a job if it still is for the block at `subject`, on that descriptor.
    private func cancel(_ job: JobRef, _ subject: UInt, of descriptor: Int32) -> Int {
        it.lock.lock()
        if job.it.isPublished.load(ordering: .acquiring)
            || job.it.subject.load(ordering: .acquiring) != subject
            || job.it.descriptor != descriptor
        {
            it.lock.unlock()
            return Int(IOCTX_AIO_ALLDONE)
        }
        // What a stream has taken cannot be taken back: such a job ends with the count of that.
        let hasBegun = job.it.isStream && job.it.progress > 0
        if !hasBegun && job.transition(from: .queued, to: .cancelled) {
            // Its daemon only gives up what it holds for it; the program is told now. The daemon
            // cannot have published it before: it does that under this lock. Nor can it free the
            // job before the block has the outcome, which would be without a request then.
            let list = ListRef(address: job.it.owner)
            job.it.isPublished.store(true, ordering: .relaxed)
            countFinishedLocked(failure(ECANCELED))
            let notification = BlockRef(address: subject).map {
                storeOutcome(failure(ECANCELED), of: job, in: $0, list: list)
            }
            it.engine.deliverCancelled(job)
            it.lock.unlock()
            announce(notification ?? .none, list: list, failed: true, isInline: false)
            // The job may be another's by now, so whose sleepers they were is not known.
            it.wakes.bitwiseOr(.max, ordering: .relaxed)
            wakeSleepers()
            it.engine.nudge()
            return Int(IOCTX_AIO_CANCELED)
        }
        let state = job.state
        // A daemon that has just won a stream's will see the request before it lets it wait.
        let mayEnd =
            state == .waiting || (state == .running || state == .queued) && job.it.isStream
        // One that another thread waits for in this way is that thread's.
        if !mayEnd || job.it.canceller != 0 {
            it.lock.unlock()
            // One that is finished and not published yet is still under way to the program.
            let isUnderWay = mayEnd || state == .running || state == .finished
            return Int(isUnderWay ? IOCTX_AIO_NOTCANCELED : IOCTX_AIO_ALLDONE)
        }
        var result = 0
        return withAddress(of: &result) { resultAddress in
            job.it.canceller = UInt(bitPattern: resultAddress)
            job.it.cancelRequested.store(true, ordering: .releasing)
            let name = job.name
            it.lock.unlock()
            it.engine.announceCancellations()
            return awaitEnd(
                of: job, named: name, Ref<Int>(address: UInt(bitPattern: resultAddress)))
        }
    }

    /// A job ends at once, one way or the other, unless a worker is at it, for its file cannot be
    /// polled. `publish` tells the result: its block may be gone as soon as it is there, for
    /// another thread may collect it.
    private func awaitEnd(of job: JobRef, named name: UInt64, _ result: Ref<Int>?) -> Int {
        // Daemons come to a cancellation within a wake-up; a worker that is in the middle of it may
        // not.
        let deadlineNs = System.monotonicNs() &+ 200_000_000
        // The block has the result before the job is free.
        while it.table.job(named: name) != nil && System.monotonicNs() < deadlineNs {
            System.sleep(nanoseconds: 20_000)
        }
        it.lock.lock()
        defer { it.lock.unlock() }
        if it.table.job(named: name) != nil && !job.it.isPublished.load(ordering: .relaxed) {
            job.it.canceller = 0
            return Int(IOCTX_AIO_NOTCANCELED)
        }
        return Int(
            result?.it == failure(ECANCELED) ? IOCTX_AIO_CANCELED : IOCTX_AIO_ALLDONE)
    }
}

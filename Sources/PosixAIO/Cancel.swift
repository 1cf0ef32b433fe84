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
        if let block {
            guard block.it.error.load(ordering: .acquiring) == EINPROGRESS,
                let job = job(of: block)
            else { return Int(IOCTX_AIO_ALLDONE) }
            return cancel(job, block)
        }
        var cancelled = 0
        var others = 0
        it.table.forEachJob { job in
            if job.it.face != .posix || job.it.descriptor != descriptor || job.state == .free
                || job.state == .preparing
            {
                return
            }
            guard let block = BlockRef(address: UInt(truncatingIfNeeded: job.it.userObject)),
                job.it.isPublished.load(ordering: .acquiring) == false
            else { return }
            switch cancel(job, block) {
            case Int(IOCTX_AIO_CANCELED): cancelled += 1
            case Int(IOCTX_AIO_NOTCANCELED): others += 1
            default: break
            }
        }
        if others > 0 { return Int(IOCTX_AIO_NOTCANCELED) }
        return cancelled > 0 ? Int(IOCTX_AIO_CANCELED) : Int(IOCTX_AIO_ALLDONE)
    }

    private func cancel(_ job: JobRef, _ block: BlockRef) -> Int {
        let name = job.name
        if job.transition(from: .queued, to: .cancelled) {
            // Its daemon only gives up what it holds for it; the program is told now.
            publish(job, result: failure(ECANCELED))
            wakeSleepers()
            it.engine.deliverCancelled(job)
            it.engine.nudge()
            return Int(IOCTX_AIO_CANCELED)
        }
        let state = job.state
        // A daemon that has just won a stream's will see the request before it lets it wait.
        guard state == .waiting || state == .running && job.it.isStream else {
            return state == .running ? Int(IOCTX_AIO_NOTCANCELED) : Int(IOCTX_AIO_ALLDONE)
        }
        job.it.cancelRequested.store(true, ordering: .releasing)
        it.engine.announceCancellations()
        // It ends at once, one way or the other. The block may be gone when it is done.
        while it.table.job(named: name) != nil {
            System.sleep(nanoseconds: 20_000)
        }
        return job.it.result == Int64(failure(ECANCELED))
            ? Int(IOCTX_AIO_CANCELED) : Int(IOCTX_AIO_ALLDONE)
    }
}

// What the end of a job is made of, whoever has run it.
//
// Always in this order: the job leaves its gate, its held file is dropped, its state is
// finished, its event is published; then its daemon signals the eventfd, and the job is
// announced: freed, and its sleepers woken. What was parked in a gate because this job had to
// come first (`mayStart`) is given back to its daemon.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// Drops the job's reference on a held file; empties and recycles it after the last.
    func dropHeld(_ index: UInt32) {
        if index == Job.none { return }
        if !it.files.dropReference(index) { return }
        // In a submitter that had to do the job itself, the number would be one of the program's.
        if it.kind != .uring && CurrentThread().station != address && it.files[index].it.isMoved {
            return it.files.abandon(index)
        }
        giveUp(index)
    }

    /// In the daemon: gives up the files that others could not, because the daemon has them.
    func giveUpAbandoned() {
        while let index = it.files.takeAbandoned() { giveUp(index) }
    }

    private func giveUp(_ index: UInt32) {
        switch it.kind {
        case .uring: giveUpSlot(index)
        case .pool, .native: giveUpNumber(index)
        }
        it.files.recycle(index)
    }

    /// Sets the job's result and publishes its event. The program's eventfd and its sleepers
    /// come after, in `announce`.
    func finish(_ job: JobRef, from state: JobState, result: Int) {
        job.it.result = Int64(result)
        if result == failure(EPIPE) { raisePipeSignal(job) }
        if job.isInStreamGate {
            if let next = it.engine.it.streams.leave(it.table, job) { requeue(next) }
        } else if job.it.face == .linux {
            it.engine.it.reads.leave(it.table, job)
        }
        dropHeld(job.it.heldFile)
        job.it.heldFile = Job.none
        _ = job.transition(from: state, to: .finished)
        if job.it.operation != .notify {
            it.table.hooks(of: job.it.face).publish?(job.address)
        }
        // After that: when an aio_fsync is done, so are those that it waited for.
        var next = it.engine.it.syncs.leave(it.table, job)
        while let sync = next {
            next = it.table.successor(of: sync)
            requeue(sync)
        }
    }

    /// Gives a job that was parked in a gate back to its daemon.
    func requeue(_ job: JobRef) {
        guard let station = Ref<Station>(address: job.it.station.load(ordering: .relaxed)) else {
            return
        }
        if job.it.isExclusive && station.it.kind == .pool {
            station.it.running.wrappingAdd(1, ordering: .acquiringAndReleasing)
            station.it.pool.work.append(it.table, first: job, last: job, count: 1)
            // The worker that has done the one before it will look for it now. A daemon of another
            // station cannot call the manager, but it can wake a worker.
            if CurrentThread().station != station.address && station.wakeWorkers(1) == 0 {
                station.kick()
            }
        } else {
            station.it.queue.append(it.table, first: job, last: job, count: 1)
            station.kick()
        }
        station.release()
    }

    /// For the daemon that took a job: true when it may start it now. A parked job keeps the
    /// daemon, which holds its file, from leaving.
    func mayStart(_ job: JobRef) -> Bool {
        if !job.isInStreamGate && !job.it.operation.isSync { return true }
        it.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
        let mayStart =
            job.isInStreamGate
            ? it.engine.it.streams.mayStart(it.table, job)
            : it.engine.it.syncs.mayStart(it.table, job)
        // Cancelled before it was parked: nobody else will give it back.
        if mayStart || job.state == .cancelled && it.engine.unpark(job) {
            release()
            return true
        }
        return false
    }

    /// Wakes the sleepers of a published job and frees it.
    func announce(_ job: JobRef) {
        let owner = job.it.owner
        let isNotify = job.it.operation == .notify
        let face = job.it.face
        dropHeld(job.it.heldEventfd)
        it.table.free(job, from: .finished)
        if !isNotify { it.table.hooks(of: face).wake?(owner) }
    }

    /// True when a remote socket that has taken part of a write is found to be closed, by what
    /// poll(2) tells: its error is left for the next request, and the bytes until then are the
    /// result. (POLLERR alone may be about its error queue.)
    func isBroken(_ job: JobRef, _ readiness: Int) -> Bool {
        job.it.socket == .remote && job.it.progress > 0
            && (readiness < 0 || readiness & Int(POLLHUP) != 0)
    }

    /// The signal that the kernel would have sent to the thread that submitted the write; the C
    /// library's POSIX AIO sends none. In the submitter it has come by itself.
    private func raisePipeSignal(_ job: JobRef) {
        if job.it.operation != .write || job.it.face == .posix || job.it.socket == .local
            || job.it.rwFlags & Int32(IOCTX_RWF_NOSIGNAL) != 0 || CurrentThread().station == 0
        {
            return
        }
        let process = systemCall(Int32(SYS_getpid))
        if systemCall(Int32(SYS_tgkill), process, Int(job.it.submitter), Int(SIGPIPE)) < 0 {
            _ = systemCall(Int32(SYS_kill), process, Int(SIGPIPE))
        }
    }

    /// What a finished transfer reports: the bytes of all its parts, or the error of the first. A
    /// pipe that lost its reader after some of them is known by the signal alone (fs/pipe.c,
    /// pipe_write), a socket by the next request.
    func totalResult(_ job: JobRef, last: Int) -> Int {
        if job.it.progress == 0 { return last }
        if last == failure(EPIPE) && job.it.socket == .none { raisePipeSignal(job) }
        return job.it.progress &+ max(last, 0)
    }
}

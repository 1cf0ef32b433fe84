// Requests and jobs that run in their submitter, because no daemon can be had or reached.
//
// They run after those that they must come after, as the kernel runs buffered I/O.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == EngineRecord {
    /// Runs a request in its submitter, as the kernel runs buffered I/O, after those that it must
    /// come after. `done` bytes of it are transferred already.
    func runInline(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts, done: Int
    ) -> Outcome {
        let isStream = facts.kind == .stream
        if request.face == .posix {
            // Its calls do not wait for terminals and the like.
            if request.operation == .write && facts.blocksWriters {
                return .refused(failure(EAGAIN))
            }
            if request.operation.isSync {
                handOver(&batch)
                awaitEarlier {
                    it.syncs.isOccupied(it.table, device: facts.device, inode: facts.inode)
                }
            }
        } else if request.operation != .poll && !facts.isAnonymous
            && (isStream || isExclusive(request, &batch, facts))
        {
            let isVacant = waiting(&batch) {
                it.streams.awaitVacancy(
                    it.table, device: facts.device, inode: facts.inode,
                    isWrite: request.operation != .read, isStream: isStream, mayWait: $0)
            }
            if !isVacant { return done > 0 ? .completed(done) : .refused(failure(EAGAIN)) }
        }
        switch request.operation {
        case .fsync, .fdatasync:
            return .completed(
                System.sync(request.descriptor, dataOnly: request.operation == .fdatasync))
        case .poll, .notify:
            return .refused(failure(EAGAIN))
        case .read, .write:
            // A call of POSIX AIO returns, whatever the other end of a pipe does.
            if isStream && request.face == .posix {
                return done > 0 ? .completed(done) : .refused(failure(EAGAIN))
            }
            // From the start again: reading twice is harmless, and what a stream has taken is
            // reported as the short count that it is.
            if done > 0 && isStream { return .completed(done) }
            return .completed(
                StreamTransfer.transfer(
                    request.operation == .write, request.descriptor, request.vectors,
                    request.vectorCount, request.offset, request.rwFlags))
        }
    }

    /// Where no daemon can be had, an fsync of POSIX AIO waits in its call for the requests before
    /// it on its file, which all end by themselves: a program takes a refusal for lost data. Takes
    /// the kernel's events meanwhile, for it may be alone.
    func awaitEarlier(while isThere: () -> Bool) {
        while isThere() {
            if takeKernelEvents() == 0 { System.sleep(nanoseconds: 100_000) }
        }
    }

    /// Runs a batch that no daemon could be reached for, in the submitter.
    func runHere(_ station: Ref<Station>, _ first: JobRef) {
        var next: JobRef? = first
        while let job = next {
            next = it.table.successor(of: job)
            job.it.queueNext = Job.none
            station.runInSubmitter(job)
        }
        // Another submitter may have left it to whoever does these to look at the queue.
        station.kick()
    }
}

extension Ref where Pointee == Station {
    /// Runs a job of a batch that could not be handed over, inside the io_submit it came with,
    /// after those that it must come after.
    func runInSubmitter(_ job: JobRef) {
        let isItsTurn: Bool
        if job.it.face == .posix {
            isItsTurn = !job.it.isStream && !job.it.blocksWhenReady
            if job.it.operation.isSync {
                it.engine.awaitEarlier { it.engine.it.syncs.hasEarlier(it.table, job) }
            }
        } else {
            isItsTurn =
                !job.isInStreamGate
                || it.engine.it.streams.awaitTurn(
                    it.table, of: job, mayWait: !CurrentThread().isNested)
        }
        if !job.transition(from: .queued, to: .running) {
            settleInSubmitter(job, from: .cancelled, result: job.cancelledResult)
        } else if isItsTurn {
            performInSubmitter(job)
        } else {
            settleInSubmitter(
                job, from: .running, result: totalResult(job, last: failure(EAGAIN)))
        }
    }

    /// The same for a job in state running.
    func performInSubmitter(_ job: JobRef) {
        let number = job.it.descriptor
        let result: Int
        switch job.it.operation {
        case .fsync, .fdatasync:
            result = System.sync(number, dataOnly: job.it.operation == .fdatasync)
        case .poll: result = failure(ENOMEM)
        case .notify: result = 0
        case .read, .write:
            result = totalResult(
                job,
                last: StreamTransfer.transfer(
                    job.it.operation == .write, number, it.table.vectorsAddress(job),
                    Int(job.it.vectorCount &- job.it.vectorFirst), job.it.offset, job.it.rwFlags))
        }
        settleInSubmitter(job, from: .running, result: result)
    }

    /// Publishes what became of a job in its submitter.
    func settleInSubmitter(_ job: JobRef, from state: JobState, result: Int) {
        finish(job, from: state, result: result)
        // A job that only carries an eventfd has failed: who prepared it signals by itself.
        if job.it.resfd >= 0 && job.it.operation != .notify {
            Eventfd.signal(job.it.resfd, count: 1)
        }
        announce(job)
    }
}

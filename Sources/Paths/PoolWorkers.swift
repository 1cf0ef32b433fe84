// The workers of a pool: they take jobs from their queue and run them, and a job holds its
// worker for as long as its file blocks.
//
// Of jobs that are done one at a time on their file, the worker that is at one takes those that
// follow it along. A worker that finds no job looks for one for a while, then sleeps, and leaves
// when nothing comes. The manager settles its jobs here, too, and does all of the work when no
// worker can be started.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// A worker's life: work, wait, and leave when nothing came for a while.
    func work() {
        it.table.it.counters.it.numAioProcs.raise()
        while true {
            while workOff() && linger() {}
            forgetWorker()
            let limits = it.table.it.limits
            let isBeyondTarget =
                it.pool.workers.load(ordering: .relaxed) > limits.targetAioProcs
            let lifetimeMs = isBeyondTarget ? limits.aiodTimeoutMs : limits.aiodLifetimeMs
            let seen = it.pool.workSignal.load(ordering: .sequentiallyConsistent)
            it.pool.idleWorkers.wrappingAdd(1, ordering: .sequentiallyConsistent)
            var result = 0
            if it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0 {
                result = it.pool.workSignal.wait(
                    while: seen,
                    until: System.monotonicNs() &+ UInt64(lifetimeMs) &* 1_000_000)
            }
            it.pool.idleWorkers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
            if result == failure(ETIMEDOUT)
                && it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0
            {
                break
            }
        }
        // A job may come while this worker is on its way out and counted as there. As long as it
        // looks for one, the station may not end.
        it.running.wrappingAdd(1, ordering: .sequentiallyConsistent)
        it.table.it.counters.it.numAioProcs.lower()
        it.pool.workers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        if it.pool.work.count.load(ordering: .sequentiallyConsistent) != 0 { workOffAll() }
        it.running.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }

    /// A submitter counts on this worker, which has `job` to do now: jobs that need not come after
    /// it go to another worker.
    private func passOn(besides job: JobRef) {
        if it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0 { return }
        var isForOthers = false
        it.pool.work.forEach(it.table) {
            isForOthers =
                !job.it.isExclusive || !$0.it.isExclusive || $0.it.inode != job.it.inode
                || $0.it.device != job.it.device
            return !isForOthers
        }
        if isForOthers && wakeWorkers(1) == 0 { ringManager() }
    }

    func workOffAll() {
        while workOff() && !takeOffer() {}
    }

    /// Does the jobs of the queue until it is empty. True when it has made an offer by then.
    private func workOff() -> Bool {
        var hasOffered = false
        while let job = it.pool.work.takeFirst(it.table) {
            if hasOffered && !takeOffer() { passOn(besides: job) }
            hasOffered = false
            if !hasItsFiles(job) {
                // A file that is still in the socket cannot be shared by requests to come.
                receiveForWorkers(until: job.it.isExclusive ? nil : job)
            }
            if job.it.isExclusive && !mayStart(job) {
                // Parked; whoever does the one before it will look for it.
                it.running.wrappingSubtract(1, ordering: .acquiringAndReleasing)
                continue
            }
            if !job.transition(from: .queued, to: .running) {
                settle(job, from: .cancelled, result: job.cancelledResult)
            } else if job.it.isExclusive {
                rememberWorker()
                performAdjacent(job)
                hasOffered = true
            } else {
                settle(job, from: .running, result: perform(job))
            }
        }
        return hasOffered
    }

    /// Does a job in state running that is the first of its file, and with it the writes that
    /// follow it there and in the queue. Makes an offer before the last of them wakes anybody.
    private func performAdjacent(_ first: JobRef) {
        var writes = AdjacentWrites(it.table, first)
        while let next = it.pool.work.takeFirst(
            it.table,
            if: {
                writes.mayAppend($0) && isOpenedAlike($0, first)
                    && it.engine.it.streams.follows(it.table, $0, writes.last)
            })
        {
            if !hasItsFiles(next) { receiveForWorkers() }
            if !next.transition(from: .queued, to: .running) {
                settle(next, from: .cancelled, result: next.cancelledResult)
                break
            }
            writes.append(it.table, next)
        }
        let written =
            writes.count > 1 && it.files.hasArrived(first.it.heldFile)
            ? writes.write(to: it.files[first.it.heldFile].it.number) : 0
        var end = 0
        for index in 0..<writes.count {
            let job = writes[index]
            end &+= job.it.length
            // What was not written whole is tried on its own, and has its own error.
            settle(
                job, from: .running, result: end <= written ? job.it.length : perform(job),
                offers: index == writes.count &- 1)
        }
    }

    /// One may be for a descriptor with O_DSYNC, and the other not: what was promised of each must
    /// hold.
    private func isOpenedAlike(_ one: JobRef, _ other: JobRef) -> Bool {
        it.files[one.it.heldFile].it.flags == it.files[other.it.heldFile].it.flags
    }

    /// Runs a job on a file; blocks as long as the file does.
    private func perform(_ job: JobRef) -> Int {
        // A number that is still the program's means another file here.
        if !it.files.hasArrived(job.it.heldFile) { return failure(EBADF) }
        let number = it.files[job.it.heldFile].it.number
        switch job.it.operation {
        case .fsync, .fdatasync:
            return System.sync(number, dataOnly: job.it.operation == .fdatasync)
        default: break
        }
        let hasPriority =
            job.it.ioPriority != 0 && it.engine.it.mayTuneThreads.load(ordering: .relaxed)
        if hasPriority { _ = systemCall(Int32(SYS_ioprio_set), 1, 0, Int(job.it.ioPriority)) }
        var result: Int
        repeat {
            result = StreamTransfer.transfer(
                job.it.operation == .write, number, it.table.vectorsAddress(job),
                Int(job.it.vectorCount &- job.it.vectorFirst), job.it.offset, job.it.rwFlags)
        } while result == failure(EINTR)
        if hasPriority { _ = systemCall(Int32(SYS_ioprio_set), 1, 0, 0) }
        return totalResult(job, last: result)
    }

    // MARK: Finishing

    func settle(
        _ job: JobRef, from state: JobState, result: Int, offers: Bool = false
    ) {
        let eventfd = job.it.operation == .notify ? Job.none : job.it.heldEventfd
        finish(job, from: state, result: result)
        if eventfd != Job.none { signalEventfd(eventfd) }
        if offers { offer() }
        announce(job)
        it.running.wrappingSubtract(1, ordering: .acquiringAndReleasing)
    }

    func signalEventfd(_ index: UInt32) {
        // Until it has arrived, the number is one of the program's.
        if !it.files[index].it.isMoved { return }
        var one: UInt64 = 1
        _ = withAddress(of: &one) {
            systemCall(Int32(SYS_write), Int(it.files[index].it.number), $0, 8)
        }
    }
}

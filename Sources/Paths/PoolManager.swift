// The manager, the first thread of a pool: it takes the queue, starts workers, and serves the
// files that must be waited for.
//
// A job on a stream, or a POLL, holds no thread while it waits: it is in the list of its held
// file, which is in the epoll set, one-shot. When the file is ready, its jobs are tried in their
// order. A file that is ready in vain, such as a socket with something in its error queue, would be
// so again at once: until one of its jobs gets something, it is watched for changes instead. The
// lists are the manager's alone. A held file leaves the set before its number is closed.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// One turn of the manager. True when it has left.
    func manage() -> Bool {
        // Nobody can reach a lost station, so it looks by itself; with jobs under way it does not
        // sleep too long, for it may be lost without knowing. The threads of one that is lost
        // cannot tell this one that they have given it a job which was parked behind theirs.
        let isLost = it.isLost.load(ordering: .sequentiallyConsistent)
        let mustLook = it.users.load(ordering: .acquiring) != 0 && it.engine.hasLostStation
        let busy = it.running.load(ordering: .acquiring) != 0
        let lifetimeMs = Int(it.table.it.limits.aiodLifetimeMs)
        let ready = waitForEvents(
            isLost || mustLook ? 50 : (busy ? min(lifetimeMs, 1000) : lifetimeMs))
        repeat { takePoolQueue() } while it.queue.count.load(ordering: .acquiring) != 0
        giveUpAbandoned()
        if it.cancellations.exchange(0, ordering: .sequentiallyConsistent) != 0 {
            serveWaiting { $0.it.cancelRequested.load(ordering: .acquiring) }
        }
        if ready != 0 || mustLook || it.running.load(ordering: .acquiring) != 0
            || it.pool.workers.load(ordering: .acquiring) != 0
        {
            return false
        }
        return tryToLeave {
            System.close(it.pool.epoll)
            System.close(it.pool.forManager.receiver)
            System.close(it.pool.forWorkers.receiver)
            System.close(it.pool.managerBell)
        }
    }

    /// Receives files and serves what became ready. The number of events.
    private func waitForEvents(_ timeoutMs: Int) -> Int {
        var events = InlineArray<32, ioctx_epoll_event>(repeating: ioctx_epoll_event())
        let count = withAddress(of: &events) {
            systemCall(
                Int32(SYS_epoll_pwait), Int(it.pool.epoll), $0, 32, timeoutMs, 0, 8)
        }
        // The C library's own signal, for setuid() and the like: the time is not over.
        if count == failure(EINTR) { return 1 }
        // A filter that came late refuses the call: files are tried by time.
        if count < 0 {
            System.sleep(nanoseconds: 10_000_000)
            serveWaiting { it.files[$0.it.heldFile].it.waitingHead == $0.it.index }
            return 0
        }
        for position in 0..<max(count, 0) {
            let data = events[position].data
            // Messages are taken with the queue, below.
            if data == .max { continue }
            if data == .max &- 1 {
                var value: UInt64 = 0
                _ = withAddress(of: &value) {
                    systemCall(Int32(SYS_read), Int(it.pool.managerBell), $0, 8)
                }
            } else {
                serveReady(data)
            }
        }
        return max(count, 0)
    }

    private func takePoolQueue() {
        var next = it.queue.takeAll(it.table)
        // Jobs are queued after their files were sent: those of all that were taken are there now.
        while receiveMessage(from: &it.pool.forManager) >= 0 {}
        // A file that is shared may have come on the other way.
        receiveForWorkers()
        while let job = next {
            next = it.table.successor(of: job)
            it.running.wrappingAdd(1, ordering: .acquiringAndReleasing)
            if job.it.operation == .notify {
                _ = job.transition(from: .queued, to: .running)
                if job.it.pollEvents != 0 { signalEventfd(job.it.heldEventfd) }
                settle(job, from: .running, result: 0)
            } else if !mayStart(job) {
                // Parked; it is not running.
                it.running.wrappingSubtract(1, ordering: .acquiringAndReleasing)
            } else if job.awaitsReadiness {
                if job.transition(from: .queued, to: .running) {
                    // One that was parked has not been tried; and there may be room for it that
                    // epoll does not report: a pipe's for less than a page, a socket's least part.
                    if job.it.operation != .write || !attempt(job) { waitForReadiness(job) }
                } else {
                    settle(job, from: .cancelled, result: job.cancelledResult)
                }
            } else {
                it.pool.work.append(it.table, first: job, last: job, count: 1)
            }
        }
        // Those that submitters queued directly may be waiting for more workers, too.
        let forWorkers = it.pool.work.count.load(ordering: .sequentiallyConsistent)
        if forWorkers > 0 { callWorkers(forWorkers) }
    }

    private func callWorkers(_ jobs: UInt32) {
        let idle = wakeWorkers(jobs)
        var missing = jobs > idle ? jobs &- idle : 0
        while missing > 0,
            it.pool.workers.load(ordering: .acquiring) < it.table.it.limits.maxAioProcs
        {
            missing &-= 1
            it.pool.workers.wrappingAdd(1, ordering: .acquiringAndReleasing)
            let error = unsafe ioctx_thread_start(
                { unsafe PoolDaemons.workerMain($0) }, UnsafeMutableRawPointer(pointer),
                Int(IOCTX_DAEMON_STACK_BYTES))
            if error != 0 {
                it.pool.workers.wrappingSubtract(1, ordering: .acquiringAndReleasing)
                // With no worker at all the manager does the work itself.
                if it.pool.workers.load(ordering: .acquiring) == 0 { workOffAll() }
                return
            }
        }
    }

    // MARK: Readiness

    /// A stream job that could not be served goes to its file's list; the file is watched.
    private func waitForReadiness(_ job: JobRef) {
        let file = it.files[job.it.heldFile]
        _ = job.transition(from: .running, to: .waiting)
        job.it.queueNext = Job.none
        if file.it.waitingHead == Job.none {
            file.it.waitingHead = job.it.index
        } else {
            var last = it.table.job(at: file.it.waitingHead)
            while last.it.queueNext != Job.none { last = it.table.job(at: last.it.queueNext) }
            last.it.queueNext = job.it.index
        }
        watchFile(job.it.heldFile)
    }

    /// (Re)arms the watch of a held file for what its waiting jobs need. `wasInVain`: it was ready,
    /// and none of them got anything.
    private func watchFile(_ index: UInt32, wasInVain: Bool = false) {
        let file = it.files[index]
        var events: UInt32 = 0
        var next = file.it.waitingHead
        while next != Job.none {
            let job = it.table.job(at: next)
            events |= wantedEvents(job)
            next = job.it.queueNext
        }
        if wasInVain && file.it.changesWatched == events { return }
        if events == 0 {
            // One that is not one-shot would go on.
            if file.it.changesWatched != 0 { endWatch(file) }
            return
        }
        let result = watch(
            file.it.number, events | (wasInVain ? EPOLLET : EPOLLONESHOT).rawValue, data: index,
            isNew: !file.it.isWatched)
        file.it.isWatched = result >= 0
        file.it.changesWatched = wasInVain && result >= 0 ? events : 0
        if result >= 0 { return }
        // A file that epoll does not take (EPERM) cannot be waited for: it holds a worker. Whatever
        // else stands against it, a limit or the lack of memory, ends the requests.
        next = file.it.waitingHead
        file.it.waitingHead = Job.none
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.queueNext
            _ = job.transition(from: .waiting, to: .running)
            if result != failure(EPERM) {
                settle(job, from: .running, result: totalResult(job, last: result))
                continue
            }
            giveToWorker(job)
        }
    }

    private func giveToWorker(_ job: JobRef) {
        _ = job.transition(from: .running, to: .queued)
        it.pool.work.append(it.table, first: job, last: job, count: 1)
        callWorkers(1)
    }

    private func wantedEvents(_ job: JobRef) -> UInt32 {
        switch job.it.operation {
        case .poll: return job.it.pollEvents
        case .write: return EPOLLOUT.rawValue
        default: return EPOLLIN.rawValue
        }
    }

    func watch(_ number: Int32, _ events: UInt32, data: UInt32, isNew: Bool) -> Int {
        var event = ioctx_epoll_event()
        event.events = events
        event.data = data
        return withAddress(of: &event) {
            systemCall(
                Int32(SYS_epoll_ctl), Int(it.pool.epoll),
                Int(isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD), Int(number), $0)
        }
    }

    /// The file is ready for something: tries its waiting jobs in their order.
    private func serveReady(_ index: UInt32) {
        let file = it.files[index]
        var next = file.it.waitingHead
        if next == Job.none { return }
        file.it.waitingHead = Job.none
        var keptLast = Job.none
        var wasInVain = true
        // The jobs hold the file; this keeps it while one of several finishes.
        it.files.addReference(index)
        var isKept = true
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.queueNext
            _ = job.transition(from: .waiting, to: .running)
            // The file is given up before the event of its last job, which needs no watch after it:
            // a one-shot watch is over, another must be ended.
            if next == Job.none && keptLast == Job.none && file.it.changesWatched == 0 {
                isKept = false
                dropHeld(index)
            }
            if attempt(job) {
                if !isKept { return }
                wasInVain = false
                continue
            }
            _ = job.transition(from: .running, to: .waiting)
            job.it.queueNext = Job.none
            if keptLast == Job.none {
                file.it.waitingHead = job.it.index
            } else {
                it.table.job(at: keptLast).it.queueNext = job.it.index
            }
            keptLast = job.it.index
        }
        watchFile(index, wasInVain: wasInVain)
        if isKept { dropHeld(index) }
    }

    /// Tries a job in state running without blocking. True when it is done.
    private func attempt(_ job: JobRef) -> Bool {
        if job.it.cancelRequested.load(ordering: .acquiring) {
            settle(
                job, from: .running,
                result: job.cancelledResult)
            return true
        }
        if !it.files.hasArrived(job.it.heldFile) {
            settle(job, from: .running, result: failure(EBADF))
            return true
        }
        let number = it.files[job.it.heldFile].it.number
        if job.it.operation == .poll {
            let ready = System.readiness(of: number, job.it.pollEvents)
            if ready == 0 { return false }
            settle(job, from: .running, result: ready)
            return true
        }
        let isWrite = job.it.operation == .write
        while true {
            if job.it.socket == .remote && job.it.progress > 0
                && isBroken(job, System.readiness(of: number, 0))
            {
                settle(job, from: .running, result: job.it.progress)
                return true
            }
            var result = StreamTransfer.attempt(
                isWrite: isWrite, number, it.table.vectorsAddress(job),
                Int(job.it.vectorCount &- job.it.vectorFirst), job.it.offset, job.it.rwFlags)
            // A datagram socket that was shut down says so to those alone who would wait.
            let isShutDown =
                result == failure(EAGAIN) && !isWrite
                && System.readiness(of: number, UInt32(IOCTX_POLLRDHUP)) & Int(IOCTX_POLLRDHUP) != 0
            if isShutDown { result = 0 }
            if result == failure(EAGAIN) { return false }
            // It may wait although its file is ready.
            if result == failure(EOPNOTSUPP) && isWrite {
                giveToWorker(job)
                return true
            }
            if isWrite && result > 0 && result < job.it.length {
                it.table.advance(job, by: result)
                continue
            }
            result = totalResult(job, last: result)
            settle(job, from: .running, result: result)
            return true
        }
    }

    /// Tries the files of those waiting jobs that are wanted, with all that wait for them.
    private func serveWaiting(_ isWanted: (JobRef) -> Bool) {
        it.table.forEachJob { job in
            if job.state == .waiting && job.it.station.load(ordering: .relaxed) == address
                && job.it.heldFile != Job.none && isWanted(job)
            {
                serveReady(job.it.heldFile)
            }
        }
    }

    private func endWatch(_ file: Ref<HeldFile>) {
        var event = ioctx_epoll_event()
        _ = withAddress(of: &event) {
            systemCall(
                Int32(SYS_epoll_ctl), Int(it.pool.epoll), Int(EPOLL_CTL_DEL), Int(file.it.number),
                $0)
        }
        file.it.isWatched = false
        file.it.changesWatched = 0
    }

    /// Closes a held file's number in the private table.
    func giveUpNumber(_ index: UInt32) {
        let file = it.files[index]
        if !file.it.isMoved { return }
        // A file must leave the epoll set before its number is closed: the description may
        // live on in the program, and the set would keep reporting it.
        if file.it.isWatched { endWatch(file) }
        if file.it.number >= 0 { System.close(file.it.number) }
    }
}

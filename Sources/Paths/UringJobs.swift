// The jobs of the daemon on io_uring: from its queue onto the work ring, and from there to whoever
// made them.
//
// All of it is the daemon's own thread. Jobs that end in one round are published at once and
// announced together at its end, after the eventfds (UringEventfds.swift).

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    // MARK: Taking jobs over

    func takeOver(_ first: JobRef?) {
        if first == nil { return }
        fetchFiles(of: first)
        var next = first
        while let job = next {
            // The successor is read first: a finished job's link is reused.
            next = it.table.successor(of: job)
            if job.it.operation == .notify {
                _ = job.transition(from: .queued, to: .running)
                if job.it.pollEvents != 0 { signal(job.it.heldEventfd) }
                publish(job, from: .running, result: 0)
            } else if !mayStart(job) {
                continue
            } else if job.transition(from: .queued, to: .running) {
                submit(job)
            } else {
                publish(job, from: .cancelled, result: job.cancelledResult)
            }
        }
    }

    /// Moves the held files of a chain of jobs from the parking ring into the work ring.
    private func fetchFiles(of first: JobRef?) {
        it.uring.parkingLock.lock()
        var next = first
        while let job = next {
            fetch(job.it.heldFile)
            fetch(job.it.heldEventfd)
            next = it.table.successor(of: job)
        }
        flushFetches()
        it.uring.parkingLock.unlock()
    }

    private func fetch(_ index: UInt32) {
        if index == Job.none || !it.files.move(index) { return }
        guard let move = parkingEntry() else { return }
        move.it.opcode = UInt8(URING_OP_MSG_RING)
        move.it.fd = it.uring.work.descriptor
        move.it.address = UInt64(URING_MSG_SEND_FD)
        move.it.address3 = UInt64(index)
        move.it.file_index = index &+ 1
        move.it.op_flags = UInt32(URING_MSG_CQE_SKIP)
        // The work ring's slot keeps the file from here on; the parking slot must not.
        guard let empty = parkingEntry() else { return it.uring.parking.emptySlot(index) }
        empty.it.opcode = UInt8(URING_OP_CLOSE)
        empty.it.file_index = index &+ 1
    }

    private func parkingEntry() -> Ref<uring_sqe>? {
        if let entry = it.uring.parking.nextEntry() { return entry }
        flushFetches()
        return it.uring.parking.nextEntry()
    }

    /// Moves the files. Each request takes its file, or empties its slot, while it is submitted, in
    /// their order; a file is in the work ring when its request is complete.
    private func flushFetches() {
        var expected = it.uring.parking.pending
        while expected > 0 && !it.uring.parking.isDenied {
            _ = it.uring.parking.enter(minComplete: expected)
            while it.uring.parking.nextCompletion() != nil { expected &-= 1 }
        }
    }

    /// Puts what is left of a job on the work ring.
    private func submit(_ job: JobRef) {
        takePriority(of: job)
        let entry = workEntry()
        // The rest of a write: see `isBroken`.
        let mustAskForRoom =
            job.it.socket == .remote && job.it.progress > 0 && job.it.asked == .itself
        entry.it.fd = Int32(bitPattern: job.it.heldFile)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        if job.it.blocksWhenReady { entry.it.flags |= UInt8(URING_SQE_ASYNC) }
        entry.it.user_data = job.name
        switch job.it.operation {
        case .write where mustAskForRoom:
            entry.it.opcode = UInt8(URING_OP_POLL_ADD)
            entry.it.op_flags = UInt32(POLLOUT)
        case .read, .write:
            describeTransfer(job, entry)
            // It was ready: it may not wait, and take the socket's error when that comes.
            if job.it.asked == .room { entry.it.op_flags |= UInt32(IOCTX_RWF_NOWAIT) }
        case .fsync, .fdatasync:
            entry.it.opcode = UInt8(URING_OP_FSYNC)
            entry.it.op_flags =
                job.it.operation == .fdatasync ? UInt32(URING_FSYNC_DATASYNC) : 0
        case .poll:
            entry.it.opcode = UInt8(URING_OP_POLL_ADD)
            entry.it.op_flags = job.it.pollEvents
            if job.it.asked == .changes { entry.it.length = UInt32(URING_POLL_ADD_MULTI) }
        case .notify:
            break
        }
        if job.it.operation == .write { job.it.asked = mustAskForRoom ? .room : .itself }
        it.uring.running &+= 1
        if job.awaitsReadiness {
            _ = job.transition(from: .running, to: .waiting)
            return
        }
        it.uring.threads.jobs &+= 1
        job.it.wasSeen = false
        if job.it.isBuffered {
            it.readsRunning.wrappingAdd(1, ordering: .relaxed)
            it.uring.looksLeft = UringDaemon.looks
        }
    }

    /// A buffered read reaches the disk with the I/O priority of whoever makes it, which is this
    /// thread or one of the kernel's for it, and not with its own (block/bio.c, bio_set_ioprio);
    /// what has none takes it, too. What is on the ring already is begun with that of those before.
    private func takePriority(of job: JobRef) {
        if job.it.ioPriority == it.uring.ioPriority || job.awaitsReadiness
            || !it.engine.it.mayTuneThreads.load(ordering: .relaxed)
        {
            return
        }
        _ = it.uring.work.enter(minComplete: 0)
        _ = systemCall(Int32(SYS_ioprio_set), 1, 0, Int(job.it.ioPriority))
        it.uring.ioPriority = job.it.ioPriority
    }

    func describeTransfer(
        _ job: JobRef, _ entry: Ref<uring_sqe>
    ) {
        let isWrite = job.it.operation == .write
        let vectors = it.table.vectorsAddress(job)
        let count = job.it.vectorCount &- job.it.vectorFirst
        if count == 1, let vector = Ref<Vector>(address: vectors) {
            entry.it.opcode = UInt8(isWrite ? URING_OP_WRITE : URING_OP_READ)
            entry.it.address = UInt64(vector.it.base)
            entry.it.length = UInt32(clamping: min(vector.it.length, System.transferBytesMax))
        } else {
            entry.it.opcode = UInt8(isWrite ? URING_OP_WRITEV : URING_OP_READV)
            entry.it.address = UInt64(vectors)
            entry.it.length = count
        }
        entry.it.offset = UInt64(bitPattern: job.it.offset)
        // RWF_HIPRI means nothing without a polled ring, which refuses it; the kernel's AIO
        // ignores it.
        entry.it.op_flags = UInt32(bitPattern: job.it.rwFlags & ~1)
        entry.it.ioprio = job.it.ioPriority
    }

    func cancelRequested() {
        it.table.forEachJob { job in
            let state = job.state
            if state != .waiting && state != .running
                || job.it.station.load(ordering: .relaxed) != address
                || !job.it.cancelRequested.load(ordering: .acquiring)
            {
                return
            }
            cancelOnRing(job)
        }
    }

    /// Tells the ring to let go of a job; of a POLL that is asked about changes, more may come all
    /// the same, when the job is done.
    private func cancelOnRing(_ job: JobRef) {
        let entry = workEntry()
        entry.it.opcode = UInt8(URING_OP_ASYNC_CANCEL)
        entry.it.fd = -1
        entry.it.address = job.name
        entry.it.user_data = UringDaemon.ignoredData
    }

    // MARK: Finishing jobs

    func reap() {
        takeCompletions()
        while it.uring.signalsDue {
            signalEventfds()
            awaitSignals()
        }
        announcePublished()
    }

    func announcePublished() {
        while it.uring.publishedHead != Job.none {
            let job = it.table.job(at: it.uring.publishedHead)
            it.uring.publishedHead = job.it.queueNext
            announce(job)
        }
    }

    func takeCompletions() {
        while let completion = it.uring.work.nextCompletion() {
            let data = completion.user_data
            if data == UringDaemon.doorbellData {
                it.uring.doorbellArmed = false
            } else if data == UringDaemon.ignoredData {
                continue
            } else if data & ~0xffff == UringDaemon.signalData {
                signalled(UInt32(truncatingIfNeeded: data & 0xffff), Int(completion.result))
            } else if data & ~0xffff == UringDaemon.installData {
                signalOneself(UInt32(truncatingIfNeeded: data & 0xffff), Int(completion.result))
            } else if let job = it.table.job(named: data), job.isOnRing {
                if completion.flags & UInt32(URING_CQE_MORE) != 0 {
                    // Of a POLL that is asked about changes: it is done when one is what it wants.
                    if Int(completion.result) & Int(job.it.pollEvents) == 0 { continue }
                    cancelOnRing(job)
                }
                it.uring.running &-= 1
                complete(job, Int(completion.result))
            }
        }
    }

    private func complete(_ job: JobRef, _ result: Int) {
        let state: JobState =
            job.awaitsReadiness ? .waiting : .running
        if state == .running {
            it.uring.threads.jobs &-= 1
            if job.it.isBuffered { it.readsRunning.wrappingSubtract(1, ordering: .relaxed) }
        }
        if mustContinue(job, result) {
            if result > 0 && job.it.asked == .itself { it.table.advance(job, by: result) }
            if state == .waiting { _ = job.transition(from: .waiting, to: .running) }
            submit(job)
            return
        }
        var total = result
        switch job.it.operation {
        case .write where job.it.asked != .itself: total = job.it.progress
        case .read, .write:
            // Unless it was cancelled, what was interrupted goes on: see mustContinue.
            total = totalResult(job, last: result == failure(EINTR) ? failure(ECANCELED) : result)
        case .poll where result == failure(ECANCELED): total = job.cancelledResult
        case .poll where result > 0: total = result & Int(job.it.pollEvents)
        default: break
        }
        publish(job, from: state, result: total)
    }

    /// True when the kernel's own read or write would have gone on: a buffered transfer on a file
    /// ends early only at the end of the file, and a blocking write on a pipe or socket not at
    /// all. An interruption is ours, not the program's; so is the refusal of a priority. A POLL
    /// goes on that was woken by what it is not about: a ring always tells of a peer that will send
    /// no more (io_uring/poll.c, IO_POLL_UNMASK).
    private func mustContinue(_ job: JobRef, _ result: Int) -> Bool {
        if job.it.cancelRequested.load(ordering: .acquiring) { return false }
        if job.it.operation == .poll {
            if result <= 0 || result & Int(job.it.pollEvents) != 0 { return false }
            job.it.asked = .changes
            return true
        }
        guard job.it.operation == .read || job.it.operation == .write else { return false }
        if job.it.asked == .room {
            // For an error queue, or a peer that will send no more: IO_POLL_UNMASK again.
            if result & Int(POLLOUT) == 0 { job.it.asked = .rest }
            return !isBroken(job, result)
        }
        if result == failure(EAGAIN) && job.it.socket == .remote && job.it.progress > 0 {
            return true
        }
        if result == failure(EINTR) || lowerPriority(of: job, after: result) { return true }
        if result <= 0 || result >= job.it.length { return false }
        return job.it.isStream ? job.it.operation == .write : job.it.isBuffered
    }

    /// The program may have given up its privileges since the request was made, and with it this
    /// daemon: then the best of the priorities that everybody may have (block/ioprio.c,
    /// ioprio_check_cap). True when that is to be tried.
    private func lowerPriority(of job: JobRef, after result: Int) -> Bool {
        if result != failure(EPERM) || job.it.ioPriority >> 13 != 1 { return false }
        job.it.ioPriority = 2 << 13
        return true
    }

    func publish(
        _ job: JobRef, from state: JobState, result: Int
    ) {
        let eventfd = job.it.operation == .notify ? Job.none : job.it.heldEventfd
        finish(job, from: state, result: result)
        if eventfd != Job.none { signal(eventfd) }
        job.it.queueNext = it.uring.publishedHead
        it.uring.publishedHead = job.it.index
    }

    /// Empties the work ring's slot of a held file.
    func giveUpSlot(_ index: UInt32) {
        if it.files[index].it.isMoved {
            it.uring.work.emptySlot(index)
        } else {
            it.uring.parking.emptySlot(index)
        }
    }
}

// Making a job of a request that cannot run inline, and handing batches of jobs to a daemon.

import CLibAIO
public import JobTable
import Synchronization

extension Ref where Pointee == EngineRecord {
    /// Puts a request into the batch, of which `done` bytes are transferred already. Runs it
    /// inline when no daemon can be had or nothing more can be held. `mayUsePool` is false for an
    /// fsync that must be parked: see `enterGate`.
    func postpone(
        _ request: inout Request, _ batch: inout Batch, _ facts: FileFacts, done: Int,
        mayUsePool: Bool = true
    ) -> Outcome {
        let isExclusive = isExclusive(request, &batch, facts)
        let isBlocking = (request.operation.isSync || isExclusive) && mayUsePool
        if isBlocking != batch.isBlocking || batch.isFull { handOver(&batch) }
        if batch.station == nil {
            batch.station =
                isBlocking
                ? acquireStationForBlocking()
                : acquireStation(mustStart: facts.kind == .stream)
            batch.isBlocking = isBlocking
            batch.isExclusive = isExclusive
        }
        guard let station = batch.station else {
            return runInline(request, &batch, facts, done: done)
        }
        guard let job = it.table.allocate() else {
            // Not a stream's, which may wait for one that is queued: the table may have been full.
            if !it.table.isFull && facts.kind != .stream {
                return runInline(request, &batch, facts, done: done)
            }
            // What a stream has taken cannot be taken back: a short count.
            return done > 0 && facts.kind == .stream
                ? .completed(done) : .refused(failure(EAGAIN))
        }
        job.it.station.store(station.address, ordering: .relaxed)
        let isForWaiters = mayBeLeft(request, batch)
        if !holdFiles(of: job, request, &batch, facts, forWaiters: isForWaiters)
            || !describe(job, request, facts, &batch.submission)
        {
            discard(&batch, job)
            return runInline(request, &batch, facts, done: done)
        }
        if done > 0 { it.table.advance(job, by: done) }
        job.it.isExclusive = isExclusive
        if !enterGate(job, &batch) {
            discard(&batch, job)
            return postpone(&request, &batch, facts, done: done, mayUsePool: false)
        }
        if job.awaitsReadiness || job.it.operation == .notify { batch.needsManager = true }
        if batch.first.map({ $0.it.inode != job.it.inode }) ?? false || !isExclusive {
            batch.isExclusive = false
        }
        if job.it.isBuffered && job.it.operation == .read {
            // A read that answered "not now" has started the disk; only the copy is left.
            job.it.mustStartDisk = request.attempted == nil
            if request.resfd >= 0 { batch.isUrgent = true }
        } else {
            batch.isUrgent = true
        }
        if !isForWaiters { batch.isForWaiters = false }
        _ = job.transition(from: .preparing, to: .queued)
        append(&batch, job)
        return .deferred(job)
    }

    /// True for a cold read that whoever waits for it may do, once the disk has: it is short, and
    /// has not been tried.
    private func mayBeLeft(_ request: Request, _ batch: borrowing Batch) -> Bool {
        batch.submission.coldReads == .leftToWaiters && request.operation == .read
            && request.attempted == nil && request.resfd < 0 && request.length > 0
            && request.length <= ColdReads.bytesMax && request.ioPriority == 0
            && hint(request.descriptor) == .cold
    }

    /// Holds the file and the eventfd of a job. False when one of them cannot be.
    private func holdFiles(
        of job: JobRef, _ request: Request, _ batch: inout Batch, _ facts: FileFacts,
        forWaiters: Bool
    ) -> Bool {
        if request.operation != .notify {
            job.it.heldFile = hold(
                &batch, request.descriptor, facts, as: Batch.file,
                mayShare: !request.operation.isSync, forWaiters: forWaiters)
            if job.it.heldFile == Job.none { return false }
        }
        if request.resfd >= 0 {
            var eventfdFacts = FileFacts()
            if FileFacts.of(request.resfd, &eventfdFacts) < 0 { return false }
            job.it.heldEventfd = hold(
                &batch, request.resfd, eventfdFacts, as: Batch.eventfd, mayShare: true)
            if job.it.heldEventfd == Job.none { return false }
        }
        return true
    }

    /// Puts a job into the gate that keeps its order. False for an fsync of POSIX AIO that must
    /// wait there and cannot: it is meant for the pool beside the daemon, which the daemon that
    /// finishes the last of those before it could not reach.
    private func enterGate(_ job: JobRef, _ batch: inout Batch) -> Bool {
        if job.it.isStream || job.it.isExclusive {
            it.streams.enter(it.table, job)
        } else if job.it.face == .posix {
            it.syncs.enter(it.table, job)
            if job.it.operation.isSync && it.syncs.hasEarlier(it.table, job) {
                if batch.isBlocking && batch.station != it.station.current {
                    _ = it.syncs.leave(it.table, job)
                    return false
                }
                // Workers take what they are given; the manager asks the gate.
                batch.needsManager = true
            }
        } else if job.it.isBuffered && job.it.operation == .read {
            it.reads.enter(it.table, job)
        }
        return true
    }

    private func append(_ batch: inout Batch, _ job: JobRef) {
        if let last = batch.last {
            last.it.queueNext = job.it.index
        } else {
            batch.first = job
        }
        batch.last = job
        batch.count &+= 1
    }

    /// Makes the daemon look at jobs that were handed over without waking it: whoever waits for
    /// an event calls this after it has made itself known as waiting.
    @inline(__always)
    public func nudge() { stationInArrears?.callForAll() }

    /// The station of a daemon on io_uring that has yet to look at its queue.
    @inline(__always)
    var stationInArrears: Ref<Station>? {
        guard let station = it.station.current, station.it.kind == .uring,
            station.it.queue.count.load(ordering: .sequentiallyConsistent) != 0
                || station.it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0
        else { return nil }
        return station
    }

    /// Hands the batch to its daemon, if there is anything in it. Every job of it gets its event.
    /// `mustWake` says whether the daemon must be woken for cold buffered reads: see
    /// handOverToUring.
    public func handOver(
        _ batch: inout Batch, mustWake: (_ looksSoon: Bool) -> Bool = { _ in true }
    ) {
        handOverToKernel(&batch)
        guard let station = batch.station else { return }
        if let first = batch.first, let last = batch.last {
            switch station.it.kind {
            case .uring:
                station.handOverToUring(batch, mustWake: mustWake)
            case .pool, .native:
                let result = station.handOverToPool(batch, first: first, last: last)
                if result < 0 { runHere(station, first) }
            }
        }
        station.release()
        let submission = batch.submission
        batch = Batch(kernelUser: batch.kernelUser)
        batch.submission = submission
    }

    private func handOverToKernel(_ batch: inout Batch) {
        guard let station = batch.native else { return }
        if let first = batch.nativeFirst { station.submitToKernel(first) }
        station.release()
        batch.native = nil
        batch.nativeFirst = nil
        batch.nativeLast = nil
    }

    /// Before a request on a descriptor: it may run at once, and what the kernel's AIO is to be
    /// given comes before it. Not for another that it is likely to be given.
    @inline(__always)
    public func keepOrder(_ batch: inout Batch, before descriptor: Int32) {
        if batch.nativeFirst != nil && hint(descriptor) != .direct { handOverToKernel(&batch) }
    }

    // MARK: Files

    /// The index under which the daemon will find the file, with a reference for the job; `none`
    /// when it cannot be held. `use` is its place in `lastHeld`. It may share what an equal
    /// description holds, but an fsync reports the errors that its own description has not reported
    /// yet.
    private func hold(
        _ batch: inout Batch, _ descriptor: Int32, _ facts: FileFacts, as use: Int,
        mayShare: Bool, forWaiters: Bool = false
    ) -> UInt32 {
        guard let station = batch.station else { return Job.none }
        if descriptor == batch.lastHeld[use].descriptor {
            station.it.files.addReference(batch.lastHeld[use].index)
            return batch.lastHeld[use].index
        }
        let index = claim(station, &batch, descriptor, facts, mayShare, forWaiters)
        if index != Job.none {
            batch.lastHeld[use] = Batch.Held(descriptor: descriptor, index: index)
        }
        return index
    }

    private func claim(
        _ station: Ref<Station>, _ batch: inout Batch, _ descriptor: Int32, _ facts: FileFacts,
        _ mayShare: Bool, _ forWaiters: Bool
    ) -> UInt32 {
        if mayShare && (facts.isRegular || facts.isBlock),
            let index = station.it.files.shareRecent(
                device: facts.device, inode: facts.inode, flags: facts.flags,
                descriptor: descriptor, forWorkers: station.it.kind == .pool,
                forWaiters: forWaiters)
        {
            return index
        }
        if station.it.kind == .pool, let index = station.heldAlready(descriptor) {
            return index
        }
        // The program may have lowered the limit since, and what is sent without room is lost.
        let usedMax = station.it.kind == .pool ? Station.filesMax(.pool) : .max
        let claim = station.it.files.claim(
            device: mayShare && facts.isShareable ? facts.device : 0,
            inode: mayShare && facts.isShareable ? facts.inode : 0, flags: facts.flags,
            number: descriptor, usedMax: usedMax)
        switch claim {
        case .full: return Job.none
        case .shared(let index):
            // It may still be on its way.
            batch.needsManager = true
            return index
        case .new(let index):
            if station.it.kind == .uring {
                if station.it.uring.parking.fillSlot(index, file: descriptor) < 0 {
                    _ = station.it.files.dropReference(index)
                    station.it.files.recycle(index)
                    return Job.none
                }
                station.it.files.announce(index)
            }
            batch.newFiles &+= 1
            return index
        }
    }

    /// Takes back a job that could not be completed. Jobs of others may share the files that it
    /// holds by now and have taken them to the daemon, so it goes there itself, to let go of them.
    private func discard(_ batch: inout Batch, _ job: JobRef) {
        if job.it.heldFile == Job.none && job.it.heldEventfd == Job.none {
            return it.table.free(job, from: .preparing)
        }
        job.it.operation = .notify
        job.it.face = .linux
        job.it.pollEvents = 0
        job.it.resfd = -1
        job.it.isStream = false
        batch.needsManager = true
        batch.isExclusive = false
        batch.isForWaiters = false
        _ = job.transition(from: .preparing, to: .queued)
        append(&batch, job)
    }

    // MARK: The job

    /// Fills a job in from a request. False when there is no room for its vectors.
    func describe(
        _ job: JobRef, _ request: Request, _ facts: FileFacts, _ submission: inout Submission
    ) -> Bool {
        job.it.face = request.face
        job.it.priority = request.priority
        job.it.operation = request.operation
        job.it.descriptor = request.descriptor
        job.it.resfd = request.resfd
        job.it.rwFlags = request.rwFlags
        job.it.pollEvents = request.pollEvents
        job.it.offset = request.offset
        job.it.length = request.length
        // Files without an inode of their own all have the same: no identity.
        job.it.device = facts.isAnonymous ? 0 : facts.device
        job.it.inode = facts.isAnonymous ? 0 : facts.inode
        job.it.blocksWhenReady = request.operation == .write && facts.blocksWriters
        job.it.isStream =
            facts.kind == .stream && request.operation != .poll && !job.it.blocksWhenReady
        job.it.submitter =
            job.it.isStream && request.face == .linux
            ? UInt32(bitPattern: System.threadIdentifier()) : CurrentThread().name
        let isTransfer = request.operation == .read || request.operation == .write
        if !isTransfer { return true }
        job.it.isBuffered = facts.kind == .cached || facts.kind == .memory
        // A program may set O_APPEND before a daemon comes to it; the kernel's AIO has looked by
        // then.
        let isPlaced = facts.isRegular && request.operation == .write && !isForKernel(job)
        if isPlaced && !appends(request, facts) { job.it.rwFlags |= FileChecks.keepsOffset }
        // The kernel's AIO takes the submitter's by itself.
        let mayAsk = it.mayTuneThreads.load(ordering: .relaxed) && !isForKernel(job)
        job.it.ioPriority =
            request.ioPriority == 0 && mayAsk ? submission.priority() : request.ioPriority
        let vectors = it.table.reserveVectors(job, count: request.vectorCount)
        if vectors == 0 { return false }
        // The kernel cuts them where they come to more than it transfers (lib/iov_iter.c).
        var room = System.transferBytesMax
        for index in 0..<UInt(bitPattern: request.vectorCount) {
            let step = index &* UInt(MemoryLayout<Vector>.stride)
            guard let from = Ref<Vector>(address: request.vectors &+ step) else { break }
            let length = min(from.it.length, room)
            Ref<Vector>(address: vectors &+ step)?.it = Vector(base: from.it.base, length: length)
            room &-= length
        }
        return true
    }

    // MARK: Without a daemon

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
                    isWrite: request.operation != .read, mayWait: $0)
            }
            if !isVacant { return done > 0 ? .completed(done) : .refused(failure(EAGAIN)) }
        }
        switch request.operation {
        case .fsync:
            return .completed(systemCall(Int32(SYS_fsync), Int(request.descriptor)))
        case .fdatasync:
            return .completed(systemCall(Int32(SYS_fdatasync), Int(request.descriptor)))
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
    private func runHere(_ station: Ref<Station>, _ first: JobRef) {
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
                !(job.it.isStream || job.it.isExclusive)
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
        case .fsync: result = systemCall(Int32(SYS_fsync), Int(number))
        case .fdatasync: result = systemCall(Int32(SYS_fdatasync), Int(number))
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

    private func settleInSubmitter(_ job: JobRef, from state: JobState, result: Int) {
        finish(job, from: state, result: result)
        // A job that only carries an eventfd has failed: who prepared it signals by itself.
        if job.it.resfd >= 0 && job.it.operation != .notify {
            Eventfd.signal(job.it.resfd, count: 1)
        }
        announce(job)
    }
}

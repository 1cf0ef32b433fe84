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
            || !describe(job, request, facts)
        {
            discard(&batch, job)
            return runInline(request, &batch, facts, done: done)
        }
        if done > 0 { it.table.advance(job, by: done) }
        job.it.isExclusive = isExclusive
        if !enterGate(job, &batch, facts) {
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

    /// Puts a job into the gate that keeps its order. False for an fsync of POSIX AIO that must
    /// wait there and cannot: it is meant for the pool beside the daemon, which the daemon that
    /// finishes the last of those before it could not reach.
    private func enterGate(
        _ job: JobRef, _ batch: inout Batch, _ facts: FileFacts
    ) -> Bool {
        if job.isInStreamGate {
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
        } else if job.it.operation == .read
            && (job.it.isBuffered
                || facts.isExtended(by: job.it.offset &+ Int64(job.it.length)))
        {
            it.reads.enter(it.table, job)
        }
        return true
    }

    func append(_ batch: inout Batch, _ job: JobRef) {
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

    /// Gives the kernel an fsync whose file nobody has looked at, if the batch has one: its face
    /// calls this once it knows the job. 0, or the negated errno with which io_submit refuses it:
    /// the job is the face's to free then, from state finished.
    @inline(__always)
    public func handOverUnseen(_ batch: inout Batch) -> Int {
        batch.isUnseen ? handOverToKernel(&batch) : 0
    }

    /// 0, or why an fsync whose file nobody has looked at is refused.
    @discardableResult
    private func handOverToKernel(_ batch: inout Batch) -> Int {
        guard let station = batch.native else { return 0 }
        var refusal = 0
        if let first = batch.nativeFirst {
            refusal = station.submitToKernel(first, isUnseen: batch.isUnseen)
        }
        station.release()
        batch.isUnseen = false
        batch.native = nil
        batch.nativeFirst = nil
        batch.nativeLast = nil
        return refusal
    }

    /// Before a request on a descriptor: it may run at once, and what the kernel's AIO is to be
    /// given comes before it. Not for another that it is likely to be given.
    @inline(__always)
    public func keepOrder(_ batch: inout Batch, before descriptor: Int32) {
        if batch.nativeFirst != nil && hint(descriptor) != .direct { handOverToKernel(&batch) }
    }

    // MARK: The job

    /// Fills a job in from a request. False when there is no room for its vectors.
    func describe(_ job: JobRef, _ request: Request, _ facts: FileFacts) -> Bool {
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
        if job.it.isStream && facts.isSocket && request.operation == .write {
            job.it.socket = System.isLocalSocket(request.descriptor) ? .local : .remote
        }
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
            request.ioPriority == 0 && mayAsk ? CurrentThread().ioPriority() : request.ioPriority
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
}

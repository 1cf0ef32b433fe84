// The kernel's own AIO for O_DIRECT requests of POSIX AIO and of contexts that keep a ring of ours,
// and for an fsync of either face that is alone there: one context for the process, and a daemon
// that takes its events when nobody else does (KernelReaper.swift).
//
// It serves one user at a time, a context or POSIX AIO: then whoever waits for his own requests
// takes the events of nobody else's. Requests of others take another path meanwhile.
//
// The submitter calls io_submit(2) itself, once for each hand-over: the kernel holds the files, so
// nothing travels. A request that wants an eventfd signalled takes another path: the kernel would
// signal it before the daemon has published the outcome.

import CLibAIO
import JobTable
import Synchronization

struct NativeDaemon: ~Copyable {
    /// The kernel's context; written before the station is ready.
    var context: UInt = 0
    /// Its events.
    var ring: RingView {
        let slots = Ref<RingHeader>(address: context)?.it.nr.load(ordering: .relaxed)
        return RingView(address: context, nr: slots ?? 1)
    }

    var reaper = KernelReaper()
    /// Whose requests are there, when any are: see Batch.kernelUser. Two users at once do no harm.
    let user = Atomic<UInt>(0)
    /// Hand-overs so far: a daemon that nobody calls sees whether the context is in use.
    let handOvers = Atomic<UInt32>(0)
    /// Hand-overs for contexts so far, whose program may read their rings and never call us: the
    /// daemon looks after those events now and then.
    let ringHandOvers = Atomic<UInt32>(0)
    /// The daemon does that at the moment, and need not be told of more.
    let isLooking = Atomic<Bool>(false)
    /// How often a thread of the program has taken events; whoever takes some is alone then.
    let takings = Atomic<UInt32>(0)
    /// The daemon's own: `ringHandOvers` and `takings` when it looked last, and how often it will
    /// look again.
    var ringsSeen: UInt32 = 0
    var takingsSeen: UInt32 = 0
    var looksLeft: UInt32 = 0

    /// How many requests one io_submit(2) gives to the kernel, and how many events are taken at
    /// once: what fits into 1,024 bytes of stack.
    static let submittedMax = 16
    static let takenMax = 32

    /// Names no job: the event that wakes a watcher.
    static let interruptName = UInt64.max

    static func main(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
        guard let station = Ref<Station>(address: UInt(bitPattern: argument)) else { return nil }
        station.becomeDaemon(named: "aiod/k")
        defer { station.endDaemon() }
        let made = KernelAIO.setup(events: station.it.table.it.limits.maxBufAio)
        if made < 0 && made > -4096 {
            station.started(made)
            return nil
        }
        station.it.native.context = UInt(bitPattern: made)
        station.forgetReaper()
        station.started(0)
        while !station.serveKernel() {}
        return nil
    }
}

extension Ref where Pointee == EngineRecord {
    /// Makes a job for the kernel of a direct transfer; it runs when the batch is handed over. nil
    /// when it must take another path.
    func postponeNative(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome? {
        let end = request.offset &+ Int64(request.length)
        if !mayGoToKernel(request, batch)
            || !facts.suitsKernelAIO(isWrite: request.operation == .write, end: end)
        {
            return nil
        }
        return postponeNative(request, &batch, facts, inFlightMax: it.table.it.limits.maxBufAio)
    }

    /// Whether a transfer may take that path if its file suits. Flags that the file does not take
    /// are refused by the path that tries them at once.
    func mayGoToKernel(_ request: Request, _ batch: borrowing Batch) -> Bool {
        it.choice == .automatic && batch.kernelUser != 0 && request.resfd < 0
            && request.rwFlags == 0
    }

    /// Makes a job for the kernel of an fsync of whose file nothing is known: to look at it would
    /// take as many system calls as all the rest. The kernel judges it, as its own io_submit does,
    /// when `handOverUnseen` gives it to it. nil when it must take another path.
    func postponeUnseenSync(_ request: Request, _ batch: inout Batch) -> Outcome? {
        if batch.nativeFirst != nil { return nil }
        let outcome = postponeNative(request, &batch, FileFacts(), inFlightMax: 1)
        batch.isUnseen = outcome != nil
        return outcome
    }

    /// Makes a job for the kernel of an fsync. It goes there when nothing else does, so that the
    /// thread that waits for it can sleep there, too; several at once are for a pool's workers, who
    /// need nobody to pass their results on.
    func postponeNativeSync(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts
    ) -> Outcome? {
        if batch.nativeFirst != nil || isExclusive(request, &batch, facts) { return nil }
        return postponeNative(request, &batch, facts, inFlightMax: 1)
    }

    private func postponeNative(
        _ request: Request, _ batch: inout Batch, _ facts: FileFacts, inFlightMax: UInt32
    ) -> Outcome? {
        if it.choice != .automatic || request.resfd >= 0 { return nil }
        if batch.native == nil { batch.native = acquireNativeStation() }
        guard let station = batch.native else { return nil }
        let running = station.it.running.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue
        if running == 0 { station.it.native.user.store(batch.kernelUser, ordering: .relaxed) }
        let isUser = station.it.native.user.load(ordering: .relaxed) == batch.kernelUser
        guard running < inFlightMax, isUser, let job = it.table.allocate() else {
            station.it.running.wrappingSubtract(1, ordering: .sequentiallyConsistent)
            return nil
        }
        job.it.station.store(station.address, ordering: .relaxed)
        var maySubmit = describe(job, request, facts)
        if maySubmit && request.face == .posix {
            it.syncs.enter(it.table, job)
            if request.operation.isSync && it.syncs.hasEarlier(it.table, job) {
                // It would have to be parked, which takes a daemon that holds its file.
                _ = it.syncs.leave(it.table, job)
                maySubmit = false
            }
        }
        if !maySubmit {
            it.table.free(job, from: .preparing)
            station.it.running.wrappingSubtract(1, ordering: .sequentiallyConsistent)
            return nil
        }
        it.table.it.counters.it.numBufAio.raise()
        _ = job.transition(from: .preparing, to: .queued)
        if let last = batch.nativeLast {
            last.it.queueNext = job.it.index
        } else {
            batch.nativeFirst = job
        }
        batch.nativeLast = job
        return .deferred(job)
    }
}

extension Ref where Pointee == Station {
    /// Submits a chain of jobs linked by `queueNext` to the kernel. 0, or the negated errno with
    /// which the kernel refuses the file of a single one that nobody has looked at: the job is
    /// finished then, and has no event.
    func submitToKernel(_ first: JobRef, isUnseen: Bool) -> Int {
        it.native.handOvers.wrappingAdd(1, ordering: .relaxed)
        let isForRing = first.it.face == .linux
        var next: JobRef? = first
        while next != nil {
            let refusal = withRoom(for: iocb.self, NativeDaemon.submittedMax) { iocbs in
                withRoom(for: UInt.self, NativeDaemon.submittedMax) {
                    submitSome(&next, iocbs: iocbs, pointers: $0, isUnseen: isUnseen)
                }
            }
            if refusal != 0 { return refusal }
        }
        if isForRing { expectRingReader() }
        // Who has so many in flight need not look at one of them for long, and there is an end.
        if it.running.load(ordering: .relaxed) > it.table.it.limits.maxBufAio / 2 {
            it.engine.ensureKernelReaper()
        }
        return 0
    }

    /// Submits the first jobs of a chain, and makes `next` the one behind them. 0, or why an unseen
    /// one is refused.
    private func submitSome(
        _ next: inout JobRef?, iocbs: UInt, pointers: UInt, isUnseen: Bool
    ) -> Int {
        var count: UInt = 0
        while let job = next, count < UInt(NativeDaemon.submittedMax) {
            next = it.table.successor(of: job)
            if job.transition(from: .queued, to: .running) {
                let address = iocbs &+ count &* UInt(MemoryLayout<iocb>.stride)
                Ref<iocb>(address: address)?.it = description(of: job)
                Ref<UInt>(address: pointers &+ count &* 8)?.it = address
                count &+= 1
            } else {
                runInSubmitter(job)
                endKernelRequests(1)
            }
        }
        var done: UInt = 0
        while done < count {
            let submitted = KernelAIO.submit(
                it.native.context, Int(count &- done), pointers &+ done &* 8)
            done &+= UInt(max(submitted, 0))
            if done >= count { break }
            // What the kernel does not take is done here.
            if let iocb = Ref<iocb>(address: iocbs &+ done &* UInt(MemoryLayout<iocb>.stride)),
                let job = it.table.job(named: iocb.it.aio_data)
            {
                var refusal = 0
                if isUnseen {
                    refusal = performUnseen(job, refused: submitted)
                } else {
                    performInSubmitter(job)
                }
                endKernelRequests(1)
                if refusal != 0 { return refusal }
            }
            done &+= 1
        }
        return 0
    }

    /// What becomes of an unseen fsync that the kernel did not take. 0, or the errno with which it
    /// is refused: the file is closed, or has no fsync. Where that was not the kernel's reason, but
    /// memory or a filter that came late, fsync itself tells.
    private func performUnseen(_ job: JobRef, refused: Int) -> Int {
        func isAboutFile(_ error: Int) -> Bool {
            error == failure(EINVAL) || error == failure(EBADF)
        }
        let result =
            isAboutFile(refused)
            ? refused
            : System.sync(job.it.descriptor, dataOnly: job.it.operation == .fdatasync)
        if isAboutFile(result) {
            _ = job.transition(from: .running, to: .finished)
            return result
        }
        settleInSubmitter(job, from: .running, result: result)
        return 0
    }

    private func description(of job: JobRef) -> iocb {
        var iocb = iocb()
        iocb.aio_data = job.name
        iocb.aio_fildes = job.it.descriptor
        switch job.it.operation {
        case .fsync: iocb.aio_lio_opcode = UInt16(IOCB_CMD_FSYNC)
        case .fdatasync: iocb.aio_lio_opcode = UInt16(IOCB_CMD_FDSYNC)
        default:
            let isWrite = job.it.operation == .write
            let vectors = it.table.vectorsAddress(job)
            if job.it.vectorCount == 1, let vector = Ref<Vector>(address: vectors) {
                iocb.aio_lio_opcode = UInt16(isWrite ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD)
                iocb.aio_buf = UInt64(vector.it.base)
                iocb.aio_nbytes = UInt64(truncatingIfNeeded: vector.it.length)
            } else {
                iocb.aio_lio_opcode = UInt16(isWrite ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV)
                iocb.aio_buf = UInt64(vectors)
                iocb.aio_nbytes = UInt64(job.it.vectorCount)
            }
            iocb.aio_offset = job.it.offset
            if job.it.ioPriority != 0 {
                iocb.aio_flags = UInt32(IOCB_FLAG_IOPRIO)
                iocb.aio_reqprio = Int16(bitPattern: job.it.ioPriority)
            }
        }
        return iocb
    }

    /// A round of the daemon's: it waits until it is called, or takes events. True when it has
    /// left.
    fileprivate func serveKernel() -> Bool {
        let lifetimeMs = Int(it.table.it.limits.aiodLifetimeMs)
        let isIdle: Bool
        if it.native.reaper.holder.load(ordering: .sequentiallyConsistent) == KernelReaper.daemon {
            let taken = takeEvents(atLeast: 1, withinMs: lifetimeMs)
            isIdle = taken == 0
            if taken < 0 && taken != failure(EINTR) { takeWithoutCall() }
        } else if looksAfterRings() {
            isIdle = false
            _ = awaitCall(within: nsUntilNextLook())
            if it.engine.hasKernelEvents() { _ = it.engine.takeKernelEvents() }
        } else {
            let handOvers = it.native.handOvers.load(ordering: .relaxed)
            isIdle =
                !awaitCall(within: UInt64(lifetimeMs) &* 1_000_000)
                && handOvers == it.native.handOvers.load(ordering: .relaxed)
        }
        if it.running.load(ordering: .sequentiallyConsistent) != 0 {
            // Nobody has asked for them in all that time; it may be that nobody ever will.
            if isIdle && it.engine.hasKernelEvents() { _ = it.engine.takeKernelEvents() }
            return false
        }
        if isIdle { return tryToLeave { _ = KernelAIO.destroy(it.native.context) } }
        leavePlaceIfInTheWay()
        return false
    }

    /// For a daemon whose call is refused, by a filter that came late: takes what is in the ring,
    /// after a while, and leaves when that was all.
    private func takeWithoutCall() {
        System.sleep(nanoseconds: KernelReaper.lookNs)
        _ = takeEvents(atLeast: 0, withinMs: 0)
        it.native.reaper.isInTheWay.store(true, ordering: .relaxed)
    }

    /// Takes events and publishes their jobs; how many, or a negated errno. By whoever may: see
    /// KernelReaper.
    func takeEvents(atLeast least: Int, withinMs: Int) -> Int {
        withRoom(for: io_event.self, NativeDaemon.takenMax) { room in
            let count: Int
            if least == 0 {
                // Whoever may take events is alone in moving the head.
                count = it.native.ring.takeFromKernel(
                    into: room, count: NativeDaemon.takenMax, minimum: 0)
            } else {
                var timeout = timespec(nanoseconds: UInt64(withinMs) &* 1_000_000)
                count = withAddress(of: &timeout) {
                    KernelAIO.getEvents(
                        it.native.context, least, NativeDaemon.takenMax, room,
                        timeout: UInt(bitPattern: $0), sigmask: 0)
                }
            }
            if count > 0 { publish(room, UInt(count)) }
            return count
        }
    }

    /// Publishes the jobs of events that were taken, and frees them.
    private func publish(_ events: UInt, _ count: UInt) {
        var jobs: UInt32 = 0
        for index in 0..<count {
            guard let event = event(index, of: events), event.it.data != NativeDaemon.interruptName
            else { continue }
            jobs &+= 1
            // The state's acquire pairs with the submitter's transition: the kernel's own order is
            // not the memory model's.
            if let job = it.table.job(named: event.it.data), job.state == .running {
                finish(job, from: .running, result: Int(event.it.res))
            }
        }
        for index in 0..<count {
            if let job = event(index, of: events).flatMap({ it.table.job(named: $0.it.data) }),
                job.state == .finished
            {
                announce(job)
            }
        }
        if jobs > 0 { endKernelRequests(jobs) }
    }

    private func event(_ index: UInt, of events: UInt) -> Ref<io_event>? {
        Ref<io_event>(address: events &+ index &* UInt(RingView.eventBytes))
    }

    private func endKernelRequests(_ count: UInt32) {
        it.table.it.counters.it.numBufAio.lower(UInt64(count))
        it.running.wrappingSubtract(count, ordering: .sequentiallyConsistent)
    }
}

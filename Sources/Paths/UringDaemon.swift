// The daemon path on io_uring: one aio daemon, the only thread that ever submits what may wait.
//
// Two rings. The parking ring has a descriptor in the program's table; submitters park files in
// its slots (io_uring_register, no submission), and callers of io_getevents read from them what is
// in memory (ColdReads.swift). The daemon moves each file by MSG_RING into the same slot of its
// work ring, which lives in a descriptor table of the daemon's own, and runs the job there. The
// work ring is SINGLE_ISSUER | DEFER_TASKRUN: completions run in the daemon, when it asks for them,
// and interrupt nobody.
//
// The daemon sleeps in io_uring_enter. To wake it, a submitter changes the doorbell, on which the
// work ring has a FUTEX_WAIT armed: no descriptor, nothing that a program could close.

import CLibAIO
import JobTable
import Synchronization

struct UringDaemon: ~Copyable {
    /// Reserved user_data; a job's name has an index below 2^24 in its low half.
    static let doorbellData = UInt64.max
    static let ignoredData = UInt64.max - 1
    /// Of a write to an eventfd: this and the index of the held file.
    static let signalData: UInt64 = 0x8000_0000

    /// How long a write to an eventfd may take before sleepers are woken nevertheless: it blocks
    /// only where the program has filled a blocking one up.
    static let signalPatienceNs: UInt64 = 10_000_000

    static let submissionEntries: UInt32 = 256
    static let completionEntries: UInt32 = 4096

    /// Opened by the daemon, parked into by submitters; outlives the daemon, for the next one.
    var parking = Ring()
    /// Who enters the parking ring holds it until it has taken the completions.
    let parkingLock = FutexLock()
    /// Everything below belongs to the daemon alone, but for what is atomic.
    var work = Ring()
    var doorbellArmed = false
    var running: UInt32 = 0
    var threads = UringThreads()
    /// Jobs published in this round, linked by queueNext, to be announced at its end.
    var publishedHead = Job.none
    /// Held eventfds to signal at the end of this round.
    var signalsDue = false
    /// Writes to eventfds that are under way, and how many of them nobody waits for any more.
    var signalsRunning: UInt32 = 0
    var signalsOverdue: UInt32 = 0
    /// How often the daemon will look at its queue again although nobody calls it.
    var looksLeft: UInt32 = 0
    /// Set by it while it will: submitters of cold reads need not wake it.
    let isLooking = Atomic<Bool>(false)
    /// When it looked last at the cold reads that are left to others, on the monotonic clock, and
    /// how often others had come for them by then.
    var lookedAtNs: UInt64 = 0
    var visitsSeen: UInt32 = 0
    /// How often somebody came for cold reads.
    let visits = Atomic<UInt32>(0)
    /// One end of a pipe, whose other end is in a slot of the work ring alone: it is hung up when
    /// the ring is gone, and with it whatever was on it.
    var tombstone: Int32 = -1

    /// After a cold read the daemon looks so many times, so long apart. To be woken would cost the
    /// submitter more than a cached read, and io_getevents usually comes soon and does it.
    static let looks: UInt32 = 64
    static let lookIntervalNs: UInt64 = 1_000_000
    /// Submitters that find more than this in the queue no longer count on the end of a running
    /// read: the daemon takes all of them then, which is as long for the last as one wake-up.
    static let queuedMax: UInt32 = 8

    static func main(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
        guard let station = Ref<Station>(address: UInt(bitPattern: argument)) else { return nil }
        station.becomeDaemon(named: "aiod/0")
        defer { station.endDaemon() }
        let result = station.openRings()
        if result < 0 {
            station.abandonRings()
            station.started(result)
            return nil
        }
        station.started(0)
        while !station.round() {}
        return nil
    }
}

extension Ref where Pointee == Station {
    // MARK: Submitters

    /// Queues a chain of jobs for the daemon on io_uring and wakes it, unless the batch can wait
    /// until it looks by itself. `mustWake` is asked about that after the queuing: with true when
    /// that is likely to be soon, for a read that runs will end; else with one of its looks now and
    /// then.
    func handOverToUring(_ batch: borrowing Batch, mustWake: (_ looksSoon: Bool) -> Bool) {
        guard let first = batch.first, let last = batch.last else { return }
        if batch.isForWaiters {
            it.coldReads.append(it.table, first: first, last: last, count: batch.count)
            if mustWake(false) {
                callForAll()
            } else if !it.uring.isLooking.load(ordering: .sequentiallyConsistent) {
                ringDoorbell()
            }
            return
        }
        it.queue.append(it.table, first: first, last: last, count: batch.count)
        // Sequentially consistent: pairs with the daemon, which changes it before it looks at the
        // queue for the last time.
        let isLooking = it.uring.isLooking.load(ordering: .sequentiallyConsistent)
        let looksSoon =
            it.readsRunning.load(ordering: .relaxed) > 0
            && it.queue.count.load(ordering: .relaxed) < UringDaemon.queuedMax
        if batch.isUrgent || !isLooking || mustWake(looksSoon) { ringDoorbell() }
    }

    // MARK: Start and end

    fileprivate func openRings() -> Int {
        let reusable = it.uring.parking.exists && isWayIn(it.uring.parking.descriptor)
        if !reusable {
            it.uring.parking.forsake()
            let result = it.uring.parking.open(
                entryCount: UringDaemon.submissionEntries,
                completionCount: UringDaemon.submissionEntries &* 2,
                flags: 0)
            if result < 0 { return result }
            let supported = it.uring.parking.checkOperations()
            if supported < 0 {
                it.uring.parking.close()
                return supported
            }
            let slots = it.uring.parking.registerEmptySlots(it.files.capacity)
            if slots < 0 {
                it.uring.parking.close()
                return slots
            }
            rememberWayIn(it.uring.parking.descriptor)
        }
        var result = it.uring.parking.registerWithThread()
        if result < 0 { return result }
        result = leaveDescriptorTable()
        if result < 0 { return result }
        result = it.uring.work.open(
            entryCount: UringDaemon.submissionEntries,
            completionCount: UringDaemon.completionEntries,
            flags: UInt32(URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN)
                | UInt32(URING_SETUP_SUBMIT_ALL))
        if result < 0 { return result }
        result = it.uring.work.registerWithThread()
        if result < 0 { return result }
        result = it.uring.work.startThread()
        if result < 0 { return result }
        it.uring.doorbellArmed = false
        it.uring.running = 0
        it.uring.publishedHead = Job.none
        it.uring.signalsDue = false
        it.uring.signalsRunning = 0
        it.uring.signalsOverdue = 0
        it.uring.looksLeft = 0
        forgetThreads()
        result = it.uring.work.registerEmptySlots(it.files.capacity &+ 1)
        return result < 0 ? result : setTombstone()
    }

    private func setTombstone() -> Int {
        var ends = (Int32(-1), Int32(-1))
        var result = withAddress(of: &ends) {
            systemCall(Int32(SYS_pipe2), $0, Int(O_CLOEXEC))
        }
        if result < 0 { return result }
        it.uring.tombstone = ends.0
        result = it.uring.work.fillSlot(it.files.capacity, file: ends.1)
        System.close(ends.1)
        return min(result, 0)
    }

    /// After a failed start. The parking ring stays, if there is one, for the next attempt.
    fileprivate func abandonRings() {
        it.uring.work.close()
        it.uring.parking.forgetThread()
    }

    // MARK: The loop

    /// One turn: take what was handed over, enter the ring, finish what completed. True when the
    /// daemon has left.
    fileprivate func round() -> Bool {
        takeOver(it.queue.takeAll(it.table))
        takeOver(takeColdReads())
        giveUpAbandoned()
        if it.cancellations.exchange(0, ordering: .sequentiallyConsistent) != 0 {
            cancelRequested()
        }
        armDoorbell()
        if it.coldReads.count.load(ordering: .relaxed) != 0 {
            it.uring.looksLeft = UringDaemon.looks
        }
        let isLooking = it.uring.looksLeft > 0
        if isLooking { it.uring.looksLeft &-= 1 }
        it.uring.isLooking.store(isLooking, ordering: .sequentiallyConsistent)
        it.sleeping.store(1, ordering: .sequentiallyConsistent)
        // Pairs with ringDoorbell(): whoever comes after this look finds `sleeping` set.
        let mustLook =
            it.queue.count.load(ordering: .sequentiallyConsistent) != 0
            || it.wantsColdReads.load(ordering: .sequentiallyConsistent)
            || !isLooking && it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0
            || it.files.hasAbandoned.load(ordering: .sequentiallyConsistent)
            || it.cancellations.load(ordering: .sequentiallyConsistent) != 0
            || it.uring.publishedHead != Job.none
        let idle = isIdle && !mustLook
        let lost = it.isLost.load(ordering: .sequentiallyConsistent)
        var timeoutNs = UInt64.max
        if isLooking {
            timeoutNs = UringDaemon.lookIntervalNs
        } else if idle {
            timeoutNs =
                lost ? 50_000_000 : UInt64(it.table.it.limits.aiodLifetimeMs) &* 1_000_000
        } else if it.uring.threads.areTaken {
            timeoutNs = UringThreads.lookIntervalNs
        }
        let result = it.uring.work.enter(minComplete: mustLook ? 0 : 1, timeoutNs: timeoutNs)
        it.sleeping.store(0, ordering: .sequentiallyConsistent)
        reap()
        tendThreads()
        if it.uring.work.isDenied || it.uring.parking.isDenied {
            giveUp()
            return true
        }
        if idle && !isLooking && result == failure(ETIME) && isIdle {
            return tryToLeave { leave() }
        }
        return false
    }

    private var isIdle: Bool { it.uring.running == 0 && it.uring.signalsRunning == 0 }

    private func leave() {
        giveUpAbandoned()
        it.uring.work.close()
        it.uring.parking.forgetThread()
    }

    /// The rings are of no use any more. What is with them and on its way to them fails, and nobody
    /// else comes here: later requests go to another engine. But the kernel may still be at it. So
    /// another thread waits until the work ring is gone, for which this one must be, and then
    /// tells.
    private func giveUp() {
        it.engine.giveUpUring(self)
        it.uring.parking.emptyAllSlots()
        leave()
        while unsafe ioctx_thread_start(
            { argument in
                Ref<Station>(address: UInt(bitPattern: argument))?.endGivenUp()
                return nil
            }, UnsafeMutableRawPointer(pointer), Int(IOCTX_DAEMON_STACK_BYTES)) != 0
        {
            System.sleep(nanoseconds: 1_000_000_000)
        }
    }

    /// The life of the thread that ends what a daemon had which has given up.
    private func endGivenUp() {
        becomeDaemon(named: "aiod/0")
        defer { endDaemon() }
        // The thread before this one has a hold on the ring, too.
        while System.readiness(of: it.uring.tombstone, UInt32(POLLIN)) == 0 {
            System.sleep(nanoseconds: 1_000_000)
        }
        // A parked job retains the station until those before it are done, a sleeper that is woken
        // by an eventfd until it is awake.
        repeat {
            failAll()
            announcePublished()
            System.sleep(nanoseconds: 1_000_000)
        } while it.users.load(ordering: .sequentiallyConsistent) != 0
            || it.queue.count.load(ordering: .sequentiallyConsistent) != 0
            || it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0
        it.state.store(Station.dead, ordering: .releasing)
    }

    private func failAll() {
        failAll(it.coldReads.takeAll(it.table))
        failAll(it.queue.takeAll(it.table))
        it.table.forEachJob { job in
            let state = job.state
            if (state == .running || state == .waiting)
                && job.it.station.load(ordering: .relaxed) == address
            {
                fail(job, from: state, result: totalResult(job, last: failure(EIO)))
            }
        }
    }

    private func failAll(_ first: JobRef?) {
        var next = first
        while let job = next {
            next = it.table.successor(of: job)
            if job.it.operation != .notify && !mayStart(job) { continue }
            if !job.transition(from: .queued, to: .running) {
                fail(job, from: .cancelled, result: job.cancelledResult)
            } else if job.it.operation == .notify {
                fail(job, from: .running, result: 0)
            }
        }
    }

    /// The eventfd was in the ring: it is signalled by its number in the program's table, if that
    /// still leads to one.
    private func fail(_ job: JobRef, from state: JobState, result: Int) {
        let isSignalled = job.it.operation != .notify || job.it.pollEvents != 0
        let number = job.it.resfd
        publish(job, from: state, result: result)
        if isSignalled && number >= 0 { signalInProgram(number) }
    }

    private func signalInProgram(_ number: Int32) {
        // What /proc/self shows is the program's table, not this thread's.
        if AnonymousFile.name(of: number) != .eventfd { return }
        let process = systemCall(
            Int32(IOCTX_SYS_pidfd_open), systemCall(Int32(SYS_getpid)), 0)
        if process < 0 { return }
        defer { System.close(Int32(truncatingIfNeeded: process)) }
        let made = systemCall(Int32(IOCTX_SYS_pidfd_getfd), process, Int(number), 0)
        if made < 0 { return }
        Eventfd.signal(Int32(truncatingIfNeeded: made), count: 1)
        System.close(Int32(truncatingIfNeeded: made))
    }

    private func armDoorbell() {
        if it.uring.doorbellArmed { return }
        let value = it.doorbell.load(ordering: .sequentiallyConsistent)
        let entry = entry()
        entry.it.opcode = UInt8(URING_OP_FUTEX_WAIT)
        entry.it.fd = Int32(FUTEX2_SIZE_U32_PRIVATE)
        entry.it.address = unsafe withUnsafePointer(to: it.doorbell) {
            UInt64(UInt(bitPattern: $0))
        }
        entry.it.offset = UInt64(value)
        entry.it.address3 = UInt64(UInt32.max)
        entry.it.user_data = UringDaemon.doorbellData
        it.uring.doorbellArmed = true
    }

    /// A free submission entry of the work ring, which is entered first when it is full.
    private func entry() -> Ref<uring_sqe> {
        while true {
            if let entry = it.uring.work.nextEntry() { return entry }
            _ = it.uring.work.enter(minComplete: 0)
        }
    }

    /// Submits what does nothing, but takes one of the kernel's threads for it.
    func askForThread(_ data: UInt64) {
        let entry = entry()
        Ring.describeNothing(entry)
        entry.it.user_data = data
    }

    // MARK: Taking jobs over

    /// The cold reads that somebody wants from the daemon, or that nobody has come for: all of them
    /// if nobody came at all since it looked last, else those that were there by then.
    private func takeColdReads() -> JobRef? {
        if it.wantsColdReads.exchange(false, ordering: .sequentiallyConsistent) {
            return it.coldReads.takeAll(it.table)
        }
        if it.coldReads.count.load(ordering: .relaxed) == 0 { return nil }
        let now = System.monotonicNs()
        if now &- it.uring.lookedAtNs < UringDaemon.lookIntervalNs { return nil }
        it.uring.lookedAtNs = now
        let visits = it.uring.visits.load(ordering: .relaxed)
        if visits == it.uring.visitsSeen { return it.coldReads.takeAll(it.table) }
        it.uring.visitsSeen = visits
        return it.coldReads.take(.max, it.table) { job in
            defer { job.it.wasSeen = true }
            return job.it.wasSeen
        }
    }

    private func takeOver(_ first: JobRef?) {
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
        var entry = it.uring.parking.nextEntry()
        if entry == nil {
            flushFetches()
            entry = it.uring.parking.nextEntry()
        }
        guard let entry else { return }
        entry.it.opcode = UInt8(URING_OP_MSG_RING)
        entry.it.fd = it.uring.work.descriptor
        entry.it.address = UInt64(URING_MSG_SEND_FD)
        entry.it.address3 = UInt64(index)
        entry.it.file_index = index &+ 1
        entry.it.op_flags = UInt32(URING_MSG_CQE_SKIP)
        entry.it.user_data = UInt64(index)
    }

    private func flushFetches() {
        var expected = it.uring.parking.pending
        while expected > 0 && !it.uring.parking.isDenied {
            _ = it.uring.parking.enter(minComplete: expected)
            while let completion = it.uring.parking.nextCompletion() {
                expected &-= 1
                // The work ring's slot keeps the file from here on; the parking slot must not.
                it.uring.parking.emptySlot(UInt32(truncatingIfNeeded: completion.user_data))
            }
        }
    }

    /// Puts what is left of a job on the work ring.
    private func submit(_ job: JobRef) {
        let entry = entry()
        entry.it.fd = Int32(bitPattern: job.it.heldFile)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        if job.it.blocksWhenReady { entry.it.flags |= UInt8(URING_SQE_ASYNC) }
        entry.it.user_data = job.name
        switch job.it.operation {
        case .read, .write:
            describeTransfer(job, entry)
        case .fsync, .fdatasync:
            entry.it.opcode = UInt8(URING_OP_FSYNC)
            entry.it.op_flags =
                job.it.operation == .fdatasync ? UInt32(URING_FSYNC_DATASYNC) : 0
        case .poll:
            entry.it.opcode = UInt8(URING_OP_POLL_ADD)
            entry.it.op_flags = job.it.pollEvents
        case .notify:
            break
        }
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

    private func cancelRequested() {
        it.table.forEachJob { job in
            let state = job.state
            if state != .waiting && state != .running
                || job.it.station.load(ordering: .relaxed) != address
                || !job.it.cancelRequested.load(ordering: .acquiring)
            {
                return
            }
            let entry = entry()
            entry.it.opcode = UInt8(URING_OP_ASYNC_CANCEL)
            entry.it.fd = -1
            entry.it.address = job.name
            entry.it.user_data = UringDaemon.ignoredData
        }
    }

    // MARK: Finishing jobs

    private func reap() {
        takeCompletions()
        while it.uring.signalsDue {
            signalEventfds()
            awaitSignals()
        }
        announcePublished()
    }

    private func announcePublished() {
        while it.uring.publishedHead != Job.none {
            let job = it.table.job(at: it.uring.publishedHead)
            it.uring.publishedHead = job.it.queueNext
            announce(job)
        }
    }

    private func takeCompletions() {
        while let completion = it.uring.work.nextCompletion() {
            let data = completion.user_data
            if data == UringDaemon.doorbellData {
                it.uring.doorbellArmed = false
            } else if data == UringDaemon.ignoredData {
                continue
            } else if data & ~0xffff == UringDaemon.signalData {
                signalled(UInt32(truncatingIfNeeded: data & 0xffff))
            } else if let job = it.table.job(named: data) {
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
            if result > 0 { it.table.advance(job, by: result) }
            if state == .waiting { _ = job.transition(from: .waiting, to: .running) }
            submit(job)
            return
        }
        var total = result
        switch job.it.operation {
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
    /// all. An interruption is ours, not the program's.
    private func mustContinue(_ job: JobRef, _ result: Int) -> Bool {
        guard job.it.operation == .read || job.it.operation == .write else { return false }
        if job.it.cancelRequested.load(ordering: .acquiring) { return false }
        if result == failure(EINTR) { return true }
        if result <= 0 || result >= job.it.length { return false }
        return job.it.isStream ? job.it.operation == .write : job.it.isBuffered
    }

    private func publish(
        _ job: JobRef, from state: JobState, result: Int
    ) {
        let eventfd = job.it.operation == .notify ? Job.none : job.it.heldEventfd
        finish(job, from: state, result: result)
        if eventfd != Job.none { signal(eventfd) }
        job.it.queueNext = it.uring.publishedHead
        it.uring.publishedHead = job.it.index
    }

    // MARK: Eventfds

    private func signal(_ index: UInt32) {
        it.files[index].it.signals &+= 1
        it.uring.signalsDue = true
    }

    /// Starts a write to each eventfd with events to announce.
    private func signalEventfds() {
        it.uring.signalsDue = false
        var index = it.uring.publishedHead
        while index != Job.none {
            let job = it.table.job(at: index)
            index = job.it.queueNext
            let eventfd = job.it.heldEventfd
            if eventfd == Job.none { continue }
            let file = it.files[eventfd]
            if file.it.signals > 0 && file.it.announced == 0 {
                it.files.addReference(eventfd)
                it.uring.signalsRunning &+= 1
                writeSignals(eventfd)
            }
        }
    }

    /// The kernel may come back to the write later: it hands one to a blocking eventfd to a thread
    /// of its own. The file is held meanwhile, and `announced` belongs to the kernel.
    private func writeSignals(_ index: UInt32) {
        let entry = entry()
        let file = it.files[index]
        file.it.announced = file.it.signals
        file.it.signals = 0
        entry.it.opcode = UInt8(URING_OP_WRITE)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        entry.it.fd = Int32(bitPattern: index)
        entry.it.address = UInt64(UInt(bitPattern: withAddress(of: &file.it.announced) { $0 }))
        entry.it.length = 8
        entry.it.user_data = UringDaemon.signalData | UInt64(index)
    }

    /// A write to an eventfd is done; what has come meanwhile is written next.
    private func signalled(_ index: UInt32) {
        let file = it.files[index]
        file.it.announced = 0
        if file.it.signals > 0 { return writeSignals(index) }
        it.uring.signalsRunning &-= 1
        it.uring.signalsOverdue = min(it.uring.signalsOverdue, it.uring.signalsRunning)
        dropHeld(index)
    }

    /// Sleepers are woken after the eventfds are signalled. Requests that end meanwhile are
    /// published, and signalled in the next turn.
    private func awaitSignals() {
        let deadlineNs = System.monotonicNs() &+ UringDaemon.signalPatienceNs
        while it.uring.signalsRunning > it.uring.signalsOverdue {
            let entered = it.uring.work.enter(
                minComplete: 1, timeoutNs: UringDaemon.signalPatienceNs)
            takeCompletions()
            if entered == failure(ETIME) || System.monotonicNs() >= deadlineNs {
                it.uring.signalsOverdue = it.uring.signalsRunning
            }
        }
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

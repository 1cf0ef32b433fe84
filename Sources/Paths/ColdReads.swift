// Cold reads that were handed over untried: the disk's start for them, and their end.
//
// Starting the disk takes the caller of io_submit several microseconds, now and then a hundred, so
// reads of a cold file go to the daemon as they are if the program calls io_getevents as a rule.
// When it does, it starts the disk for those that the daemon has not taken yet. Signals are blocked
// while the queue's lock is held: a handler may leave io_getevents by longjmp, or wait in it for a
// read of another thread. Where a seccomp filter is active, which may kill for these calls, the
// daemon starts the disk.
//
// A caller who has nothing else to wait for goes on to do his context's reads himself, the oldest
// first: he sleeps for the disk and not for a daemon that sleeps for the disk. As long as somebody
// comes, the daemon leaves them to him for a millisecond or two. First he waits for the bytes by
// the program's own descriptor, as long as that takes, and owns none of the reads yet: so a handler
// may fork or end the thread there, and the daemon may take them. Then he takes what is there from
// the file that is held in the parking ring.
//
// What is asked of the program's descriptor has no effect but time: it may lead elsewhere by now,
// and then another file is read ahead, or waited for. The parking ring is entered for reads that
// do not wait (RWF_NOWAIT), and with it nothing that could end later and interrupt the thread.

import CLibAIO
import JobTable
import Synchronization

/// What becomes of reads of files that were not in memory last time.
public enum ColdReads {
    /// Each is tried.
    case tried
    /// They are handed over untried: somebody will start the disk for them soon.
    case untried
    /// And he will do them, too, when the disk has: the daemon leaves them to him for a while.
    case leftToWaiters

    /// Longer ones are the daemon's: nobody else enters the parking ring meanwhile.
    static let bytesMax = 64 << 10
    /// Who waits longer than this for one does better to leave the next to the daemon, who knows
    /// which comes first: the context may read from a quicker disk, too.
    public static let slowNs: UInt64 = 1_000_000
}

/// How much a caller of io_getevents starts, several microseconds for each.
enum EarlyStart {
    /// Whoever sleeps next has the time.
    case beforeSleep
    /// Whoever has found events gets them a little later.
    case inPassing

    var countMax: Int { self == .beforeSleep ? 32 : 8 }
    var bytesMax: Int { self == .beforeSleep ? 1 << 20 : 64 << 10 }
}

extension Ref where Pointee == EngineRecord {
    /// Starts the disk for some of the cold reads, and makes the daemon look at all it has been
    /// given, as `nudge` does: for who sleeps in io_getevents.
    public func nudgeAndStartReads() {
        stationInArrears?.startReads(.beforeSleep, mustWake: true)
    }

    /// Starts the disk for a few of them: for who has found events in io_getevents and goes on.
    @inline(__always)
    public func startReads() {
        stationInArrears?.startReads(.inPassing, mustWake: false)
    }

    /// Sleeps until the disk has the oldest read that was left to whoever waits for the events of a
    /// context. For a caller that has no others to wait for, and holds nothing: a handler may run
    /// meanwhile, and fork. The nanoseconds that it took; nil when there is no such read.
    public func awaitColdRead(of owner: UInt) -> UInt64? {
        // Not for reads that are the daemon's: it is to be woken before the disk is started.
        guard !CurrentThread().isNested, let station = stationInArrears,
            station.it.coldReads.count.load(ordering: .relaxed) != 0, !System.isFiltered,
            let read = station.startReadsUnfiltered(.beforeSleep, of: owner)
        else { return nil }
        let start = System.monotonicNs()
        read.awaitDisk()
        return System.monotonicNs() &- start
    }

    /// Does those of the oldest such reads that are in memory by now. False when it did none, and
    /// left them to the daemon.
    public func doColdReads(of owner: UInt) -> Bool {
        withSignalsBlocked {
            var count = 0
            if let station = it.station.current, station.it.kind == .uring, station.retain() {
                if station.isReachable() { count = station.doColdReads(of: owner) }
                station.release()
            }
            if count == 0 { nudge() }
            return count > 0
        }
    }
}

extension Ref where Pointee == Station {
    // MARK: The disk's start

    /// Starts the disk for the first cold reads, those that are left to whoever waits or else those
    /// that are the daemon's, and with `mustWake` wakes the daemon for them.
    @inline(never)
    func startReads(_ amount: EarlyStart, mustWake: Bool) {
        if !System.isFiltered {
            startReadsUnfiltered(amount, mustWake: mustWake)
        } else if mustWake {
            callForAll()
        }
    }

    /// The same where no filter is active. The first of the cold reads of `owner`, which the caller
    /// is about to wait for.
    @discardableResult
    fileprivate func startReadsUnfiltered(
        _ amount: EarlyStart, of owner: UInt = 0, mustWake: Bool = false
    ) -> ColdRead? {
        var reads = InlineArray<32, ColdRead>(repeating: ColdRead())
        var count = 0
        var oldest: ColdRead?
        var bytes = 0
        func coldRead(_ job: JobRef) -> ColdRead {
            ColdRead(job, flags: it.files[job.it.heldFile].it.flags)
        }
        func add(_ job: JobRef) -> Bool {
            if !job.it.mustStartDisk { return true }
            bytes &+= job.it.length
            if bytes > amount.bytesMax { return false }
            job.it.mustStartDisk = false
            reads[count] = coldRead(job)
            count &+= 1
            return count < min(amount.countMax, reads.count)
        }
        withSignalsBlocked {
            it.coldReads.forEach(it.table) { job in
                if oldest == nil && job.it.owner == owner { oldest = coldRead(job) }
                return add(job)
            }
            if count == 0 { it.queue.forEach(it.table, add) }
        }
        // Whoever waits for its only page starts the disk for that himself.
        if count == 1, let oldest, oldest == reads[0], oldest.isOnOnePage { return oldest }
        // The daemon takes longer to wake than the disk to start.
        if count > 0 { reads[0].start() }
        if mustWake { callForAll() }
        for index in 1..<max(count, 1) { reads[index].start() }
        return oldest
    }

    /// Makes the daemon take everything that is queued, cold reads as well.
    func callForAll() {
        // Sequentially consistent, like the doorbell's word: a daemon that sleeps has seen it.
        if it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0 {
            it.wantsColdReads.store(true, ordering: .sequentiallyConsistent)
        }
        ringDoorbell()
    }

    // MARK: In the daemon

    /// The cold reads that somebody wants from the daemon, or that nobody has come for: all of them
    /// if nobody came at all since it looked last, else those that were there by then.
    func takeColdReads() -> JobRef? {
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

    // MARK: In whoever waits

    /// How many it has done.
    fileprivate func doColdReads(of owner: UInt) -> Int {
        it.uring.visits.wrappingAdd(1, ordering: .relaxed)
        var jobs = InlineArray<8, UInt32>(repeating: Job.none)
        var count = 0
        while count < jobs.count, let job = takeColdRead(of: owner) {
            jobs[count] = job.it.index
            count &+= 1
        }
        var results = InlineArray<8, Int>(repeating: failure(EBADF))
        readParked(jobs, count, &results)
        // From the last to the first, which are to be done first the next time.
        for index in (0..<count).reversed() where results[index] == failure(EAGAIN) {
            leave(it.table.job(at: jobs[index]))
        }
        var done = 0
        for index in 0..<count where results[index] != failure(EAGAIN) {
            let job = it.table.job(at: jobs[index])
            // The end of the file, or whatever else it is; or it must be given up before its event.
            if results[index] != job.it.length || !dropVisited(job) {
                giveToDaemon(job)
                continue
            }
            finish(job, from: .running, result: results[index])
            announce(job)
            done &+= 1
        }
        // It may have seen none of those, and look no longer.
        if !it.uring.isLooking.load(ordering: .sequentiallyConsistent) { ringDoorbell() }
        return done
    }

    /// Drops the held file of a job that is done. False when that is the daemon's to do.
    private func dropVisited(_ job: JobRef) -> Bool {
        let index = job.it.heldFile
        switch it.files.dropReferenceAsVisitor(index) {
        case .daemons: return false
        case .shared: break
        case .last:
            if isReachable() && it.uring.parking.fillSlot(index, file: -1) >= 0 {
                it.files.recycle(index)
            } else {
                // The program has just closed the way in. The daemon has one of its own.
                it.files.abandon(index)
                ringDoorbell()
            }
        }
        job.it.heldFile = Job.none
        return true
    }

    /// Wins the oldest cold read of a context for the calling thread. No station has it meanwhile.
    private func takeColdRead(of owner: UInt) -> JobRef? {
        while let job = it.coldReads.take(1, it.table, where: { $0.it.owner == owner }) {
            job.it.station.store(0, ordering: .relaxed)
            if job.transition(from: .queued, to: .running) { return job }
            queueForDaemon(job)
        }
        return nil
    }

    /// Reads from the files in the parking ring what is in memory. The results of what could not be
    /// asked for, because the daemon has moved its file for instance, stay as they are.
    private func readParked(
        _ jobs: borrowing InlineArray<8, UInt32>, _ count: Int,
        _ results: inout InlineArray<8, Int>
    ) {
        it.uring.parkingLock.lock()
        defer { it.uring.parkingLock.unlock() }
        for index in 0..<count {
            let job = it.table.job(at: jobs[index])
            guard !it.files[job.it.heldFile].it.isMoved,
                let entry = it.uring.parking.nextEntry()
            else { continue }
            describeTransfer(job, entry)
            entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
            entry.it.fd = Int32(bitPattern: job.it.heldFile)
            entry.it.op_flags |= UInt32(IOCTX_RWF_NOWAIT)
            entry.it.user_data = UInt64(index)
        }
        var left = it.uring.parking.enterAsVisitor()
        while left > 0 {
            if let completion = it.uring.parking.nextCompletion() {
                results[Int(completion.user_data & 7)] = Int(completion.result)
                left &-= 1
            } else {
                // Not seen. If one were not complete at once, any system call would make it so.
                System.sleep(nanoseconds: 1_000)
            }
        }
    }

    /// Puts a read that the disk does not have yet back to those that are left.
    private func leave(_ job: JobRef) {
        _ = job.transition(from: .running, to: .queued)
        job.it.station.store(address, ordering: .relaxed)
        it.coldReads.putBack(it.table, job)
    }

    private func giveToDaemon(_ job: JobRef) {
        _ = job.transition(from: .running, to: .queued)
        queueForDaemon(job)
    }

    private func queueForDaemon(_ job: JobRef) {
        job.it.station.store(address, ordering: .relaxed)
        it.queue.append(it.table, first: job, last: job, count: 1)
        ringDoorbell()
    }
}

/// What is to be asked of the disk, and the file that it is about.
private struct ColdRead: Equatable {
    var descriptor: Int32 = -1
    var offset: Int64 = 0
    var length = 0
    var device: UInt64 = 0
    var inode: UInt64 = 0
    /// F_GETFL.
    var flags = 0

    init() {}

    init(_ job: JobRef, flags: Int) {
        descriptor = job.it.descriptor
        offset = job.it.offset
        length = job.it.length
        device = job.it.device
        inode = job.it.inode
        self.flags = flags
    }

    var isOnOnePage: Bool { (offset ^ (offset &+ Int64(length) &- 1)) & ~4095 == 0 }

    func start() {
        _ = systemCall(Int32(SYS_readahead), Int(descriptor), Int(offset), length)
    }

    /// Sleeps until the last byte is in memory, or not at all when the descriptor does not lead to
    /// the file any longer.
    func awaitDisk() {
        var status = FileStatus()
        if FileFacts.status(of: descriptor, flags: flags, into: &status) < 0
            || status.device != device || status.inode != inode
        {
            return
        }
        var byte: UInt8 = 0
        withAddress(of: &byte) { byteAddress in
            var vector = Vector(base: UInt(bitPattern: byteAddress), length: 1)
            withAddress(of: &vector) {
                _ = System.transfer(
                    isWrite: false, descriptor, UInt(bitPattern: $0), 1,
                    offset &+ Int64(length) &- 1, 0)
            }
        }
    }
}

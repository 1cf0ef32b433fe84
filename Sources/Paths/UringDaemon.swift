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
    /// The same of a number for it in the daemon's table.
    static let installData: UInt64 = 0x8001_0000

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
    /// The daemon's own, as ioprio_set(2) has it: see takePriority.
    var ioPriority: UInt16 = 0
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
            return tryToLeave { leaveRings() }
        }
        return false
    }

    private var isIdle: Bool { it.uring.running == 0 && it.uring.signalsRunning == 0 }

    private func armDoorbell() {
        if it.uring.doorbellArmed { return }
        let value = it.doorbell.load(ordering: .sequentiallyConsistent)
        let entry = workEntry()
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
    func workEntry() -> Ref<uring_sqe> {
        while true {
            if let entry = it.uring.work.nextEntry() { return entry }
            _ = it.uring.work.enter(minComplete: 0)
        }
    }

    /// Submits what does nothing, but takes one of the kernel's threads for it.
    func askForThread(_ data: UInt64) {
        let entry = workEntry()
        Ring.describeNothing(entry)
        entry.it.user_data = data
    }
}

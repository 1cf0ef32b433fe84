// A context: what one io_setup made. Its ring, its request queue, and who waits for its events.
//
// Lock key:
//   (c) the context's lock
//   (f) the face's lock
// A context's memory is never unmapped; a pin keeps the record from being reused, and so do a
// reserved slot and the lock. Whoever finds a context by address takes one of them first and looks
// again (ContextLookUp.swift).
//
// Slots: in flight + unreaped events <= nr - 1. In flight counts every accepted request until its
// event is stored, inline ones included; it drops after the tail has moved, so that a look at both
// never counts a request in neither.

import CLibAIO
import JobTable
import Paths
import Synchronization

/// A thread asleep in io_pgetevents; lives on its stack.
struct MaskedSleeper {
    var next: UInt  // (c)
    var wanted: UInt32  // (c)
    var notifier: Notifier  // (c)
}

/// What is special about a context; 0 in one that is ours and in use.
enum ContextState {
    /// Set by io_destroy, once.
    static let dying = UInt8(IOCTX_CONTEXT_DYING)
    /// The program's ring is the kernel's: Adoption.swift. Set once, under (c).
    static let adopted = UInt8(IOCTX_CONTEXT_ADOPTED)
    /// Until the first io_submit, which decides about adoption.
    static let fresh = UInt8(IOCTX_CONTEXT_FRESH)
}

/// Whole cache lines: two threads with a context each share none (a test says so when that
/// changes).
struct Context: ~Copyable {
    // What outsiders may read comes first: struct ioctx_context_counts in counters.h.

    /// The program's view of the ring: the context's name. 0 in a record that is not in use.
    let address: Atomic<UInt>
    var quota: UInt32  // (f) io_setup's argument
    /// Bits of ContextState.
    let state: Atomic<UInt8>
    /// (c), but for `adopted`, which no lock guards.
    let counts: LinuxCounts

    let lock: FutexLock
    /// Calls that use the record, and deferred jobs. The last to unpin a dying context frees it.
    let pins: Atomic<UInt32>
    /// Threads that reap an adopted context's events in the kernel.
    var kernelReapers: UInt32  // (c)
    /// The next context of the hash chain, by index + 1; 0 at its end.
    let hashNext: Atomic<UInt32>  // (f) to write; look-up reads it without
    var index: UInt32  // (f) also the ring's id
    var ringAddress: UInt  // (f) of the ring in our view; constant while the record is in use

    var ring: AioRing  // (c)
    var inFlight: UInt32  // (c)
    /// Deferred requests that the kernel would have completed in io_submit.
    var overdue: UInt32  // (c)
    /// Deferred jobs, and those of them that are with the kernel's AIO.
    var jobs: UInt32  // (c)
    var kernelJobs: UInt32  // (c)
    /// Published jobs, and batches of events, whose eventfd may not be signalled yet.
    let unannounced: Atomic<UInt32>
    /// The thread that has submitted all of the jobs; 0 when there were several.
    var submitter: UInt32  // (c)
    /// The request queue: deferred jobs in the order of their submission.
    var jobsHead: UInt32  // (c)
    var jobsTail: UInt32  // (c)

    /// Threads asleep in io_getevents or io_destroy: on `changes`, by an eventfd with a mask of
    /// their own, or as watchers.
    let sleepers: Atomic<UInt32>
    let changes: Atomic<UInt32>
    /// Fewest available events that some sleeper wants.
    var wantedLeast: UInt32  // (c)
    /// How many submissions long a program is expected to do again what it did once. One that has
    /// changed its ways is slower for as long.
    static let expectation: UInt8 = 64

    /// Who has so many events in hand and reads on their way is busy until the daemon looks: the
    /// disk need not be started at once.
    static let plenty = 8

    /// How many more submissions may leave it to the next io_getevents to wake the daemon and to
    /// start the disk. A hint: a program calls it as a rule, or never.
    let reapsExpected: Atomic<UInt8>
    /// How many more submissions leave their cold reads to the daemon, because a caller of
    /// io_getevents who did some had to wait long. A hint.
    let slowReadsExpected: Atomic<UInt8>
    /// How many more direct requests may be left to the kernel's AIO, whose events come to the ring
    /// when somebody calls io_getevents. A hint, as well.
    let callsExpected: Atomic<UInt8>
    /// Whether io_getevents looks for an event before it sleeps.
    let patience: Patience
    var maskedSleepers: UInt  // (c) list of MaskedSleeper
    /// Sleepers that sleep for the kernel's events instead.
    var watchers: UInt32  // (c)
}

typealias ContextRef = Ref<Context>

extension Ref where Pointee == Context {
    /// Makes a fresh context of the record. The caller holds the face's lock; nobody else uses
    /// the record.
    func prepare(ring: AioRing, quota: UInt32, mayBeAdopted: Bool) {
        it.kernelReapers = 0
        it.ring = ring
        it.ringAddress = ring.pages.address
        it.quota = quota
        it.inFlight = 0
        it.overdue = 0
        it.jobs = 0
        it.kernelJobs = 0
        it.watchers = 0
        it.unannounced.store(0, ordering: .relaxed)
        it.submitter = 0
        it.jobsHead = Job.none
        it.jobsTail = Job.none
        it.wantedLeast = .max
        it.reapsExpected.store(0, ordering: .relaxed)
        it.slowReadsExpected.store(0, ordering: .relaxed)
        it.callsExpected.store(0, ordering: .relaxed)
        it.maskedSleepers = 0
        it.state.store(mayBeAdopted ? ContextState.fresh : 0, ordering: .relaxed)
    }

    // Sequentially consistent, all of them: whoever sets a bit then looks at the pins, slots or
    // sleepers of those who look at it.

    @inline(__always)
    private func has(_ bit: UInt8) -> Bool {
        it.state.load(ordering: .sequentiallyConsistent) & bit != 0
    }

    @inline(__always)
    var isDying: Bool { has(ContextState.dying) }

    @inline(__always)
    var isAdopted: Bool { has(ContextState.adopted) }

    @inline(__always)
    var mayBeAdopted: Bool { has(ContextState.fresh) }

    /// False when the bit was set before.
    func set(_ bit: UInt8) -> Bool {
        it.state.bitwiseOr(bit, ordering: .sequentiallyConsistent).oldValue & bit == 0
    }

    /// False when the bit was not set.
    func clear(_ bit: UInt8) -> Bool {
        it.state.bitwiseAnd(~bit, ordering: .sequentiallyConsistent).oldValue & bit != 0
    }

    /// The ring's id, which the program may have scribbled over. Of a record that was in use once.
    @inline(__always)
    var visibleId: UInt32 {
        let header = unsafe Ref<RingHeader>(address: it.ringAddress).unsafelyUnwrapped
        return header.it.id.load(ordering: .relaxed)
    }

    // MARK: Slots and events

    /// Reserves up to `count` slots; 0 when the ring is full or the context is dying. Whoever has
    /// slots reserved holds the record, and io_destroy waits for him.
    @inline(__always)
    func reserve(_ count: UInt32) -> UInt32 {
        it.lock.lock()
        let granted = reserveLocked(count)
        it.lock.unlock()
        return granted
    }

    /// The same for whoever has not pinned the record; 0 also when it is not, or not any longer,
    /// the context of that address, and for one whose first submission decides about adoption.
    @inline(__always)
    func reserve(_ count: UInt32, named address: UInt) -> UInt32 {
        it.lock.lock()
        let granted = isLocked(named: address) ? reserveRoomLocked(count) : 0
        it.lock.unlock()
        return granted
    }

    @inline(__always)
    private func reserveLocked(_ count: UInt32) -> UInt32 {
        // An adopted context has no slots of ours: the call starts again with the kernel.
        isAdopted || isDying ? 0 : reserveRoomLocked(count)
    }

    @inline(__always)
    private func reserveRoomLocked(_ count: UInt32) -> UInt32 {
        let used = it.inFlight &+ it.ring.available
        let room = it.ring.nr &- 1
        if used >= room { return 0 }
        let granted = min(count, room &- used)
        it.inFlight &+= granted
        return granted
    }

    /// Under the lock: whether the record is that of a living context of ours with that name,
    /// which is past its first submission. The record is not reused while the lock is held: see
    /// `release` in ContextLookUp.swift.
    @inline(__always)
    func isLocked(named address: UInt) -> Bool {
        // Acquire pairs with the release in make(), which prepares the record without its lock.
        it.address.load(ordering: .acquiring) == address && visibleId == it.index
            && it.state.load(ordering: .sequentiallyConsistent) == 0
    }

    /// Gives back slots that were reserved and not used.
    @inline(__always)
    func unreserve(_ count: UInt32) {
        it.lock.lock()
        it.inFlight &-= count
        it.lock.unlock()
        if isDying { wakeAll() }
    }

    /// Stores the events of requests that completed inline and makes them visible at once. With
    /// `isSignalled` io_destroy waits until `signalled` is called.
    @inline(__always)
    func publish(_ events: UInt, count: UInt32, isSignalled: Bool = false) {
        it.lock.lock()
        if isSignalled { it.unannounced.wrappingAdd(1, ordering: .sequentiallyConsistent) }
        it.ring.store(from: events, count: count)
        it.counts.inlined.addLocked(UInt64(count))
        it.ring.advanceTail(by: count)
        it.inFlight &-= count
        it.lock.unlock()
    }

    /// The same for a single event that signals nothing.
    @inline(__always)
    func publish(_ event: io_event) {
        it.lock.lock()
        it.ring.store(event)
        it.counts.inlined.addLocked(1)
        it.ring.advanceTail(by: 1)
        it.inFlight &-= 1
        it.lock.unlock()
    }

    /// The eventfd of a job, or of a batch of events, that was published has its count.
    @inline(__always)
    func signalled() { it.unannounced.wrappingSubtract(1, ordering: .sequentiallyConsistent) }

    // MARK: The request queue

    /// Links a deferred job in; it pins the context until `jobAnnounced`.
    func enqueue(_ job: JobRef, in table: Ref<JobTable>, isForKernel: Bool) {
        it.pins.wrappingAdd(1, ordering: .relaxed)
        it.lock.lock()
        job.it.ownerPrevious = it.jobsTail
        job.it.ownerNext = Job.none
        if it.jobsTail == Job.none {
            it.jobsHead = job.it.index
        } else {
            table.job(at: it.jobsTail).it.ownerNext = job.it.index
        }
        it.jobsTail = job.it.index
        if job.it.isBuffered { it.overdue &+= 1 }
        let thread = CurrentThread().name
        it.submitter = it.jobs == 0 || it.submitter == thread ? thread : 0
        it.jobs &+= 1
        if isForKernel {
            it.kernelJobs &+= 1
            let expected = it.callsExpected.load(ordering: .relaxed)
            if expected > 0 { it.callsExpected.store(expected &- 1, ordering: .relaxed) }
        }
        if job.awaitsReadiness {
            it.counts.readiness.addLocked()
        } else {
            it.counts.daemon.addLocked()
        }
        it.lock.unlock()
    }

    /// Publishes a finished job's event and takes the job out of the request queue.
    func publish(_ job: JobRef, in table: Ref<JobTable>, isForKernel: Bool) {
        it.lock.lock()
        it.ring.store(
            io_event(
                data: job.it.userData, obj: job.it.userObject, res: job.it.result, res2: 0))
        // Before the tail: who has reaped everything finds everything counted.
        it.counts.finished.addLocked()
        if job.wasCancelled { it.counts.cancelled.addLocked() }
        it.ring.advanceTail(by: 1)
        it.inFlight &-= 1
        it.unannounced.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if job.it.isBuffered { it.overdue &-= 1 }
        if isForKernel { it.kernelJobs &-= 1 }
        unlinkLocked(job, in: table)
        it.lock.unlock()
    }

    /// Takes a job of the kernel's out that was refused, as if it had never been there. It was
    /// linked in by the caller, who has pinned the context.
    func dequeue(_ job: JobRef, in table: Ref<JobTable>) {
        it.lock.lock()
        it.kernelJobs &-= 1
        it.counts.daemon.subtractLocked()
        unlinkLocked(job, in: table)
        it.lock.unlock()
        it.pins.wrappingSubtract(1, ordering: .relaxed)
    }

    private func unlinkLocked(_ job: JobRef, in table: Ref<JobTable>) {
        it.jobs &-= 1
        if job.it.ownerPrevious == Job.none {
            it.jobsHead = job.it.ownerNext
        } else {
            table.job(at: job.it.ownerPrevious).it.ownerNext = job.it.ownerNext
        }
        if job.it.ownerNext == Job.none {
            it.jobsTail = job.it.ownerPrevious
        } else {
            table.job(at: job.it.ownerNext).it.ownerPrevious = job.it.ownerPrevious
        }
    }

    // MARK: Sleepers

    /// io_getevents sleeps for deferred reads, or has found plenty: the next submissions may count
    /// on it.
    func expectReaping() {
        it.reapsExpected.store(Context.expectation, ordering: .relaxed)
    }

    /// io_getevents was called.
    @inline(__always)
    func expectCalls() { it.callsExpected.store(Context.expectation, ordering: .relaxed) }

    var isCallExpected: Bool { it.callsExpected.load(ordering: .relaxed) > 0 }

    /// A caller of io_getevents waited long for a read.
    func expectSlowReads() {
        it.slowReadsExpected.store(Context.expectation, ordering: .relaxed)
    }

    /// What is to become of the cold reads of the submission that begins.
    func chooseForColdReads() -> ColdReads {
        if it.reapsExpected.load(ordering: .relaxed) == 0 { return .tried }
        let slow = it.slowReadsExpected.load(ordering: .relaxed)
        if slow == 0 { return .leftToWaiters }
        it.slowReadsExpected.store(slow &- 1, ordering: .relaxed)
        return .untried
    }

    /// Whether a daemon that looks by itself, soon or only now and then, must be woken for what was
    /// just submitted: somebody sleeps for an event, or io_getevents is not expected.
    func mustWakeDaemon(looksSoon: Bool) -> Bool {
        if it.sleepers.load(ordering: .sequentiallyConsistent) != 0 { return true }
        let expected = it.reapsExpected.load(ordering: .relaxed)
        if expected > 0 { it.reapsExpected.store(expected &- 1, ordering: .relaxed) }
        return !looksSoon && expected == 0
    }

    /// Whether anybody sleeps for an event who does not sleep for it in the kernel.
    var hasFutexSleepers: Bool {
        // Sequentially consistent: pairs with a sleeper's registration, before which he has looked
        // for requests that are with the kernel.
        if it.sleepers.load(ordering: .sequentiallyConsistent) == 0 { return false }
        it.lock.lock()
        defer { it.lock.unlock() }
        return it.sleepers.load(ordering: .relaxed) > it.watchers
    }

    /// Wakes the sleepers that have what they want; after every publication and its eventfd.
    @inline(__always)
    func wakeSleepers() {
        // Pairs with the sleeper's registration under the lock: a publication that the sleeper
        // did not see there comes after it and finds it registered.
        if it.sleepers.load(ordering: .sequentiallyConsistent) != 0 { wakeSatisfied() }
    }

    @inline(never)
    private func wakeSatisfied() {
        it.lock.lock()
        // Whoever has just published holds the record no longer: it may be free, and its ring
        // unmapped, or another context's. Acquire pairs with the release in make().
        if it.address.load(ordering: .acquiring) == 0 { return it.lock.unlock() }
        let available = it.ring.available
        // Who sleeps for events of our ring must look for them in the kernel's when that has become
        // it.
        let isDone = isDying || isAdopted
        let wake = isDone || available >= it.wantedLeast
        if wake {
            it.changes.wrappingAdd(1, ordering: .relaxed)
            // All of them look again, and say again what they want. Unless nothing may come of it:
            // an interruption may fail, and a handler may jump out of a thread of the program.
            if it.watchers == 0 && CurrentThread().station != 0 { it.wantedLeast = .max }
        }
        var next = it.maskedSleepers
        while let sleeper = Ref<MaskedSleeper>(address: next) {
            if isDone || available >= sleeper.it.wanted { sleeper.it.notifier.signal() }
            next = sleeper.it.next
        }
        let isWatched = wake && it.watchers > 0
        it.lock.unlock()
        if wake { it.changes.wake() }
        if isWatched { LinuxFace.current?.it.engine.interruptKernelWatcher() }
    }

    /// Wakes everybody, whatever they want.
    func wakeAll() {
        it.changes.wrappingAdd(1, ordering: .sequentiallyConsistent)
        it.changes.wake()
        wakeSleepers()
    }
}

// POSIX AIO as a second face of the job table: its record, and what happens when a request is done.
//
// A request that completes inline writes its outcome into the block before the call returns, and
// the job table never hears of it. A deferred one is a job whose `subject` is the block and
// whose `owner` is the list that it came with, if any; the block has the job's name.
//
// Async-signal-safety: aio_error, aio_return and aio_suspend take no lock with signals open; where
// the kernel has events, they publish them with signals blocked. A daemon may wait for a lock that
// a thread of the program holds, so whoever takes one of the layer's locks on behalf of this face
// has signals blocked: no handler can then wait for a request that cannot end.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

struct PosixFace: ~Copyable {
    /// (p) Held while a job is marked as published, and by cancellers: one that is not published is
    /// not freed under their hands.
    let lock = FutexLock()
    let table: Ref<JobTable>  // constant
    let engine: Ref<EngineRecord>  // constant
    let counters: Ref<Counters>  // constant
    var done: DoneQueue
    var lists: Lists
    var notifier: NotifierThreads

    /// What sleepers sleep on; changes at every wake.
    let changes = Atomic<UInt32>(0)
    /// Sleepers to wake, as bits: whose requests were published since the last wake.
    let wakes = Atomic<UInt32>(0)
    /// Threads in aio_waitcomplete.
    let collectors = Atomic<UInt32>(0)

    /// A handler without SA_RESTART has been seen, when the face was made or later: it may be gone
    /// when the sleep that it has ended is looked at.
    let endsSleeps = Atomic<Bool>(false)

    /// The bit of whoever waits for any request; sleepers of aio_suspend have the lower ones.
    static let collectorBit: UInt32 = 1 << 31

    /// The value of a block whose request is with the kernel's AIO: it names the thread that made
    /// the request, which has handed it over when it looks.
    static func withKernel(_ thread: UInt32) -> Int { -2 &- Int(thread) }

    /// The face of this process, or nil before the first request.
    @inline(__always)
    static var current: Ref<PosixFace>? {
        guard let root = ProcessRoot.current else { return nil }
        return Ref(address: root.it.posixFace.load(ordering: .acquiring))
    }

    /// The face, made if necessary; nil without memory.
    static func create() -> Ref<PosixFace>? {
        if let face = current { return face }
        guard let root = ProcessRoot.create() else { return nil }
        root.it.creationLock.lock()
        defer { root.it.creationLock.unlock() }
        if let face = current { return face }
        guard let table = JobTable.createLocked(in: root),
            let engine = EngineRecord.createLocked(in: root, table: table),
            let done = DoneQueue(), let lists = Lists(), let notifier = NotifierThreads(),
            let face = Memory.record(PosixFace.self, unique: true)
        else { return nil }
        unsafe face.pointer.initialize(
            to: PosixFace(
                table: table, engine: engine, counters: table.it.counters,
                done: done, lists: lists, notifier: notifier))
        face.it.endsSleeps.store(
            CurrentThread.haveHandler(restarting: false), ordering: .relaxed)
        table.it.posixHooks = FaceHooks(
            publish: { job in PosixFace.publish(job) }, wake: { _ in PosixFace.wake() })
        root.it.posixFace.store(face.address, ordering: .releasing)
        return face
    }

    /// The job table's hook: a job of this face is finished, unless a canceller was faster.
    private static func publish(_ address: UInt) {
        guard let job = JobRef(address: address), let face = current else { return }
        face.publish(job, result: Int(job.it.result))
    }

    /// The job table's hook: its eventfd, if any, has been signalled.
    private static func wake() { current?.wakeSleepers() }
}

extension Ref where Pointee == PosixFace {
    /// Publishes a deferred job, unless a canceller has done that. The block has the outcome before
    /// any canceller can say that all is done.
    func publish(_ job: JobRef, result: Int) {
        let list = ListRef(address: job.it.owner)
        var notification: Notification?
        it.lock.lock()
        let isPublished = job.it.isPublished.exchange(true, ordering: .relaxed)
        if !isPublished {
            countFinishedLocked(result)
            notification = BlockRef(address: job.it.subject.load(ordering: .acquiring)).map {
                storeOutcome(result, of: job, in: $0, list: list)
            }
        }
        Ref<Int>(address: job.it.canceller)?.it = result
        job.it.canceller = 0
        it.lock.unlock()
        guard let notification else { return }
        announce(notification, list: list, failed: result < 0, isInline: false)
        // Sequentially consistent, after the store of the error: pairs with a sleeper that sets
        // its bit and looks at the error again.
        let sleepers = job.it.sleepers.load(ordering: .sequentiallyConsistent)
        if sleepers != 0 { it.wakes.bitwiseOr(sleepers, ordering: .relaxed) }
        // Release pairs with job(of:) in awaitNotification(): the notification has been sent.
        job.it.subject.store(0, ordering: .releasing)
    }

    /// At exit: main() may have returned with requests under way whose blocks lie where it has had
    /// its variables and exit() now has its own. Nobody will ask for them, and nothing may be
    /// written there. `frame` is an address in the stack of the calling thread.
    func forgetBlocks(around frame: UInt) {
        let thread = CurrentThread().name
        // exit() and what it calls need some KiB; of what main() needed nothing is known.
        let end = frame &+ 65_536
        it.lock.lock()
        it.table.forEachJob { job in
            let subject = job.it.subject.load(ordering: .acquiring)
            if subject == 0 || subject >= end || end &- subject > 8 << 20
                || job.it.submitter != thread || job.it.isPublished.load(ordering: .relaxed)
            {
                return
            }
            job.it.isPublished.store(true, ordering: .relaxed)
            countFinishedLocked(0)
        }
        it.lock.unlock()
    }

    func countFinishedLocked(_ result: Int) {
        it.counters.it.posix.finished.addLocked()
        if result == failure(ECANCELED) { it.counters.it.posix.cancelled.addLocked() }
    }

    /// How to notify of a request, besides its list.
    @inline(__always)
    func notification(of block: BlockRef, list: ListRef?) -> Notification {
        block.it.notification.kind != Int32(IOCTX_SIGEV_NONE)
            && list?.it.notifiesIndividually ?? true ? block.it.notification : .none
    }

    /// Writes the outcome into the block, and notifies.
    @inline(__always)
    func complete(
        _ block: BlockRef, _ result: Int, _ notification: Notification, list: ListRef?,
        isInline: Bool
    ) {
        store(result, in: block, isInline: isInline)
        announce(notification, list: list, failed: result < 0, isInline: isInline)
    }

    /// The same of a deferred request, without notifying. How to notify, which the block does not
    /// tell any more after that.
    func storeOutcome(
        _ result: Int, of job: JobRef, in block: BlockRef, list: ListRef?
    ) -> Notification {
        var notification = notification(of: block, list: list)
        if notification.hasAttributes {
            notification.attributes = UInt(truncatingIfNeeded: job.it.userData)
        }
        store(result, in: block, isInline: false)
        return notification
    }

    /// Writes the outcome into the block, which is not touched after that.
    @inline(__always)
    private func store(_ result: Int, in block: BlockRef, isInline: Bool) {
        let error = result < 0 ? Int32(truncatingIfNeeded: -result) : 0
        block.it.result.store(max(result, -1), ordering: .relaxed)
        if isInline {
            it.counters.it.posix.inlined.add()
            block.it.error.store(error, ordering: .releasing)
            it.done.add(block)
        } else {
            let address = block.address
            let place = it.done.enter(block)
            // Sequentially consistent: see publish(). Acquirers see what the request has read.
            block.it.error.store(error, ordering: .sequentiallyConsistent)
            it.done.open(place, address)
        }
    }

    /// Notifies of a request that is done, and counts it in its list.
    @inline(__always)
    func announce(
        _ notification: Notification, list: ListRef?, failed: Bool, isInline: Bool
    ) {
        notify(notification, isInline: isInline)
        if let list { settle(list, failed: failed, isInline: isInline) }
        if it.collectors.load(ordering: .sequentiallyConsistent) != 0 {
            it.wakes.bitwiseOr(PosixFace.collectorBit, ordering: .relaxed)
        }
    }

    /// Wakes whoever sleeps for a request that was published since the last time.
    func wakeSleepers() {
        if it.wakes.load(ordering: .relaxed) == 0 { return }
        let bits = it.wakes.exchange(0, ordering: .acquiringAndReleasing)
        if bits == 0 { return }
        it.changes.wrappingAdd(1, ordering: .sequentiallyConsistent)
        it.changes.wake(bits: bits)
    }

    /// The job that the block's request is now; nil when it is none of this process's.
    func job(of block: BlockRef) -> JobRef? {
        guard let job = it.table.job(named: block.it.job.load(ordering: .relaxed)),
            job.it.subject.load(ordering: .acquiring) == block.address
        else { return nil }
        return job
    }
}

extension Ref where Pointee == PosixFace {
    /// False in a child that a signal handler forked while its parent slept in a call: what that
    /// call knows is memory that the child does not have (ProcessRoot.swift).
    var isStillThere: Bool { PosixFace.current == self }
}

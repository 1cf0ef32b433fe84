// Workers that look for the next job for a while, and waiters that look for its event.
//
// Deferred writes that are done one at a time on their file are often as short as the copy to the
// page cache. Then the sleeps between them cost more than they do: a wake-up for each hand-over,
// and another for each event (Patience.swift). So both sides look before they sleep, as long as the
// other is awake on another processor.
//
// A worker that will look at the queue once more, come what may, offers that to submitters: who has
// queued a job and takes an offer need not wake anybody. An offer is one of a number; whoever made
// one withdraws one before it sleeps. If there is none left, somebody counts on it, and it looks
// again. Before it begins a job, which may take long, it withdraws one, too, and passes on what it
// cannot keep.

import CLibAIO
import JobTable
import Synchronization

struct Lingering: ~Copyable {
    let offers = Atomic<UInt32>(0)
    let patience = Patience()
    /// Where the last hand-over came from. A hint.
    let submitterProcessor = Atomic<Int32>(-1)
    /// Where a worker is at such a job, or looks for one; -1 when there is none. A hint.
    let workerProcessor = Atomic<Int32>(-1)
}

extension Ref where Pointee == Station {
    func rememberSubmitter() {
        it.pool.lingering.submitterProcessor.store(ioctx_processor(), ordering: .relaxed)
    }

    func rememberWorker() {
        it.pool.lingering.workerProcessor.store(ioctx_processor(), ordering: .relaxed)
    }

    func forgetWorker() {
        it.pool.lingering.workerProcessor.store(-1, ordering: .relaxed)
    }

    /// In a worker: submitters may count on it from now on.
    func offer() { it.pool.lingering.offers.wrappingAdd(1, ordering: .sequentiallyConsistent) }

    /// Takes an offer, of anybody: in a submitter after it has queued its job, in a worker that had
    /// made one. False when there is none.
    func takeOffer() -> Bool {
        // Sequentially consistent: a worker that looks at the queue after it found no offer sees
        // the job of the submitter who took it.
        var count = it.pool.lingering.offers.load(ordering: .sequentiallyConsistent)
        while count > 0 {
            let (isTaken, seen) = it.pool.lingering.offers.compareExchange(
                expected: count, desired: count &- 1, ordering: .sequentiallyConsistent)
            if isTaken { return true }
            count = seen
        }
        return false
    }

    /// In a worker that has made an offer and found the queue empty: looks for a job. True when the
    /// queue is to be looked at again; the offer is withdrawn.
    func linger() -> Bool {
        let isFound = it.pool.lingering.patience.look(
            while: {
                it.pool.lingering.submitterProcessor.load(ordering: .relaxed) != ioctx_processor()
            },
            until: { it.pool.work.count.load(ordering: .relaxed) != 0 })
        return !takeOffer() || isFound
    }
}

extension Ref where Pointee == EngineRecord {
    /// True while a worker is at a write of that kind on another processor.
    public var worksElsewhere: Bool {
        guard let station = it.poolStation.current ?? it.station.current,
            station.it.kind == .pool
        else { return false }
        let processor = station.it.pool.lingering.workerProcessor.load(ordering: .relaxed)
        return processor != -1 && processor != ioctx_processor()
    }
}

// The requests that are done and that nobody has collected, in the order of their completion.
//
// aio_waitcomplete takes from it; aio_return takes its own request out, wherever it is. Programs
// that know neither leave everything in it, so it is a ring in which the newest entry takes the
// place of one that nobody came for.
//
// Adding and taking out take no lock: a handler may call aio_return, and a daemon that adds must
// not wait for whom the handler has interrupted. Only aio_waitcomplete takes one, for itself.

import CLibAIO
import JobTable
import Synchronization

struct DoneEntry: ~Copyable {
    /// The block's address; one more while the block is still written to; 0 when collected.
    let block: Atomic<UInt>
    /// The place that the entry was made for, plus one; stored after the address.
    let stamp: Atomic<UInt64>
}

struct DoneQueue: ~Copyable {
    static let capacity: UInt64 = 16_384

    /// Serialises collectors.
    private let lock = FutexLock()
    private let entries: Records<DoneEntry>
    /// Where the oldest entry may be.
    private var head: UInt64 = 0  // (lock)
    /// Where the next entry goes.
    private let tail = Atomic<UInt64>(0)

    init?() {
        guard let records = Records<DoneEntry>(count: Int(Self.capacity)) else { return nil }
        entries = records
    }

    private func entry(_ place: UInt64) -> Ref<DoneEntry> {
        entries[Int(truncatingIfNeeded: place % Self.capacity)]
    }

    /// Adds a request whose block has its outcome before anybody else could ask for it.
    func add(_ block: BlockRef) {
        let place = tail.wrappingAdd(1, ordering: .relaxed).oldValue
        block.it.place.store(place, ordering: .relaxed)
        let entry = entry(place)
        entry.it.block.store(block.address, ordering: .relaxed)
        // Sequentially consistent: pairs with takeFirst(), and whoever adds looks for collectors
        // next.
        entry.it.stamp.store(place &+ 1, ordering: .sequentiallyConsistent)
    }

    /// Gives a request its place in the order, before the program can know that it is done; where
    /// that is.
    func enter(_ block: BlockRef) -> UInt64 {
        let place = tail.wrappingAdd(1, ordering: .relaxed).oldValue
        block.it.place.store(place, ordering: .relaxed)
        let entry = entry(place)
        entry.it.block.store(block.address | 1, ordering: .relaxed)
        // Release pairs with the acquire in takeFirst().
        entry.it.stamp.store(place &+ 1, ordering: .releasing)
        return place
    }

    /// The block has its outcome: collectors may have it, unless aio_return has been called for it.
    func open(_ place: UInt64, _ block: UInt) {
        _ = entry(place).it.block.compareExchange(
            expected: block | 1, desired: block, ordering: .sequentiallyConsistent)
    }

    /// Takes a request out, if it is there: it has been collected, or is made again.
    func remove(_ block: BlockRef) {
        let entry = entry(block.it.place.load(ordering: .relaxed))
        let found = entry.it.block.load(ordering: .relaxed)
        if found & ~1 != block.address { return }
        let (exchanged, now) = entry.it.block.compareExchange(
            expected: found, desired: 0, ordering: .relaxed)
        // Opened meanwhile.
        if !exchanged && now == block.address {
            _ = entry.it.block.compareExchange(expected: now, desired: 0, ordering: .relaxed)
        }
    }

    /// The oldest request that is done, taken out; nil when there is none.
    mutating func takeFirst() -> BlockRef? {
        lock.lock()
        defer { lock.unlock() }
        let end = tail.load(ordering: .sequentiallyConsistent)
        if end > head &+ Self.capacity { head = end &- Self.capacity }
        while head < end {
            let entry = entry(head)
            // Somebody is just adding it: those behind it were not done before.
            if entry.it.stamp.load(ordering: .sequentiallyConsistent) <= head { return nil }
            let block = entry.it.block.load(ordering: .acquiring)
            if block & 1 != 0 { return nil }
            head &+= 1
            if block != 0
                && entry.it.block.compareExchange(
                    expected: block, desired: 0, ordering: .acquiring
                ).exchanged
            {
                return BlockRef(address: block)
            }
        }
        return nil
    }
}

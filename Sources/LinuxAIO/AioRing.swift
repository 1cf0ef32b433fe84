// The aio_ring of one context, in the library's view (fs/aio.c, struct aio_ring).
//
// Invariants: the tail is the library's own and is only copied into the ring; what consumes it
// sees, and how, is in RingView.swift. An event is stored before the tail that makes it visible.

import CLibAIO
import JobTable
import Paths
import Synchronization

struct AioRing {
    static let headerBytes = RingView.headerBytes
    static let eventBytes = RingView.eventBytes

    var pages: RingPages
    /// Slots, one of which stays unused.
    var nr: UInt32
    /// Where the next event goes; the ring's own tail is a copy.
    var tail: UInt32 = 0

    /// The size of the ring for io_setup's argument (fs/aio.c, ioctx_alloc and aio_setup_ring):
    /// twice max(n, 4 x CPUs) events, one more for the gap and one for luck, in whole pages.
    /// Bytes, or a negated errno where the kernel refuses the size.
    static func bytes(forEvents n: UInt32, processors: UInt32) -> Int {
        let events = max(n, processors &* 4) &* 2
        if events > 0x1000_0000 / UInt32(eventBytes) { return failure(EINVAL) }
        if events == 0 { return failure(EAGAIN) }
        return Memory.roundUpToPage(headerBytes &+ (Int(events) &+ 2) &* eventBytes)
    }

    init(pages: RingPages, id: UInt32) {
        self.pages = pages
        nr = UInt32((pages.bytes &- Self.headerBytes) / Self.eventBytes)
        if let header = Ref<aio_ring>(address: pages.address) {
            header.it = aio_ring(
                id: id, nr: nr, head: 0, tail: 0, magic: UInt32(AIO_RING_MAGIC),
                compat_features: UInt32(AIO_RING_COMPAT_FEATURES),
                incompat_features: UInt32(AIO_RING_INCOMPAT_FEATURES),
                header_length: UInt32(Self.headerBytes))
        }
    }

    @inline(__always)
    private var view: RingView { RingView(address: pages.address, nr: nr) }

    /// True when no event was ever stored or consumed.
    var isUntouched: Bool { tail == 0 && view.header.it.head.load(ordering: .relaxed) == 0 }

    /// Events that nobody has consumed yet.
    @inline(__always)
    var available: UInt32 { view.events(from: view.head, to: tail) }

    /// Stores an event after the tail; invisible until `advanceTail`.
    @inline(__always)
    func store(_ event: io_event) { view.event(tail).it = event }

    /// Stores the `count` events at an address after the tail; invisible until `advanceTail`.
    @inline(__always)
    func store(from events: UInt, count: UInt32) {
        // Up to the ring's end, then from its start.
        let first = min(count, nr &- tail)
        RingView.copy(events, to: view.event(tail).address, count: first)
        if first == count { return }
        RingView.copy(
            events &+ UInt(first) &* UInt(Self.eventBytes), to: view.event(0).address,
            count: count &- first)
    }

    @inline(__always)
    mutating func advanceTail(by count: UInt32) {
        tail &+= count
        if tail >= nr { tail &-= nr }
        // Release pairs with the acquire of programs that read the ring: event, then tail.
        view.header.it.tail.store(tail, ordering: .releasing)
    }

    /// Copies up to `count` of the oldest events to the program's memory and consumes them, if
    /// there are at least `minimum`.
    @inline(__always)
    func take(into events: UInt, count: Int, minimum: Int = 0) -> Int {
        view.take(into: events, count: count, minimum: minimum, before: tail)
    }

    /// The same for memory that may not be there: -EFAULT and nothing consumed.
    func takeStrictly(into events: UInt, count: Int) -> Int {
        let position = view.head
        let there = Int(view.events(from: position, to: tail))
        let taken = UInt32(truncatingIfNeeded: min(count, there))
        let first = min(taken, nr &- position)
        if !Self.copyOut(view.event(position).address, first, events)
            || !Self.copyOut(
                view.event(0).address, taken &- first,
                events &+ UInt(first) &* UInt(Self.eventBytes))
        {
            return failure(EFAULT)
        }
        view.consume(taken, from: position)
        return Int(taken)
    }

    @inline(never)
    private static func copyOut(_ source: UInt, _ events: UInt32, _ target: UInt) -> Bool {
        let bytes = Int(events) &* eventBytes
        return bytes == 0 || UserMemory.copyOut(source, bytes, target) == bytes
    }
}

// The aio_ring of one context, in the library's view (fs/aio.c, struct aio_ring).
//
// Invariants: the tail is the library's own and is only copied into the ring; the head is whoever
// consumes', the program included, and is taken modulo nr. One slot is always unused. An event is
// stored before the tail that makes it visible.

import CLibAIO
import JobTable
import Synchronization

/// The header with the two fields that two sides write as atomics.
struct RingHeader: ~Copyable {
    let id: Atomic<UInt32>
    let nr: Atomic<UInt32>
    let head: Atomic<UInt32>
    let tail: Atomic<UInt32>
    let magic: UInt32
    let compatFeatures: UInt32
    let incompatFeatures: UInt32
    let headerLength: UInt32
}

struct AioRing {
    static let headerBytes = 32
    static let eventBytes = 32

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
    private var header: Ref<RingHeader> {
        unsafe Ref<RingHeader>(address: pages.address).unsafelyUnwrapped
    }

    /// True when no event was ever stored or consumed.
    var isUntouched: Bool { tail == 0 && header.it.head.load(ordering: .relaxed) == 0 }

    /// The oldest event's slot.
    @inline(__always)
    private var head: UInt32 {
        // Acquire pairs with the release of a program that consumed events itself.
        Self.slot(header.it.head.load(ordering: .acquiring), of: nr)
    }

    /// An index that others may have written, within a ring of `nr`.
    @inline(__always)
    static func slot(_ index: UInt32, of nr: UInt32) -> UInt32 {
        index < nr ? index : index % nr
    }

    /// Events that nobody has consumed yet.
    @inline(__always)
    var available: UInt32 { Self.events(from: head, to: tail, of: nr) }

    /// Events between two slots of a ring of `nr`.
    @inline(__always)
    static func events(from head: UInt32, to tail: UInt32, of nr: UInt32) -> UInt32 {
        tail >= head ? tail &- head : nr &- head &+ tail
    }

    /// Stores an event after the tail; invisible until `advanceTail`.
    @inline(__always)
    func store(_ event: io_event) { eventAddress(tail).it = event }

    /// Stores the `count` events at an address after the tail; invisible until `advanceTail`.
    @inline(__always)
    func store(from events: UInt, count: UInt32) {
        // Up to the ring's end, then from its start.
        let first = min(count, nr &- tail)
        Self.copy(events, to: eventAddress(tail).address, count: first)
        if first == count { return }
        Self.copy(
            events &+ UInt(first) &* UInt(Self.eventBytes), to: eventAddress(0).address,
            count: count &- first)
    }

    @inline(__always)
    mutating func advanceTail(by count: UInt32) {
        tail &+= count
        if tail >= nr { tail &-= nr }
        // Release pairs with the acquire of programs that read the ring: event, then tail.
        header.it.tail.store(tail, ordering: .releasing)
    }

    /// Copies up to `count` of the oldest events to the program's memory and consumes them, if
    /// there are at least `minimum`.
    @inline(__always)
    func take(into events: UInt, count: Int, minimum: Int = 0) -> Int {
        // Read once: the program may move it meanwhile.
        let position = head
        let there = Int(Self.events(from: position, to: tail, of: nr))
        if there < minimum || there == 0 { return 0 }
        let taken = UInt32(truncatingIfNeeded: min(count, there))
        if taken == 1 {
            unsafe Ref<io_event>(address: events).unsafelyUnwrapped.it = eventAddress(position).it
        } else {
            Self.copy(ring: pages.address, nr, from: position, to: events, count: taken)
        }
        consume(taken, from: position)
        return Int(taken)
    }

    /// Copies events of a ring of `nr` slots, up to its end and then from its start.
    @inline(never)
    static func copy(
        ring address: UInt, _ nr: UInt32, from position: UInt32, to target: UInt, count: UInt32
    ) {
        let events = address &+ UInt(headerBytes)
        let first = min(count, nr &- position)
        let firstBytes = UInt(first) &* UInt(eventBytes)
        copy(events &+ UInt(position) &* UInt(eventBytes), to: target, count: first)
        if first < count { copy(events, to: target &+ firstBytes, count: count &- first) }
    }

    /// The same for memory that may not be there: -EFAULT and nothing consumed.
    func takeStrictly(into events: UInt, count: Int) -> Int {
        let position = head
        let there = Int(Self.events(from: position, to: tail, of: nr))
        let taken = UInt32(truncatingIfNeeded: min(count, there))
        let first = min(taken, nr &- position)
        if !Self.copyOut(eventAddress(position).address, first, events)
            || !Self.copyOut(
                eventAddress(0).address, taken &- first,
                events &+ UInt(first) &* UInt(Self.eventBytes))
        {
            return failure(EFAULT)
        }
        consume(taken, from: position)
        return Int(taken)
    }

    @inline(__always)
    private func consume(_ count: UInt32, from position: UInt32) {
        let next = position &+ count
        // Release: whoever stores the next event there has seen that this one is copied.
        header.it.head.store(next < nr ? next : next &- nr, ordering: .releasing)
    }

    /// Copies events between a ring and other memory of the process.
    @inline(__always)
    private static func copy(_ source: UInt, to target: UInt, count: UInt32) {
        var source = source
        var target = target
        let end = source &+ UInt(count) &* UInt(eventBytes)
        while source != end {
            unsafe Ref<io_event>(address: target).unsafelyUnwrapped.it =
                Ref<io_event>(address: source).unsafelyUnwrapped.it
            source &+= UInt(eventBytes)
            target &+= UInt(eventBytes)
        }
    }

    @inline(never)
    private static func copyOut(_ source: UInt, _ events: UInt32, _ target: UInt) -> Bool {
        let bytes = Int(events) &* eventBytes
        return bytes == 0 || UserMemory.copyOut(source, bytes, target) == bytes
    }

    @inline(__always)
    private func eventAddress(_ slot: UInt32) -> Ref<io_event> {
        unsafe Ref<io_event>(
            address: pages.address &+ UInt(Self.headerBytes)
                &+ UInt(slot) &* UInt(Self.eventBytes)
        ).unsafelyUnwrapped
    }
}

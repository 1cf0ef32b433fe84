// An aio_ring as whoever consumes its events sees it (fs/aio.c, struct aio_ring): the kernel's, or
// one of ours, which is laid out like it.
//
// The head is whoever consumes', the program included, and is taken modulo nr. One slot is always
// unused. What consumes through here is alone in that, by a lock of its own, but for the program.

import CLibAIO
public import JobTable
public import Synchronization

/// The header of a ring, with the two fields that two sides write as atomics.
public struct RingHeader: ~Copyable {
    public let id: Atomic<UInt32>
    public let nr: Atomic<UInt32>
    public let head: Atomic<UInt32>
    public let tail: Atomic<UInt32>
    let magic: UInt32
    let compatFeatures: UInt32
    let incompatFeatures: UInt32
    let headerLength: UInt32
}

/// The slots of a ring, by its address and their number.
public struct RingView {
    public static let headerBytes = 32
    public static let eventBytes = 32

    /// Of the header.
    public let address: UInt
    /// Slots, one of which stays unused.
    public let nr: UInt32

    @inline(__always)
    public init(address: UInt, nr: UInt32) {
        self.address = address
        self.nr = nr
    }

    @inline(__always)
    public var header: Ref<RingHeader> {
        unsafe Ref<RingHeader>(address: address).unsafelyUnwrapped
    }

    /// The event in a slot.
    @inline(__always)
    public func event(_ slot: UInt32) -> Ref<io_event> {
        unsafe Ref<io_event>(
            address: address &+ UInt(Self.headerBytes) &+ UInt(slot) &* UInt(Self.eventBytes)
        ).unsafelyUnwrapped
    }

    /// The slot of an index that others may have written.
    @inline(__always)
    public func slot(_ index: UInt32) -> UInt32 { index < nr ? index : index % nr }

    /// Events between two slots.
    @inline(__always)
    public func events(from head: UInt32, to tail: UInt32) -> UInt32 {
        tail >= head ? tail &- head : nr &- head &+ tail
    }

    /// The slot of the oldest event.
    @inline(__always)
    public var head: UInt32 {
        // Acquire pairs with the release of a program that consumed events itself.
        slot(header.it.head.load(ordering: .acquiring))
    }

    /// No event is there of a ring that the kernel fills.
    public var isEmpty: Bool { slot(header.it.tail.load(ordering: .acquiring)) == head }

    /// Copies up to `count` of the oldest events before the slot `tail` to other memory of the
    /// process and consumes them, if there are at least `minimum`. How many.
    @inline(__always)
    public func take(into events: UInt, count: Int, minimum: Int, before tail: UInt32) -> Int {
        // Read once: the program may move it meanwhile.
        let position = head
        let there = Int(self.events(from: position, to: tail))
        if there < minimum || there == 0 { return 0 }
        let taken = UInt32(truncatingIfNeeded: min(count, there))
        if taken == 1 {
            unsafe Ref<io_event>(address: events).unsafelyUnwrapped.it = event(position).it
        } else {
            copy(from: position, to: events, count: taken)
        }
        consume(taken, from: position)
        return Int(taken)
    }

    /// The same of a ring that the kernel fills.
    @inline(__always)
    public func takeFromKernel(into events: UInt, count: Int, minimum: Int) -> Int {
        // Acquire pairs with the kernel's barrier between an event and the tail.
        let tail = slot(header.it.tail.load(ordering: .acquiring))
        return take(into: events, count: count, minimum: minimum, before: tail)
    }

    /// Frees the slots of events that were copied.
    @inline(__always)
    public func consume(_ count: UInt32, from position: UInt32) {
        let next = position &+ count
        // Release: whoever stores the next event there has seen that this one is copied.
        header.it.head.store(next < nr ? next : next &- nr, ordering: .releasing)
    }

    /// Copies events from a slot on, up to the ring's end and then from its start.
    @inline(never)
    private func copy(from position: UInt32, to target: UInt, count: UInt32) {
        let first = min(count, nr &- position)
        let firstBytes = UInt(first) &* UInt(Self.eventBytes)
        Self.copy(event(position).address, to: target, count: first)
        if first < count {
            Self.copy(event(0).address, to: target &+ firstBytes, count: count &- first)
        }
    }

    /// Copies events between a ring and other memory of the process.
    @inline(__always)
    public static func copy(_ source: UInt, to target: UInt, count: UInt32) {
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
}

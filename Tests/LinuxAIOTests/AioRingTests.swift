// One ring in the library's view: its size, its wrap-around, and a head that anybody may write.

import CLibAIO
import Glibc
import JobTable
import Testing

@testable import LinuxAIO

private func makeRing(slots: UInt32, id: UInt32 = 5) -> AioRing {
    let bytes = AioRing.headerBytes + Int(slots) * AioRing.eventBytes
    let address = Memory.map(
        bytes: Memory.roundUpToPage(bytes), protection: PROT_READ | PROT_WRITE, shared: true)
    return AioRing(pages: RingPages(address: address, bytes: bytes, extent: Job.none), id: id)
}

extension AioRing {
    fileprivate var program: Ref<aio_ring> { Ref<aio_ring>(address: pages.address)! }

    fileprivate mutating func publish(_ data: UInt64) {
        store(io_event(data: data, obj: 0, res: 0, res2: 0))
        advanceTail(by: 1)
    }

    /// The data of up to `count` events.
    fileprivate func take(_ count: Int, strict: Bool = false) -> [UInt64] {
        var events = [io_event](repeating: io_event(), count: max(count, 1))
        let taken = events.withUnsafeMutableBufferPointer {
            let address = UInt(bitPattern: $0.baseAddress)
            return strict
                ? takeStrictly(into: address, count: count) : take(into: address, count: count)
        }
        return events.prefix(taken).map(\.data)
    }
}

@Suite struct AioRingTests {
    /// fs/aio.c, ioctx_alloc and aio_setup_ring; observed with two processors.
    @Test(
        "The ring has as many slots as the kernel's for the same io_setup",
        arguments: zip(
            [1, 2, 16, 32, 63, 64, 100, 127, 128, 256, 1000, 1024, 65536] as [UInt32],
            [127, 127, 127, 127, 255, 255, 255, 383, 383, 639, 2047, 2175, 131_199] as [UInt32]))
    func sizes(events: UInt32, slots: UInt32) {
        let bytes = AioRing.bytes(forEvents: events, processors: 2)
        #expect(bytes % 4096 == 0)
        #expect((bytes - 32) / 32 == Int(slots))
    }

    @Test("Sizes that the kernel refuses are refused with its errno") func refusedSizes() {
        let most: UInt32 = 4_194_304
        #expect(AioRing.bytes(forEvents: most, processors: 2) > 0)
        #expect(AioRing.bytes(forEvents: most + 1, processors: 2) == failure(EINVAL))
        #expect(AioRing.bytes(forEvents: 0x7fff_ffff, processors: 2) == failure(EINVAL))
        #expect(AioRing.bytes(forEvents: 0x8000_0000, processors: 2) == failure(EAGAIN))
        #expect(AioRing.bytes(forEvents: .max, processors: 2) == failure(EINVAL))
        // Four events a processor, at least, and twice that.
        #expect(AioRing.bytes(forEvents: 1, processors: 256) == 20 * 4096 - 3 * 4096)
    }

    @Test("The header is the kernel's") func header() {
        let ring = makeRing(slots: 127, id: 9)
        let header = ring.program.it
        #expect(header.id == 9 && header.nr == 127 && header.head == 0 && header.tail == 0)
        #expect(header.magic == 0xa10a_10a1 && header.header_length == 32)
        #expect(header.compat_features == 1 && header.incompat_features == 0)
        #expect(header.id == 9 && ring.available == 0)
    }

    @Test(
        "Events come out in order over many laps, whatever the sizes",
        arguments: [2, 3, 7, 127] as [UInt32], [false, true])
    func laps(slots: UInt32, strict: Bool) {
        var ring = makeRing(slots: slots)
        var randomness = Randomness(state: UInt64(slots))
        var published: UInt64 = 0
        var taken: UInt64 = 0
        while published < UInt64(slots) * 50 {
            let room = Int(slots) - 1 - Int(ring.available)
            for _ in 0..<Int.random(in: 0...room, using: &randomness) {
                ring.publish(published)
                published += 1
            }
            #expect(ring.available == UInt32(published - taken))
            #expect(ring.program.it.tail == ring.tail && ring.tail < slots)
            let wanted = Int.random(in: 0...Int(slots), using: &randomness)
            for data in ring.take(wanted, strict: strict) {
                #expect(data == taken)
                taken += 1
            }
            #expect(ring.program.it.head == UInt32(taken % UInt64(slots)))
        }
    }

    @Test("A batch that crosses the end becomes visible at once and in order")
    func batchAcrossTheEnd() {
        var ring = makeRing(slots: 8)
        for lap in 0..<20 {
            let events = (0..<5).map {
                io_event(data: UInt64(lap * 5 + $0), obj: 1, res: 2, res2: 0)
            }
            events.withUnsafeBufferPointer {
                ring.store(from: UInt(bitPattern: $0.baseAddress), count: 5)
            }
            #expect(ring.available == 0, "stored and not yet published")
            ring.advanceTail(by: 5)
            #expect(ring.available == 5)
            #expect(ring.take(3) == (0..<3).map { UInt64(lap * 5 + $0) })
            #expect(ring.take(100) == (3..<5).map { UInt64(lap * 5 + $0) })
            #expect(ring.take(1) == [])
        }
    }

    @Test("A program that consumes by itself is believed") func programMovesHead() {
        var ring = makeRing(slots: 8)
        for data: UInt64 in 0..<7 { ring.publish(data) }
        ring.program.it.head = 5
        #expect(ring.available == 2)
        #expect(ring.take(10) == [5, 6])
    }

    /// The kernel takes the head modulo nr: 0xdeadbeef of 127 is 39 (fs/aio.c,
    /// aio_read_events_ring).
    @Test(
        "A scribbled head is taken modulo nr, and no memory outside the ring is touched",
        arguments: [0xdead_beef, 127, 128, UInt32.max] as [UInt32])
    func scribbledHead(head: UInt32) {
        for tail in [0, 40, 126] {
            var ring = makeRing(slots: 127)
            for data in 0..<tail { ring.publish(UInt64(data)) }
            ring.program.it.head = head
            let position = head % 127
            let expected = (UInt32(tail) + 127 - position) % 127
            #expect(ring.available == expected)
            #expect(ring.take(1000).count == Int(expected))
            #expect(ring.program.it.head == (expected == 0 ? head : UInt32(tail)))
            ring.publish(77)
            if expected != 0 { #expect(ring.take(1000) == [77]) }
        }
    }

    @Test("Magic, tail and nr are the program's to scribble over") func scribbledHeader() {
        var ring = makeRing(slots: 8)
        ring.publish(1)
        ring.program.it.tail = 0x7777_7777
        ring.program.it.nr = 0
        ring.program.it.magic = 0
        ring.publish(2)
        #expect(ring.available == 2)
        #expect(ring.program.it.tail == 2, "the next publication mends the tail")
        #expect(ring.take(10) == [1, 2])
    }

    @Test("In strict mode, memory that cannot be written is -EFAULT and nothing is consumed")
    func strictTake() {
        var ring = makeRing(slots: 8)
        for _ in 0..<2 {
            for data: UInt64 in 0..<6 { ring.publish(data) }
            let page = Memory.map(bytes: 4096, protection: PROT_READ)
            let result = ring.takeStrictly(into: page, count: 6)
            #expect(result == failure(EFAULT))
            #expect(ring.available == 6)
            #expect(ring.take(10, strict: true) == [0, 1, 2, 3, 4, 5])
            Memory.unmap(page, bytes: 4096)
        }
    }
}

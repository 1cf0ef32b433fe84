// Memory for rings: pages that no two live rings share.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import LinuxAIO

private struct SharedArena: ~Copyable {
    var arena: RingArena
}

private func makeArena() -> Ref<SharedArena> {
    let record = Memory.record(SharedArena.self)!
    record.pointer.initialize(to: SharedArena(arena: RingArena()!))
    return record
}

extension Ref where Pointee == SharedArena {
    fileprivate func allocate(pages: Int) -> RingPages? {
        it.arena.allocate(bytes: pages * Memory.pageBytes)
    }
}

/// What is mapped in this process, by /proc/self/maps: other tests map memory meanwhile, at the
/// very addresses that were given back.
private enum Mappings {
    /// Device and inode of the file behind an address. Shared memory without a name has one of its
    /// own, which nothing else is mapped from.
    static func identity(at address: UInt) -> [Substring]? {
        all().first { $0.start == String(address, radix: 16) }?.identity
    }

    static func have(_ identity: [Substring]) -> Bool {
        all().contains { $0.identity == identity }
    }

    private static func all() -> [(start: Substring, identity: [Substring])] {
        Files.text(of: "/proc/self/maps").split(separator: "\n").map { line in
            let fields = line.split(separator: " ")
            return (fields[0].prefix { $0 != "-" }, Array(fields[3...4]))
        }
    }
}

@Suite struct RingArenaTests {
    @Test("Memory that is given back is given out again, from the start") func reuse() {
        let arena = makeArena()
        let rings = (0..<10).map { _ in arena.allocate(pages: 1)! }
        #expect(Set(rings.map(\.address)).count == 10)
        arena.it.arena.free(rings[7])
        arena.it.arena.free(rings[3])
        #expect(arena.allocate(pages: 1)?.address == rings[3].address)
        #expect(arena.allocate(pages: 1)?.address == rings[7].address)
        let larger = arena.allocate(pages: 2)
        #expect(larger?.address == rings[9].address + 4096)
    }

    @Test("A full extent is followed by another, and used again when there is room")
    func extents() {
        let arena = makeArena()
        let first = (0..<512).map { _ in arena.allocate(pages: 1)! }
        #expect(Set(first.map(\.extent)) == [0])
        let second = arena.allocate(pages: 1)!
        #expect(second.extent == 1)
        arena.it.arena.free(first[511])
        arena.it.arena.free(first[100])
        #expect(arena.allocate(pages: 2)?.extent == 1, "two pages apart are not two neighbours")
        #expect(arena.allocate(pages: 1)?.address == first[100].address)
        #expect(arena.allocate(pages: 1)?.address == first[511].address)
        #expect(arena.allocate(pages: 1)?.extent == 1)
    }

    @Test("A large ring has memory of its own, zeroed, and gives it back") func largeRings() {
        let arena = makeArena()
        let limit = arena.allocate(pages: 128)!
        #expect(limit.extent == 0)
        let large = arena.allocate(pages: 129)!
        #expect(large.extent == Job.none && large.bytes == 129 * 4096)
        let words = Ref<UInt64>(address: large.address)!
        #expect(words.it == 0)
        words.it = 5
        Ref<UInt64>(address: large.address + UInt(large.bytes) - 8)!.it = 6
        let memory = Mappings.identity(at: large.address)!
        #expect(Mappings.have(memory))
        arena.it.arena.free(large)
        #expect(!Mappings.have(memory), "the large ring is still mapped")
        arena.it.arena.free(limit)
    }

    /// Each ring's pages are filled with its own number and compared before they are given back.
    @Test("Rings of all sizes never overlap") func noOverlap() {
        let arena = makeArena()
        var randomness = Randomness(state: 1)
        var live: [(ring: RingPages, mark: UInt64)] = []
        for mark in 1...3000 as ClosedRange<UInt64> {
            let pages = [1, 1, 1, 2, 3, 5, 9, 16, 40, 128, 130]
                .randomElement(using: &randomness)!
            guard let ring = arena.allocate(pages: pages) else {
                Issue.record("no memory")
                return
            }
            #expect(ring.bytes == pages * 4096 && ring.address % 4096 == 0)
            for page in 0..<pages { self.mark(ring, page).it = mark }
            live.append((ring, mark))
            while live.count > 60 {
                let (ring, mark) = live.remove(at: .random(in: 0..<live.count, using: &randomness))
                let pages = ring.bytes / 4096
                let isWhole = (0..<pages).allSatisfy { self.mark(ring, $0).it == mark }
                #expect(isWhole, "somebody wrote into ring \(mark)")
                arena.it.arena.free(ring)
            }
        }
        let ranges = live.map { $0.ring.address..<$0.ring.address + UInt($0.ring.bytes) }
            .sorted { $0.lowerBound < $1.lowerBound }
        for (one, next) in zip(ranges, ranges.dropFirst()) {
            #expect(one.upperBound <= next.lowerBound)
        }
    }

    private func mark(_ ring: RingPages, _ page: Int) -> Ref<UInt64> {
        Ref<UInt64>(address: ring.address + UInt(page * 4096))!
    }
}

// Proves where the requests go: a cold block must not be read twice.

import Testing

@testable import Benchmark

@Suite struct OffsetsTests {
    private func all(_ order: Offsets.Order, blocks: Int, seed: UInt64, shares: Int) -> [Int64] {
        (0..<shares).flatMap { share -> [Int64] in
            var offsets = Offsets(
                order, blockBytes: 4096, fileBytes: blocks * 4096 + 17, seed: seed, share: share,
                shares: shares)
            var found: [Int64] = []
            while let offset = offsets.next() { found.append(offset) }
            return found
        }
    }

    @Test(arguments: [1, 2, 64, 1000], [UInt64(1), 7])
    func permutedReadsEachBlockOnce(blocks: Int, seed: UInt64) {
        let found = all(.permuted, blocks: blocks, seed: seed, shares: 1)
        #expect(Set(found).count == found.count)
        #expect(found.count > blocks / 2)
        #expect(found.allSatisfy { $0 % 4096 == 0 && $0 >= 0 && $0 < blocks * 4096 })
    }

    @Test func permutedHasNoRuns() {
        let found = all(.permuted, blocks: 1 << 14, seed: 1, shares: 1)
        let neighbours = zip(found, found.dropFirst()).count { $0 + 4096 == $1 }
        #expect(neighbours < 20)
    }

    @Test func clientsShareTheFile() {
        let found = all(.permuted, blocks: 64, seed: 3, shares: 3)
        #expect(Set(found).count == 64 && found.count == 64)
        #expect(all(.sequential, blocks: 65, seed: 3, shares: 3) == (0..<65).map { $0 * 4096 })
    }

    @Test func randomStaysInTheFile() {
        var offsets = Offsets(
            .random, blockBytes: 4096, fileBytes: 10 * 4096, seed: 1, share: 0, shares: 1)
        let found = Set((0..<1000).compactMap { _ in offsets.next() })
        #expect(found == Set((0..<10).map { $0 * 4096 }))
    }
}

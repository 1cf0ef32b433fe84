// Where in the file the requests go.

struct Offsets {
    enum Order {
        /// Any block, any number of times.
        case random
        /// Each block once, in an order without a pattern.
        case permuted
        case sequential
    }

    private let order: Order
    private let blockBytes: Int
    private let blocks: Int
    private let mask: UInt64
    private var state: UInt64

    /// `share` of `shares` clients that divide the file among them where each block comes once.
    init(_ order: Order, blockBytes: Int, fileBytes: Int, seed: UInt64, share: Int, shares: Int) {
        self.order = order
        self.blockBytes = blockBytes
        let all = max(fileBytes / blockBytes, 1)
        let powerOfTwo = 1 << (Int.bitWidth - 1 - all.leadingZeroBitCount)
        switch order {
        case .random:
            blocks = all
            state = (seed &+ UInt64(share)) &* 0x9e37_79b9_7f4a_7c15 | 1
        case .permuted:
            blocks = powerOfTwo * (share + 1) / shares
            state = UInt64(powerOfTwo * share / shares)
        case .sequential:
            blocks = all * (share + 1) / shares
            state = UInt64(all * share / shares)
        }
        mask = UInt64(powerOfTwo - 1)
        scramble = seed &* 0x9e37_79b9_7f4a_7c15
    }

    private let scramble: UInt64

    /// The next block's offset; nil when each block has had its turn.
    @inline(__always)
    mutating func next() -> Int64? {
        switch order {
        case .random:
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int64(Int(((state >> 32) &* UInt64(blocks)) >> 32) &* blockBytes)
        case .sequential:
            guard state < blocks else { return nil }
            defer { state += 1 }
            return Int64(Int(state) &* blockBytes)
        case .permuted:
            guard state < blocks else { return nil }
            defer { state += 1 }
            return Int64(Int(permuted(state)) &* blockBytes)
        }
    }

    /// One to one on the numbers below a power of two, since every step can be undone: adding, the
    /// product with an odd number, and a shift to the right that is added without carry.
    private func permuted(_ number: UInt64) -> UInt64 {
        let half = UInt64(64 - mask.leadingZeroBitCount + 1) / 2
        var result = (number &+ scramble) & mask
        for _ in 0..<3 {
            result = (result &* 0x9e37_79b1) & mask
            result ^= result >> half
        }
        return result
    }
}

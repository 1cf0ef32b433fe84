// Which blocks of its source `ioctx cp` transfers.

/// What is to be transferred, block by block.
struct BlockList {
    struct Block {
        let range: Range<Int>
        let checksum: Int?
    }

    private enum Content {
        /// Of a source that can say where its holes are, when they need not be written.
        case data(of: OpenFile)
        case all
        case records([Transfer.Record])
    }

    private let content: Content
    private let blockBytes: Int
    private var offset = 0
    private var end: Int
    /// The data that the source last told of.
    private var known = 0..<0
    /// Passed over so far.
    private(set) var holeBytes = 0
    /// Only reading tells where the source ends.
    let endIsOpen: Bool

    /// All of a source, or its first `length` bytes; `skippingHoles` leaves the holes out.
    init(of source: OpenFile, length: Int?, blockBytes: Int, skippingHoles: Bool) {
        self.blockBytes = blockBytes
        endIsOpen = length == nil
        end = length ?? Int.max
        content = skippingHoles && length != nil ? .data(of: source) : .all
    }

    /// What was written, to be read again.
    init(records: [Transfer.Record], blockBytes: Int) {
        self.blockBytes = blockBytes
        endIsOpen = false
        end = records.count
        content = .records(records)
    }

    mutating func stop() {
        end = offset
    }

    mutating func next() -> Block? {
        guard offset < end else { return nil }
        switch content {
        case .records(let records):
            defer { offset += 1 }
            return Block(range: records[offset].range, checksum: records[offset].checksum)
        case .all:
            return take(upTo: end)
        case .data(let source):
            if offset >= known.upperBound {
                let found = source.data(from: offset, end: end)
                holeBytes += (found?.lowerBound ?? end) - offset
                guard let data = found else {
                    offset = end
                    return nil
                }
                known = data
                offset = data.lowerBound
            }
            return take(upTo: known.upperBound)
        }
    }

    private mutating func take(upTo limit: Int) -> Block {
        let range = offset..<offset + min(blockBytes, limit - offset)
        offset = range.upperBound
        return Block(range: range, checksum: nil)
    }
}

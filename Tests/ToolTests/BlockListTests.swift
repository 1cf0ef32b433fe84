// Proves which blocks a copy is made of: all of a source, or what is no hole in it.

import Glibc
import Testing

@testable import ioctx

@Suite struct BlockListTests {
    private static let unit = OpenFile.alignmentBytes

    /// A file with data at these units, removed already.
    private func file(units: Int, data: [Int]) throws -> OpenFile {
        var name = Array("/var/tmp/ioctx-blocks-XXXXXX".utf8CString)
        let descriptor = mkstemp(&name)
        defer { close(descriptor) }
        let path = Path(bytes: name.dropLast().map { UInt8(bitPattern: $0) })
        defer { _ = path.withCString { unlink($0) } }
        ftruncate(descriptor, off_t(units * Self.unit))
        let bytes = [UInt8](repeating: 1, count: Self.unit)
        for index in data { pwrite(descriptor, bytes, bytes.count, off_t(index * Self.unit)) }
        return try OpenFile(path, flags: O_RDONLY, direct: false)
    }

    private func ranges(_ list: BlockList) -> [Range<Int>] {
        var list = list
        var ranges: [Range<Int>] = []
        while let block = list.next() { ranges.append(block.range) }
        return ranges
    }

    @Test func theLastBlockIsShorter() throws {
        let source = try file(units: 1, data: [0])
        let list = BlockList(of: source, length: 250, blockBytes: 100, skippingHoles: false)
        #expect(ranges(list) == [0..<100, 100..<200, 200..<250])
        #expect(!list.endIsOpen)
    }

    @Test func anOpenEndIsWhereItIsStopped() throws {
        let source = try file(units: 1, data: [0])
        var list = BlockList(of: source, length: nil, blockBytes: 100, skippingHoles: false)
        #expect(list.endIsOpen)
        #expect(list.next()?.range == 0..<100)
        #expect(list.next()?.range == 100..<200)
        list.stop()
        #expect(list.next() == nil)
    }

    @Test func holesArePassedOver() throws {
        let unit = Self.unit
        let source = try file(units: 64, data: [16, 17, 40])
        try #require(source.data(from: 0, end: 64 * unit)?.lowerBound == 16 * unit)
        var list = BlockList(
            of: source, length: 64 * unit, blockBytes: unit, skippingHoles: true)
        #expect(
            ranges(list) == [16, 17, 40].map { $0 * unit..<($0 + 1) * unit })
        while list.next() != nil {}
        #expect(list.holeBytes == 61 * unit)
    }

    @Test func whatWasWrittenIsReadAgain() {
        let records = [
            Transfer.Record(range: 100..<200, checksum: 7),
            Transfer.Record(range: 0..<100, checksum: 8),
        ]
        var list = BlockList(records: records, blockBytes: 100)
        for record in records {
            let block = list.next()
            #expect(block?.range == record.range)
            #expect(block?.checksum == record.checksum)
        }
        #expect(list.next() == nil)
    }
}

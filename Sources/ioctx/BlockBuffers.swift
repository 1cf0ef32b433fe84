// The memory of `ioctx cp`.

import Glibc

/// One page-aligned buffer for each slot, which is what O_DIRECT asks for.
final class BlockBuffers {
    let count: Int
    private let strideBytes: Int
    private let memory: UnsafeMutableRawBufferPointer

    init(count: Int, blockBytes: Int) throws(Failure) {
        let unit = OpenFile.alignmentBytes
        let stride = (blockBytes + unit - 1) / unit * unit
        let (total, overflows) = stride.multipliedReportingOverflow(by: count)
        let start =
            overflows
            ? MAP_FAILED
            : mmap(nil, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let start, start != MAP_FAILED else {
            throw Failure(
                "there is no memory for \(count) blocks of \(blockBytes) bytes: "
                    + "choose a smaller --depth or --block-size")
        }
        self.count = count
        strideBytes = stride
        memory = UnsafeMutableRawBufferPointer(start: start, count: total)
    }

    deinit {
        munmap(memory.baseAddress, memory.count)
    }

    func part(_ slot: Int, from offset: Int, _ length: Int) -> UnsafeMutableRawBufferPointer {
        let start = slot * strideBytes + offset
        let length = min(length, strideBytes - offset)
        return UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + length])
    }
}

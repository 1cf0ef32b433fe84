// The pump of `ioctx cp`: keeps up to `depth` blocks on their way from a source to a sink.
//
// Each slot has one buffer and one request at a time. A slot reads its block whole, however
// many short reads that takes, then writes it whole, then takes the next block. Blocks finish
// in any order, except where either end has no positions: then there is one slot.

import Glibc

final class Transfer {
    /// What becomes of a block that was read.
    enum Sink {
        case write(OpenFile)
        /// Its checksum must be the one that was noted when it was written.
        case compare
    }

    /// A block that has arrived.
    struct Record {
        let range: Range<Int>
        let checksum: Int
    }

    private enum Phase {
        case idle, reading, writing
    }

    private struct Slot {
        var phase = Phase.idle
        var offset = 0
        var wanted = 0
        var filled = 0
        var written = 0
        var expected: Int?
    }

    private let source: OpenFile
    private let sink: Sink
    private let queue: RequestQueue
    private let buffers: BlockBuffers
    private var blocks: BlockList
    private var slots: [Slot]
    private let progress: Progress
    /// Set for a copy that is to be verified.
    private let notes: Bool
    private(set) var records: [Record] = []
    private(set) var bytesDone = 0

    init(
        from source: OpenFile, to sink: Sink, blocks: BlockList, queue: RequestQueue,
        notes: Bool = false, progress: Progress
    ) {
        self.source = source
        self.sink = sink
        self.blocks = blocks
        self.queue = queue
        buffers = queue.buffers
        self.notes = notes
        self.progress = progress
        slots = Array(repeating: Slot(), count: queue.buffers.count)
    }

    func run() throws(Failure) {
        for slot in slots.indices { start(slot) }
        queue.submit()
        while queue.inFlight > 0 {
            for completion in try queue.wait() {
                try finish(completion.slot, completion.result)
            }
            progress.step(bytesDone + blocks.holeBytes)
            queue.submit()
        }
    }

    private func start(_ slot: Int) {
        guard let block = blocks.next() else { return }
        slots[slot] = Slot(
            phase: .reading, offset: block.range.lowerBound, wanted: block.range.count,
            expected: block.checksum)
        read(slot)
    }

    private func read(_ slot: Int) {
        let state = slots[slot]
        // A direct request is whole units; what it brings beyond the block is not looked at.
        let unit = OpenFile.alignmentBytes
        let missing = state.wanted - state.filled
        let length = source.isDirect ? (missing + unit - 1) / unit * unit : missing
        let buffer = buffers.part(slot, from: state.filled, length)
        let offset = state.offset + state.filled
        queue.prepare(
            .read, slot: slot, descriptor: source.descriptor(for: buffer, offset: offset),
            buffer: buffer, offset: source.isPositioned ? offset : 0)
    }

    private func write(_ slot: Int, to file: OpenFile) {
        let state = slots[slot]
        let buffer = buffers.part(slot, from: state.written, state.filled - state.written)
        let offset = state.offset + state.written
        queue.prepare(
            .write, slot: slot, descriptor: file.descriptor(for: buffer, offset: offset),
            buffer: buffer, offset: file.isPositioned ? offset : 0)
    }

    private func finish(_ slot: Int, _ result: Int) throws(Failure) {
        switch slots[slot].phase {
        case .reading: try finishRead(slot, result)
        case .writing: try finishWrite(slot, result)
        case .idle: throw Failure("the layer reported a request that was not made")
        }
    }

    private func finishRead(_ slot: Int, _ result: Int) throws(Failure) {
        let position = slots[slot].offset + slots[slot].filled
        guard result >= 0 else {
            throw Failure.system("cannot read '\(source.name)' at \(position)", Int32(-result))
        }
        slots[slot].filled = min(slots[slot].filled + result, slots[slot].wanted)
        if result > 0 && slots[slot].filled < slots[slot].wanted {
            return read(slot)
        }
        if slots[slot].filled < slots[slot].wanted {
            guard blocks.endIsOpen else {
                throw Failure(
                    "'\(source.name)' ended after \(position) bytes, before its expected end: "
                        + (source.length == nil
                            ? "choose a smaller --size"
                            : "it was shortened meanwhile; copy it when nobody writes it"))
            }
            blocks.stop()
            if slots[slot].filled == 0 { return }
        }
        try deliver(slot)
    }

    private func deliver(_ slot: Int) throws(Failure) {
        let state = slots[slot]
        switch sink {
        case .write(let file):
            if notes {
                let range = state.offset..<state.offset + state.filled
                records.append(Record(range: range, checksum: checksum(slot)))
            }
            slots[slot].phase = .writing
            write(slot, to: file)
        case .compare:
            guard checksum(slot) == state.expected else {
                throw Failure(
                    "the copy differs from what was written, in the \(state.filled) bytes at "
                        + "\(state.offset) of '\(source.name)': check the disk, then report it "
                        + "with the output of 'ioctx probe --json'")
            }
            done(slot)
        }
    }

    private func finishWrite(_ slot: Int, _ result: Int) throws(Failure) {
        guard case .write(let file) = sink else { return }
        let position = slots[slot].offset + slots[slot].written
        guard result > 0 else {
            // A device that is full answers 0 or ENOSPC, as it likes.
            throw Failure.system(
                "cannot write '\(file.name)' at \(position)", result == 0 ? ENOSPC : Int32(-result))
        }
        slots[slot].written += result
        if slots[slot].written < slots[slot].filled {
            return write(slot, to: file)
        }
        done(slot)
    }

    private func done(_ slot: Int) {
        bytesDone += slots[slot].filled
        slots[slot].phase = .idle
        start(slot)
    }

    private func checksum(_ slot: Int) -> Int {
        var hasher = Hasher()
        hasher.combine(
            bytes: UnsafeRawBufferPointer(buffers.part(slot, from: 0, slots[slot].filled)))
        return hasher.finalize()
    }
}

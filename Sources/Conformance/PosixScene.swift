// What a case of POSIX AIO works with: the calls of <aio.h>, on the C library or on the layer, and
// requests whose outcomes are written down.
//
// POSIX lets a call refuse a request or accept it and let it fail. `outcome` writes the same for
// both; where a case is about the call itself, it writes the call down.

import CTestBed
import Glibc
import TestBed

/// A struct aiocb at an address that stays, and its buffer.
final class Block {
    let it: UnsafeMutablePointer<testbed_aiocb>
    let buffer: Buffer
    let text: String

    init(_ file: File, _ buffer: Buffer, _ count: Int, at offset: Int, _ text: String) {
        it = .allocate(capacity: 1)
        memset(it, 0, MemoryLayout<testbed_aiocb>.size)
        self.buffer = buffer
        self.text = text
        it.pointee.aio_fildes = file.descriptor
        it.pointee.aio_buf = buffer.pointer
        it.pointee.aio_nbytes = count
        it.pointee.aio_offset = offset
        testbed_notify(&it.pointee.aio_sigevent, Int32(Self.sigevNone), 0, 0)
    }

    static let sigevSignal: Int32 = 0
    static let sigevNone: Int32 = 1

    var address: UInt { UInt(bitPattern: it) }
    var isRead: Bool { it.pointee.aio_lio_opcode == 0 }

    @discardableResult
    func change(_ body: (inout testbed_aiocb) -> Void) -> Block {
        body(&it.pointee)
        return self
    }

    /// Asks for a queued signal.
    @discardableResult
    func signalling(_ signal: Int32, value: Int32 = 0) -> Block {
        testbed_notify(&it.pointee.aio_sigevent, Self.sigevSignal, signal, value)
        return self
    }
}

final class PosixScene {
    let files: Scene
    private let calls: PosixCalls

    /// `suffix` is "64" for the functions with 64-bit offsets.
    init(_ scene: Scene, suffix: String = "") throws {
        files = scene
        calls = try PosixCalls(
            Library(scene.side == "glibc" ? Library.ofC : scene.side), suffix: suffix)
    }

    func line(_ text: String) { files.line(text) }
    func fact(_ what: String, _ holds: Bool) { files.fact(what, holds) }

    /// A call's result in words: the value, or the name of the errno.
    private func words(_ result: Int) -> String {
        Scene.value(result == -1 ? -Int(errno) : result)
    }

    @discardableResult
    private func record(_ call: String, _ result: Int) -> Int {
        line("\(call) = \(words(result))")
        return result
    }

    // MARK: Requests

    func reading(_ file: File, _ count: Int = 4096, at offset: Int = 0) -> Block {
        Block(file, Buffer(count), count, at: offset, "read \(file.name) \(count)@\(offset)")
    }

    func writing(_ file: File, _ count: Int = 4096, at offset: Int = 0, seed: UInt32 = 9) -> Block {
        let buffer = Buffer(count)
        buffer.fill(seed: seed, from: offset)
        return Block(file, buffer, count, at: offset, "write \(file.name) \(count)@\(offset)")
            .change { $0.aio_lio_opcode = 1 }
    }

    func syncing(_ file: File) -> Block {
        Block(file, Buffer(1), 0, at: 0, "fsync \(file.name)")
    }

    /// aio_read or aio_write, without a line. 0 or -1.
    func start(_ block: Block) -> Int32 {
        block.isRead ? calls.read(block.address) : calls.write(block.address)
    }

    /// The same, written down.
    @discardableResult
    func submit(_ block: Block) -> Int {
        record(block.text, Int(start(block)))
    }

    /// Makes the request and writes down what came of it, in whichever way it was told.
    func outcome(_ block: Block) {
        if start(block) != 0 { return line("\(block.text): \(words(-1))") }
        finish(block)
    }

    /// Waits for a request and writes down what came of it.
    func finish(_ block: Block) {
        guard wait(block) else { return line("\(block.text): under way") }
        let error = calls.error(block.address)
        let value = calls.value(block.address)
        if error != 0 {
            line("\(block.text): \(Scene.value(-Int(error))), value \(value)")
        } else {
            let data = block.isRead && value > 0 ? ", data \(block.buffer.hash(value))" : ""
            line("\(block.text): \(value)\(data)")
        }
    }

    /// Waits until the request is done, for a few seconds.
    func wait(_ block: Block) -> Bool {
        let deadline = Clock.now + Double(Scene.patienceSeconds)
        while calls.error(block.address) == EINPROGRESS {
            if Clock.now > deadline { return false }
            usleep(200)
        }
        return true
    }

    func error(_ block: Block) { line("aio_error = \(Scene.value(-Int(quietError(block))))") }

    func quietError(_ block: Block) -> Int32 { calls.error(block.address) }

    func quietValue(_ block: Block) -> Int { calls.value(block.address) }

    func value(_ block: Block) { record("aio_return", calls.value(block.address)) }

    func sync(_ block: Block, _ operation: Int32) {
        if calls.fsync(operation, block.address) != 0 {
            return line("\(block.text): \(words(-1))")
        }
        finish(block)
    }

    func quietSync(_ block: Block) -> Int32 { calls.fsync(O_SYNC, block.address) }

    @discardableResult
    func cancel(_ file: File, _ block: Block?) -> Int {
        let result = Int(calls.cancel(file.descriptor, block?.address ?? 0))
        let names = ["AIO_CANCELED", "AIO_NOTCANCELED", "AIO_ALLDONE"]
        let words = result < 0 ? words(result) : names[result]
        line("aio_cancel(\(file.name), \(block?.text ?? "all")) = \(words)")
        return result
    }

    func quietCancel(_ file: File, _ block: Block?) -> Int {
        Int(calls.cancel(file.descriptor, block?.address ?? 0))
    }

    func initialize() {
        var hints = [Int32](repeating: 1, count: 8)
        hints.withUnsafeMutableBytes { calls.initialize(UInt(bitPattern: $0.baseAddress)) }
        line("aio_init")
    }

    // MARK: Waiting

    /// aio_suspend; nil in the list is a null pointer, no time-out is for ever.
    func quietSuspend(_ blocks: [Block?], seconds: Double? = nil) -> Int32 {
        var time = Clock.timespec(seconds ?? 0)
        return withUnsafePointer(to: &time) {
            suspend(blocks, timeout: seconds == nil ? 0 : UInt(bitPattern: $0))
        }
    }

    private func suspend(_ blocks: [Block?], timeout: UInt) -> Int32 {
        blocks.map { $0?.address ?? 0 }.withUnsafeBufferPointer {
            calls.suspend(UInt(bitPattern: $0.baseAddress), Int32($0.count), timeout)
        }
    }

    func suspend(_ blocks: [Block?], seconds: Double? = nil) {
        record("aio_suspend(\(blocks.count))", Int(quietSuspend(blocks, seconds: seconds)))
    }

    /// With a time-out that may be none.
    func suspend(_ blocks: [Block?], time: timespec) {
        var time = time
        record(
            "aio_suspend(\(blocks.count))",
            Int(withUnsafePointer(to: &time) { suspend(blocks, timeout: UInt(bitPattern: $0)) }))
    }

    func suspend(count: Int32) {
        record("aio_suspend(count \(count))", Int(calls.suspend(0, count, 0)))
    }

    // MARK: Lists

    func quietList(_ mode: Int32, _ blocks: [Block?], _ event: sigevent? = nil) -> Int32 {
        var event = event
        return blocks.map { $0?.address ?? 0 }.withUnsafeBufferPointer { pointers in
            let pointer = UInt(bitPattern: pointers.baseAddress)
            guard event != nil else { return calls.list(mode, pointer, Int32(pointers.count), 0) }
            return withUnsafePointer(to: &event!) {
                calls.list(mode, pointer, Int32(pointers.count), UInt(bitPattern: $0))
            }
        }
    }

    @discardableResult
    func list(_ mode: Int32, _ blocks: [Block?], _ event: sigevent? = nil) -> Int {
        let words =
            switch mode {
            case PosixCalls.wait: "LIO_WAIT"
            case PosixCalls.noWait: "LIO_NOWAIT"
            default: "\(mode)"
            }
        return record(
            "lio_listio(\(words), \(blocks.count))", Int(quietList(mode, blocks, event)))
    }

    func list(count: Int32) {
        record("lio_listio(LIO_NOWAIT, count \(count))", Int(calls.list(1, 0, count, 0)))
    }

    // MARK: FreeBSD

    private func only<F>(_ function: F?) throws -> F {
        guard let function else { throw Skip("the C library has no such function") }
        return function
    }

    /// aio_readv or aio_writev with buffers of these sizes.
    func vectored(_ file: File, _ counts: [Int], at offset: Int = 0, isWrite: Bool = false) throws {
        let call = try only(isWrite ? calls.writev : calls.readv)
        let array = UnsafeMutablePointer<iovec>.allocate(capacity: max(counts.count, 1))
        var from = offset
        let buffers = counts.map { count in
            let buffer = Buffer(max(count, 1))
            if isWrite { buffer.fill(seed: 9, from: from) }
            from += count
            return buffer
        }
        for (index, count) in counts.enumerated() {
            array[index] = iovec(iov_base: buffers[index].pointer, iov_len: count)
        }
        let vectors = Buffer(address: UInt(bitPattern: array), count: counts.count)
        let shown = counts.count > 8 ? "\(counts.count) vectors" : "\(counts)"
        let block = Block(
            file, vectors, counts.count, at: offset,
            "\(isWrite ? "writev" : "readv") \(file.name) \(shown)@\(offset)")
        block.change { $0.aio_lio_opcode = 1 }
        if call(block.address) != 0 { return line("\(block.text): \(words(-1))") }
        finish(block)
        if !isWrite {
            for (buffer, count) in zip(buffers, counts).prefix(8) where count > 0 {
                line("  \(buffer.hash(count))")
            }
        }
    }

    /// aio_waitcomplete, with the name of the request that it brought.
    func collect(_ blocks: [Block], seconds: Double? = 5) throws {
        var address: UInt = 1
        let result = try quietCollect(&address, seconds: seconds)
        let name = blocks.first { $0.address == address }?.text ?? (address == 0 ? "none" : "?")
        line("aio_waitcomplete: \(name): \(words(result))")
    }

    func quietCollect(_ address: inout UInt, seconds: Double?) throws -> Int {
        let call = try only(calls.waitcomplete)
        var time = Clock.timespec(seconds ?? 0)
        return withUnsafeMutablePointer(to: &address) { block in
            withUnsafePointer(to: &time) {
                call(UInt(bitPattern: block), seconds == nil ? 0 : UInt(bitPattern: $0))
            }
        }
    }
}

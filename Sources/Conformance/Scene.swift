// What a case works with: the calls, written down as they are made, and the requests it makes.
//
// The transcript goes out line by line, so that what was written before a crash is not lost. Lines
// must not depend on addresses, on timing, or on the order of requests that race.

import CTestBed
import CLibAIO
import Glibc
import TestBed

final class Scene {
    let aio: AIO
    /// An empty folder of this case and side.
    let folder: String
    /// The side as the runner names it.
    let side: String
    private(set) var requests: [UInt: Request] = [:]
    private(set) var names: [Int32: String] = [:]
    private var numbered = 0
    /// The file system of this case, once it is made.
    var mounted: String?

    /// Longer than any request of a case takes, shorter than the case's limit.
    static let patienceSeconds = 5

    init(_ aio: AIO, folder: String, side: String) {
        self.aio = aio
        self.folder = folder
        self.side = side
    }

    var isLibrary: Bool { aio.side == .library }

    // MARK: The transcript

    func line(_ text: String) {
        Transcript.write("L", text)
    }

    /// A fact that has no other words: `WHAT: yes`.
    func fact(_ what: String, _ holds: Bool) {
        line("\(what): \(holds ? "yes" : "no")")
    }

    static func value(_ result: Int) -> String {
        guard result < 0, result > -4096, let name = testbed_errno_name(Int32(-result)) else {
            return "\(result)"
        }
        return "\(result) \(String(cString: name))"
    }

    @discardableResult
    func record(_ call: String, _ result: Int) -> Int {
        line("\(call) = \(Self.value(result))")
        return result
    }

    // MARK: Contexts

    @discardableResult
    func setup(_ count: UInt32 = 8) -> UInt {
        var context: UInt = 0
        record("io_setup(\(count))", quietSetup(count, &context))
        return context
    }

    func quietSetup(_ count: UInt32, _ context: inout UInt) -> Int {
        withUnsafeMutablePointer(to: &context) { aio.setup(count, UInt(bitPattern: $0)) }
    }

    @discardableResult
    func destroy(_ context: UInt, _ name: String = "ctx") -> Int {
        record("io_destroy(\(name))", aio.destroy(context))
    }

    // MARK: Submitting

    @discardableResult
    func submit(_ context: UInt, _ list: [Request], context name: String = "ctx") -> Int {
        let result = quietSubmit(context, list)
        let shown = list.prefix(4).map(\.text).joined(separator: ", ")
        let more = list.count > 4 ? ", … \(list.count) in all" : ""
        return record("io_submit(\(name), \(list.count), {\(shown)\(more)})", result)
    }

    @discardableResult
    func submit(_ context: UInt, _ one: Request...) -> Int {
        submit(context, one)
    }

    func quietSubmit(_ context: UInt, _ list: [Request]) -> Int {
        for request in list { request.remember(names) }
        return list.map(\.address).withUnsafeBufferPointer {
            aio.submit(context, list.count, UInt(bitPattern: $0.baseAddress))
        }
    }

    /// Submits one request and waits for its event, if it was taken; how many events there were.
    @discardableResult
    func run(_ context: UInt, _ request: Request) -> UInt64 {
        submit(context, request) == 1 ? UInt64(reap(context, 1).count) : 0
    }

    // MARK: Events

    /// Waits for `count` events and writes them down: in the order of the requests, unless the
    /// case is about the order in which they arrive.
    @discardableResult
    func reap(_ context: UInt, _ count: Int, inOrder: Bool = false) -> [io_event] {
        var events: [io_event] = []
        let deadline = Clock.now + Double(Self.patienceSeconds)
        while events.count < count && Clock.now < deadline {
            let (result, got) = quietEvents(
                context, least: 1, most: count - events.count, seconds: 0.5)
            if result < 0 && result != -Int(EINTR) {
                record("io_getevents(ctx, 1, \(count - events.count))", result)
                break
            }
            events += got
        }
        if events.count < count { line("events: \(events.count) of \(count)") }
        write(events, inOrder: inOrder)
        return events
    }

    func write(_ events: [io_event], inOrder: Bool = false) {
        var lines = events.map { (requests[UInt($0.obj)]?.number ?? Int.max, words(of: $0)) }
        if !inOrder { lines.sort { $0.0 < $1.0 } }
        for (_, text) in lines { line("event: \(text)") }
    }

    private func words(of event: io_event) -> String {
        guard let request = requests[UInt(event.obj)] else {
            return "of an unknown request, res \(event.res)"
        }
        let result = Int(event.res)
        let isPoll = request.iocb.pointee.aio_lio_opcode == UInt16(IOCB_CMD_POLL)
        var text = "\(request.text): "
        text += isPoll && result >= 0 ? "0x" + String(result, radix: 16) : Self.value(result)
        if request.isRead && result > 0 && !request.buffers.isEmpty {
            text += ", data \(request.dataHash)"
        }
        if event.res2 != 0 { text += ", res2 \(event.res2)" }
        if !request.submittedData.contains(event.data) { text += ", another's data field" }
        return text
    }

    func quietEvents(_ context: UInt, least: Int, most: Int, seconds: Double?)
        -> (result: Int, events: [io_event])
    {
        var timeout = Clock.timespec(seconds ?? 0)
        let room = max(most, 1)
        var events = [io_event](repeating: io_event(), count: room)
        let result = events.withUnsafeMutableBytes { bytes in
            withUnsafeMutablePointer(to: &timeout) {
                aio.getevents(
                    context, least, most, UInt(bitPattern: bytes.baseAddress),
                    seconds == nil ? 0 : UInt(bitPattern: $0))
            }
        }
        return (result, Array(events.prefix(max(result, 0))))
    }

    /// One io_getevents, written down with its result and what it brought.
    @discardableResult
    func getevents(_ context: UInt, _ least: Int, _ most: Int, seconds: Double?) -> Int {
        let (result, events) = quietEvents(context, least: least, most: most, seconds: seconds)
        let timeout = seconds.map { "\($0) s" } ?? "NULL"
        record("io_getevents(ctx, \(least), \(most), \(timeout))", result)
        write(events)
        return result
    }

    @discardableResult
    func cancel(_ context: UInt, _ request: Request) -> Int {
        var event = io_event()
        let result = withUnsafeMutablePointer(to: &event) {
            aio.cancel(context, request.address, UInt(bitPattern: $0))
        }
        return record("io_cancel(ctx, {\(request.text)})", result)
    }

    // MARK: Requests

    func request(
        _ opcode: Int, _ file: File, buffer: Buffer? = nil, count: Int = 0, at offset: Int = 0
    ) -> Request {
        numbered += 1
        let request = Request(number: numbered)
        names[file.descriptor] = file.name
        request.change {
            $0.aio_lio_opcode = UInt16(opcode)
            $0.aio_fildes = file.descriptor
            $0.aio_nbytes = UInt64(bitPattern: Int64(count))
            $0.aio_offset = Int64(offset)
        }
        if let buffer {
            request.buffers = [buffer]
            request.iocb.pointee.aio_buf = UInt64(buffer.address)
        }
        requests[request.address] = request
        return request
    }

    func pread(_ file: File, _ count: Int = 4096, at offset: Int = 0) -> Request {
        request(Int(IOCB_CMD_PREAD), file, buffer: Buffer(count), count: count, at: offset)
    }

    func pwrite(_ file: File, _ count: Int = 4096, at offset: Int = 0, seed: UInt32 = 9) -> Request
    {
        let buffer = Buffer(count)
        buffer.fill(seed: seed, from: offset)
        return request(Int(IOCB_CMD_PWRITE), file, buffer: buffer, count: count, at: offset)
    }

    func preadv(_ file: File, _ counts: [Int], at offset: Int = 0) -> Request {
        vectors(Int(IOCB_CMD_PREADV), file, counts.map { Buffer($0) }, at: offset)
    }

    func pwritev(_ file: File, _ counts: [Int], at offset: Int = 0, seed: UInt32 = 9) -> Request {
        var from = offset
        let buffers = counts.map { count in
            let buffer = Buffer(count)
            buffer.fill(seed: seed, from: from)
            from += count
            return buffer
        }
        return vectors(Int(IOCB_CMD_PWRITEV), file, buffers, at: offset)
    }

    /// A vectored request, whose array of vectors is the case's to spoil.
    func vectors(_ opcode: Int, _ file: File, _ buffers: [Buffer], at offset: Int = 0) -> Request {
        let array = UnsafeMutablePointer<iovec>.allocate(capacity: max(buffers.count, 1))
        for (index, buffer) in buffers.enumerated() {
            array[index] = iovec(
                iov_base: UnsafeMutableRawPointer(bitPattern: buffer.address),
                iov_len: buffer.count)
        }
        let result = request(opcode, file, count: buffers.count, at: offset)
        result.iocb.pointee.aio_buf = UInt64(UInt(bitPattern: array))
        result.buffers = buffers
        return result
    }

    func fsync(_ file: File) -> Request { request(Int(IOCB_CMD_FSYNC), file) }

    func fdsync(_ file: File) -> Request { request(Int(IOCB_CMD_FDSYNC), file) }

    func poll(_ file: File, _ events: Int32) -> Request {
        let result = request(Int(IOCB_CMD_POLL), file)
        result.iocb.pointee.aio_buf = UInt64(UInt32(bitPattern: events))
        return result
    }

    func name(_ descriptor: Int32, _ name: String) {
        names[descriptor] = name
    }
}

/// The way out of a case's process: one line per write, so that several processes may share it.
enum Transcript {
    static func write(_ kind: String, _ text: String) {
        let bytes = Array("\(kind) \(text)\n".utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }
}

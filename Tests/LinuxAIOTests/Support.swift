// What the tests of this module share: the calls as a program makes them, files, and threads.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import Testing

@testable import LinuxAIO
@testable import Paths

/// The engines that have a daemon.
enum DaemonEngine: String, Codable, Sendable, CaseIterable {
    case uring
    case threads

    /// Those that this machine allows. Tried here and not in a child, as Engine.survey() does: a
    /// child of a process with many threads may find a lock of the sanitizer's taken for ever.
    static let available: [DaemonEngine] =
        UringProbe.tryUring() == 0 ? [.uring, .threads] : [.threads]

    /// The first line of an exit test: this process's layer uses this engine. Whatever hangs ends
    /// with SIGALRM, which is a failure.
    func use(_ variables: (String, String)...) {
        boundedInTime()
        setenv("IOCTX_ENGINE", rawValue, 1)
        for (name, value) in variables { setenv("IOCTX_\(name)", value, 1) }
    }
}

func boundedInTime() { alarm(100) }

/// A context as a program has it: the address of its ring. Destroyed with its last use.
final class AioContext {
    private(set) var address: UInt = 0
    let setupResult: Int

    init(_ events: Int32 = 64) {
        var address: UInt = 0
        setupResult = withAddress(of: &address) { LinuxAIO.setup(events, UInt(bitPattern: $0)) }
        self.address = address
    }

    deinit { if address != 0 { _ = LinuxAIO.destroy(address) } }

    var ring: aio_ring { Ref<aio_ring>(address: address)!.it }

    func setHead(_ head: UInt32) { Ref<aio_ring>(address: address)!.it.head = head }

    func destroy() -> Int {
        defer { address = 0 }
        return LinuxAIO.destroy(address)
    }

    /// Destroyed by somebody else, or left for the end of the process.
    func forget() { address = 0 }

    func submit(_ requests: [Iocb]) -> Int {
        requests.map(\.address).withUnsafeBufferPointer {
            LinuxAIO.submit(address, $0.count, UInt(bitPattern: $0.baseAddress))
        }
    }

    func submit(_ request: Iocb) -> Int { submit([request]) }

    func cancel(_ request: Iocb) -> Int { LinuxAIO.cancel(address, request.address) }

    /// io_getevents; a negative `timeoutNs` waits for ever.
    func reap(
        _ minimum: Int, _ maximum: Int = 64, timeoutNs: Int = -1, sigmask: UInt = 0
    ) -> (result: Int, events: [io_event]) {
        var events = [io_event](repeating: io_event(), count: max(maximum, 1))
        var timeout = timespec(
            tv_sec: timeoutNs / 1_000_000_000, tv_nsec: timeoutNs % 1_000_000_000)
        let result = events.withUnsafeMutableBufferPointer { events in
            withAddress(of: &timeout) {
                LinuxAIO.getEvents(
                    address, minimum, maximum, UInt(bitPattern: events.baseAddress),
                    timeout: timeoutNs < 0 ? 0 : UInt(bitPattern: $0), sigmask: sigmask)
            }
        }
        return (result, Array(events.prefix(max(result, 0))))
    }

    /// Reaps exactly so many events, by their data.
    func results(_ count: Int) -> [UInt64: Int64] {
        var results: [UInt64: Int64] = [:]
        var left = count
        while left > 0 {
            let (result, events) = reap(1, left)
            if result <= 0 {
                Issue.record("io_getevents gave \(result)")
                break
            }
            for event in events {
                if results.updateValue(event.res, forKey: event.data) != nil {
                    Issue.record("event \(event.data) came twice")
                }
            }
            left -= result
        }
        let more = reap(0).result
        if more != 0 { Issue.record("\(more) events too many") }
        return results
    }

    /// The only event.
    func result() -> Int64? { results(1).first?.value }
}

/// A request in memory that stays where it is.
final class Iocb {
    private let pointer = UnsafeMutablePointer<iocb>.allocate(capacity: 1)
    private let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 1024)
    let buffer: Buffer?

    var address: UInt { UInt(bitPattern: pointer) }

    var it: iocb {
        get { pointer.pointee }
        set { pointer.pointee = newValue }
    }

    init(
        _ command: Int, _ file: Descriptor?, _ buffer: Buffer? = nil, offset: Int64 = 0,
        data: UInt64 = 0
    ) {
        self.buffer = buffer
        pointer.initialize(to: iocb())
        it.aio_lio_opcode = UInt16(command)
        it.aio_fildes = file?.number ?? -1
        it.aio_data = data
        it.aio_offset = offset
        if let buffer {
            it.aio_buf = UInt64(UInt(bitPattern: buffer.bytes.baseAddress))
            it.aio_nbytes = UInt64(buffer.bytes.count)
        }
    }

    static func poll(_ file: Descriptor, _ events: Int32 = POLLIN, data: UInt64 = 0) -> Iocb {
        let request = Iocb(Int(IOCB_CMD_POLL), file, data: data)
        request.it.aio_buf = UInt64(events)
        return request
    }

    static func read(
        _ file: Descriptor, _ buffer: Buffer, offset: Int64 = 0, data: UInt64 = 0
    ) -> Iocb {
        Iocb(Int(IOCB_CMD_PREAD), file, buffer, offset: offset, data: data)
    }

    static func write(
        _ file: Descriptor, _ buffer: Buffer, offset: Int64 = 0, data: UInt64 = 0
    ) -> Iocb {
        Iocb(Int(IOCB_CMD_PWRITE), file, buffer, offset: offset, data: data)
    }

    /// Splits the request's buffer into vectors of these lengths.
    func inVectors(_ lengths: [Int], isWrite: Bool) -> Iocb {
        var base = buffer!.bytes.baseAddress!
        for (index, length) in lengths.enumerated() {
            vectors[index] = iovec(iov_base: base, iov_len: length)
            base += length
        }
        it.aio_lio_opcode = UInt16(isWrite ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV)
        it.aio_buf = UInt64(UInt(bitPattern: vectors))
        it.aio_nbytes = UInt64(lengths.count)
        return self
    }

    func signalling(_ eventfd: Descriptor) -> Iocb {
        it.aio_flags |= UInt32(IOCB_FLAG_RESFD)
        it.aio_resfd = eventfd.number
        return self
    }

    deinit {
        pointer.deallocate()
        vectors.deallocate()
    }
}

final class Buffer {
    let bytes: UnsafeMutableRawBufferPointer

    init(_ count: Int, filledWith value: UInt8 = 0) {
        bytes = .allocate(byteCount: count, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: value)
    }

    deinit { bytes.deallocate() }

    func isFilled(with value: UInt8, _ count: Int? = nil) -> Bool {
        bytes[..<(count ?? bytes.count)].allSatisfy { $0 == value }
    }
}

/// Numbers without order that are the same in every run.
struct Randomness: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }
}

/// A descriptor that is closed with its last use.
final class Descriptor {
    let number: Int32

    init(_ number: Int32) {
        precondition(number >= 0, "no descriptor")
        self.number = number
    }

    deinit { close(number) }

    /// Makes this number mean another file, as after a close and an open, in one step: other
    /// tests of the process open files as well.
    func reuse(for other: Descriptor) {
        precondition(dup2(other.number, number) == number)
    }
}

enum Files {
    /// A regular file without a name, of `count` bytes of that value, on a disk.
    static func regular(_ count: Int, of value: UInt8 = 0x5a, flags: Int32 = O_RDWR) -> Descriptor {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        precondition(made >= 0, "no temporary file")
        let block = [UInt8](repeating: value, count: 65_536)
        var left = count
        while left > 0 { left -= write(made, block, min(left, block.count)) }
        fsync(made)
        let opened = open(path, flags)
        unlink(path)
        close(made)
        return Descriptor(opened)
    }

    /// Where temporary files lie: TMPDIR, or a folder that is on a disk almost everywhere.
    static var folder: String { getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp" }

    static let directFlag = Int32(IOCTX_O_DIRECT)

    /// True when files of the folder take O_DIRECT.
    static let haveDirect: Bool = {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        let opened = open(path, O_RDWR | directFlag)
        unlink(path)
        close(made)
        if opened >= 0 { close(opened) }
        return opened >= 0
    }()

    static func pipe() -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(Glibc.pipe(&ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    static func socketPair() -> (Descriptor, Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    static func device(_ path: String, _ flags: Int32 = O_RDWR) -> Descriptor {
        Descriptor(open(path, flags))
    }

    static func make(_ number: Int32, _ a: Int = 0, _ b: Int = 0) -> Descriptor {
        Descriptor(Int32(systemCall(number, a, b)))
    }

    static func eventfd(_ count: Int = 0, flags: Int32 = O_NONBLOCK) -> Descriptor {
        make(Int32(SYS_eventfd2), count, Int(flags))
    }

    static func epoll() -> Descriptor { make(Int32(SYS_epoll_create1)) }
    static func timerfd() -> Descriptor { make(Int32(SYS_timerfd_create), Int(CLOCK_MONOTONIC)) }

    static func signalfd() -> Descriptor {
        var mask: UInt64 = 0
        return withAddress(of: &mask) {
            Descriptor(Int32(systemCall(Int32(SYS_signalfd4), -1, $0, 8, 0)))
        }
    }

    static func memfd(_ count: Int = 0, of value: UInt8 = 0x5a) -> Descriptor {
        let name: StaticString = "unit"
        let made = make(Int32(SYS_memfd_create), Int(bitPattern: name.utf8Start))
        let block = [UInt8](repeating: value, count: count)
        precondition(write(made.number, block, count) == count)
        return made
    }

    /// The count of an eventfd, which is 0 afterwards.
    static func take(_ eventfd: Descriptor) -> UInt64 {
        var value: UInt64 = 0
        return read(eventfd.number, &value, 8) == 8 ? value : 0
    }
}

private final class ThreadBody {
    let body: (Int) -> Void
    let index: Int

    init(_ body: @escaping (Int) -> Void, _ index: Int) {
        self.body = body
        self.index = index
    }
}

/// Runs body(0) ... body(count - 1), each in a thread of its own, and waits for all of them.
func concurrently(_ count: Int, _ body: (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        let threads = (0..<count).map { index in
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(ThreadBody(body, index)).toOpaque()
            let error = pthread_create(
                &thread, nil,
                { argument in
                    let body = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
                    body.body(body.index)
                    return nil
                }, argument)
            precondition(error == 0, "no thread")
            return thread
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}

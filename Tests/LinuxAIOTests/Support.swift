// What the tests of this module share: the calls as a program makes them.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import LinuxAIO
@testable import Paths

var quotaUsed: UInt32 { LinuxFace.current?.it.quotaUsed ?? 0 }
var recordsUsed: UInt32 {
    guard let face = LinuxFace.current else { return 0 }
    return face.it.contextCount.load(ordering: .relaxed)
}

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

/// A counter that threads add to.
struct Shared: ~Copyable {
    let value: Atomic<Int>
}

extension Ref where Pointee == Shared {
    func add(_ count: Int = 1) { it.value.add(count, ordering: .acquiringAndReleasing) }

    var count: Int { it.value.load(ordering: .acquiring) }
}

// Requests, buffers and files as the cases name them, and their words in a transcript.

import CTestBed
import CLibAIO
import Glibc

/// Memory of a case. Never freed: a request may be under way for as long as the process lives.
struct Buffer {
    let address: UInt
    let count: Int

    static let alignment = 4096

    /// Filled with a byte that no pattern is likely to show for long.
    init(_ count: Int) {
        var memory: UnsafeMutableRawPointer?
        posix_memalign(&memory, Self.alignment, max(count, 1))
        memset(memory!, 0xee, max(count, 1))
        address = UInt(bitPattern: memory)
        self.count = count
    }

    init(address: UInt, count: Int) {
        self.address = address
        self.count = count
    }

    var pointer: UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: address)! }

    func fill(seed: UInt32, from offset: Int = 0) {
        testbed_fill(pointer, count, seed, UInt64(bitPattern: Int64(offset)))
    }

    func holds(seed: UInt32, from offset: Int = 0) -> Bool {
        testbed_has_pattern(
            pointer, count, seed, UInt64(bitPattern: Int64(offset))) != 0
    }

    func hash(_ length: Int) -> String {
        String(testbed_hash(pointer, min(length, count)), radix: 16)
    }

    func part(_ start: Int, _ length: Int) -> Buffer {
        Buffer(address: address + UInt(start), count: length)
    }
}

/// An open file of a case.
struct File {
    let descriptor: Int32
    let name: String
    /// Makes it readable, where it is a stream.
    var feed: () -> Void = {}
    /// Makes it writable, where it is a stream.
    var drain: () -> Void = {}
    /// Where its contents can be seen apart from `descriptor`.
    var path: String?

    func close() {
        Glibc.close(descriptor)
    }
}

/// A struct iocb at an address that stays, with the memory it speaks of.
final class Request {
    let iocb: UnsafeMutablePointer<CLibAIO.iocb>
    var buffers: [Buffer] = []
    let number: Int
    /// How it read when it was submitted last, and the data it had then.
    fileprivate(set) var text = ""
    fileprivate(set) var submittedData: [UInt64] = []

    init(number: Int) {
        iocb = .allocate(capacity: 1)
        iocb.initialize(to: CLibAIO.iocb())
        iocb.pointee.aio_data = UInt64(number)
        self.number = number
    }

    var address: UInt { UInt(bitPattern: iocb) }

    var isRead: Bool {
        [UInt16(IOCB_CMD_PREAD), UInt16(IOCB_CMD_PREADV)].contains(
            UInt16(iocb.pointee.aio_lio_opcode))
    }

    @discardableResult
    func change(_ body: (inout CLibAIO.iocb) -> Void) -> Request {
        body(&iocb.pointee)
        return self
    }

    func remember(_ names: [Int32: String]) {
        text = words(names)
        submittedData.append(iocb.pointee.aio_data)
    }

    /// The hash of all its buffers, with what a read did not fill: it must be as before.
    var dataHash: String {
        buffers.map { $0.hash($0.count) }.joined(separator: "+")
    }

    /// `PREAD pipe 4096@0 rw_flags 0x8`: what is zero or usual is left out.
    func words(_ names: [Int32: String]) -> String {
        let it = iocb.pointee
        func file(_ descriptor: Int32) -> String {
            names[descriptor] ?? (descriptor < 0 ? "fd \(descriptor)" : "fd")
        }
        let operations: [UInt16: String] = [
            0: "PREAD", 1: "PWRITE", 2: "FSYNC", 3: "FDSYNC", 5: "POLL", 7: "PREADV", 8: "PWRITEV",
        ]
        let name = operations[it.aio_lio_opcode]
        var result = "\(name ?? "opcode \(it.aio_lio_opcode)") \(file(it.aio_fildes))"
        switch it.aio_lio_opcode {
        case 0, 1, 7, 8:
            let vectors = it.aio_lio_opcode >= 7 ? " vectors" : ""
            result += " \(Int64(bitPattern: it.aio_nbytes))\(vectors)@\(it.aio_offset)"
        case 5:
            result += " 0x" + String(it.aio_buf, radix: 16)
        default: break
        }
        if it.aio_rw_flags != 0 {
            result += " rw_flags 0x" + String(UInt32(bitPattern: it.aio_rw_flags), radix: 16)
        }
        if it.aio_flags & ~1 != 0 { result += " flags 0x" + String(it.aio_flags, radix: 16) }
        if it.aio_flags & 1 != 0 { result += " resfd \(file(it.aio_resfd))" }
        if it.aio_reqprio != 0 {
            result += " prio 0x" + String(UInt16(bitPattern: it.aio_reqprio), radix: 16)
        }
        if it.aio_reserved2 != 0 { result += " reserved" }
        return result
    }
}

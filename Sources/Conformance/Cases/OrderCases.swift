// Which of two mistakes in one request wins: the order of the kernel's checks.

import CLibAIO
import Glibc

enum OrderCases {
    static let all: [Case] = alone + pairs + otherOperations

    private struct Fault: Sendable {
        let name: String
        /// Faults of one group cannot be had together.
        var group = ""
        let apply: @Sendable (Scene, UInt, Request) throws -> Void
    }

    private static let faults: [Fault] = [
        Fault(name: "reserved") { $2.iocb.pointee.aio_reserved2 = 1 },
        Fault(name: "length") { $2.iocb.pointee.aio_nbytes = 1 << 63 },
        Fault(name: "full-ring") { s, context, _ in try fill(s, context) },
        Fault(name: "closed", group: "file") {
            $2.iocb.pointee.aio_fildes = $0.closed().descriptor
        },
        Fault(name: "path", group: "file") { s, _, request in
            let file = try s.regular(O_RDONLY | Int32(IOCTX_O_PATH), name: "path")
            request.iocb.pointee.aio_fildes = file.descriptor
        },
        Fault(name: "resfd-closed", group: "resfd") {
            $2.iocb.pointee.aio_flags |= UInt32(IOCB_FLAG_RESFD)
            $2.iocb.pointee.aio_resfd = Int32.max - 1
            $0.name(Int32.max - 1, "closed")
        },
        Fault(name: "resfd-no-eventfd", group: "resfd") { s, _, request in
            let file = try s.regular(name: "no eventfd")
            request.iocb.pointee.aio_flags |= UInt32(IOCB_FLAG_RESFD)
            request.iocb.pointee.aio_resfd = file.descriptor
        },
        Fault(name: "opcode") { $2.iocb.pointee.aio_lio_opcode = 99 },
        Fault(name: "priority") {
            $2.iocb.pointee.aio_flags |= UInt32(IOCB_FLAG_IOPRIO)
            $2.iocb.pointee.aio_reqprio = Int16(bitPattern: 7 << 13)
        },
        Fault(name: "flags") { $2.iocb.pointee.aio_rw_flags = 0x4000_0000 },
        Fault(name: "write-only", group: "file") { s, _, request in
            let file = try s.regular(O_WRONLY, name: "write-only")
            request.iocb.pointee.aio_fildes = file.descriptor
        },
        Fault(name: "directory", group: "file") { s, _, request in
            let file = try s.open(s.folder, O_RDONLY | O_DIRECTORY, name: "directory")
            request.iocb.pointee.aio_fildes = file.descriptor
        },
        Fault(name: "buffer") {
            $2.buffers = []
            $2.iocb.pointee.aio_buf = UInt64(SetupCases.kernelHalf)
        },
        Fault(name: "offset") { $2.iocb.pointee.aio_offset = -1 },
    ]

    /// Published events that nobody has taken fill the ring.
    static func fill(_ s: Scene, _ context: UInt) throws {
        let file = try s.regular(name: "filler")
        let request = s.pread(file, 1)
        var count = 0
        while s.quietSubmit(context, [request]) == 1 { count += 1 }
        s.fact("the ring could be filled", count > 0)
    }

    private static func attempt(_ faults: [Fault]) -> Case {
        Case("order/\(faults.map(\.name).joined(separator: "+"))") { s in
            let context = s.setup(1)
            let request = s.pread(try s.regular())
            request.iocb.pointee.aio_key = 77
            for fault in faults { try fault.apply(s, context, request) }
            let result = s.submit(context, request)
            s.line("key afterwards: \(request.iocb.pointee.aio_key)")
            if result == 1 { s.reap(context, 1) }
        }
    }

    private static let alone = faults.map { attempt([$0]) }

    private static let pairs: [Case] = faults.indices.flatMap { first in
        faults.indices.filter { $0 > first }.compactMap { second in
            let pair = [faults[first], faults[second]]
            return pair[0].group != "" && pair[0].group == pair[1].group ? nil : attempt(pair)
        }
    }

    /// The same for the operations that have checks of their own.
    private static let otherOperations: [Case] = [
        Case("order/poll") { s in
            let context = s.setup()
            s.submit(context, s.poll(s.closed(), 0x10000))
            s.submit(context, s.poll(s.closed(), POLLIN).change { $0.aio_nbytes = 1 })
            let path = try s.regular(O_RDONLY | Int32(IOCTX_O_PATH), name: "path")
            s.submit(context, s.poll(path, POLLIN))
            s.submit(context, s.poll(path, 0x10000))
        },
        Case("order/fsync") { s in
            let context = s.setup()
            let pipe = try s.pipe().reader
            s.submit(context, s.fsync(s.closed()).change { $0.aio_nbytes = 1 })
            s.submit(context, s.fsync(pipe).change { $0.aio_nbytes = 1 })
            s.submit(context, s.fsync(pipe).change { $0.aio_reqprio = 1 })
        },
        Case("order/vectors") { s in
            let context = s.setup()
            let writeOnly = try s.regular(O_WRONLY, name: "write-only")
            func spoilt(_ file: File, _ offset: Int) -> Request {
                s.preadv(file, [4096], at: offset).change { $0.aio_nbytes = 1025 }
            }
            s.submit(context, spoilt(writeOnly, 0))
            s.submit(context, spoilt(try s.regular(), -1))
            s.submit(context, spoilt(s.closed(), -1))
        },
        Case("order/getevents") { s in
            let context = s.setup()
            let bad = SetupCases.kernelHalf
            s.record("timeout, context", s.aio.getevents(0, 0, 1, 0, bad))
            s.record("context, counts", s.aio.getevents(0, 2, 1, 0, 0))
            s.record("timeout, counts", s.aio.getevents(context, 2, 1, 0, bad))
            s.record("counts, events", s.aio.getevents(context, 2, 1, bad, 0))
            s.record("mask, context", s.aio.pgetevents(0, 0, 1, 0, 0, bad))
            s.record("timeout, mask", s.aio.pgetevents(context, 0, 1, 0, bad, bad))
            s.record("mask, counts", s.aio.pgetevents(context, 2, 1, 0, 0, bad))
        },
        Case("order/cancel") { s in
            let context = s.setup()
            let request = s.pread(try s.regular())
            request.iocb.pointee.aio_key = 1
            s.record("key, context", s.aio.cancel(0, request.address, 0))
            s.record("pointer, context", s.aio.cancel(0, 0, 0))
            s.record("pointer", s.aio.cancel(context, 0, 0))
            s.record("pointer of the kernel", s.aio.cancel(context, SetupCases.kernelHalf, 0))
            request.iocb.pointee.aio_key = 0
            s.record("context", s.aio.cancel(0, request.address, 0))
            s.record("unknown", s.aio.cancel(context, request.address, 0))
        },
    ]
}

// Bad pointers that a library cannot know without asking the kernel: with IOCTX_STRICT=1 each is
// -EFAULT, or -EINVAL, as it is to the kernel.

import CLibAIO
import Glibc
import TestBed

enum PointerCases {
    static let all: [Case] = [
        Case("pointer/setup-unmapped") { s in
            s.record("io_setup", s.aio.setup(8, pages(0, of: 1)))
        }.strict,
        Case("pointer/setup-read-only") { s in
            s.record("io_setup", s.aio.setup(8, readOnly()))
        }.strict,
        Case("pointer/setup-straddling") { s in
            s.record("io_setup", s.aio.setup(8, pages(1, of: 2) + 4096 - 4))
        }.strict,
        Case("pointer/setup-zero-and-unmapped") { s in
            s.record("io_setup(0)", s.aio.setup(0, pages(0, of: 1)))
            s.record("io_setup(-1)", s.aio.setup(0xffff_ffff, pages(0, of: 1)))
        }.strict,
        Case("pointer/list-unmapped") { s in
            let context = s.setup()
            s.record("io_submit", s.aio.submit(context, 1, pages(0, of: 1)))
            s.record("io_submit of none", s.aio.submit(context, 0, pages(0, of: 1)))
        }.strict,
        Case("pointer/list-ends-in-a-hole") { s in
            let context = s.setup()
            let request = s.pread(try s.regular(), 5)
            request.remember([:])
            let list = pages(1, of: 2) + 4096 - 16
            for index in 0..<2 {
                UnsafeMutablePointer<UInt>(bitPattern: list)![index] = request.address
            }
            s.record("io_submit of three", s.aio.submit(context, 3, list))
            s.line("events: \(s.quietEvents(context, least: 0, most: 8, seconds: 0).result)")
        }.strict,
        Case("pointer/list-straddling") { s in
            let context = s.setup()
            s.record("io_submit", s.aio.submit(context, 1, pages(1, of: 2) + 4096 - 4))
        }.strict,
        Case("pointer/iocb-unmapped") { s in
            let context = s.setup()
            let request = s.pread(try s.regular(), 5)
            request.remember([:])
            for list in [[pages(0, of: 1)], [request.address, pages(0, of: 1), request.address]] {
                let result = list.withUnsafeBufferPointer {
                    s.aio.submit(context, list.count, UInt(bitPattern: $0.baseAddress))
                }
                s.record("io_submit of \(list.count)", result)
            }
            s.line("events: \(s.quietEvents(context, least: 0, most: 8, seconds: 0).result)")
        }.strict,
        Case("pointer/iocb-straddling") { s in
            let context = s.setup()
            var address = pages(1, of: 2) + 4096 - 32
            s.record(
                "io_submit",
                withUnsafeMutablePointer(to: &address) {
                    s.aio.submit(context, 1, UInt(bitPattern: $0))
                })
        }.strict,
        readOnlyRequest("read", key: 5) { s in s.pread(try s.regular(), 5) },
        // The kernel stores the key even where it is there already.
        readOnlyRequest("read-and-key-zero", key: 0) { s in s.pread(try s.regular(), 5) },
        readOnlyRequest("closed", key: 5) { s in s.pread(s.closed(), 5) },
        readOnlyRequest("bad-opcode", key: 5) { s in s.request(99, try s.regular()) },
        Case("pointer/vectors-unmapped") { s in
            let context = s.setup()
            let file = try s.regular()
            for (address, count) in [
                (pages(0, of: 1), 1), (pages(1, of: 2) + 4096 - 8, 1),
                (pages(1, of: 2) + 4096 - 16, 2), (pages(0, of: 1), 0), (pages(0, of: 1), 1025),
            ] {
                let request = s.request(Int(IOCB_CMD_PREADV), file, count: count)
                request.iocb.pointee.aio_buf = UInt64(address)
                s.run(context, request)
            }
        }.strict,
        Case("pointer/vectors-that-cannot-be-read-of-closed-file") { s in
            let context = s.setup()
            let request = s.request(Int(IOCB_CMD_PREADV), s.closed(), count: 1)
            request.iocb.pointee.aio_buf = UInt64(pages(0, of: 1))
            s.submit(context, request)
        }.strict,
        Case("pointer/timeout-unmapped") { s in
            let context = s.setup()
            s.record("io_getevents", s.aio.getevents(context, 0, 1, 0, pages(0, of: 1)))
            s.record("of no context", s.aio.getevents(0, 0, 1, 0, pages(0, of: 1)))
            s.record(
                "io_pgetevents", s.aio.pgetevents(context, 0, 1, 0, pages(1, of: 2) + 4096 - 8, 0))
        }.strict,
        Case("pointer/timeout-read-only") { s in
            let context = s.setup()
            s.record("io_getevents", s.aio.getevents(context, 1, 1, 0, readOnly()))
        }.strict,
        Case("pointer/events-unmapped-and-none-ready") { s in
            let context = s.setup()
            s.record("io_getevents", s.aio.getevents(context, 0, 1, pages(0, of: 1), 0))
        }.strict,
        Case("pointer/events-unmapped") { s in
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            s.record("io_getevents", s.aio.getevents(context, 1, 1, pages(0, of: 1), 0))
            s.reap(context, 1)
        }.strict,
        Case("pointer/events-unmapped-and-an-event-comes-later") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            let waker = Worker {
                Clock.sleep(0.1)
                counter.feed()
            }
            s.record("io_getevents", s.aio.getevents(context, 1, 1, pages(0, of: 1), 0))
            try waker.end()
            s.reap(context, 1)
        }.strict,
        Case("pointer/cancel-read-only-iocb") { s in
            let context = s.setup()
            s.record("io_cancel", s.aio.cancel(context, readOnly(), 0))
        }.strict,
        Case("pointer/cancel-straddling-iocb") { s in
            let context = s.setup()
            s.record("io_cancel", s.aio.cancel(context, pages(1, of: 2) + 4096 - 8, 0))
            s.record("io_cancel", s.aio.cancel(context, pages(1, of: 2) + 4096 - 16, 0))
        }.strict,
        Case("pointer/context-in-a-hole") { s in
            let hole = pages(0, of: 1)
            s.submit(hole, [], context: "hole")
            s.getevents(hole, 0, 1, seconds: 0)
            s.destroy(hole, "hole")
        },
        Case("pointer/context-unaligned") { s in
            let hole = pages(1, of: 2) + 4096 - 2
            s.submit(hole, [], context: "hole")
            s.destroy(hole, "hole")
        },
    ]

    private static func readOnlyRequest(
        _ name: String, key: UInt32, _ make: @escaping @Sendable (Scene) throws -> Request
    ) -> Case {
        Case("pointer/iocb-read-only-\(name)") { s in
            let context = s.setup()
            let request = try make(s)
            request.iocb.pointee.aio_key = key
            var address = pages(1, of: 1)
            memcpy(
                UnsafeMutableRawPointer(bitPattern: address)!, UnsafeRawPointer(request.iocb), 64)
            mprotect(UnsafeMutableRawPointer(bitPattern: address), 4096, PROT_READ)
            s.record(
                "io_submit",
                withUnsafeMutablePointer(to: &address) {
                    s.aio.submit(context, 1, UInt(bitPattern: $0))
                })
            s.line("events: \(s.quietEvents(context, least: 0, most: 8, seconds: 0).result)")
        }.strict
    }

    /// `count` pages of which the first `usable` may be used.
    private static func pages(_ usable: Int, of count: Int) -> UInt {
        let start = mmap(nil, count * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        mprotect(start, usable * 4096, PROT_READ | PROT_WRITE)
        return UInt(bitPattern: start)
    }

    private static func readOnly() -> UInt {
        UInt(bitPattern: mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    }
}

// io_submit's own arguments, the walk along its list, and the fields of a request that have little
// to do with the file.

import CLibAIO
import Glibc

enum SubmitCases {
    static let all: [Case] = lists + priorities + vectors + copies

    private static let lists: [Case] = [
        Case("submit/closed-descriptor") { s in
            let context = s.setup()
            s.submit(context, s.pread(s.closed()))
            s.submit(context, s.pread(s.file(-1, "fd -1")))
            s.submit(context, s.pread(s.file(Int32.max, "fd max")))
            s.submit(context, s.pread(s.file(Int32.min, "fd min")))
        },
        Case("submit/counts") { s in
            let context = s.setup()
            s.record("io_submit(ctx, 0, NULL)", s.aio.submit(context, 0, 0))
            s.record("io_submit(ctx, -1, NULL)", s.aio.submit(context, -1, 0))
            s.record("io_submit(ctx, min, NULL)", s.aio.submit(context, .min, 0))
            s.record("io_submit(ctx, 1, NULL)", s.aio.submit(context, 1, 0))
            s.record(
                "io_submit(ctx, 1, kernel half)", s.aio.submit(context, 1, SetupCases.kernelHalf))
            s.record(
                "io_submit(ctx, 0, kernel half)", s.aio.submit(context, 0, SetupCases.kernelHalf))
        },
        Case("submit/null-entries") { s in
            let context = s.setup()
            let good = s.pread(try s.regular())
            good.remember([:])
            for list in [[0], [good.address, 0, good.address], [SetupCases.kernelHalf]] {
                let result = list.withUnsafeBufferPointer {
                    s.aio.submit(context, list.count, UInt(bitPattern: $0.baseAddress))
                }
                s.record("io_submit(ctx, \(list.count), …)", result)
            }
            s.line("events: \(s.quietEvents(context, least: 0, most: 8, seconds: 0).result)")
        },
        Case("submit/good-bad-good") { s in
            let context = s.setup()
            let file = try s.regular()
            let counter = try s.counter()
            let list = [s.pread(file), s.pread(s.closed()), s.pread(file, at: 4096)]
            for request in list {
                request.change {
                    $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                    $0.aio_resfd = counter.descriptor
                }
            }
            s.submit(context, list)
            s.submit(context, Array(list.dropFirst()))
            s.submit(context, Array(list.dropFirst(2)))
            s.reap(context, 2)
            s.count(of: counter, expected: 2)
        },
        Case("submit/bad-after-many-good") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let list = (0..<50).map { s.pread(file, 100, at: $0 * 7) } + [s.pread(s.closed())]
            s.submit(context, list)
            s.reap(context, 50)
        },
        Case("submit/unknown-opcodes") { s in
            let context = s.setup()
            let file = try s.regular()
            for opcode in [4, 6, 9, 99, 255, 256, 65535] {
                s.submit(context, s.request(opcode, file))
            }
        },
        Case("submit/unknown-aio-flags") { s in
            let context = s.setup()
            let file = try s.regular()
            for flags in [4, 8, 0x80, 0x8000_0000, 0xffff_fffc] as [UInt32] {
                s.run(context, s.pread(file, 100).change { $0.aio_flags = flags })
            }
        },
        Case("submit/key-is-overwritten") { s in
            let context = s.setup()
            let request = s.pread(try s.regular()).change { $0.aio_key = 0xdead }
            s.run(context, request)
            s.line("key: \(request.iocb.pointee.aio_key)")
        },
        Case("submit/reqprio-without-flag") { s in
            let context = s.setup()
            let file = try s.regular()
            s.run(context, s.pread(file).change { $0.aio_reqprio = -1 })
            s.run(context, s.fsync(file).change { $0.aio_reqprio = 9 })
        },
        Case("submit/large-lengths") { s in
            let context = s.setup()
            let file = try s.regular()
            for count in [Int.max, .min, -1, 1 << 62, 0x7fff_f000, 0x7fff_ffff, 1 << 32] {
                let request = s.request(
                    Int(IOCB_CMD_PREAD), file, count: count, at: Scene.fileBytes)
                request.iocb.pointee.aio_buf = UInt64(Buffer(4096).address)
                s.run(context, request)
            }
        },
        Case("submit/resfd-kinds") { s in
            let context = s.setup()
            let file = try s.regular()
            let others = [
                file, s.closed(), try s.pipe().reader, try s.timer(), try s.counter(),
                s.file(-1, "fd -1"), try s.open("/dev/null", O_RDWR, name: "null"),
                s.file(epoll_create1(0), "epoll"),
            ]
            for other in others {
                s.run(
                    context,
                    s.pread(file).change {
                        $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                        $0.aio_resfd = other.descriptor
                    })
            }
        },
        Case("submit/resfd-without-flag") { s in
            let context = s.setup()
            s.run(context, s.pread(try s.regular()).change { $0.aio_resfd = -7 })
        },
        Case("submit/buffer-of-the-kernel") { s in
            let context = s.setup()
            let file = try s.regular()
            for address in [
                SetupCases.kernelHalf, UInt.max, 0x7fff_ffff_f000, 0x0000_8000_0000_0000,
            ] {
                let request = s.request(Int(IOCB_CMD_PREAD), file, count: 4096)
                request.iocb.pointee.aio_buf = UInt64(address)
                s.run(context, request)
            }
        },
        Case("submit/null-buffer") { s in
            let context = s.setup()
            let file = try s.regular()
            s.run(context, s.request(Int(IOCB_CMD_PREAD), file, count: 100))
            s.run(context, s.request(Int(IOCB_CMD_PWRITE), file, count: 100))
            s.run(context, s.request(Int(IOCB_CMD_PREAD), file, count: 0))
            s.contents(of: file)
        },
        Case("submit/unmapped-buffer") { s in
            let context = s.setup()
            let file = try s.regular()
            let hole = mmap(nil, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            mprotect(hole, 4096, PROT_READ | PROT_WRITE)
            let address = UInt(bitPattern: hole)
            for (start, opcode) in [
                (address + 4096, IOCB_CMD_PREAD), (address + 4096, IOCB_CMD_PWRITE),
                (address + 2048, IOCB_CMD_PREAD), (address + 2048, IOCB_CMD_PWRITE),
            ] {
                let request = s.request(Int(opcode), file, count: 4096, at: 8192)
                request.iocb.pointee.aio_buf = UInt64(start)
                s.run(context, request)
            }
            s.contents(of: file)
        },
        Case("submit/read-only-buffer") { s in
            let context = s.setup()
            let page = mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            let request = s.request(Int(IOCB_CMD_PREAD), try s.regular(), count: 4096)
            request.iocb.pointee.aio_buf = UInt64(UInt(bitPattern: page))
            s.run(context, request)
        },
        Case("submit/direct-misaligned") { s in
            let context = s.setup()
            let file = try s.direct()
            for (count, offset, shift) in [
                (4096, 0, 0), (4095, 0, 0), (100, 0, 0), (4096, 1, 0), (4096, 100, 0),
                (4096, 0, 1), (512, 512, 512), (4096, 0, 512), (8192, 61440, 0), (4096, 65536, 0),
                (4096, 66000, 0), (0, 1, 1),
            ] {
                let whole = Buffer(16384)
                for opcode in [IOCB_CMD_PREAD, IOCB_CMD_PWRITE] {
                    let buffer = whole.part(shift, count)
                    buffer.fill(seed: 3)
                    s.run(
                        context,
                        s.request(
                            Int(opcode), file, buffer: buffer, count: count, at: offset))
                }
            }
            s.contents(of: file)
        },
        Case("submit/past-the-largest-file") { s in
            let context = s.setup()
            let file = try s.regular()
            for offset in [Int.max - 8192, 1 << 60, 1 << 44, (1 << 44) - 4096, (1 << 44) - 100] {
                s.run(context, s.pwrite(file, 4096, at: offset))
                s.run(context, s.pread(file, 4096, at: offset))
                ftruncate(file.descriptor, Scene.fileBytes)
            }
        },
    ]

    // MARK: Priorities

    private static let classes: [Case] = (0..<8).map { (value: Int) in
        Case("priority/class-\(value)") { s in
            let context = s.setup()
            let file = try s.regular()
            for level in [0, 1, 4, 7, 8, 0x1000] {
                s.run(
                    context,
                    s.pread(file, 100).change {
                        $0.aio_flags = UInt32(IOCB_FLAG_IOPRIO)
                        $0.aio_reqprio = Int16(truncatingIfNeeded: value << 13 | level)
                    })
            }
        }
    }

    private static let priorities: [Case] =
        classes + [
            Case("priority/without-privilege") { s in
                try s.needRoot()
                let file = try s.regular()
                _ = setuid(65534)
                let context = s.setup()
                for value in 0..<5 {
                    s.run(
                        context,
                        s.pread(file, 100).change {
                            $0.aio_flags = UInt32(IOCB_FLAG_IOPRIO)
                            $0.aio_reqprio = Int16(truncatingIfNeeded: value << 13)
                        })
                }
            },
            Case("priority/on-others") { s in
                let context = s.setup()
                let file = try s.regular()
                for request in [
                    s.pwrite(file), s.preadv(file, [10]), s.pwritev(file, [10]), s.fsync(file),
                    s.poll(file, POLLIN),
                ] {
                    s.run(
                        context,
                        request.change {
                            $0.aio_flags = UInt32(IOCB_FLAG_IOPRIO)
                            $0.aio_reqprio = Int16(bitPattern: 7 << 13)
                        })
                }
            },
        ]

    // MARK: Vectors

    private static let vectors: [Case] =
        [0, 1, 2, 7, 1023, 1024, 1025, 4096, 65536].map { count in
            Case("vectors/count-\(count)") { s in
                let context = s.setup()
                let file = try s.regular()
                s.run(context, s.preadv(file, Array(repeating: 3, count: count), at: 5))
                s.run(context, s.pwritev(file, Array(repeating: 2, count: count), at: 9))
                s.contents(of: file)
            }
        } + [
            Case("vectors/count-beyond-32-bits") { s in
                let context = s.setup()
                let file = try s.regular()
                for count in [1 << 32, 1 << 32 + 1, -1, Int.max, 1 << 31] {
                    s.run(
                        context,
                        s.preadv(file, [16]).change {
                            $0.aio_nbytes = UInt64(bitPattern: Int64(count))
                        })
                }
            },
            Case("vectors/bad-lengths") { s in
                let context = s.setup()
                let file = try s.regular()
                for lengths in [[-1], [10, -1], [10, .min], [0, -1], [Int.max], [10, Int.max]] {
                    let buffers = lengths.map { Buffer(address: Buffer(16).address, count: $0) }
                    let request = s.vectors(
                        Int(IOCB_CMD_PREADV), file, buffers, at: Scene.fileBytes)
                    s.line("lengths \(lengths)")
                    s.run(context, request)
                }
            },
            Case("vectors/bad-bases") { s in
                let context = s.setup()
                let file = try s.regular()
                for bases in [
                    [SetupCases.kernelHalf], [0, SetupCases.kernelHalf], [0],
                    [SetupCases.kernelHalf, 0],
                ] {
                    let good = Buffer(16).address
                    let buffers = bases.enumerated().map { index, base in
                        Buffer(
                            address: base == 0 && index == 0 && bases.count > 1 ? good : base,
                            count: 16)
                    }
                    let request = s.vectors(Int(IOCB_CMD_PREADV), file, buffers)
                    request.buffers = []
                    s.run(context, request)
                }
            },
            Case("vectors/second-unmapped") { s in
                let context = s.setup()
                let file = try s.regular()
                let hole = mmap(nil, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                let bad = Buffer(address: UInt(bitPattern: hole), count: 100)
                for opcode in [IOCB_CMD_PREADV, IOCB_CMD_PWRITEV] {
                    for buffers in [[Buffer(100), bad], [bad, Buffer(100)], [Buffer(0), bad]] {
                        let request = s.vectors(Int(opcode), file, buffers)
                        request.buffers = []
                        s.run(context, request)
                    }
                }
                s.contents(of: file)
            },
            Case("vectors/null-array") { s in
                let context = s.setup()
                let file = try s.regular()
                for (count, address) in [
                    (0, 0), (1, 0), (1, SetupCases.kernelHalf), (0, SetupCases.kernelHalf),
                    (1025, 0),
                ] as [(Int, UInt)] {
                    let request = s.request(Int(IOCB_CMD_PREADV), file, count: count)
                    request.iocb.pointee.aio_buf = UInt64(address)
                    s.run(context, request)
                }
            },
            Case("vectors/empty-ones-between") { s in
                let context = s.setup()
                let file = try s.regular()
                s.run(context, s.preadv(file, [0, 0, 5, 0, 7, 0], at: 11))
                s.run(context, s.preadv(file, [0, 0, 0], at: 11))
                s.run(context, s.pwritev(file, [0, 0, 5, 0, 7, 0], at: 11))
                s.contents(of: file)
            },
            Case("vectors/one-buffer-many-times") { s in
                let context = s.setup()
                let file = try s.regular()
                let buffer = Buffer(1000)
                s.run(
                    context,
                    s.vectors(
                        Int(IOCB_CMD_PREADV), file, [buffer, buffer, buffer.part(500, 500)], at: 100
                    ))
            },
            Case("vectors/direct") { s in
                let context = s.setup()
                let file = try s.direct()
                s.run(context, s.preadv(file, [4096, 8192, 4096]))
                s.run(context, s.preadv(file, [4096, 100, 3996]))
                s.run(context, s.preadv(file, [512, 1024, 512]))
                s.run(context, s.pwritev(file, [4096, 8192, 4096], at: 8192))
                s.run(context, s.preadv(file, [4096, 8192], at: 61440))
                s.contents(of: file)
            },
            Case("vectors/across-end-of-file") { s in
                let context = s.setup()
                let file = try s.regular()
                s.run(context, s.preadv(file, [1000, 1000, 1000], at: 64000))
                s.run(context, s.preadv(file, [1000, 1000, 1000], at: 65536))
            },
        ]

    // MARK: What is copied

    private static let copies: [Case] = [
        Case("copy/request-changed-after-submit") { s in
            let context = s.setup(64)
            let file = try s.regular()
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let request = s.pread(file, 512)
            let buffers = (0..<16).map { _ in Buffer(512) }
            for (index, buffer) in buffers.enumerated() {
                request.change {
                    $0.aio_buf = UInt64(buffer.address)
                    $0.aio_offset = Int64(index * 4096)
                    $0.aio_data = UInt64(1000 + index)
                }
                _ = s.quietSubmit(context, [request])
                memset(UnsafeMutableRawPointer(request.iocb), 0xff, 64)
            }
            var events: [io_event] = []
            while events.count < 16 {
                let got = s.quietEvents(context, least: 1, most: 16, seconds: 1)
                if got.result <= 0 { break }
                events += got.events
            }
            s.line("data: \(events.map(\.data).sorted())")
            s.line("results: \(Set(events.map(\.res)).sorted())")
            s.fact("objects", events.allSatisfy { $0.obj == UInt64(request.address) })
            s.fact("bytes", buffers.enumerated().allSatisfy { $1.holds(seed: 1, from: $0 * 4096) })
        },
        Case("copy/vectors-changed-after-submit") { s in
            let context = s.setup()
            let file = try s.regular()
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let request = s.preadv(file, [1000, 3000, 4096], at: 4096)
            let array = UnsafeMutableRawPointer(bitPattern: UInt(request.iocb.pointee.aio_buf))!
            s.submit(context, request)
            memset(array, 0xff, 3 * MemoryLayout<iovec>.stride)
            s.reap(context, 1)
        },
        Case("copy/same-request-twice") { s in
            let context = s.setup()
            let file = try s.regular()
            let request = s.pread(file)
            request.iocb.pointee.aio_data = 1
            _ = s.quietSubmit(context, [request])
            request.iocb.pointee.aio_data = 2
            _ = s.quietSubmit(context, [request])
            request.iocb.pointee.aio_data = 3
            let events = s.quietEvents(context, least: 2, most: 8, seconds: 1).events
            s.line("data in order: \(events.map(\.data))")
        },
        Case("copy/same-request-in-one-list") { s in
            let context = s.setup()
            let request = s.pread(try s.regular())
            s.submit(context, [request, request, request])
            s.reap(context, 3)
        },
        Case("copy/data-field") { s in
            let context = s.setup()
            let file = try s.regular()
            for data in [0, 1, UInt64.max, 1 << 63] {
                let request = s.pread(file, 1).change { $0.aio_data = data }
                _ = s.quietSubmit(context, [request])
                let event = s.quietEvents(context, least: 1, most: 1, seconds: 1).events.first
                s.line("data \(event?.data ?? 7)")
                s.fact("object", event?.obj == UInt64(request.address))
                s.line("res \(event?.res ?? -1), res2 \(event?.res2 ?? -1)")
            }
        },
    ]
}

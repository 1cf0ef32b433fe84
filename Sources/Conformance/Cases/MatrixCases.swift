// Every operation on every kind of file.

import CLibAIO
import Glibc

enum Access: Sendable {
    case read, write, both

    var flags: Int32 {
        switch self {
        case .read: O_RDONLY
        case .write: O_WRONLY
        case .both: O_RDWR
        }
    }
}

enum MatrixCases {
    static let all: [Case] = kinds.flatMap { kind in
        operations.compactMap { operation in
            // Whether xfs takes a buffered write that may not wait depends on the clock's tick:
            // a new modification time needs a transaction, and that may wait.
            if kind.name == "xfs" && operation.name == "flag-nowait" { return nil }
            let made = Case("file/\(kind.name)/\(operation.name)") { s in
                try operation.run(s, { try kind.open(s, $0) })
            }
            return made.name == "file/zram/flag-nowait" ? made.differs(refusal, zram) : made
        }
    }

    private static let refusal =
        "whether a block device that is open for writing only takes RWF_NOWAIT cannot be tried"
    private static let zram = (
        kernel: "io_submit(ctx, 1, {PWRITE zram 4096@0 rw_flags 0x8}) = -95 EOPNOTSUPP",
        layer: "io_submit(ctx, 1, {PWRITE zram 4096@0 rw_flags 0x8}) = 1\n"
            + "event: PWRITE zram 4096@0 rw_flags 0x8: -95 EOPNOTSUPP"
    )

    // MARK: Files

    private typealias Open = @Sendable (Scene, Access) throws -> File

    private static let kinds: [(name: String, open: Open)] = [
        ("regular", { try $0.regular($1.flags) }),
        (
            "tmpfs",
            { s, access in
                let name = "ioctx-verify-\(getpid())"
                defer { unlink("/dev/shm/\(name)") }
                let file = try s.regular(access.flags, name: name, in: "/dev/shm")
                s.name(file.descriptor, "tmpfs")
                return File(descriptor: file.descriptor, name: "tmpfs")
            }
        ),
        ("memfd", { s, _ in try s.memfd() }),
        ("direct", { try $0.direct($1.flags) }),
        ("append", { try $0.regular($1.flags | O_APPEND) }),
        ("nonblock", { try $0.regular($1.flags | O_NONBLOCK) }),
        ("sync", { try $0.regular($1.flags | O_SYNC) }),
        ("path", { s, _ in try s.regular(O_RDONLY | Int32(IOCTX_O_PATH)) }),
        ("directory", { s, _ in try s.open(s.folder, O_RDONLY | O_DIRECTORY, name: "directory") }),
        ("pipe", { s, access in access == .write ? try s.pipe().writer : try s.pipe().reader }),
        ("fifo", { s, access in access == .write ? try s.fifo().writer : try s.fifo().reader }),
        ("stream", { s, _ in try s.sockets().near }),
        (
            "datagram",
            { s, _ in
                try s.sockets(Int32(SOCK_DGRAM.rawValue), name: "datagram").near
            }
        ),
        (
            "seqpacket",
            { s, _ in
                try s.sockets(Int32(SOCK_SEQPACKET.rawValue), name: "seqpacket").near
            }
        ),
        ("tcp", { s, _ in try s.tcp().near }),
        ("eventfd", { s, _ in try s.counter() }),
        ("timerfd", { s, _ in try s.timer() }),
        ("null", { try $0.open("/dev/null", $1.flags, name: "null") }),
        ("zero", { try $0.open("/dev/zero", $1.flags, name: "zero") }),
        ("full", { try $0.open("/dev/full", $1.flags, name: "full") }),
        ("epoll", { s, _ in s.file(epoll_create1(0), "epoll") }),
        ("procfs", { s, _ in try s.open("/proc/sys/kernel/ostype", O_RDONLY, name: "ostype") }),
        (
            "sysfs", { s, _ in try s.open("/sys/kernel/fscaps", O_RDONLY, name: "fscaps") }
        ),
        ("overlay", { try $0.regular($1.flags, in: $0.overlay()) }),
        (
            "ext4",
            { s, access in
                try s.regular(
                    access.flags, in: s.mounted("ext4", megabytes: 16, options: ["-q", "-F"]))
            }
        ),
        (
            "ext4-direct",
            { s, access in
                try s.direct(
                    access.flags, in: s.mounted("ext4", megabytes: 16, options: ["-q", "-F"]))
            }
        ),
        (
            "xfs",
            { s, access in
                try s.regular(
                    access.flags, in: s.mounted("xfs", megabytes: 320, options: ["-q", "-f"]))
            }
        ),
        (
            "btrfs",
            { s, access in
                try s.regular(
                    access.flags, in: s.mounted("btrfs", megabytes: 128, options: ["-q", "-f"]))
            }
        ),
        ("loop", { try $0.loopDevice($1.flags) }),
        ("loop-direct", { try $0.loopDevice($1.flags | Int32(IOCTX_O_DIRECT)) }),
        ("zram", { try $0.zram($1.flags) }),
        ("zram-direct", { try $0.zram($1.flags | Int32(IOCTX_O_DIRECT)) }),
    ]

    // MARK: Operations

    private typealias Run = @Sendable (Scene, (Access) throws -> File) throws -> Void

    private static func flags(_ name: String, _ values: [Int32]) -> (name: String, run: Run) {
        (
            name,
            { s, open in
                let (reader, context) = (try open(.read), s.setup())
                for flags in values {
                    reader.feed()
                    s.run(context, s.pread(reader).change { $0.aio_rw_flags = flags })
                }
                let writer = try open(.write)
                for flags in values {
                    writer.drain()
                    // A write that may not wait depends on no write-back being under way.
                    fsync(writer.descriptor)
                    s.run(context, s.pwrite(writer).change { $0.aio_rw_flags = flags })
                }
                s.contents(of: writer)
            }
        )
    }

    private static let operations: [(name: String, run: Run)] = [
        (
            "read",
            { s, open in
                let (file, context) = (try open(.read), s.setup())
                for (count, offset) in [
                    (4096, 0), (4096, 8192), (100, 5001), (4096, 63000), (4096, 65536),
                    (512, 1 << 40),
                    (65536, 0),
                ] {
                    file.feed()
                    s.run(context, s.pread(file, count, at: offset))
                }
            }
        ),
        (
            "read-nothing",
            { s, open in
                let (file, context) = (try open(.read), s.setup())
                file.feed()
                s.run(context, s.pread(file, 0))
                file.feed()
                s.run(context, s.pread(file, 0, at: 1 << 40))
                file.feed()
                s.run(context, s.preadv(file, []))
                file.feed()
                s.run(context, s.preadv(file, [0]))
            }
        ),
        (
            "write",
            { s, open in
                let (file, context) = (try open(.write), s.setup())
                for (count, offset) in [
                    (4096, 0), (4096, 8192), (100, 5001), (8192, 61440), (0, 0),
                ] {
                    file.drain()
                    s.run(context, s.pwrite(file, count, at: offset))
                }
                s.contents(of: file)
            }
        ),
        (
            "vectors",
            { s, open in
                let context = s.setup()
                let reader = try open(.read)
                reader.feed()
                s.run(context, s.preadv(reader, [100, 4000, 0, 1], at: 0))
                reader.feed()
                s.run(context, s.preadv(reader, [512, 1024, 512], at: 4096))
                let writer = try open(.write)
                writer.drain()
                s.run(context, s.pwritev(writer, [100, 4000, 0, 1], at: 0))
                writer.drain()
                s.run(context, s.pwritev(writer, [512, 1024, 512], at: 8192))
                s.contents(of: writer)
            }
        ),
        (
            "wrong-way",
            { s, open in
                let context = s.setup()
                let reader = try open(.read)
                reader.drain()
                s.run(context, s.pwrite(reader, 4096))
                reader.drain()
                s.run(context, s.pwritev(reader, [4096]))
                s.run(context, s.fdsync(reader))
                let writer = try open(.write)
                writer.feed()
                s.run(context, s.pread(writer, 4096))
                writer.feed()
                s.run(context, s.preadv(writer, [4096]))
            }
        ),
        (
            "offsets",
            { s, open in
                let (file, context) = (try open(.both), s.setup())
                for offset in [-1, .min, .max, .max - 4096, .max - 4095] {
                    file.feed()
                    s.run(context, s.pread(file, 4096, at: offset))
                    file.drain()
                    s.run(context, s.pwrite(file, 4096, at: offset))
                }
            }
        ),
        flags("flag-hipri", [1]),
        flags("flag-sync", [2, 4, 6]),
        flags("flag-nowait", [8]),
        flags("flag-append", [0x10, 0x20, 0x30]),
        flags("flag-atomic", [0x40]),
        flags("flag-dontcache", [0x80]),
        flags("flag-nosignal", [0x100]),
        flags("flag-unknown", [0x4000_0000, .min]),
        (
            "fsync",
            { s, open in
                let (file, context) = (try open(.both), s.setup())
                for make in [s.fsync, s.fdsync] {
                    s.run(context, make(file))
                    s.run(context, make(file).change { $0.aio_buf = 1 })
                    s.run(context, make(file).change { $0.aio_offset = 1 })
                    s.run(context, make(file).change { $0.aio_nbytes = 1 })
                    s.run(context, make(file).change { $0.aio_rw_flags = 2 })
                }
            }
        ),
        (
            "poll",
            { s, open in
                let context = s.setup()
                let file = try open(.both)
                for events in [POLLIN, POLLOUT, 0, 0xffff, 0x10000, 1 << 31] as [Int32] {
                    file.drain()
                    try pollAndCancel(s, context, s.poll(file, events))
                }
                file.feed()
                try pollAndCancel(s, context, s.poll(file, POLLIN))
                try pollAndCancel(s, context, s.poll(file, POLLIN).change { $0.aio_offset = 1 })
                try pollAndCancel(s, context, s.poll(file, POLLIN).change { $0.aio_nbytes = 1 })
                try pollAndCancel(s, context, s.poll(file, POLLIN).change { $0.aio_rw_flags = 1 })
            }
        ),
        (
            "eventfd",
            { s, open in
                let (file, context) = (try open(.both), s.setup())
                let counter = try s.counter()
                func signalling(_ request: Request) -> Request {
                    request.change {
                        $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                        $0.aio_resfd = counter.descriptor
                    }
                }
                file.feed()
                s.count(of: counter, expected: s.run(context, signalling(s.pread(file))))
                file.drain()
                s.count(of: counter, expected: s.run(context, signalling(s.pwrite(file))))
                s.count(of: counter, expected: s.run(context, signalling(s.fdsync(file))))
            }
        ),
    ]

    /// A poll that is not ready at once is taken back.
    private static func pollAndCancel(_ s: Scene, _ context: UInt, _ request: Request) throws {
        guard s.submit(context, request) == 1 else { return }
        if s.getevents(context, 0, 1, seconds: 0) == 0 {
            s.cancel(context, request)
            s.reap(context, 1)
        }
    }
}

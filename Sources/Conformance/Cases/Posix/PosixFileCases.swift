// Reads, writes and fsync on every kind of file.

import CLibAIO
import CTestBed
import Glibc
import TestBed

enum PosixFileCases {
    static let all: [Case] =
        kinds.flatMap { kind in
            operations.map { operation in
                Case(posix: "posix/file/\(kind.name)/\(operation.name)") { s in
                    let file = try kind.open(s.files)
                    operation.run(s, file)
                }
            }
        } + access + contents

    private static let kinds: [(name: String, open: @Sendable (Scene) throws -> File)] = [
        ("regular", { try $0.regular() }),
        ("direct", { try $0.direct() }),
        ("memfd", { try $0.memfd() }),
        ("append", { try $0.regular(O_RDWR | O_APPEND) }),
        ("nonblock", { try $0.regular(O_RDWR | O_NONBLOCK) }),
        ("read-only", { try $0.regular(O_RDONLY) }),
        ("write-only", { try $0.regular(O_WRONLY) }),
        ("path-only", { try $0.regular(0o10000000) }),
        ("closed", { $0.closed() }),
        ("null", { try $0.open("/dev/null", O_RDWR, name: "null") }),
        ("zero", { try $0.open("/dev/zero", O_RDWR, name: "zero") }),
        ("full", { try $0.open("/dev/full", O_RDWR, name: "full") }),
        ("directory", { try $0.open($0.folder, O_RDONLY | O_DIRECTORY, name: "directory") }),
        (
            "pipe",
            {
                let file = try $0.pipe().reader
                file.feed()
                return file
            }
        ),
        ("pipe-writer", { try $0.pipe().writer }),
        (
            "socket",
            {
                let file = try $0.sockets().near
                file.feed()
                return file
            }
        ),
        (
            "eventfd",
            {
                let file = try $0.counter(3)
                return file
            }
        ),
        (
            "timerfd",
            {
                let file = try $0.timer()
                file.feed()
                return file
            }
        ),
    ]

    private static let operations: [(name: String, run: @Sendable (PosixScene, File) -> Void)] = [
        ("read", { $0.outcome($0.reading($1)) }),
        ("write", { $0.outcome($0.writing($1)) }),
        ("fsync", { $0.sync($0.syncing($1), O_SYNC) }),
    ]

    private static let access: [Case] = [
        Case(posix: "posix/read/at-offsets") { s in
            let file = try s.files.regular()
            for offset in [0, 1, 4095, 4096, 61440, 65535, 65536, 1 << 40] {
                s.outcome(s.reading(file, 100, at: offset))
            }
        },
        Case(posix: "posix/read/short-at-the-end") { s in
            let file = try s.files.regular()
            s.outcome(s.reading(file, 4096, at: 65000))
        },
        Case(posix: "posix/read/nothing") { s in
            let file = try s.files.regular()
            s.outcome(s.reading(file, 0))
            s.outcome(s.writing(file, 0))
            // Some files have something against it all the same.
            s.outcome(s.writing(try s.files.open("/dev/full", O_RDWR, name: "full"), 0))
            s.outcome(s.reading(try s.files.open("/", O_RDONLY, name: "folder"), 0))
        },
        Case(posix: "posix/read/whole-file") { s in
            s.outcome(s.reading(try s.files.regular(), 65536))
        },
        Case(posix: "posix/read/cold") { s in
            let file = try s.files.regular(size: 1 << 20)
            for round in 0..<8 {
                posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
                s.outcome(s.reading(file, 16384, at: round * 100_000))
            }
        },
        Case(posix: "posix/read/does-not-move-the-position") { s in
            let file = try s.files.regular()
            s.outcome(s.reading(file, 100, at: 50))
            s.outcome(s.writing(file, 100, at: 50))
            s.line("position \(lseek(file.descriptor, 0, SEEK_CUR))")
        },
        Case(posix: "posix/read/ignores-the-opcode") { s in
            let file = try s.files.regular()
            let block = s.reading(file)
            block.change { $0.aio_lio_opcode = 0 }
            s.outcome(block)
            let write = s.writing(file).change { $0.aio_lio_opcode = 77 }
            s.outcome(write)
        },
        Case(posix: "posix/read/unaligned-direct") { s in
            let file = try s.files.direct()
            s.outcome(s.reading(file, 100, at: 1))
            s.outcome(s.writing(file, 100, at: 1))
        },
        Case(posix: "posix/read/direct-many") { s in
            let file = try s.files.direct()
            let blocks = (0..<16).map { s.reading(file, 4096, at: $0 * 4096) }
            for block in blocks { s.submit(block) }
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/read/bad-buffer") { s in
            let file = try s.files.regular()
            let nowhere = UnsafeMutableRawPointer(bitPattern: 8)
            s.outcome(s.reading(file).change { $0.aio_buf = nowhere })
        },
        // What the kernel transfers at most lies in memory, but not all of it does.
        Case(posix: "posix/read/size-beyond-memory") { s in
            let file = try s.files.regular()
            s.outcome(s.reading(file).change { $0.aio_nbytes = Int.max })
            s.outcome(s.writing(file).change { $0.aio_nbytes = Int.max })
            let other = try s.files.regular(O_RDONLY, name: "other")
            s.outcome(s.writing(other).change { $0.aio_nbytes = Int.max })
            s.files.contents(of: file)
        },
        Case(posix: "posix/read/large-offset-names") { s in
            let large = try PosixScene(s.files, suffix: "64")
            let file = try s.files.regular()
            large.outcome(large.reading(file, 100, at: 3))
            large.outcome(large.writing(file, 100, at: 3))
            large.sync(large.syncing(file), O_DSYNC)
            large.suspend([large.reading(file)])
            large.cancel(file, nil)
            large.list(PosixCalls.wait, [large.reading(file, 10)])
        },
    ]

    private static let contents: [Case] = [
        Case(posix: "posix/write/overwrites") { s in
            let file = try s.files.regular()
            s.outcome(s.writing(file, 5000, at: 3000))
            s.files.contents(of: file)
        },
        Case(posix: "posix/write/makes-longer") { s in
            let file = try s.files.regular()
            s.outcome(s.writing(file, 5000, at: 65000))
            s.outcome(s.writing(file, 10, at: 100_000))
            s.files.contents(of: file)
        },
        Case(posix: "posix/write/direct-makes-longer") { s in
            let file = try s.files.direct()
            s.outcome(s.writing(file, 4096, at: 65536))
            s.outcome(s.writing(file, 4096, at: 131072))
            s.files.contents(of: file)
        },
        // O_APPEND: in the order of the calls, whatever the offset.
        Case(posix: "posix/write/append-order") { s in
            let file = try s.files.regular(O_RDWR | O_APPEND)
            let blocks = (0..<64).map { s.writing(file, 100 + $0, at: 0, seed: UInt32($0)) }
            for block in blocks { _ = s.start(block) }
            for block in blocks { s.finish(block) }
            s.files.contents(of: file)
        },
        Case(posix: "posix/write/append-order-direct") { s in
            let file = try s.files.direct(O_RDWR | O_APPEND)
            let blocks = (0..<16).map { s.writing(file, 4096, at: 0, seed: UInt32($0)) }
            for block in blocks { _ = s.start(block) }
            for block in blocks { s.finish(block) }
            s.files.contents(of: file)
        },
        Case(posix: "posix/write/append-of-a-list") { s in
            let file = try s.files.regular(O_RDWR | O_APPEND)
            let blocks = (0..<32).map { s.writing(file, 77, at: 0, seed: UInt32($0)) }
            s.list(PosixCalls.wait, blocks)
            s.files.contents(of: file)
        },
        Case(posix: "posix/write/beyond-the-limit") { s in
            signal(SIGXFSZ, SIG_IGN)
            let file = try s.files.regular()
            testbed_set_limit(TESTBED_LIMIT_FSIZE, 70_000)
            s.outcome(s.writing(file, 4096, at: 70_000))
            s.outcome(s.writing(file, 4096, at: 69_000))
            s.files.contents(of: file)
        },
        // A file in /proc has a position for reading and none for writing.
        Case(posix: "posix/write/without-a-position") { s in
            let file = try s.files.open("/proc/self/comm", O_RDWR, name: "comm")
            for size in [7, 5] {
                s.outcome(s.writing(file, size))
                s.outcome(s.reading(file, 64))
            }
        },
        Case(posix: "posix/write/empty-datagrams") { s in
            for type in [SOCK_DGRAM, SOCK_STREAM] {
                let (near, far) = try s.files.sockets(Int32(type.rawValue))
                s.outcome(s.writing(near, 0))
                for _ in 0..<2 {
                    let arrived = recv(far.descriptor, nil, 0, Int32(MSG_DONTWAIT))
                    s.line("arrived: \(arrived)")
                }
            }
        },
        // Without a signal.
        Case(posix: "posix/write/to-a-pipe-without-reader") { s in
            let pipe = try s.files.pipe()
            pipe.reader.close()
            s.outcome(s.writing(pipe.writer))
        },
        Case(posix: "posix/write/then-read") { s in
            let file = try s.files.regular()
            for round in 0..<20 {
                s.outcome(s.writing(file, 512, at: round * 512, seed: 7))
                s.outcome(s.reading(file, 512, at: round * 512))
            }
        },
        Case(posix: "posix/fsync/both-kinds") { s in
            let file = try s.files.regular()
            for operation in [O_SYNC, O_DSYNC] { s.sync(s.syncing(file), operation) }
        },
        Case(posix: "posix/fsync/bad-operation") { s in
            let file = try s.files.regular()
            for operation in [0, O_RDWR, O_APPEND, -1] { s.sync(s.syncing(file), operation) }
        },
        Case(posix: "posix/fsync/after-writes") { s in
            let file = try s.files.direct()
            let writes = (0..<8).map { s.writing(file, 4096, at: $0 * 4096) }
            for write in writes { s.submit(write) }
            let sync = s.syncing(file)
            s.line("aio_fsync = \(s.quietSync(sync))")
            s.finish(sync)
            // It comes after all of them.
            s.fact("all written", writes.allSatisfy { s.quietError($0) == 0 })
            for write in writes { s.finish(write) }
        },
        Case(posix: "posix/fsync/ignores-the-rest-of-the-block") { s in
            let file = try s.files.regular()
            let block = s.syncing(file).change {
                $0.aio_nbytes = 77
                $0.aio_lio_opcode = 9
                $0.aio_buf = nil
                $0.aio_offset = -1
                $0.aio_reqprio = -1
            }
            s.sync(block, O_SYNC)
        },
    ]
}

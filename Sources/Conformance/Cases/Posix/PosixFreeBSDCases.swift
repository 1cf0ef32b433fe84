// What FreeBSD has beyond POSIX, and the eventfd in its kevent's place. The C library has none of
// it, so the cases state what stands in FreeBSD's aio_waitcomplete(2) and aio_readv(2).

import CTestBed
import Glibc
import TestBed

enum PosixFreeBSDCases {
    static let all: [Case] = collecting + vectors + eventfds

    private static let collecting: [Case] = [
        Case(posix: "posix/waitcomplete/before-any-request") { s in
            try s.collect([], seconds: 0)
            try s.collect([], seconds: 5)
        }.stands(
            "aio_waitcomplete: none: -11 EAGAIN", "aio_waitcomplete: none: -11 EAGAIN"),
        Case(posix: "posix/waitcomplete/in-order") { s in
            let pipes = try (0..<4).map { _ in try s.files.pipe() }
            let blocks = pipes.enumerated().map { s.reading($1.reader, 10 + $0) }
            for block in blocks { _ = s.start(block) }
            for index in [2, 0, 3, 1] {
                Glibc.write(pipes[index].writer.descriptor, "0123456789abcdef", index + 1)
                _ = s.wait(blocks[index])
            }
            for _ in 0..<4 { try s.collect(blocks) }
            try s.collect(blocks, seconds: 0.01)
        }.stands(
            "aio_waitcomplete: read pipe 12@0: 3", "aio_waitcomplete: read pipe 10@0: 1",
            "aio_waitcomplete: read pipe 13@0: 4", "aio_waitcomplete: read pipe 11@0: 2",
            "aio_waitcomplete: none: -11 EAGAIN"),
        Case(posix: "posix/waitcomplete/done-at-once") { s in
            let file = try s.files.regular()
            let blocks = [s.reading(file, 10), s.writing(file, 20), s.reading(file, 30)]
            for block in blocks { _ = s.start(block) }
            for _ in 0..<3 { try s.collect(blocks) }
            try s.collect(blocks, seconds: 0)
        }.stands(
            "aio_waitcomplete: read file 10@0: 10", "aio_waitcomplete: write file 20@0: 20",
            "aio_waitcomplete: read file 30@0: 30", "aio_waitcomplete: none: -11 EAGAIN"),
        Case(posix: "posix/waitcomplete/not-what-was-returned") { s in
            let file = try s.files.regular()
            let blocks = (1...3).map { s.reading(file, $0) }
            for block in blocks { _ = s.start(block) }
            s.value(blocks[1])
            for _ in 0..<3 { try s.collect(blocks, seconds: 0) }
        }.stands(
            "aio_return = 2", "aio_waitcomplete: read file 1@0: 1",
            "aio_waitcomplete: read file 3@0: 3", "aio_waitcomplete: none: -11 EAGAIN"),
        Case(posix: "posix/waitcomplete/failed-request") { s in
            let block = s.reading(s.files.closed())
            _ = s.start(block)
            try s.collect([block])
        }.stands("aio_waitcomplete: read closed 4096@0: -9 EBADF"),
        Case(posix: "posix/waitcomplete/cancelled-request") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            _ = s.start(block)
            s.cancel(pipe.reader, block)
            try s.collect([block])
        }.stands(
            "aio_cancel(pipe, read pipe 10@0) = AIO_CANCELED",
            "aio_waitcomplete: read pipe 10@0: -125 ECANCELED"),
        Case(posix: "posix/waitcomplete/waits") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            _ = s.start(block)
            try s.collect([block], seconds: 0.02)
            let writer = Worker {
                Clock.sleep(0.05)
                Glibc.write(pipe.writer.descriptor, "abc", 3)
            }
            try s.collect([block], seconds: nil)
            try writer.end()
        }.stands(
            "aio_waitcomplete: none: -11 EAGAIN", "aio_waitcomplete: read pipe 10@0: 3"),
        Case(posix: "posix/waitcomplete/signal") { s in
            testbed_catch(SIGUSR1, 0)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            _ = s.start(block)
            let killer = Worker.interrupting()
            try s.collect([block], seconds: nil)
            try killer.end()
        }.stands("aio_waitcomplete: none: -4 EINTR"),
        Case(posix: "posix/waitcomplete/used-again-uncollected") { s in
            let file = try s.files.regular()
            let block = s.reading(file, 10)
            for _ in 0..<5 { _ = s.start(block) }
            try s.collect([block], seconds: 0)
            try s.collect([block], seconds: 0)
        }.stands(
            "aio_waitcomplete: read file 10@0: 10", "aio_waitcomplete: none: -11 EAGAIN"),
        // Each is collected once, whoever collects.
        Case(posix: "posix/waitcomplete/several-collectors") { s in
            let file = try s.files.direct()
            final class Count: @unchecked Sendable { var got = [Int](repeating: 0, count: 4) }
            let count = Count()
            let blocks = (0..<64).map { s.reading(file, 4096, at: $0 % 16 * 4096) }
            _ = s.start(blocks[0])
            let collectors = (0..<4).map { number in
                Worker {
                    var address: UInt = 0
                    while let result = try? s.quietCollect(&address, seconds: 1), result == 4096 {
                        count.got[number] += 1
                    }
                }
            }
            for block in blocks.dropFirst() { _ = s.start(block) }
            for collector in collectors { try collector.end() }
            s.line("collected: \(count.got.reduce(0, +))")
        }.stands("collected: 64"),
    ]

    private static let vectors: [Case] = [
        Case(posix: "posix/readv/several") { s in
            let file = try s.files.regular()
            try s.vectored(file, [10, 20, 30])
            try s.vectored(file, [10, 0, 30], at: 100)
        }.stands(
            "readv file [10, 20, 30]@0: 60", "  f92b234", "  48265ae5", "  7d36ff10",
            "readv file [10, 0, 30]@100: 40", "  52164bd6", "  358ad905"),
        Case(posix: "posix/readv/count") { s in
            let file = try s.files.regular()
            try s.vectored(file, [])
            try s.vectored(file, [Int](repeating: 1, count: 1025))
            try s.vectored(file, [Int](repeating: 1, count: 1024))
        }.stands(
            "readv file []@0: -22 EINVAL", "readv file 1025 vectors@0: -22 EINVAL",
            "readv file 1024 vectors@0: 1024", "  f70c4715", "  770b7d95", "  5d0b54a7",
            "  120c7196", "  550b480f", "  aa0bcdde", "  d40c0ffc", "  7a0b824e"),
        Case(posix: "posix/readv/cold-and-short") { s in
            let file = try s.files.regular()
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            try s.vectored(file, [4096, 4096], at: 61440)
        }.stands("readv file [4096, 4096]@61440: 4096", "  569c1d6b", "  97acddc5"),
        Case(posix: "posix/writev/several") { s in
            let file = try s.files.regular()
            try s.vectored(file, [100, 200, 300], at: 1000, isWrite: true)
            s.outcome(s.reading(file, 600, at: 1000))
            let same = s.writing(file, 600, at: 1000)
            s.fact("as one write", same.buffer.holds(seed: 9, from: 1000))
        }.stands(
            "writev file [100, 200, 300]@1000: 600", "read file 600@1000: 600, data cfcceb7",
            "as one write: yes"),
        Case(posix: "posix/writev/append-order") { s in
            let file = try s.files.regular(O_RDWR | O_APPEND)
            for round in 0..<5 { try s.vectored(file, [round + 1, 1], isWrite: true) }
            var status = stat()
            fstat(file.descriptor, &status)
            s.line("size \(status.st_size)")
        }.stands(
            "writev file [1, 1]@0: 2", "writev file [2, 1]@0: 3", "writev file [3, 1]@0: 4",
            "writev file [4, 1]@0: 5", "writev file [5, 1]@0: 6", "size 65556"),
    ]

    private static let sigevEventfd: Int32 = 0x6576_6664

    private static func signalling(_ block: Block, _ counter: File) -> Block {
        testbed_notify(
            &block.it.pointee.aio_sigevent, sigevEventfd, 0, counter.descriptor)
        return block
    }

    private static let eventfds: [Case] = [
        Case(posix: "posix/eventfd/counts") { s in
            let counter = try s.files.counter()
            let file = try s.files.regular()
            let direct = try s.files.direct()
            for index in 0..<3 {
                s.outcome(signalling(s.reading(file, 10, at: index), counter))
                s.outcome(signalling(s.reading(direct, 4096), counter))
                s.sync(signalling(s.syncing(file), counter), O_SYNC)
            }
            s.files.count(of: counter, expected: 9)
        }.stands(
            "read file 10@0: 10, data f92b234", "read direct 4096@0: 4096, data bfa7000c",
            "fsync file: 0", "read file 10@1: 10, data f8f181d7",
            "read direct 4096@0: 4096, data bfa7000c", "fsync file: 0",
            "read file 10@2: 10, data 5c2de645", "read direct 4096@0: 4096, data bfa7000c",
            "fsync file: 0", "eventfd: 9"),
        Case(posix: "posix/eventfd/of-a-failed-request") { s in
            let counter = try s.files.counter()
            s.outcome(signalling(s.reading(s.files.closed()), counter))
            s.files.count(of: counter)
        }.stands("read closed 4096@0: -9 EBADF, value -1", "eventfd: 1"),
        Case(posix: "posix/eventfd/of-a-pipe") { s in
            let counter = try s.files.counter()
            let pipe = try s.files.pipe()
            let block = signalling(s.reading(pipe.reader, 3), counter)
            s.submit(block)
            s.files.count(of: counter, expected: 0)
            Glibc.write(pipe.writer.descriptor, "abc", 3)
            s.files.count(of: counter)
            s.error(block)
        }.stands("read pipe 3@0 = 0", "eventfd: 0", "eventfd: 1", "aio_error = 0"),
        Case(posix: "posix/eventfd/of-a-list") { s in
            let counter = try s.files.counter()
            let file = try s.files.direct()
            var event = sigevent()
            testbed_notify(&event, sigevEventfd, 0, counter.descriptor)
            s.list(PosixCalls.noWait, (0..<8).map { s.reading(file, 4096, at: $0 * 4096) }, event)
            s.files.count(of: counter)
        }.stands("lio_listio(LIO_NOWAIT, 8) = 0", "eventfd: 1"),
        Case(posix: "posix/eventfd/none") { s in
            let file = try s.files.regular()
            s.submit(signalling(s.reading(file), file))
            s.submit(signalling(s.reading(file), s.files.closed()))
        }.stands("read file 4096@0 = -22 EINVAL", "read file 4096@0 = -9 EBADF"),
        Case(posix: "posix/eventfd/comes-after-the-status") { s in
            let counter = try s.files.counter()
            let file = try s.files.direct()
            var early = 0
            for round in 0..<100 {
                let block = signalling(s.reading(file, 4096, at: round % 16 * 4096), counter)
                _ = s.start(block)
                var value: UInt64 = 0
                Glibc.read(counter.descriptor, &value, 8)
                if s.quietError(block) == EINPROGRESS { early += 1 }
            }
            s.line("early: \(early)")
        }.stands("early: 0"),
    ]
}

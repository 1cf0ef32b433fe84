// lio_listio: both modes, mixed outcomes, and the list's own notification.

import CTestBed
import Glibc
import TestBed

enum PosixListCases {
    static let all: [Case] = waiting + notWaiting

    private static let wait = PosixCalls.wait
    private static let noWait = PosixCalls.noWait

    private static let waiting: [Case] = [
        Case(posix: "posix/list/empty") { s in
            s.list(wait, [])
            s.list(noWait, [])
        },
        Case(posix: "posix/list/only-nulls") { s in
            s.list(wait, [nil, nil])
            s.list(noWait, [nil, nil])
        },
        Case(posix: "posix/list/bad-mode") { s in
            let file = try s.files.regular()
            for mode: Int32 in [-1, 2, 99] { s.list(mode, [s.reading(file)]) }
        },
        Case(posix: "posix/list/reads") { s in
            let file = try s.files.regular()
            let blocks = (0..<10).map { s.reading(file, 100, at: $0 * 1000) }
            s.list(wait, blocks)
            for block in blocks { s.error(block) }
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/sixty-four") { s in
            let file = try s.files.regular()
            let blocks = (0..<64).map { s.reading(file, 512, at: $0 * 1000) }
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/cold") { s in
            let file = try s.files.regular(size: 1 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let blocks = (0..<64).map { s.reading(file, 512, at: $0 * 16000) }
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/direct") { s in
            let file = try s.files.direct()
            let blocks =
                (0..<8).map { s.writing(file, 4096, at: $0 * 4096) }
                + (8..<16).map { s.reading(file, 4096, at: $0 * 4096) }
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
            s.files.contents(of: file)
        },
        Case(posix: "posix/list/reads-and-writes-of-several-files") { s in
            let one = try s.files.regular(name: "one")
            let two = try s.files.regular(name: "two")
            let blocks = [
                s.reading(one, 100), s.writing(two, 100, at: 100), s.reading(two, 100, at: 5000),
                s.writing(one, 100, at: 60000),
            ]
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
            s.files.contents(of: one)
            s.files.contents(of: two)
        },
        Case(posix: "posix/list/nop") { s in
            let file = try s.files.regular()
            let nop = s.reading(file).change { $0.aio_lio_opcode = 2 }
            let read = s.reading(file, 10)
            s.list(wait, [nop, read])
            s.finish(read)
            s.error(nop)
            s.list(wait, [nop])
        },
        Case(posix: "posix/list/nulls-between") { s in
            let file = try s.files.regular()
            let block = s.reading(file, 10)
            s.list(wait, [nil, block, nil])
            s.finish(block)
        },
        // One that fails does not keep the others back.
        Case(posix: "posix/list/one-fails") { s in
            let file = try s.files.regular()
            let blocks = [s.reading(file, 10), s.reading(s.files.closed()), s.reading(file, 20)]
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/one-of-the-wrong-kind") { s in
            let file = try s.files.regular(O_RDONLY)
            let blocks = [s.reading(file, 10), s.writing(file, 10), s.reading(file, 20)]
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/bad-priority") { s in
            let file = try s.files.regular()
            let blocks = [
                s.reading(file, 10), s.reading(file, 10).change { $0.aio_reqprio = 99 },
                s.reading(file, 20),
            ]
            s.list(wait, blocks)
            for block in [blocks[0], blocks[2]] { s.finish(block) }
            s.error(blocks[1])
        },
        Case(posix: "posix/list/bad-opcode") { s in
            let file = try s.files.regular()
            let blocks = [
                s.reading(file, 10), s.reading(file, 10).change { $0.aio_lio_opcode = 55 },
            ]
            s.list(wait, blocks)
            s.finish(blocks[0])
            _ = s.wait(blocks[1])
            s.error(blocks[1])
        },
        Case(posix: "posix/list/priorities") { s in
            let file = try s.files.direct()
            let blocks = (0..<12).map { index in
                s.reading(file, 4096, at: index * 4096).change {
                    $0.aio_reqprio = Int32(index * 7 % 21)
                }
            }
            s.list(wait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/waits-for-the-last") { s in
            let pipe = try s.files.pipe()
            let blocks = [s.reading(try s.files.regular(), 10), s.reading(pipe.reader, 3)]
            let writer = Worker {
                Clock.sleep(0.05)
                Glibc.write(pipe.writer.descriptor, "abc", 3)
            }
            s.list(wait, blocks)
            for block in blocks { s.error(block) }
            for block in blocks { s.finish(block) }
            try writer.end()
        },
        // The C library's own leaves the stack of the call to be written to later.
        Case(posix: "posix/list/signal-while-it-waits") { s in
            testbed_catch(SIGUSR1, 0)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 3)
            let killer = Worker.interrupting()
            s.list(wait, [block])
            try killer.end()
            s.error(block)
            Glibc.write(pipe.writer.descriptor, "abc", 3)
            s.finish(block)
            // And the next list is none the worse for it.
            s.list(wait, [s.reading(try s.files.regular())])
        }.stands(
            "lio_listio(LIO_WAIT, 1) = -4 EINTR", "aio_error = -115 EINPROGRESS",
            "read pipe 3@0: 3, data 1a47e90b", "lio_listio(LIO_WAIT, 1) = 0"),
        // Whoever takes such an end for that of the requests gives up buffers that are in use.
        Case(posix: "posix/list/restarting-signal-while-it-waits") { s in
            testbed_catch(SIGUSR1, SA_RESTART)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 3)
            let other = Worker.interrupting {
                seteuid(geteuid())
                Clock.sleep(0.05)
                Glibc.write(pipe.writer.descriptor, "abc", 3)
            }
            s.list(wait, [block])
            try other.end()
            s.finish(block)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/list/individual-signals") { s in
            testbed_catch_values(40, 0)
            let file = try s.files.regular()
            let blocks = (0..<10).map {
                s.reading(file, 10, at: $0 * 10).signalling(40, value: Int32($0))
            }
            _ = s.quietList(noWait, blocks)
            for _ in 0..<3000 where testbed_caught() < 10 { usleep(1000) }
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/negative-count") { s in
            s.list(count: -1)
        }.stands("lio_listio(LIO_NOWAIT, count -1) = -22 EINVAL"),
    ]

    private static func event(_ value: Int32) -> sigevent {
        var event = sigevent()
        testbed_notify(&event, Block.sigevSignal, 41, value)
        return event
    }

    private static func expect(_ count: Int32) {
        for _ in 0..<3000 where testbed_caught() < count { usleep(1000) }
    }

    private static let notWaiting: [Case] = [
        Case(posix: "posix/list/no-wait") { s in
            let file = try s.files.regular()
            let blocks = (0..<10).map { s.reading(file, 100, at: $0 * 1000) }
            s.list(noWait, blocks)
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/no-wait-does-not-wait") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 3)
            s.list(noWait, [block])
            s.error(block)
            Glibc.write(pipe.writer.descriptor, "abc", 3)
            s.finish(block)
        },
        Case(posix: "posix/list/signal-once-when-all-are-done") { s in
            testbed_catch_values(41, 0)
            let pipe = try s.files.pipe()
            let blocks = (0..<5).map { _ in s.reading(pipe.reader, 1) }
            s.list(noWait, blocks, event(11))
            Glibc.write(pipe.writer.descriptor, "abcd", 4)
            for block in blocks.prefix(4) { s.finish(block) }
            Clock.sleep(0.03)
            s.line("signals: \(testbed_caught())")
            Glibc.write(pipe.writer.descriptor, "e", 1)
            expect(1)
            Clock.sleep(0.03)
            s.line("signals: \(testbed_caught()), code \(testbed_caught_code())")
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            s.finish(blocks[4])
        },
        Case(posix: "posix/list/signal-of-what-is-done-at-once") { s in
            testbed_catch_values(41, 0)
            let file = try s.files.regular()
            s.list(noWait, (0..<8).map { s.reading(file, 10, at: $0) }, event(12))
            expect(1)
            Clock.sleep(0.03)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/list/signal-of-an-empty-list") { s in
            testbed_catch_values(41, 0)
            s.list(noWait, [], event(13))
            expect(1)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/list/signal-with-failures") { s in
            testbed_catch_values(41, 0)
            let file = try s.files.regular()
            let blocks = [s.reading(file, 10), s.reading(s.files.closed())]
            s.list(noWait, blocks, event(14))
            expect(1)
            s.line("signals: \(testbed_caught())")
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/list/wait-sends-no-signal") { s in
            testbed_catch_values(41, 0)
            s.list(wait, [s.reading(try s.files.regular())], event(15))
            Clock.sleep(0.03)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/list/many-lists") { s in
            testbed_catch_values(41, 0)
            let file = try s.files.direct()
            var bad = 0
            for round in 0..<200 {
                let blocks = (0..<4).map { s.reading(file, 4096, at: ($0 + round) % 16 * 4096) }
                if s.quietList(round % 2 == 0 ? wait : noWait, blocks) != 0 { bad += 1 }
                for block in blocks where !s.wait(block) || s.quietValue(block) != 4096 {
                    bad += 1
                }
            }
            s.line("bad: \(bad)")
        },
    ]
}

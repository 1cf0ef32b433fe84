// aio_suspend: what ends it, and what does not.

import CTestBed
import Glibc
import TestBed

enum PosixWaitCases {
    static let all: [Case] = answers + endings

    private static let answers: [Case] = [
        Case(posix: "posix/suspend/done-already") { s in
            let block = s.reading(try s.files.regular())
            s.outcome(block)
            s.suspend([block])
            s.suspend([block], seconds: 0)
        },
        Case(posix: "posix/suspend/no-block") { s in
            s.suspend([])
            s.suspend([nil])
            s.suspend([nil, nil, nil], seconds: 0)
        },
        Case(posix: "posix/suspend/negative-count") { s in
            s.suspend(count: -1)
        },
        Case(posix: "posix/suspend/some-null") { s in
            let pipe = try s.files.pipe()
            let waiting = s.reading(pipe.reader, 10)
            s.submit(waiting)
            s.suspend([nil, waiting, nil], seconds: 0.02)
            let done = s.reading(try s.files.regular())
            s.outcome(done)
            s.suspend([nil, waiting, nil, done])
        },
        Case(posix: "posix/suspend/done-behind-waiting") { s in
            let pipe = try s.files.pipe()
            let waiting = s.reading(pipe.reader, 10)
            s.submit(waiting)
            let done = s.reading(try s.files.regular())
            s.outcome(done)
            s.suspend([waiting, done])
            s.suspend([done, waiting])
        },
        Case(posix: "posix/suspend/never-submitted") { s in
            s.suspend([s.reading(try s.files.regular())])
        },
        Case(posix: "posix/suspend/twice-in-the-list") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            s.suspend([block, block, block], seconds: 0.02)
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.suspend([block, block, block])
        },
        Case(posix: "posix/suspend/failed-request") { s in
            let block = s.reading(s.files.closed())
            _ = s.start(block)
            s.suspend([block])
            s.error(block)
        },
        Case(posix: "posix/suspend/cancelled-request") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            s.cancel(pipe.reader, block)
            s.suspend([block])
        }.stands(
            "read pipe 10@0 = 0", "aio_cancel(pipe, read pipe 10@0) = AIO_CANCELED",
            "aio_suspend(1) = 0"),
        Case(posix: "posix/suspend/fsync") { s in
            let file = try s.files.regular()
            let block = s.syncing(file)
            s.line("aio_fsync = \(s.quietSync(block))")
            s.suspend([block])
            s.error(block)
        },
        Case(posix: "posix/suspend/cold-reads") { s in
            let file = try s.files.regular(size: 1 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let blocks = (0..<16).map { s.reading(file, 4096, at: $0 * 65536) }
            for block in blocks { _ = s.start(block) }
            var left = blocks
            while !left.isEmpty {
                if s.quietSuspend(left) != 0 { break }
                left.removeAll { s.quietError($0) != EINPROGRESS }
            }
            for block in blocks { s.finish(block) }
        },
    ]

    private static let endings: [Case] = [
        Case(posix: "posix/suspend/time-out") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            for seconds in [0, 0.001, 0.05] {
                let start = Clock.now
                s.suspend([block], seconds: seconds)
                s.fact("not before its time", Clock.now - start >= seconds)
            }
            s.error(block)
        },
        Case(posix: "posix/suspend/invalid-time-out") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            s.suspend([block], time: timespec(tv_sec: 0, tv_nsec: 1_000_000_000))
            s.suspend([block], time: timespec(tv_sec: 0, tv_nsec: -1))
        }.stands(
            "read pipe 10@0 = 0", "aio_suspend(1) = -22 EINVAL", "aio_suspend(1) = -22 EINVAL"),
        Case(posix: "posix/suspend/ends-with-the-request") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let writer = Worker {
                Clock.sleep(0.05)
                Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            }
            s.suspend([block], seconds: 5)
            s.error(block)
            try writer.end()
        },
        Case(posix: "posix/suspend/ends-with-any") { s in
            let pipes = try (0..<8).map { _ in try s.files.pipe() }
            let blocks = pipes.map { s.reading($0.reader, 10) }
            for block in blocks { _ = s.start(block) }
            let writer = Worker {
                Clock.sleep(0.05)
                Glibc.write(pipes[5].writer.descriptor, "0123456789", 10)
            }
            s.suspend(blocks, seconds: 5)
            try writer.end()
            for block in blocks { s.error(block) }
        },
        Case(posix: "posix/suspend/signal") { s in
            testbed_catch(SIGUSR1, 0)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let killer = Worker.interrupting()
            s.suspend([block])
            try killer.end()
            s.error(block)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/suspend/signal-and-time-out") { s in
            testbed_catch(SIGUSR1, 0)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let killer = Worker.interrupting()
            s.suspend([block], seconds: 5)
            try killer.end()
        },
        Case(posix: "posix/suspend/restarting-signal") { s in
            testbed_catch(SIGUSR1, SA_RESTART)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let killer = Worker.interrupting {
                Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            }
            s.suspend([block])
            try killer.end()
        },
        // The C library has each thread take a signal for that, which is none of the program's.
        Case(posix: "posix/suspend/change-of-user") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let changer = Worker {
                Clock.sleep(0.05)
                seteuid(geteuid())
                Clock.sleep(0.05)
                Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            }
            s.suspend([block])
            try changer.end()
        },
        Case(posix: "posix/suspend/cancellation-point") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let sleeper = Worker { _ = s.quietSuspend([block]) }
            Clock.sleep(0.05)
            sleeper.cancel()
            s.fact("the thread ended", sleeper.join(seconds: 3))
            // Others are none the worse for it.
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.suspend([block], seconds: 5)
            s.finish(block)
        },
        Case(posix: "posix/suspend/many-threads") { s in
            let pipes = try (0..<16).map { _ in try s.files.pipe() }
            let blocks = pipes.map { s.reading($0.reader, 10) }
            for block in blocks { _ = s.start(block) }
            let sleepers = blocks.map { block in
                Worker { while s.quietSuspend([block]) != 0 {} }
            }
            for pipe in pipes { Glibc.write(pipe.writer.descriptor, "0123456789", 10) }
            s.fact("all woke", sleepers.allSatisfy { $0.join() })
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/suspend/several-threads-for-one") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            let sleepers = (0..<8).map { _ in Worker { while s.quietSuspend([block]) != 0 {} } }
            Clock.sleep(0.05)
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.fact("all woke", sleepers.allSatisfy { $0.join() })
        },
        // A handler that interrupts the making of requests may wait for one.
        Case(posix: "posix/suspend/in-a-handler") { s in
            let file = try s.files.direct()
            final class Shared: @unchecked Sendable {
                let scene: PosixScene
                let block: Block
                init(_ scene: PosixScene, _ block: Block) {
                    self.scene = scene
                    self.block = block
                }
            }
            let shared = Shared(s, s.reading(file, 4096))
            testbed_on_signal(
                SIGALRM, 0,
                { argument in
                    let shared = Unmanaged<Shared>.fromOpaque(argument!).takeUnretainedValue()
                    while shared.scene.quietError(shared.block) == EINPROGRESS {
                        _ = shared.scene.quietSuspend([shared.block])
                    }
                    _ = shared.scene.quietValue(shared.block)
                }, Unmanaged.passUnretained(shared).toOpaque())
            testbed_alarm_every(500)
            var wrong = 0
            for round in 0..<1500 {
                let block = s.reading(file, 512 * 8, at: round % 16 * 4096)
                if round % 16 == 0 && s.quietError(shared.block) != EINPROGRESS {
                    _ = s.start(shared.block)
                }
                _ = s.start(block)
                if !s.wait(block) || s.quietValue(block) != 4096 { wrong += 1 }
            }
            testbed_alarm_every(0)
            s.line("wrong: \(wrong)")
        }.stands("wrong: 0"),
    ]
}

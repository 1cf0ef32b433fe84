// Notifications: none, signals, functions in threads.

import CTestBed
import Glibc
import Synchronization
import TestBed

enum PosixNotifyCases {
    static let all: [Case] = signals + threads

    private static func expect(_ count: Int32) {
        for _ in 0..<3000 where testbed_caught() < count { usleep(1000) }
    }

    private static let signals: [Case] = [
        Case(posix: "posix/notify/none") { s in
            testbed_catch_values(40, 0)
            s.outcome(s.reading(try s.files.regular()))
            Clock.sleep(0.02)
            s.line("signals: \(testbed_caught())")
        },
        Case(posix: "posix/notify/signal") { s in
            testbed_catch_values(40, 0)
            let block = s.reading(try s.files.regular()).signalling(40, value: 17)
            s.submit(block)
            expect(1)
            s.line("signals: \(testbed_caught()), code \(testbed_caught_code())")
            s.line("value \(String(testbed_caught_values(), radix: 2))")
            s.finish(block)
        },
        // With the signal comes the end of the request.
        Case(posix: "posix/notify/signal-comes-after-the-status") { s in
            testbed_catch_values(40, 0)
            let pipe = try s.files.pipe()
            var early = 0
            for round in 0..<100 {
                let block = s.reading(pipe.reader, 1).signalling(40)
                _ = s.start(block)
                Glibc.write(pipe.writer.descriptor, "x", 1)
                expect(Int32(round + 1))
                if s.quietError(block) == EINPROGRESS { early += 1 }
            }
            s.line("early: \(early)")
        },
        // A program may give up its handler then.
        Case(posix: "posix/notify/signal-comes-before-aio_suspend-returns") { s in
            testbed_catch_values(40, 0)
            let file = try s.files.direct()
            var late = 0
            for round in 0..<1000 {
                let block = s.reading(file, 4096, at: round % 16 * 4096).signalling(40)
                _ = s.start(block)
                while s.quietSuspend([block], seconds: 0) != 0 {}
                // What is queued is delivered when a system call returns.
                sched_yield()
                if testbed_caught() <= round { late += 1 }
                expect(Int32(round + 1))
            }
            s.line("late: \(late)")
        },
        Case(posix: "posix/notify/signals-are-queued") { s in
            testbed_catch_values(40, 0)
            let pipe = try s.files.pipe()
            let blocks = (0..<30).map { s.reading(pipe.reader, 1).signalling(40, value: $0) }
            for block in blocks { _ = s.start(block) }
            Glibc.write(pipe.writer.descriptor, String(repeating: "x", count: 30), 30)
            expect(30)
            s.line("signals: \(testbed_caught())")
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/notify/signal-of-a-failed-request") { s in
            testbed_catch_values(40, 0)
            let block = s.reading(s.files.closed()).signalling(40, value: 5)
            s.submit(block)
            expect(1)
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            s.finish(block)
        },
        Case(posix: "posix/notify/signal-of-an-fsync") { s in
            testbed_catch_values(40, 0)
            let block = s.syncing(try s.files.regular()).signalling(40, value: 6)
            s.line("aio_fsync = \(s.quietSync(block))")
            expect(1)
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            s.finish(block)
        },
        Case(posix: "posix/notify/signal-of-direct-io") { s in
            testbed_catch_values(40, 0)
            let file = try s.files.direct()
            let blocks = (0..<16).map {
                s.reading(file, 4096, at: $0 * 4096).signalling(40, value: Int32($0))
            }
            for block in blocks { _ = s.start(block) }
            expect(16)
            s.line("values \(String(testbed_caught_values(), radix: 2))")
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/notify/ordinary-signal") { s in
            testbed_catch_values(SIGUSR1, 0)
            let block = s.reading(try s.files.regular()).signalling(SIGUSR1, value: 9)
            s.submit(block)
            expect(1)
            s.line("signals: \(testbed_caught()), code \(testbed_caught_code())")
            s.finish(block)
        },
        // The program's signals do not reach the daemons.
        Case(posix: "posix/notify/daemons-take-no-signals") { s in
            testbed_catch(SIGUSR1, 0)
            var set = sigset_t()
            sigemptyset(&set)
            sigaddset(&set, SIGUSR1)
            pthread_sigmask(SIG_BLOCK, &set, nil)
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 1)
            s.submit(block)
            Clock.sleep(0.02)
            kill(getpid(), SIGUSR1)
            Clock.sleep(0.02)
            s.line("signals: \(testbed_caught())")
            Glibc.write(pipe.writer.descriptor, "x", 1)
            s.finish(block)
        },
    ]

    // MARK: Functions

    private static let called = Atomic<Int>(0)
    private static let noted = Atomic<Int>(0)

    private static func awaitCalls(_ count: Int) {
        for _ in 0..<3000 where called.load(ordering: .acquiring) < count { usleep(1000) }
    }

    private static func calling(
        _ block: Block, _ value: Int32 = 0, ownStack: Bool = false,
        _ body: @escaping @convention(c) (Int32) -> Void
    ) -> Block {
        testbed_notify_thread(
            &block.it.pointee.aio_sigevent, body, value, ownStack ? 1 : 0)
        return block
    }

    private static let threads: [Case] = [
        Case(posix: "posix/notify/function") { s in
            let block = calling(s.reading(try s.files.regular()), 42) {
                noted.store(Int($0), ordering: .relaxed)
                called.add(1, ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.line("called with \(noted.load(ordering: .relaxed))")
            s.finish(block)
        },
        Case(posix: "posix/notify/functions-of-many") { s in
            let pipe = try s.files.pipe()
            let blocks = (0..<50).map { _ in
                calling(s.reading(pipe.reader, 1)) { _ in called.add(1, ordering: .releasing) }
            }
            for block in blocks { _ = s.start(block) }
            Glibc.write(pipe.writer.descriptor, String(repeating: "x", count: 50), 50)
            awaitCalls(50)
            s.line("calls: \(called.load(ordering: .acquiring))")
            for block in blocks { s.finish(block) }
        },
        Case(posix: "posix/notify/function-in-another-thread") { s in
            noted.store(Int(bitPattern: pthread_self()), ordering: .relaxed)
            let block = calling(s.reading(try s.files.regular())) { _ in
                called.add(
                    Int(bitPattern: pthread_self()) == noted.load(ordering: .relaxed) ? 100 : 1,
                    ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.line("calls: \(called.load(ordering: .acquiring))")
        },
        Case(posix: "posix/notify/function-has-no-signal-blocked") { s in
            let block = calling(s.reading(try s.files.regular())) { _ in
                noted.store(Int(testbed_signals_blocked()), ordering: .relaxed)
                called.add(1, ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.line("blocked: \(noted.load(ordering: .relaxed))")
        },
        Case(posix: "posix/notify/function-is-detached") { s in
            let block = calling(s.reading(try s.files.regular())) { _ in
                noted.store(Int(testbed_is_detached()), ordering: .relaxed)
                called.add(1, ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.line("detached: \(noted.load(ordering: .relaxed))")
        },
        Case(posix: "posix/notify/function-with-attributes") { s in
            let block = calling(s.reading(try s.files.regular()), ownStack: true) { _ in
                noted.store(Int(testbed_stack_size()), ordering: .relaxed)
                called.add(1, ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.line("stack \(noted.load(ordering: .relaxed))")
        },
        Case(posix: "posix/notify/attributes-may-end-with-the-request") { s in
            let pipe = try s.files.pipe()
            for _ in 0..<200 {
                let block = calling(s.reading(pipe.reader, 1), ownStack: true) { _ in
                    called.add(1, ordering: .releasing)
                }
                _ = s.start(block)
                Glibc.write(pipe.writer.descriptor, "x", 1)
                _ = s.quietSuspend([block])
                testbed_end_attributes(&block.it.pointee.aio_sigevent)
            }
            awaitCalls(200)
            s.line("calls: \(called.load(ordering: .acquiring))")
        },
        Case(posix: "posix/notify/function-that-blocks") { s in
            let pipe = try s.files.pipe()
            // The first waits for the second.
            let first = calling(s.reading(pipe.reader, 1), 1) { _ in
                while noted.load(ordering: .acquiring) == 0 { usleep(1000) }
                called.add(1, ordering: .releasing)
            }
            let second = calling(s.reading(pipe.reader, 1), 2) { _ in
                noted.store(1, ordering: .releasing)
                called.add(1, ordering: .releasing)
            }
            s.submit(first)
            s.submit(second)
            Glibc.write(pipe.writer.descriptor, "xx", 2)
            awaitCalls(2)
            s.line("calls: \(called.load(ordering: .acquiring))")
        },
        Case(posix: "posix/notify/function-that-ends-its-thread") { s in
            let file = try s.files.regular()
            for round in 1...5 {
                let block = calling(s.reading(file)) { _ in
                    called.add(1, ordering: .releasing)
                    pthread_exit(nil)
                }
                s.submit(block)
                awaitCalls(round)
            }
            s.line("calls: \(called.load(ordering: .acquiring))")
        },
        Case(posix: "posix/notify/function-sees-the-programs-files") { s in
            let pipe = try s.files.pipe()
            noted.store(Int(pipe.writer.descriptor), ordering: .relaxed)
            let file = try s.files.regular(size: 1 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let block = calling(s.reading(file, 65536)) { _ in
                Glibc.write(Int32(noted.load(ordering: .relaxed)), "abc", 3)
                called.add(1, ordering: .releasing)
            }
            s.submit(block)
            awaitCalls(1)
            s.outcome(s.reading(pipe.reader, 3))
        },
    ]
}

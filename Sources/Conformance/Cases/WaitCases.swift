// io_getevents and io_pgetevents: counts, time-outs, masks, signals, and events that cannot be
// stored.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum WaitCases {
    static let all: [Case] = counts + timeouts + places + signals + masks

    private struct Row: Sendable {
        let ready: Int
        let least: Int
        let most: Int
        let seconds: Double?
    }

    /// Everything that ends by itself.
    private static let counts: [Case] = [
        Row(ready: 0, least: 0, most: 0, seconds: nil),
        Row(ready: 0, least: 0, most: 0, seconds: 0),
        Row(ready: 0, least: 0, most: 1, seconds: nil),
        Row(ready: 0, least: 0, most: 1, seconds: 2),
        Row(ready: 0, least: 1, most: 1, seconds: 0),
        Row(ready: 0, least: 1, most: 1, seconds: 0.05),
        Row(ready: 0, least: 2, most: 1, seconds: 0), Row(ready: 0, least: -1, most: 1, seconds: 0),
        Row(ready: 0, least: -1, most: -1, seconds: 0),
        Row(ready: 0, least: 0, most: -1, seconds: 0),
        Row(ready: 0, least: 1, most: 0, seconds: nil),
        Row(ready: 0, least: .min, most: .max, seconds: 0),
        Row(ready: 3, least: 0, most: 0, seconds: nil),
        Row(ready: 3, least: 0, most: 2, seconds: nil),
        Row(ready: 3, least: 0, most: 8, seconds: nil),
        Row(ready: 3, least: 1, most: 1, seconds: nil),
        Row(ready: 3, least: 1, most: 8, seconds: nil),
        Row(ready: 3, least: 3, most: 8, seconds: nil),
        Row(ready: 3, least: 3, most: 3, seconds: nil),
        Row(ready: 3, least: 4, most: 8, seconds: 0),
        Row(ready: 3, least: 4, most: 8, seconds: 0.05),
        Row(ready: 3, least: 8, most: 8, seconds: 0.05),
        Row(ready: 2, least: 3, most: 2, seconds: 0),
        Row(ready: 3, least: 1000, most: 1000, seconds: 0.02),
    ].map { row in
        let timeout = row.seconds.map { "\($0)" } ?? "null"
        return Case("getevents/\(row.ready)-ready-min\(row.least)-nr\(row.most)-\(timeout)") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, (0..<row.ready).map { s.pread(file, 8, at: $0) })
            // The room is a thousand events, whatever the call is told.
            let events = Buffer(32_000)
            var time = Clock.timespec(row.seconds ?? 0)
            let start = Clock.now
            let result = withUnsafeMutablePointer(to: &time) {
                s.aio.getevents(
                    context, row.least, row.most, events.address,
                    row.seconds == nil ? 0 : UInt(bitPattern: $0))
            }
            let took = Clock.now - start
            s.record("io_getevents(ctx, \(row.least), \(row.most), \(timeout))", result)
            if let seconds = row.seconds { s.fact("waited for the time-out", took >= seconds) }
            s.fact("took long", took > 1)
            s.getevents(context, 0, 8, seconds: 0)
        }
    }

    // MARK: Time-outs

    /// Waits with this timespec until an event comes after a while.
    private static func wakened(_ name: String, _ time: timespec?) -> Case {
        Case("timeout/\(name)") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            let waker = Worker {
                Clock.sleep(0.15)
                counter.feed()
            }
            var event = io_event()
            var timeout = time ?? timespec()
            let start = Clock.now
            let result = withUnsafeMutableBytes(of: &event) { room in
                withUnsafeMutablePointer(to: &timeout) {
                    s.aio.getevents(
                        context, 1, 1, UInt(bitPattern: room.baseAddress),
                        time == nil ? 0 : UInt(bitPattern: $0))
                }
            }
            s.record("io_getevents(ctx, 1, 1, \(name))", result)
            s.fact("waited for the event", Clock.now - start >= 0.14)
            s.fact("time-out unchanged", time == nil || timeout.tv_nsec == time!.tv_nsec)
            try waker.end()
        }
    }

    private static let timeouts: [Case] = [
        wakened("null", nil),
        wakened("ten-seconds", timespec(tv_sec: 10, tv_nsec: 0)),
        wakened("minus-one-second", timespec(tv_sec: -1, tv_nsec: 0)),
        wakened("minus-one-nanosecond", timespec(tv_sec: 0, tv_nsec: -1)),
        wakened("smallest", timespec(tv_sec: .min, tv_nsec: 0)),
        wakened("largest", timespec(tv_sec: .max, tv_nsec: .max)),
        wakened("largest-seconds", timespec(tv_sec: .max, tv_nsec: 0)),
        wakened("nanoseconds-over-a-second", timespec(tv_sec: 0, tv_nsec: 2_000_000_000)),
        wakened("second-and-minus-nanoseconds", timespec(tv_sec: 1, tv_nsec: -500_000_000)),
        Case("timeout/two-thousand-million-nanoseconds") { s in
            let context = s.setup()
            var time = timespec(tv_sec: 0, tv_nsec: 1_200_000_000)
            let start = Clock.now
            let result = withUnsafeMutablePointer(to: &time) {
                s.aio.getevents(context, 1, 1, Buffer(32).address, UInt(bitPattern: $0))
            }
            s.record("io_getevents", result)
            s.fact("waited it out", Clock.now - start >= 1.2)
        },
        Case("timeout/sum-below-zero-polls-or-waits") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            let waker = Worker {
                Clock.sleep(0.15)
                counter.feed()
            }
            var time = timespec(tv_sec: 1, tv_nsec: -2_000_000_000)
            let start = Clock.now
            let result = withUnsafeMutablePointer(to: &time) {
                s.aio.getevents(context, 1, 1, Buffer(32).address, UInt(bitPattern: $0))
            }
            s.record("io_getevents", result)
            s.fact("waited for the event", Clock.now - start >= 0.14)
            try waker.end()
        },
        Case("timeout/more-than-one-come-in-turn") { s in
            let context = s.setup()
            let counters = try (0..<3).map { try s.counter(name: "counter \($0)") }
            s.submit(context, counters.map { s.poll($0, POLLIN) })
            let waker = Worker {
                for counter in counters {
                    Clock.sleep(0.05)
                    counter.feed()
                }
            }
            let start = Clock.now
            s.getevents(context, 3, 8, seconds: 5)
            s.fact("waited for all", Clock.now - start >= 0.14)
            try waker.end()
        },
        Case("timeout/two-of-three-come") { s in
            let context = s.setup()
            let counters = try (0..<3).map { try s.counter(name: "counter \($0)") }
            s.submit(context, counters.map { s.poll($0, POLLIN) })
            let waker = Worker {
                Clock.sleep(0.05)
                counters[0].feed()
                counters[1].feed()
            }
            let start = Clock.now
            s.getevents(context, 3, 8, seconds: 0.3)
            s.fact("waited for the time-out", Clock.now - start >= 0.3)
            try waker.end()
        },
        Case("timeout/pointer-of-the-kernel") { s in
            let context = s.setup()
            let bad = SetupCases.kernelHalf
            s.record("io_getevents", s.aio.getevents(context, 0, 1, 0, bad))
            s.record("io_getevents of no context", s.aio.getevents(0, 0, 1, 0, bad))
            s.record("io_pgetevents", s.aio.pgetevents(context, 0, 1, 0, bad, 0))
        },
    ]

    // MARK: Where events go

    private static let places: [Case] = [
        Case("events/null-and-none-ready") { s in
            let context = s.setup()
            s.record("io_getevents(ctx, 0, 1, NULL)", s.aio.getevents(context, 0, 1, 0, 0))
            s.record("io_getevents(ctx, 0, 0, NULL)", s.aio.getevents(context, 0, 0, 0, 0))
        },
        Case("events/null-and-one-ready") { s in
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            s.record("io_getevents(ctx, 1, 1, NULL)", s.aio.getevents(context, 1, 1, 0, 0))
            s.record("io_getevents(ctx, 0, 0, NULL)", s.aio.getevents(context, 0, 0, 0, 0))
            s.record(
                "io_getevents(ctx, 1, 1, kernel half)",
                s.aio.getevents(context, 1, 1, SetupCases.kernelHalf, 0))
            s.reap(context, 1)
        },
        Case("events/read-only-room") { s in
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            let page = mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            s.record("io_getevents", s.aio.getevents(context, 1, 1, UInt(bitPattern: page), 0))
            s.reap(context, 1)
        }.strict,
        Case("events/room-for-one-of-two") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 5), s.pread(file, 6))
            let pages = mmap(nil, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            mprotect(pages, 4096, PROT_READ | PROT_WRITE)
            let room = UInt(bitPattern: pages) + 4096 - 32
            s.record("io_getevents", s.aio.getevents(context, 2, 2, room, 0))
            s.getevents(context, 0, 8, seconds: 0)
        }.strict,
        Case("events/room-for-half-an-event") { s in
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            let pages = mmap(nil, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            mprotect(pages, 4096, PROT_READ | PROT_WRITE)
            let room = UInt(bitPattern: pages) + 4096 - 16
            s.record("io_getevents", s.aio.getevents(context, 1, 1, room, 0))
            s.reap(context, 1)
        }.strict,
        Case("events/no-more-than-asked-are-stored") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, (0..<5).map { s.pread(file, 8, at: $0) })
            let room = Buffer(256)
            s.record("io_getevents", s.aio.getevents(context, 1, 3, room.address, 0))
            s.fact(
                "what follows is untouched", room.part(96, 160).hash(160) == Buffer(160).hash(160))
            s.getevents(context, 0, 8, seconds: 0)
        },
        Case("events/pgetevents-without-mask") { s in
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            let room = Buffer(256)
            s.record("io_pgetevents", s.aio.pgetevents(context, 1, 1, room.address, 0, 0))
            s.record("io_pgetevents", s.aio.pgetevents(context, 0, 1, room.address, 0, 0))
        },
    ]

    // MARK: Signals

    /// Calls io_getevents in this thread while another sends it a signal after a while.
    private static func interrupted(
        _ s: Scene, _ context: UInt, least: Int = 1, most: Int = 8, seconds: Double? = nil,
        signal: Int32 = SIGUSR1, then: (() -> Void)? = nil
    ) throws {
        let other = Worker.interrupting(signal, after: 0.1, then: then)
        s.getevents(context, least, most, seconds: seconds)
        try other.end()
        s.line("signals caught: \(testbed_caught())")
    }

    private static let signals: [Case] = [
        Case("signal/interrupts") { s in
            testbed_catch(SIGUSR1, 0)
            try interrupted(s, s.setup())
        },
        Case("signal/interrupts-with-restart") { s in
            testbed_catch(SIGUSR1, SA_RESTART)
            try interrupted(s, s.setup())
        },
        Case("signal/interrupts-a-timed-wait") { s in
            testbed_catch(SIGUSR1, SA_RESTART)
            try interrupted(s, s.setup(), seconds: 3)
        },
        Case("signal/with-some-ready") { s in
            testbed_catch(SIGUSR1, 0)
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 5), s.pread(file, 6))
            try interrupted(s, context, least: 3)
            s.getevents(context, 0, 8, seconds: 0)
        },
        Case("signal/ignored") { s in
            signal(SIGUSR1, SIG_IGN)
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            try interrupted(s, context, then: counter.feed)
        },
        Case("signal/blocked") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            try interrupted(s, context, then: counter.feed)
        },
        Case("signal/default-ignored") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            try interrupted(s, context, signal: SIGWINCH, then: counter.feed)
        },
        Case("signal/stop-and-continue") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            let me = getpid()
            let helper = testbed_fork()
            if helper == 0 {
                Clock.sleep(0.1)
                kill(me, SIGSTOP)
                Clock.sleep(0.1)
                kill(me, SIGCONT)
                Clock.sleep(0.1)
                counter.feed()
                _exit(0)
            }
            let answer = s.quietEvents(context, least: 1, most: 1, seconds: nil).result
            s.line("io_getevents answered \(answer)")
            s.line("helper \(s.ending(of: helper))")
        }.differs(
            "a wait on a futex is resumed by the kernel after SIGCONT, unseen by us",
            ("io_getevents answered -4", "io_getevents answered 1")),
        Case("signal/kills") { s in
            let context = s.setup()
            s.inChild {
                var fresh: UInt = 0
                _ = s.quietSetup(4, &fresh)
                alarm(1)
                _ = s.quietEvents(fresh, least: 1, most: 1, seconds: nil)
            }
            s.destroy(context)
        },
        Case("signal/pending-before-the-call") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            kill(getpid(), SIGUSR1)
            s.getevents(context, 1, 1, seconds: 0.05)
            s.line("signals caught: \(testbed_caught())")
        },
        Case("signal/other-thread-takes-it") { s in
            testbed_catch(SIGUSR1, 0)
            let taker = Worker { Clock.sleep(0.4) }
            block(SIGUSR1)
            let context = s.setup()
            let sender = Worker {
                Clock.sleep(0.05)
                taker.signal(SIGUSR1)
            }
            s.getevents(context, 1, 1, seconds: 0.2)
            try sender.end()
            s.line("signals caught: \(testbed_caught())")
        },
        Case("signal/none-from-completions") { s in
            // Completions must not interrupt what the program does meanwhile.
            let context = s.setup(64)
            let file = try s.direct()
            let epoll = epoll_create1(0)
            var interrupted = 0
            for _ in 0..<20 {
                _ = s.quietSubmit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) })
                var ready = epoll_event()
                if epoll_wait(epoll, &ready, 1, 5) < 0 { interrupted += 1 }
                _ = s.quietEvents(context, least: 8, most: 8, seconds: 2)
            }
            s.line("interrupted: \(interrupted)")
        },
    ]

    private static func block(_ number: Int32) {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, number)
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    // MARK: Masks

    private static func pgetevents(
        _ s: Scene, _ context: UInt, least: Int, seconds: Double, blocked: [Int32]
    ) {
        var set = sigset_t()
        sigemptyset(&set)
        for number in blocked { sigaddset(&set, number) }
        var time = Clock.timespec(seconds)
        let room = Buffer(320)
        let result = withUnsafeMutablePointer(to: &set) { mask in
            withUnsafeMutablePointer(to: &time) {
                s.aio.pgetevents(
                    context, least, 8, room.address, UInt(bitPattern: $0), UInt(bitPattern: mask))
            }
        }
        s.record("io_pgetevents(ctx, \(least), 8, \(seconds) s)", result)
        s.line("signals caught: \(testbed_caught())")
        var now = sigset_t()
        pthread_sigmask(SIG_BLOCK, nil, &now)
        s.fact("SIGUSR1 blocked afterwards", sigismember(&now, SIGUSR1) == 1)
    }

    private static let masks: [Case] = [
        Case("mask/lets-a-pending-signal-in") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            kill(getpid(), SIGUSR1)
            pgetevents(s, context, least: 1, seconds: 1, blocked: [])
        },
        Case("mask/pending-signal-and-event") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            s.submit(context, s.pread(try s.regular(), 5))
            kill(getpid(), SIGUSR1)
            pgetevents(s, context, least: 1, seconds: 1, blocked: [])
        },
        Case("mask/pending-signal-and-min-zero") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            kill(getpid(), SIGUSR1)
            pgetevents(s, context, least: 0, seconds: 1, blocked: [])
            s.line("signals caught: \(testbed_caught())")
        },
        Case("mask/pending-signal-and-zero-timeout") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            kill(getpid(), SIGUSR1)
            pgetevents(s, context, least: 1, seconds: 0, blocked: [])
        },
        Case("mask/holds-a-signal-back") { s in
            testbed_catch(SIGUSR1, 0)
            let context = s.setup()
            let sender = Worker.interrupting()
            pgetevents(s, context, least: 1, seconds: 0.2, blocked: [SIGUSR1])
            try sender.end()
            s.line("signals caught: \(testbed_caught())")
        },
        Case("mask/lets-a-signal-in-during-the-wait") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            let context = s.setup()
            let sender = Worker.interrupting()
            pgetevents(s, context, least: 1, seconds: 2, blocked: [])
            try sender.end()
        },
        Case("mask/pointer-of-the-kernel") { s in
            let context = s.setup()
            let bad = SetupCases.kernelHalf
            s.record("io_pgetevents", s.aio.pgetevents(context, 0, 1, 0, 0, bad))
            s.record("io_pgetevents of no context", s.aio.pgetevents(0, 0, 1, 0, 0, bad))
        },
        Case("mask/with-a-bad-context") { s in
            testbed_catch(SIGUSR1, 0)
            block(SIGUSR1)
            pgetevents(s, 0, least: 1, seconds: 0.1, blocked: [])
        },
        Case("mask/unreadable") { s in
            let context = s.setup()
            let page = mmap(nil, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            s.record(
                "io_pgetevents", s.aio.pgetevents(context, 0, 1, 0, 0, UInt(bitPattern: page)))
        }.strict,
    ]
}

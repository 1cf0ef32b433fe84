// io_destroy with everything that may be under way, and what threads and processes do to contexts.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum DestroyCases {
    static let all: [Case] = destroys + forks + ends

    private static let destroys: [Case] = [
        Case("destroy/with-unreaped-events") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 1), s.pread(file, 2))
            s.destroy(context)
            s.getevents(context, 0, 8, seconds: 0)
        },
        Case("destroy/with-polls") { s in
            let context = s.setup()
            let counter = try s.counter(name: "counter")
            let pipe = try s.pipe()
            s.submit(
                context,
                [s.poll(pipe.reader, POLLIN), s.poll(counter, POLLIN)].map {
                    $0.change {
                        $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                        $0.aio_resfd = counter.descriptor
                    }
                })
            let start = Clock.now
            s.destroy(context)
            s.fact("took long", Clock.now - start > 1)
            s.count(of: counter, expected: 2)
        },
        Case("destroy/waits-for-direct-reads") { s in
            let context = s.setup(64)
            let file = try s.direct()
            let requests = (0..<16).map { s.pread(file, 4096, at: $0 * 4096) }
            s.submit(context, requests)
            s.destroy(context)
            // Either it was read, or it was taken back and never will be.
            let hashes = requests.map { $0.dataHash }
            Clock.sleep(0.05)
            s.fact("no data comes later", requests.map { $0.dataHash } == hashes)
        },
        Case("destroy/wakes-a-sleeper") { s in
            let context = s.setup()
            s.submit(context, s.poll(try s.counter(), POLLIN))
            let destroyer = Worker {
                Clock.sleep(0.1)
                s.record("io_destroy in another thread", s.aio.destroy(context))
            }
            let (result, _) = s.quietEvents(context, least: 5, most: 8, seconds: nil)
            try destroyer.end()
            s.record("io_getevents", result)
        },
        Case("destroy/wakes-a-timed-sleeper") { s in
            let context = s.setup()
            let destroyer = Worker {
                Clock.sleep(0.1)
                _ = s.aio.destroy(context)
            }
            let start = Clock.now
            let (result, _) = s.quietEvents(context, least: 1, most: 8, seconds: 5)
            s.record("io_getevents", result)
            s.fact("at once", Clock.now - start < 3)
            try destroyer.end()
        },
        Case("destroy/sleeper-that-has-some") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 1), s.pread(file, 2))
            let destroyer = Worker {
                Clock.sleep(0.1)
                _ = s.aio.destroy(context)
            }
            s.getevents(context, 5, 8, seconds: 3)
            try destroyer.end()
        },
        Case("destroy/wakes-many-sleepers") { s in
            let context = s.setup()
            let sleepers = (0..<4).map { _ in
                Worker {
                    let (result, _) = s.quietEvents(context, least: 1, most: 1, seconds: nil)
                    s.record("io_getevents", result)
                }
            }
            Clock.sleep(0.1)
            let result = s.aio.destroy(context)
            s.fact("all woke", sleepers.allSatisfy { $0.join(seconds: 3) })
            s.record("io_destroy", result)
        },
        Case("destroy/other-contexts-live-on") { s in
            let (one, two) = (s.setup(), s.setup())
            let file = try s.regular()
            let counter = try s.counter()
            s.submit(two, s.poll(counter, POLLIN))
            s.submit(one, s.poll(counter, POLLIN))
            s.destroy(one)
            counter.feed()
            s.reap(two, 1)
            s.run(two, s.pread(file, 5))
        },
        Case("destroy/address-used-again") { s in
            let file = try s.regular()
            let first = s.setup()
            s.submit(first, s.pread(file, 1))
            s.destroy(first)
            let second = s.setup()
            s.getevents(second, 0, 8, seconds: 0)
            s.run(second, s.pread(file, 2))
        },
        Case("destroy/files-are-released") { s in
            let context = s.setup()
            let pair = try s.sockets()
            s.submit(context, s.poll(pair.near, POLLIN))
            pair.near.close()
            s.destroy(context)
            var byte: UInt8 = 0
            testbed_set_nonblocking(pair.far.descriptor, 1)
            let deadline = Clock.now + 1
            var got = -1
            while got < 0 && Clock.now < deadline { got = read(pair.far.descriptor, &byte, 1) }
            s.record("read at the peer", got)
        },
    ]

    // MARK: fork, vfork, clone

    /// Every call with a context that this process does not have.
    private static func tryAll(_ s: Scene, _ context: UInt, _ request: Request) {
        s.submit(context, request)
        s.submit(context, [])
        s.getevents(context, 0, 1, seconds: 0)
        s.getevents(context, 1, 1, seconds: nil)
        s.cancel(context, request)
        s.destroy(context)
    }

    private static let forks: [Case] = [
        Case("fork/child-has-no-contexts") { s in
            let context = s.setup()
            let file = try s.regular()
            let request = s.pread(file, 5)
            s.submit(context, request)
            s.inChild { tryAll(s, context, request) }
            s.reap(context, 1)
            s.destroy(context)
        },
        Case("fork/child-sets-up-afresh") { s in
            let context = s.setup()
            let file = try s.regular()
            s.inChild {
                let fresh = s.setup()
                s.line("id \(RingView(fresh).id)")
                s.run(fresh, s.pread(file, 5))
                s.run(fresh, s.fsync(file))
                s.destroy(fresh)
            }
            s.run(context, s.pread(file, 5))
        },
        Case("fork/without-libc") { s in
            let context = s.setup()
            let file = try s.regular()
            let request = s.pread(file, 5)
            s.submit(context, request)
            let child = ioctx_syscall(Int(SYS_clone), Int(SIGCHLD), 0, 0, 0, 0, 0)
            if child == 0 {
                tryAll(s, context, request)
                s.run(s.setup(), s.pread(file, 6))
                _exit(0)
            }
            s.line("child \(s.ending(of: Int32(child)))")
            s.reap(context, 1)
        },
        Case("fork/with-requests-under-way") { s in
            let context = s.setup(64)
            let file = try s.direct()
            let counter = try s.counter()
            s.submit(
                context,
                [s.poll(counter, POLLIN)]
                    + (0..<8).map {
                        s.pread(file, 4096, at: $0 * 4096)
                    })
            s.inChild { s.run(s.setup(), s.pread(file)) }
            counter.feed()
            s.reap(context, 9)
        },
        Case("fork/child-exits-first") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            s.inChild {}
            s.inChild { exit(0) }
            counter.feed()
            s.reap(context, 1)
        },
        Case("fork/child-reads-the-ring") { s in
            let context = s.setup()
            s.inChild { _exit(RingView(context).magic == 0xa10a_10a1 ? 0 : 1) }
            s.destroy(context)
        }.differs(
            "a child of fork has no mapping of the ring, as with kernels since 7.1: a copy of it "
                + "would keep the parent's files open",
            ("child ended with 0", "child died of SEGV")),
        Case("fork/from-many-threads") { s in
            let file = try s.regular()
            // Told when all is over: how long ten forks take is the machine's affair.
            let failures = UnsafeMutableBufferPointer<Int>.allocate(capacity: 2)
            failures.initialize(repeating: -1)
            let busy = (0..<2).map { number in
                Worker {
                    var context: UInt = 0
                    _ = s.quietSetup(16, &context)
                    let buffer = Buffer(512)
                    let request = Request(number: 1000)
                    request.change {
                        $0.aio_fildes = file.descriptor
                        $0.aio_buf = UInt64(buffer.address)
                        $0.aio_nbytes = 512
                    }
                    let until = Clock.now + 0.4
                    var wrong = 0
                    while Clock.now < until {
                        var address = request.address
                        let result = withUnsafeMutablePointer(to: &address) {
                            s.aio.submit(context, 1, UInt(bitPattern: $0))
                        }
                        if result != 1 { wrong += 1 }
                        if s.quietEvents(context, least: 1, most: 1, seconds: 1).result != 1 {
                            wrong += 1
                        }
                    }
                    failures[number] = wrong
                }
            }
            for _ in 0..<10 {
                s.inChild {
                    var context: UInt = 0
                    if s.quietSetup(4, &context) != 0 { _exit(1) }
                    if s.aio.destroy(context) != 0 { _exit(2) }
                }
            }
            for worker in busy { try worker.end() }
            for wrong in failures { s.line("wrong: \(wrong)") }
        }.limit(seconds: 20),
        Case("fork/grandchild") { s in
            let file = try s.regular()
            s.run(s.setup(), s.pread(file, 1))
            s.inChild {
                s.run(s.setup(), s.pread(file, 2))
                s.inChild { s.run(s.setup(), s.pread(file, 3)) }
                s.run(s.setup(), s.pread(file, 4))
            }
        },
    ]

    // MARK: exec and exit

    private static func takeOff(_ s: Scene, _ file: File, _ counter: File) -> UInt {
        var context: UInt = 0
        _ = s.quietSetup(64, &context)
        _ = s.quietSubmit(
            context,
            [s.poll(counter, POLLIN), s.fsync(file)]
                + (0..<16).map { s.pread(file, 4096, at: $0 * 4096) })
        return context
    }

    private static func ended(
        _ name: String, _ body: @escaping @Sendable (Scene, UInt) -> Void
    ) -> Case {
        Case("end/\(name)") { s in
            let file = try s.direct()
            let counter = try s.counter()
            for _ in 0..<3 {
                s.inChild { body(s, takeOff(s, file, counter)) }
            }
        }
    }

    private static let ends: [Case] = [
        ended("exit") { _, _ in exit(0) },
        ended("without-handlers") { _, _ in _exit(0) },
        ended("exit-after-destroy") { s, context in
            _ = s.aio.destroy(context)
            exit(0)
        },
        ended("killed") { _, _ in kill(getpid(), SIGKILL) },
        ended("aborted") { _, _ in abort() },
        ended("terminated") { _, _ in kill(getpid(), SIGTERM) },
        ended("exec") { _, _ in
            let words = [strdup("/bin/true"), nil]
            execv("/bin/true", words)
        },
        ended("exec-that-fails") { s, context in
            let words = [strdup("none"), nil]
            execv("/none", words)
            s.line("events: \(s.quietEvents(context, least: 17, most: 17, seconds: 3).result)")
        },
        Case("end/accepted-writes-land") { s in
            let file = try s.regular()
            s.inChild {
                var context: UInt = 0
                _ = s.quietSetup(64, &context)
                s.submit(context, (0..<16).map { s.pwrite(file, 4096, at: $0 * 4096) })
                exit(0)
            }
            s.contents(of: file)
        }.set("IOCTX_WRITES", "async"),
        Case("end/thread-that-submitted") { s in
            let context = s.setup(64)
            let file = try s.direct()
            let counter = try s.counter()
            try Worker {
                s.submit(
                    context,
                    [s.poll(counter, POLLIN)]
                        + (0..<8).map {
                            s.pread(file, 4096, at: $0 * 4096)
                        })
            }.end()
            counter.feed()
            s.reap(context, 9)
        },
        Case("end/thread-that-set-up") { s in
            nonisolated(unsafe) var context: UInt = 0
            try Worker { context = s.setup() }.end()
            s.run(context, s.pread(try s.regular(), 5))
            s.destroy(context)
        },
        Case("end/main-thread-first") { s in
            let file = try s.regular()
            s.inChild {
                _ = Worker {
                    Clock.sleep(0.05)
                    s.run(s.setup(), s.pread(file, 5))
                    exit(0)
                }
                pthread_exit(nil)
            }
        },
    ]
}

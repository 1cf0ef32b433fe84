// IOCB_CMD_POLL beyond the matrix, and io_cancel.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum PollCases {
    static let all: [Case] = polls + cancels

    /// The layer learns of events from epoll or io_uring, which name what was asked for.
    private static let names =
        "where a waiting poll fires, the kernel passes on all that the waker "
        + "names; the layer what was asked for"

    private static let polls: [Case] = [
        Case("poll/eventfd-becomes-readable") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            counter.feed()
            s.reap(context, 1)
            counter.feed()
            s.getevents(context, 0, 1, seconds: 0)
        },
        Case("poll/pipe-reader") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            s.submit(context, s.poll(pipe.reader, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            write(pipe.writer.descriptor, "x", 1)
            s.reap(context, 1)
        }.differs(names, ("event: POLL pipe 0x1: 0x41", "event: POLL pipe 0x1: 0x1")),
        Case("poll/pipe-writer-gone") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            s.submit(context, s.poll(pipe.reader, POLLIN))
            pipe.writer.close()
            s.reap(context, 1)
            s.run(context, s.poll(pipe.reader, 0))
        },
        Case("poll/pipe-reader-gone") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            pipe.reader.close()
            s.run(context, s.poll(pipe.writer, 0))
            s.run(context, s.poll(pipe.writer, POLLOUT))
        },
        Case("poll/full-pipe-becomes-writable") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            testbed_set_nonblocking(pipe.writer.descriptor, 1)
            let piece = Buffer(65536)
            while write(pipe.writer.descriptor, piece.pointer, piece.count) > 0 {}
            s.submit(context, s.poll(pipe.writer, POLLOUT))
            s.getevents(context, 0, 1, seconds: 0)
            while read(pipe.reader.descriptor, piece.pointer, 4096) == 4096,
                testbed_bytes_readable(pipe.reader.descriptor) > 0
            {}
            s.reap(context, 1)
        }.differs(
            names, ("event: POLL pipe's writer 0x4: 0x104", "event: POLL pipe's writer 0x4: 0x4")),
        Case("poll/socket-peer-closes") { s in
            let context = s.setup()
            let pair = try s.sockets()
            pair.far.close()
            s.run(context, s.poll(pair.near, POLLIN))
            s.run(context, s.poll(pair.near, 0))
        },
        Case("poll/socket-peer-closes-later") { s in
            let context = s.setup()
            let pair = try s.sockets()
            s.submit(context, s.poll(pair.near, POLLIN))
            pair.far.close()
            s.reap(context, 1)
        },
        Case("poll/socket-rdhup") { s in
            let context = s.setup()
            let pair = try s.sockets()
            shutdown(pair.far.descriptor, Int32(SHUT_WR))
            s.run(context, s.poll(pair.near, 0x2000))
            s.run(context, s.poll(pair.near, 0x2001))
        },
        Case("poll/tcp-becomes-readable") { s in
            let context = s.setup()
            let pair = try s.tcp()
            s.submit(context, s.poll(pair.near, POLLIN))
            write(pair.far.descriptor, "x", 1)
            s.reap(context, 1)
        }.differs(names, ("event: POLL tcp 0x1: 0xc3", "event: POLL tcp 0x1: 0x1")),
        Case("poll/timer-expires") { s in
            let context = s.setup()
            let timer = try s.timer()
            s.submit(context, s.poll(timer, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            var soon = itimerspec(
                it_interval: timespec(), it_value: timespec(tv_sec: 0, tv_nsec: 20_000_000))
            timerfd_settime(timer.descriptor, 0, &soon, nil)
            s.reap(context, 1)
        },
        Case("poll/epoll") { s in
            let context = s.setup()
            let counter = try s.counter()
            let epoll = s.file(epoll_create1(0), "epoll")
            var interest = epoll_event()
            interest.events = EPOLLIN.rawValue
            epoll_ctl(epoll.descriptor, EPOLL_CTL_ADD, counter.descriptor, &interest)
            s.submit(context, s.poll(epoll, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            counter.feed()
            s.reap(context, 1)
        },
        Case("poll/inotify") { s in
            let context = s.setup()
            let watch = s.file(inotify_init1(0), "inotify")
            inotify_add_watch(watch.descriptor, s.folder, UInt32(IN_CREATE))
            s.submit(context, s.poll(watch, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            _ = try s.regular(name: "new")
            s.reap(context, 1)
        },
        Case("poll/pidfd") { s in
            let context = s.setup()
            let child = testbed_fork()
            if child == 0 {
                Clock.sleep(0.1)
                _exit(3)
            }
            let pidfd = ioctx_syscall(Int(SYS_pidfd_open), Int(child), 0, 0, 0, 0, 0)
            try s.must("pidfd_open", pidfd)
            s.submit(context, s.poll(s.file(Int32(pidfd), "pidfd"), POLLIN))
            s.reap(context, 1)
            s.line("child \(s.ending(of: child))")
        }.differs(names, ("event: POLL pidfd 0x1: 0x41", "event: POLL pidfd 0x1: 0x1")),
        Case("poll/signalfd") { s in
            var set = sigset_t()
            sigemptyset(&set)
            sigaddset(&set, SIGUSR1)
            pthread_sigmask(SIG_BLOCK, &set, nil)
            let context = s.setup()
            let signals = s.file(signalfd(-1, &set, 0), "signalfd")
            s.submit(context, s.poll(signals, POLLIN))
            s.getevents(context, 0, 1, seconds: 0)
            kill(getpid(), SIGUSR1)
            s.reap(context, 1)
        }.differs(
            "the kernel looks for the signal in a thread of its own and never finds it",
            ("events: 0 of 1", "event: POLL signalfd 0x1: 0x1")),
        Case("poll/closed-descriptor-open-elsewhere") { s in
            let context = s.setup()
            let counter = try s.counter()
            let kept = s.file(dup(counter.descriptor), "kept")
            s.submit(context, s.poll(counter, POLLIN))
            counter.close()
            var one: UInt64 = 1
            write(kept.descriptor, &one, 8)
            s.reap(context, 1)
        },
        Case("poll/last-descriptor-closed") { s in
            let context = s.setup()
            let pair = try s.sockets()
            let request = s.poll(pair.near, POLLIN)
            s.submit(context, request)
            pair.near.close()
            write(pair.far.descriptor, "x", 1)
            s.reap(context, 1)
        }.differs(names, ("event: POLL socket 0x1: 0xc3", "event: POLL socket 0x1: 0x1")),
        Case("poll/number-reused") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            s.submit(context, s.poll(pipe.reader, POLLIN))
            let kept = dup(pipe.reader.descriptor)
            dup2(try s.counter(1).descriptor, pipe.reader.descriptor)
            s.getevents(context, 0, 1, seconds: 0)
            write(pipe.writer.descriptor, "x", 1)
            s.reap(context, 1)
            close(kept)
        }.differs(names, ("event: POLL pipe 0x1: 0x41", "event: POLL pipe 0x1: 0x1")),
        Case("poll/two-on-one-file") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN), s.poll(counter, POLLIN))
            counter.feed()
            s.reap(context, 2)
        },
        Case("poll/same-request-twice") { s in
            let context = s.setup()
            let counter = try s.counter()
            let request = s.poll(counter, POLLIN)
            s.submit(context, request)
            s.submit(context, request)
            counter.feed()
            s.reap(context, 2)
        },
        Case("poll/many") { s in
            let context = s.setup(256)
            let counters = try (0..<100).map { try s.counter(name: "counter \($0)") }
            s.submit(context, counters.map { s.poll($0, POLLIN) })
            for counter in counters { counter.feed() }
            s.reap(context, 100)
        },
        Case("poll/reader-is-not-disturbed") { s in
            // A poll takes nothing: what made it fire is still there.
            let context = s.setup()
            let pipe = try s.pipe()
            s.submit(context, s.poll(pipe.reader, POLLIN))
            write(pipe.writer.descriptor, "xyz", 3)
            s.reap(context, 1)
            s.line("readable: \(testbed_bytes_readable(pipe.reader.descriptor))")
        }.differs(names, ("event: POLL pipe 0x1: 0x41", "event: POLL pipe 0x1: 0x1")),
        Case("poll/high-events") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            for events in [0xffff, 0x8000, 0x10000, 0xffff_ffff, 1 << 32, 1 << 63] as [UInt64] {
                let request = s.poll(pipe.writer, 0)
                request.iocb.pointee.aio_buf = events
                if s.submit(context, request) == 1, s.getevents(context, 0, 1, seconds: 0) == 0 {
                    s.cancel(context, request)
                    s.reap(context, 1)
                }
            }
        },
    ]

    // MARK: io_cancel

    private static let cancels: [Case] = [
        Case("cancel/poll") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            s.cancel(context, request)
            s.reap(context, 1)
            s.cancel(context, request)
        },
        Case("cancel/result-is-never-written") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            let room = Buffer(32)
            s.record("io_cancel", s.aio.cancel(context, request.address, room.address))
            s.fact("untouched", room.hash(32) == Buffer(32).hash(32))
            s.reap(context, 1)
        },
        Case("cancel/null-result") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            s.record("io_cancel(…, NULL)", s.aio.cancel(context, request.address, 0))
            s.reap(context, 1)
        },
        Case("cancel/never-submitted") { s in
            let context = s.setup()
            s.cancel(context, s.poll(try s.counter(), POLLIN))
        },
        Case("cancel/finished") { s in
            let context = s.setup()
            let request = s.pread(try s.regular())
            s.submit(context, request)
            s.cancel(context, request)
            s.reap(context, 1)
            s.cancel(context, request)
        },
        Case("cancel/finished-poll") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(1), POLLIN)
            s.submit(context, request)
            s.cancel(context, request)
            s.reap(context, 1)
        },
        Case("cancel/direct-read") { s in
            let context = s.setup(64)
            let file = try s.direct()
            let requests = (0..<16).map { s.pread(file, 4096, at: $0 * 4096) }
            s.submit(context, requests)
            // A layer may take back what has not begun: its event says so. Nothing else may happen.
            var odd = 0
            for request in requests {
                let result = s.aio.cancel(context, request.address, 0)
                if result != -Int(EINVAL) && result != -Int(EINPROGRESS) { odd += 1 }
            }
            s.line("odd answers: \(odd)")
            var events: [io_event] = []
            while events.count < 16 {
                let got = s.quietEvents(context, least: 1, most: 16, seconds: 2).events
                if got.isEmpty { break }
                events += got
            }
            s.line("events: \(events.count)")
            s.fact(
                "done or taken back",
                events.allSatisfy { $0.res == 4096 || $0.res == -Int64(ECANCELED) })
        },
        Case("cancel/key") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            for key in [1, 77, UInt32.max] {
                request.iocb.pointee.aio_key = key
                s.record("io_cancel with key \(key)", s.aio.cancel(context, request.address, 0))
            }
            request.iocb.pointee.aio_key = 0
            s.cancel(context, request)
            s.reap(context, 1)
        },
        Case("cancel/other-context") { s in
            let (one, two) = (s.setup(), s.setup())
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(one, request)
            s.cancel(two, request)
            s.cancel(one, request)
            s.reap(one, 1)
        },
        Case("cancel/oldest-of-two") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            for data in [11, 22] as [UInt64] {
                request.iocb.pointee.aio_data = data
                s.submit(context, request)
            }
            for _ in 0..<3 {
                s.cancel(context, request)
                let events = s.quietEvents(context, least: 1, most: 8, seconds: 0.1).events
                s.line("data \(events.map(\.data))")
            }
        },
        Case("cancel/memory-of-the-request-reused") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            memset(UnsafeMutableRawPointer(request.iocb), 0, 64)
            s.record("io_cancel", s.aio.cancel(context, request.address, 0))
            let events = s.quietEvents(context, least: 1, most: 8, seconds: 1).events
            s.line("data \(events.map(\.data)), res \(events.map(\.res))")
        },
        Case("cancel/copy-of-the-request") { s in
            let context = s.setup()
            let counter = try s.counter()
            let request = s.poll(counter, POLLIN)
            s.submit(context, request)
            let copy = s.poll(counter, POLLIN).change { $0 = request.iocb.pointee }
            s.record("io_cancel of a copy", s.aio.cancel(context, copy.address, 0))
            s.cancel(context, request)
            s.reap(context, 1)
        },
        Case("cancel/signals-eventfd") { s in
            let context = s.setup()
            let counter = try s.counter()
            let request = s.poll(try s.counter(name: "polled"), POLLIN).change {
                $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                $0.aio_resfd = counter.descriptor
            }
            s.submit(context, request)
            s.cancel(context, request)
            s.reap(context, 1)
            s.count(of: counter)
        },
        Case("cancel/wakes-a-sleeper") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            let canceller = Worker {
                Clock.sleep(0.1)
                _ = s.aio.cancel(context, request.address, 0)
            }
            s.getevents(context, 1, 1, seconds: nil)
            try canceller.end()
        },
        Case("cancel/unreadable-request") { s in
            let context = s.setup()
            let page = mmap(nil, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            s.record("io_cancel", s.aio.cancel(context, UInt(bitPattern: page), 0))
            s.record("io_cancel of no context", s.aio.cancel(0, UInt(bitPattern: page), 0))
        }.strict,
        Case("cancel/after-destroy") { s in
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            s.destroy(context)
            s.cancel(context, request)
        },
    ]
}

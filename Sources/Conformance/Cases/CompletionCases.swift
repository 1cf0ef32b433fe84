// When and in which order events come, what eventfds count, and who sees the data of whom.

import CTestBed
import CLibAIO
import Glibc

enum CompletionCases {
    static let all: [Case] = timing + eventfds + ordering + overlapping

    private static let timing: [Case] = [
        Case("completion/buffered-is-there-on-return") { s in
            let context = s.setup()
            let file = try s.regular()
            for request in [
                s.pread(file), s.pwrite(file), s.preadv(file, [10, 20]), s.pread(file, 0),
            ] {
                s.submit(context, request)
                s.line("in the ring: \(RingView(context).count)")
            }
            s.reap(context, 4, inOrder: true)
        },
        Case("completion/poll-of-ready-is-there-on-return") { s in
            let context = s.setup()
            let counter = try s.counter(3)
            s.submit(context, s.poll(counter, POLLIN), s.poll(counter, POLLOUT))
            s.line("in the ring: \(RingView(context).count)")
            s.reap(context, 2, inOrder: true)
        },
        Case("completion/cached-batch-in-order") { s in
            let context = s.setup(64)
            let file = try s.regular()
            s.submit(context, (0..<40).map { s.pread(file, 128, at: $0 * 1000) })
            s.line("in the ring: \(RingView(context).count)")
            s.reap(context, 40, inOrder: true)
        },
        Case("completion/after-cold-read") { s in
            let context = s.setup(64)
            let file = try s.regular(size: 1 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            s.submit(context, (0..<32).map { s.pread(file, 512, at: $0 * 32768) })
            s.getevents(context, 0, 0, seconds: 0)
            s.reap(context, 32)
        },
        // With kernel AIO a buffered read is done on return, however cold: min_nr 0 finds it.
        Case("completion/cold-read-and-no-waiting") { s in
            let context = s.setup(64)
            let file = try s.regular(size: 1 << 20)
            for round in 0..<16 {
                posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
                s.submit(context, s.pread(file, 512, at: round * 65536))
                s.getevents(context, 0, 1, seconds: 0)
            }
        },
        Case("completion/write-and-no-waiting") { s in
            let context = s.setup(64)
            let file = try s.regular()
            for round in 0..<8 {
                s.submit(context, s.pwrite(file, 4096, at: round * 65536))
                s.getevents(context, 0, 1, seconds: 0)
            }
        }.set("IOCTX_WRITES", "async"),
        Case("completion/fsync-comes-later") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pwrite(file), s.fsync(file), s.fdsync(file))
            s.reap(context, 3)
        },
        Case("completion/direct-batch") { s in
            let context = s.setup(64)
            let file = try s.direct()
            s.submit(context, (0..<16).map { s.pread(file, 4096, at: $0 * 4096) })
            s.reap(context, 16)
        },
    ]

    private static func signalling(_ request: Request, _ counter: File) -> Request {
        request.change {
            $0.aio_flags |= UInt32(IOCB_FLAG_RESFD)
            $0.aio_resfd = counter.descriptor
        }
    }

    private static let eventfds: [Case] = [
        Case("eventfd/one-each") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let counter = try s.counter()
            s.submit(context, (0..<20).map { signalling(s.pread(file, 10, at: $0), counter) })
            s.reap(context, 20)
            s.count(of: counter, expected: 20)
        },
        Case("eventfd/two-of-them") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let (one, two) = (try s.counter(name: "first"), try s.counter(name: "second"))
            s.submit(
                context,
                (0..<21).map {
                    let request = s.pread(file, 10, at: $0)
                    return $0 % 3 == 2 ? request : signalling(request, $0 % 3 == 0 ? one : two)
                })
            s.reap(context, 21)
            s.count(of: one, expected: 7)
            s.count(of: two, expected: 7)
        },
        Case("eventfd/same-file-twice-open") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let one = try s.counter(name: "first")
            let again = s.file(dup(one.descriptor), "its copy")
            s.submit(
                context, (0..<8).map { signalling(s.pread(file, 10), $0 % 2 == 0 ? one : again) })
            s.reap(context, 8)
            s.count(of: one, expected: 8)
        },
        Case("eventfd/semaphore") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let counter = try s.counter(
                flags: Int32(EFD_SEMAPHORE) | Int32(EFD_NONBLOCK))
            s.submit(context, (0..<3).map { _ in signalling(s.pread(file, 10), counter) })
            s.reap(context, 3)
            s.count(of: counter, expected: 3)
            s.count(of: counter, expected: 0)
        },
        Case("eventfd/nearly-full") { s in
            let context = s.setup()
            let file = try s.regular()
            let counter = try s.counter(flags: Int32(EFD_NONBLOCK))
            var most = UInt64.max - 2
            write(counter.descriptor, &most, 8)
            s.submit(context, (0..<3).map { _ in signalling(s.pread(file, 10), counter) })
            s.reap(context, 3)
            var value: UInt64 = 0
            s.record("read", read(counter.descriptor, &value, 8))
            s.line("value \(value)")
        }.differs(
            "user space cannot fill a counter up to its highest value, 2^64 - 1",
            ("value 18446744073709551615", "value 18446744073709551614")),
        Case("eventfd/closed-after-submit") { s in
            let context = s.setup()
            let counter = try s.counter(name: "counter")
            let kept = s.file(dup(counter.descriptor), "kept")
            let trigger = try s.counter(name: "trigger")
            s.submit(context, signalling(s.poll(trigger, POLLIN), counter))
            counter.close()
            let stranger = try s.counter(name: "stranger")
            s.fact("the number was taken again", stranger.descriptor == counter.descriptor)
            trigger.feed()
            s.reap(context, 1)
            s.count(of: kept)
            s.count(of: stranger, expected: 0)
        },
        Case("eventfd/waited-for-by-epoll") { s in
            let context = s.setup()
            let file = try s.direct()
            let counter = try s.counter(flags: Int32(EFD_NONBLOCK))
            let epoll = epoll_create1(0)
            var interest = epoll_event()
            interest.events = EPOLLIN.rawValue
            epoll_ctl(epoll, EPOLL_CTL_ADD, counter.descriptor, &interest)
            s.submit(context, signalling(s.pread(file), counter))
            var ready = epoll_event()
            s.record("epoll_wait", Int(epoll_wait(epoll, &ready, 1, 3000)))
            s.line("in the ring: \(RingView(context).count)")
            s.reap(context, 1)
            s.count(of: counter)
        },
        Case("eventfd/is-the-file-too") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, signalling(s.poll(counter, POLLIN), counter))
            counter.feed()
            s.reap(context, 1)
            s.count(of: counter, expected: 2)
        },
        Case("eventfd/pipe-write-signals") { s in
            let context = s.setup()
            let counter = try s.counter()
            let pipe = try s.pipe()
            s.submit(context, signalling(s.pwrite(pipe.writer, 100), counter))
            s.reap(context, 1)
            s.count(of: counter)
        },
    ]

    private static let ordering: [Case] = [
        Case("order-of-requests/append") { s in
            let context = s.setup(64)
            let file = try s.regular(O_WRONLY | O_APPEND)
            s.submit(context, (0..<32).map { s.pwrite(file, 100 + $0, at: 0, seed: UInt32($0)) })
            s.reap(context, 32)
            s.contents(of: file)
        },
        Case("order-of-requests/append-flag") { s in
            let context = s.setup(64)
            let file = try s.regular()
            s.submit(
                context,
                (0..<16).map {
                    s.pwrite(file, 100 + $0, at: 5, seed: UInt32($0)).change {
                        $0.aio_rw_flags = 0x10
                    }
                })
            s.reap(context, 16)
            s.contents(of: file)
        },
        Case("order-of-requests/noappend-flag") { s in
            let context = s.setup()
            let file = try s.regular(O_WRONLY | O_APPEND)
            s.run(context, s.pwrite(file, 100, at: 50).change { $0.aio_rw_flags = 0x20 })
            s.run(context, s.pwrite(file, 100, at: 50))
            s.contents(of: file)
        },
        Case("order-of-requests/pipe") { s in
            let context = s.setup(64)
            let pipe = try s.pipe()
            s.submit(context, (0..<16).map { s.pwrite(pipe.writer, 64, at: 0, seed: UInt32($0)) })
            s.reap(context, 16)
            s.submit(context, (0..<8).map { _ in s.pread(pipe.reader, 128) })
            s.reap(context, 8)
        },
        Case("order-of-requests/sockets-both-ways") { s in
            let context = s.setup(64)
            let pair = try s.sockets()
            s.submit(
                context,
                (0..<8).map {
                    s.pwrite($0 % 2 == 0 ? pair.near : pair.far, 64, at: 0, seed: UInt32($0))
                })
            s.reap(context, 8)
            s.submit(context, s.pread(pair.near, 256), s.pread(pair.far, 256))
            s.reap(context, 2)
        },
    ]

    /// What holds because a buffered request is done when io_submit returns. Twice: as it is, and
    /// with writes that the layer defers.
    private static let overlapping: [Case] = ["inline", "async"].flatMap { writes in
        [
            Case("overlap-\(writes)/write-then-read") { s in
                let context = s.setup(64)
                let file = try s.regular()
                let list = (0..<16).flatMap {
                    [
                        s.pwrite(file, 5000, at: $0 * 4000, seed: UInt32(20 + $0)),
                        s.pread(file, 5000, at: $0 * 4000),
                    ]
                }
                s.submit(context, list)
                s.reap(context, 32)
                s.contents(of: file)
            },
            Case("overlap-\(writes)/read-then-write") { s in
                let context = s.setup(64)
                let file = try s.regular(size: 1 << 20)
                posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
                let list = (0..<16).flatMap {
                    [
                        s.pread(file, 4096, at: $0 * 65536),
                        s.pwrite(file, 4096, at: $0 * 65536, seed: UInt32(20 + $0)),
                    ]
                }
                s.submit(context, list)
                s.reap(context, 32)
                s.contents(of: file)
            },
            Case("overlap-\(writes)/writes-in-submission-order") { s in
                let context = s.setup(64)
                let file = try s.regular()
                s.submit(
                    context,
                    (0..<32).map {
                        s.pwrite(file, 6000 - $0 * 100, at: $0 * 37, seed: UInt32(20 + $0))
                    })
                s.reap(context, 32)
                s.contents(of: file)
            },
            Case("overlap-\(writes)/two-contexts") { s in
                let (one, two) = (s.setup(), s.setup())
                let file = try s.regular()
                let again = try s.open(file.path!, O_RDWR, name: "again")
                for round in 0..<10 {
                    s.submit(one, s.pwrite(file, 8192, at: 4096, seed: UInt32(20 + round)))
                    s.submit(two, s.pread(again, 8192, at: 4096))
                    s.reap(two, 1)
                    s.reap(one, 1)
                }
            },
            Case("overlap-\(writes)/fsync-covers-writes") { s in
                let context = s.setup(64)
                let file = try s.regular()
                s.submit(
                    context, (0..<16).map { s.pwrite(file, 4096, at: $0 * 4096) } + [s.fdsync(file)]
                )
                s.reap(context, 17)
                s.contents(of: file)
            },
            Case("overlap-\(writes)/direct-read-sees-write") { s in
                let context = s.setup()
                let file = try s.regular()
                let direct = try s.open(file.path!, O_RDWR | Int32(IOCTX_O_DIRECT), name: "direct")
                for round in 0..<8 {
                    s.submit(
                        context, s.pwrite(file, 4096, at: 4096, seed: UInt32(20 + round)),
                        s.pread(direct, 4096, at: 4096))
                    s.reap(context, 2)
                }
            },
            Case("overlap-\(writes)/growing-file") { s in
                let context = s.setup(64)
                let file = try s.regular()
                s.submit(
                    context,
                    (0..<16).flatMap {
                        [
                            s.pwrite(file, 1000, at: 65536 + $0 * 1000, seed: UInt32($0)),
                            s.pread(file, 2000, at: 65536 + $0 * 1000 - 500),
                        ]
                    })
                s.reap(context, 32)
                s.contents(of: file)
            },
            Case("overlap-\(writes)/closed-at-once") { s in
                let context = s.setup(64)
                let kept = try s.regular()
                for round in 0..<16 {
                    let file = try s.open(kept.path!, O_RDWR, name: "file")
                    s.submit(context, s.pwrite(file, 4096, at: round * 4096, seed: UInt32(round)))
                    file.close()
                    // The number goes to a stranger that must stay as it is.
                    let stranger = s.file(testbed_memfd("stranger"), "stranger")
                    s.reap(context, 1)
                    s.contents(of: stranger)
                    stranger.close()
                }
                s.contents(of: kept)
            },
        ].map { writes == "async" ? $0.set("IOCTX_WRITES", "async") : $0 }
    }
}

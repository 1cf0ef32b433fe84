// What holds for files around a request: descriptors closed and reused, locks, ends of pipes,
// limits, full disks, and requests larger than most.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum FileCases {
    static let all: [Case] = numbers + locks + pipes + limits + large

    private static let numbers: [Case] = [
        Case("descriptor/closed-after-submit") { s in
            let context = s.setup(64)
            let kept = try s.direct()
            for round in 0..<8 {
                let file = try s.open(kept.path!, O_RDONLY | Int32(IOCTX_O_DIRECT), name: "direct")
                s.submit(context, s.pread(file, 4096, at: round * 4096))
                file.close()
            }
            s.reap(context, 8)
        },
        Case("descriptor/reused-after-submit") { s in
            let context = s.setup(64)
            let kept = try s.regular(size: 1 << 20)
            let other = try s.regular(name: "other")
            ftruncate(other.descriptor, 0)
            posix_fadvise(kept.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            for round in 0..<16 {
                let file = try s.open(kept.path!, O_RDONLY, name: "file")
                s.submit(context, s.pread(file, 4096, at: round * 65536))
                dup2(other.descriptor, file.descriptor)
                file.close()
            }
            s.reap(context, 16)
        },
        Case("descriptor/reused-for-a-directory") { s in
            let context = s.setup()
            let file = try s.regular()
            let directory = try s.open("/", O_RDONLY, name: "directory")
            for _ in 0..<3 { s.run(context, s.pread(file, 100)) }
            dup2(directory.descriptor, file.descriptor)
            s.run(context, s.pread(file, 0))
            s.run(context, s.pread(file, 100))
        },
        Case("descriptor/fsync-where-there-is-none") { s in
            let context = s.setup()
            for path in ["/proc", "/proc/self/fd", "/sys", "/proc/version", "/sys/kernel", "/dev"] {
                let file = try s.open(path, O_RDONLY, name: path)
                s.run(context, s.fsync(file))
            }
        },
        Case("descriptor/unlinked-file") { s in
            let context = s.setup()
            let file = try s.regular()
            unlink(file.path!)
            s.submit(context, s.pread(file), s.pwrite(file, 100, at: 70000), s.fsync(file))
            file.close()
            s.reap(context, 3)
        },
        Case("descriptor/position-is-not-used") { s in
            let context = s.setup()
            let file = try s.regular()
            lseek(file.descriptor, 1234, SEEK_SET)
            s.run(context, s.pread(file, 100, at: 10))
            s.run(context, s.pwrite(file, 100, at: 10))
            s.line("position \(lseek(file.descriptor, 0, SEEK_CUR))")
        },
        Case("descriptor/stream-position-is-not-used") { s in
            let context = s.setup()
            let file = try s.open("/dev/zero", O_RDWR, name: "zero")
            s.run(context, s.pread(file, 100, at: 10))
            s.line("position \(lseek(file.descriptor, 0, SEEK_CUR))")
        },
        Case("descriptor/low-numbers-closed") { s in
            let file = try s.regular()
            let context = s.setup()
            close(0)
            close(2)
            s.run(context, s.pread(file, 5))
            s.run(context, s.fsync(file))
            s.fact("0 is free", fcntl(0, F_GETFD) < 0)
            s.fact("2 is free", fcntl(2, F_GETFD) < 0)
        },
        Case("descriptor/all-others-closed") { s in
            let context = s.setup()
            let file = try s.direct()
            s.run(context, s.pread(file))
            for number in 3..<256 where number != file.descriptor { close(Int32(number)) }
            let counter = try s.counter()
            s.run(context, s.pread(file))
            s.run(context, s.fsync(file))
            s.count(of: counter, expected: 0)
            s.submit(context, s.poll(counter, POLLIN))
            counter.feed()
            s.reap(context, 1)
        },
        Case("descriptor/flags-changed-after-open") { s in
            let context = s.setup()
            let file = try s.regular()
            s.run(context, s.pread(file, 5))
            _ = fcntl(file.descriptor, F_SETFL, O_APPEND)
            s.run(context, s.pwrite(file, 100, at: 0))
            s.contents(of: file)
            _ = fcntl(file.descriptor, F_SETFL, Int32(IOCTX_O_DIRECT))
            s.run(context, s.pread(file, 100, at: 3))
        },
    ]

    // MARK: Locks

    private static func others(_ s: Scene, _ path: String) {
        s.inChild {
            let file = open(path, O_RDWR)
            var lock = flock()
            lock.l_type = Int16(F_WRLCK)
            _ = fcntl(file, F_GETLK, &lock)
            s.line("record lock held: \(lock.l_type != Int16(F_UNLCK) ? "yes" : "no")")
            let result = flock(file, LOCK_EX | LOCK_NB)
            s.line("flock held: \(result != 0 ? "yes" : "no")")
        }
    }

    private static let locks: [Case] = [
        Case("locks/record-lock-stays") { s in
            let context = s.setup(64)
            let file = try s.regular(size: 1 << 20)
            var lock = flock()
            lock.l_type = Int16(F_WRLCK)
            s.record("lock", Int(fcntl(file.descriptor, F_SETLK, &lock)))
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            s.submit(
                context, (0..<16).map { s.pread(file, 4096, at: $0 * 65536) } + [s.fsync(file)])
            s.reap(context, 17)
            others(s, file.path!)
            s.run(context, s.pwrite(file))
            others(s, file.path!)
        },
        Case("locks/record-lock-of-direct-file-stays") { s in
            let context = s.setup(64)
            let file = try s.direct()
            var lock = flock()
            lock.l_type = Int16(F_WRLCK)
            s.record("lock", Int(fcntl(file.descriptor, F_SETLK, &lock)))
            s.submit(context, (0..<16).map { s.pread(file, 4096, at: $0 * 4096) })
            s.reap(context, 16)
            others(s, file.path!)
        },
        Case("locks/flock-ends-with-the-last-close") { s in
            let context = s.setup(64)
            let file = try s.direct()
            s.record("flock", Int(flock(file.descriptor, LOCK_EX)))
            s.submit(context, (0..<16).map { s.pread(file, 4096, at: $0 * 4096) })
            s.reap(context, 16)
            others(s, file.path!)
            file.close()
            others(s, file.path!)
        },
        Case("locks/flock-ends-after-destroy") { s in
            let context = s.setup()
            let file = try s.direct()
            flock(file.descriptor, LOCK_EX)
            s.submit(context, s.pread(file), s.fsync(file))
            s.destroy(context)
            file.close()
            others(s, file.path!)
        },
        Case("locks/end-with-a-killed-process") { s in
            let file = try s.regular()
            let child = testbed_fork()
            if child == 0 {
                let own = open(file.path!, O_RDWR)
                flock(own, LOCK_EX)
                var context: UInt = 0
                _ = s.quietSetup(8, &context)
                _ = s.quietSubmit(context, [s.poll(try! s.counter(), POLLIN)])
                Clock.sleep(5)
                _exit(0)
            }
            Clock.sleep(0.2)
            kill(child, SIGKILL)
            s.line("child \(s.ending(of: child))")
            others(s, file.path!)
        },
        Case("locks/written-program-can-be-run") { s in
            let context = s.setup()
            let path = "\(s.folder)/program"
            let file = try s.open(path, O_RDWR | O_CREAT, name: "program")
            fchmod(file.descriptor, 0o755)
            let text = Array("#!/bin/true\n".utf8)
            let buffer = Buffer(text.count)
            text.withUnsafeBytes {
                buffer.pointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
            }
            s.run(
                context,
                s.request(
                    Int(IOCB_CMD_PWRITE), file, buffer: buffer, count: text.count))
            file.close()
            s.inChild {
                let words = [strdup(path), nil]
                execv(path, words)
                _exit(Int32(errno == ETXTBSY ? 26 : 1))
            }
        },
    ]

    // MARK: Pipes

    private static let waits =
        "the kernel reads a stream inside io_submit and waits there; the layer "
        + "returns and lets the event come when there is data"

    private static let pipes: [Case] = [
        Case("pipe/end-after-writes") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            s.submit(context, s.pwrite(pipe.writer, 100))
            s.reap(context, 1)
            pipe.writer.close()
            s.run(context, s.pread(pipe.reader, 200))
            s.run(context, s.pread(pipe.reader, 200))
        },
        Case("socket/empty-datagrams") { s in
            let context = s.setup()
            for type in [SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM] {
                let (near, far) = try s.sockets(Int32(type.rawValue))
                s.run(context, s.pwrite(near, 0))
                s.run(context, s.pwritev(near, []))
                s.run(context, s.pread(near, 0))
                for _ in 0..<3 {
                    s.line("arrived: \(recv(far.descriptor, nil, 0, Int32(MSG_DONTWAIT)))")
                }
            }
        },
        Case("pipe/write-without-reader") { s in
            testbed_catch(SIGPIPE, 0)
            let context = s.setup()
            let pipe = try s.pipe()
            pipe.reader.close()
            s.run(context, s.pwrite(pipe.writer, 100))
            s.line("signals caught: \(testbed_caught())")
        },
        Case("pipe/write-without-reader-kills") { s in
            let pipe = try s.pipe()
            pipe.reader.close()
            s.inChild {
                s.run(s.setup(), s.pwrite(pipe.writer, 100))
            }
        },
        Case("pipe/nonblocking-and-empty") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            testbed_set_nonblocking(pipe.reader.descriptor, 1)
            s.run(context, s.pread(pipe.reader, 10))
            s.run(context, s.preadv(pipe.reader, [10]))
        },
        Case("pipe/nonblocking-and-full") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            testbed_set_nonblocking(pipe.writer.descriptor, 1)
            s.run(context, s.pwrite(pipe.writer, 100_000))
            s.run(context, s.pwrite(pipe.writer, 100))
        },
        Case("pipe/nowait-and-empty") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            s.run(context, s.pread(pipe.reader, 10).change { $0.aio_rw_flags = 8 })
        },
        Case("pipe/socket-nonblocking-and-empty") { s in
            let context = s.setup()
            let pair = try s.sockets()
            testbed_set_nonblocking(pair.near.descriptor, 1)
            s.run(context, s.pread(pair.near, 10))
        },
        Case("pipe/read-of-an-empty-one-waits") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            let writer = Worker {
                Clock.sleep(0.2)
                write(pipe.writer.descriptor, "hello", 5)
            }
            let start = Clock.now
            s.submit(context, s.pread(pipe.reader, 10))
            s.fact("io_submit waited", Clock.now - start >= 0.15)
            s.reap(context, 1)
            try writer.end()
        }.differs(waits, ("io_submit waited: yes", "io_submit waited: no")),
        Case("pipe/read-of-an-empty-socket-waits") { s in
            let context = s.setup()
            let pair = try s.sockets()
            let writer = Worker {
                Clock.sleep(0.2)
                write(pair.far.descriptor, "hello", 5)
            }
            let start = Clock.now
            s.submit(context, s.pread(pair.near, 10))
            s.fact("io_submit waited", Clock.now - start >= 0.15)
            s.reap(context, 1)
            try writer.end()
        }.differs(waits, ("io_submit waited: yes", "io_submit waited: no")),
        Case("pipe/read-of-an-unset-eventfd-waits") { s in
            let context = s.setup()
            let counter = try s.counter()
            let writer = Worker {
                Clock.sleep(0.2)
                counter.feed()
            }
            let start = Clock.now
            s.submit(context, s.pread(counter, 8))
            s.fact("io_submit waited", Clock.now - start >= 0.15)
            s.reap(context, 1)
            try writer.end()
        }.differs(waits, ("io_submit waited: yes", "io_submit waited: no")),
        Case("pipe/write-to-a-full-one-waits") { s in
            let context = s.setup()
            let pipe = try s.pipe()
            let reader = Worker {
                Clock.sleep(0.2)
                var left = 100_000
                while left > 0 {
                    let got = read(pipe.reader.descriptor, Buffer(65536).pointer, 65536)
                    if got <= 0 { break }
                    left -= got
                }
            }
            let start = Clock.now
            s.submit(context, s.pwrite(pipe.writer, 100_000))
            s.fact("io_submit waited", Clock.now - start >= 0.15)
            s.reap(context, 1)
            try reader.end()
        }.differs(
            waits.replacing("reads", with: "writes").replacing("data", with: "room"),
            ("io_submit waited: yes", "io_submit waited: no")),
        Case("pipe/signal-during-a-waiting-read") { s in
            testbed_catch(SIGUSR1, 0)
            let context = s.setup()
            let pipe = try s.pipe()
            let sender = Worker.interrupting(after: 0.15) {
                write(pipe.writer.descriptor, "late", 4)
            }
            let request = s.pread(pipe.reader, 10)
            s.submit(context, request)
            try sender.end()
            let event = s.quietEvents(context, least: 1, most: 1, seconds: 1).events.first
            s.line("res \(Scene.value(Int(event?.res ?? 0)))")
        }.differs(
            "the layer's io_submit does not wait, so that there is nothing to interrupt",
            ("res -4 EINTR", "res 4")),
    ]

    // MARK: Limits

    private static func limit(_ resource: testbed_limit, _ value: UInt) {
        _ = testbed_set_limit(resource, value)
    }

    private static let limits: [Case] =
        [
            Case("limits/file-size") { s in
                testbed_catch(SIGXFSZ, 0)
                let file = try s.regular()
                let context = s.setup()
                limit(TESTBED_LIMIT_FSIZE, 70000)
                s.run(context, s.pwrite(file, 4096, at: 68000))
                s.line("signals caught: \(testbed_caught())")
                s.run(context, s.pwrite(file, 4096, at: 70000))
                s.line("signals caught: \(testbed_caught())")
                s.run(context, s.pwrite(file, 4096, at: 0))
                s.run(context, s.pwritev(file, [100, 4096], at: 80000))
                s.line("signals caught: \(testbed_caught())")
                s.contents(of: file)
            },
            Case("limits/file-size-kills") { s in
                let file = try s.regular()
                s.inChild {
                    let context = s.setup()
                    limit(TESTBED_LIMIT_FSIZE, 70000)
                    s.run(context, s.pwrite(file, 4096, at: 70000))
                }
            },
            Case("limits/file-size-before-setup") { s in
                signal(SIGXFSZ, SIG_IGN)
                let file = try s.regular()
                limit(TESTBED_LIMIT_FSIZE, 4096)
                let context = s.setup(256)
                s.run(context, s.pread(file))
                s.run(context, s.pwrite(file, 4096, at: 65536))
            },
            Case("limits/no-descriptor-left") { s in
                let file = try s.direct()
                limit(TESTBED_LIMIT_NOFILE, 64)
                while dup(0) >= 0 {}
                let context = s.setup(64)
                s.submit(
                    context, [s.fsync(file)] + (0..<8).map { s.pread(file, 4096, at: $0 * 4096) })
                s.reap(context, 9)
            },
            Case("limits/few-descriptors-left") { s in
                let file = try s.direct()
                let counter = try s.counter()
                limit(TESTBED_LIMIT_NOFILE, 64)
                var last: Int32 = 0
                while case let next = dup(0), next >= 0 { last = next }
                for number in 0..<8 { close(last - Int32(number)) }
                let context = s.setup(64)
                s.submit(
                    context,
                    [s.poll(counter, POLLIN), s.fsync(file)]
                        + (0..<8).map {
                            s.pread(file, 4096, at: $0 * 4096)
                        })
                counter.feed()
                s.reap(context, 10)
            },
            Case("limits/no-locked-memory") { s in
                limit(TESTBED_LIMIT_MEMLOCK, 0)
                let file = try s.direct()
                if geteuid() == 0 { _ = setuid(65534) }
                let context = s.setup(64)
                s.submit(
                    context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
                s.reap(context, 9)
            },
            Case("limits/no-more-threads") { s in
                try s.needRoot()
                let file = try s.direct()
                limit(TESTBED_LIMIT_NPROC, 0)
                _ = setuid(65534)
                let context = s.setup(64)
                s.submit(
                    context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
                s.reap(context, 9)
            },
            Case("limits/poll-without-threads") { s in
                try s.needRoot()
                let counter = try s.counter()
                limit(TESTBED_LIMIT_NPROC, 0)
                _ = setuid(65534)
                s.submit(s.setup(64), s.poll(counter, POLLIN))
            }.differs(
                "where not even a thread can be had, nobody could wait for the file",
                (
                    "io_submit(ctx, 1, {POLL eventfd 0x1}) = 1",
                    "io_submit(ctx, 1, {POLL eventfd 0x1}) = -11 EAGAIN"
                )),
            Case("limits/without-proc") { s in
                try s.needRoot()
                try s.must("a mount name space", Int(testbed_private_mounts()))
                try s.must("hiding /proc", Int(testbed_mount("none", "/proc", "tmpfs", nil)))
                let file = try s.direct()
                let context = s.setup(64)
                s.submit(
                    context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
                s.reap(context, 9)
            },
            Case("limits/disk-full") { s in
                let file = try s.regular(in: s.tmpfs(bytes: 131_072))
                let context = s.setup()
                s.run(context, s.pwrite(file, 131_072, at: 65536))
                s.run(context, s.pwrite(file, 4096, at: 131_072))
                s.run(context, s.pwritev(file, [4096, 4096], at: 126_976))
                s.contents(of: file)
            },
            Case("limits/ext4-full") { s in
                let folder = try s.mounted("ext4", megabytes: 2, options: ["-q", "-F"])
                let file = try s.regular(in: folder)
                let context = s.setup()
                s.run(context, s.pwrite(file, 8 << 20, at: 65536))
                s.run(context, s.pwrite(file, 4096, at: 16 << 20))
                s.run(context, s.fsync(file))
            },
            Case("limits/dev-full") { s in
                let file = try s.open("/dev/full", O_RDWR, name: "full")
                let context = s.setup()
                s.run(context, s.pwrite(file, 100))
                s.run(context, s.pwritev(file, [10, 10]))
            },
        ] + sandboxes

    /// Whatever is forbidden to the layer, the answers stay the kernel's.
    private static let sandboxes: [Case] = [
        ("uring-refused", TESTBED_FORBID_URING.rawValue, EPERM, true),
        ("uring-missing", TESTBED_FORBID_URING.rawValue, ENOSYS, true),
        ("uring-kills", TESTBED_FORBID_URING.rawValue, 0, true),
        ("threads-refused", TESTBED_FORBID_CLONE.rawValue, EAGAIN, true),
        (
            "kernel-aio-missing",
            TESTBED_FORBID_URING.rawValue | TESTBED_FORBID_KERNEL_AIO.rawValue, ENOSYS,
            false
        ),
        (
            "kernel-aio-kills",
            TESTBED_FORBID_URING.rawValue | TESTBED_FORBID_KERNEL_AIO.rawValue, 0, false
        ),
    ].map { (name: String, what: UInt32, error: Int32, onKernelToo: Bool) in
        Case("sandbox/\(name)") { s in
            if onKernelToo || s.isLibrary {
                try s.must("a filter", Int(testbed_forbid(Int32(what), error)))
            }
            let context = s.setup(64)
            let file = try s.direct()
            let counter = try s.counter()
            let pipe = try s.pipe()
            // Without threads nobody could wait: limits/poll-without-threads.
            let polls = name == "threads-refused" ? [] : [s.poll(counter, POLLIN)]
            s.submit(
                context,
                (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + polls + [
                    s.fsync(file), s.pwrite(pipe.writer, 10),
                ])
            counter.feed()
            s.reap(context, 10 + polls.count)
            s.run(context, s.pread(s.closed()))
            s.destroy(context)
        }.set("IOCTX_ENGINE", "auto")
    }

    // MARK: Large requests

    private static let large: [Case] = [
        Case("large/sparse-two-gigabytes") { s in
            let context = s.setup()
            let file = try s.regular()
            try s.must("ftruncate", Int(ftruncate(file.descriptor, 3 << 30)))
            // Every vector is the same two megabytes: only what is read counts, not where to.
            let buffer = Buffer(2 << 20)
            let request = s.vectors(
                Int(IOCB_CMD_PREADV), file, Array(repeating: buffer, count: 1024), at: 4096)
            request.buffers = []
            s.run(context, request)
            s.line("last byte \(buffer.pointer.load(fromByteOffset: 12345, as: UInt8.self))")
        }.limit(seconds: 40),
        Case("large/past-the-end") { s in
            let context = s.setup()
            let file = try s.regular()
            let buffer = Buffer(1 << 20)
            let request = s.vectors(
                Int(IOCB_CMD_PREADV), file, Array(repeating: buffer, count: 1024))
            request.buffers = []
            s.run(context, request)
            s.line("hash \(buffer.hash(Scene.fileBytes))")
        },
        Case("large/two-gigabytes-to-null") { s in
            let context = s.setup()
            let null = try s.open("/dev/null", O_RDWR, name: "null")
            let room = mmap(
                nil, 3 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
            for count in [0x7fff_efff, 0x7fff_f000, 0x7fff_f001, 1 << 31, 3 << 30] {
                let request = s.request(Int(IOCB_CMD_PWRITE), null, count: count)
                request.iocb.pointee.aio_buf = UInt64(UInt(bitPattern: room))
                s.run(context, request)
            }
        },
        Case("large/vectors-over-the-most") { s in
            let context = s.setup()
            let null = try s.open("/dev/null", O_RDWR, name: "null")
            let room = mmap(
                nil, 1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
            let buffer = Buffer(address: UInt(bitPattern: room), count: 1 << 30)
            for count in 1...4 {
                let request = s.vectors(
                    Int(IOCB_CMD_PWRITEV), null, Array(repeating: buffer, count: count))
                s.run(context, request)
            }
        },
        Case("large/partly-cached") { s in
            let context = s.setup()
            let file = try s.regular(size: 8 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let warm = Buffer(4096)
            for page in stride(from: 0, to: 8 << 20, by: 1 << 20) {
                Glibc.pread(file.descriptor, warm.pointer, 4096, page)
            }
            s.run(context, s.pread(file, 8 << 20))
            s.run(context, s.pread(file, 8 << 20, at: 100))
        },
        Case("large/cold-vectors") { s in
            let context = s.setup()
            let file = try s.regular(size: 4 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            s.run(context, s.preadv(file, Array(repeating: 5000, count: 1000), at: 77))
        },
        Case("large/direct") { s in
            let context = s.setup()
            let file = try s.direct()
            ftruncate(file.descriptor, 16 << 20)
            s.run(context, s.pwrite(file, 8 << 20, at: 1 << 20))
            s.run(context, s.pread(file, 16 << 20))
            s.run(context, s.pread(file, 8 << 20, at: 12 << 20))
        },
        Case("large/write") { s in
            let context = s.setup()
            let file = try s.regular()
            s.run(context, s.pwrite(file, 16 << 20, at: 12345))
            s.contents(of: file)
        },
        Case("large/offset-beyond-four-gigabytes") { s in
            let context = s.setup()
            let file = try s.regular()
            s.run(context, s.pwrite(file, 5000, at: 5 << 30))
            s.run(context, s.pread(file, 8000, at: 5 << 30))
            s.run(context, s.pread(file, 8000, at: 5 << 30 - 1000))
            s.run(context, s.pread(file, 8000, at: 6 << 30))
        },
    ]
}

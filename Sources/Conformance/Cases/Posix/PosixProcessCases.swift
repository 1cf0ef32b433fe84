// fork, exit, threads, limits, and many requests.

import CTestBed
import Glibc
import TestBed

enum PosixProcessCases {
    static let all: [Case] = [
        // The C library's child has its parent's count of threads, and none of them.
        Case(posix: "posix/process/child-makes-its-own") { s in
            let file = try s.files.regular()
            s.outcome(s.reading(file, 10))
            s.files.inChild { s.outcome(s.reading(file, 100, at: 200)) }
            s.outcome(s.reading(file, 10))
        }.stands(
            "read file 10@0: 10, data f92b234", "read file 100@200: 100, data 46e2b4c8",
            "child ended with 0", "read file 10@0: 10, data f92b234"),
        Case(posix: "posix/process/child-has-none-of-its-parents") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 3)
            s.submit(block)
            s.files.inChild {
                s.error(block)
                s.suspend([block], seconds: 0.5)
                s.cancel(pipe.reader, block)
                s.cancel(pipe.reader, nil)
            }
            s.error(block)
            Glibc.write(pipe.writer.descriptor, "abc", 3)
            s.finish(block)
        }.stands(
            "read pipe 3@0 = 0", "aio_error = -125 ECANCELED", "aio_suspend(1) = 0",
            "aio_cancel(pipe, read pipe 3@0) = AIO_ALLDONE", "aio_cancel(pipe, all) = AIO_ALLDONE",
            "child ended with 0", "aio_error = -115 EINPROGRESS", "read pipe 3@0: 3, data 1a47e90b"),
        // Accepted writes and fsyncs are not lost at exit.
        Case(posix: "posix/process/exit-awaits-writes") { s in
            let file = try s.files.direct()
            let writes = (0..<16).map { s.writing(file, 4096, at: $0 * 4096) }
            let child = testbed_fork()
            if child == 0 {
                for write in writes { _ = s.start(write) }
                _ = s.quietSync(s.syncing(file))
                exit(0)
            }
            s.line("child \(s.files.ending(of: child))")
            s.files.contents(of: file)
            let expected = try s.files.regular(name: "expected")
            let whole = Buffer(65536)
            whole.fill(seed: 9)
            pwrite(expected.descriptor, whole.pointer, 65536, 0)
            s.files.contents(of: expected)
        }.limit(seconds: 20).stands(
            "child ended with 0", "direct holds 65536 bytes, e6028a3b",
            "expected holds 65536 bytes, e6028a3b"),
        Case(posix: "posix/process/threads") { s in
            let file = try s.files.regular()
            final class Count: @unchecked Sendable { var wrong = [Int](repeating: 0, count: 8) }
            let count = Count()
            let workers = (0..<8).map { number in
                Worker {
                    for round in 0..<200 {
                        let block = s.reading(file, 256, at: (number * 200 + round) % 60000)
                        if s.start(block) != 0 || !s.wait(block) || s.quietValue(block) != 256 {
                            count.wrong[number] += 1
                        }
                    }
                }
            }
            for worker in workers { try worker.end() }
            s.line("wrong: \(count.wrong.reduce(0, +))")
        },
        Case(posix: "posix/process/threads-on-one-direct-file") { s in
            let file = try s.files.direct()
            final class Count: @unchecked Sendable { var wrong = [Int](repeating: 0, count: 4) }
            let count = Count()
            let workers = (0..<4).map { number in
                Worker {
                    for round in 0..<100 {
                        let block = s.reading(file, 4096, at: (number + round) % 16 * 4096)
                        if s.start(block) != 0 { count.wrong[number] += 1 }
                        while s.quietError(block) == EINPROGRESS { _ = s.quietSuspend([block]) }
                        if s.quietValue(block) != 4096 { count.wrong[number] += 1 }
                    }
                }
            }
            for worker in workers { try worker.end() }
            s.line("wrong: \(count.wrong.reduce(0, +))")
        },
        Case(posix: "posix/process/limit-of-requests") { s in
            let pipe = try s.files.pipe()
            var accepted = 0
            var reason: Int32 = 0
            for _ in 0..<64 {
                let block = s.reading(pipe.reader, 1)
                if s.start(block) == 0 {
                    accepted += 1
                } else {
                    reason = errno
                    s.error(block)
                    break
                }
            }
            s.line("accepted \(accepted)")
            s.fact("EAGAIN", reason == EAGAIN)
            s.cancel(pipe.reader, nil)
            s.outcome(s.reading(try s.files.regular(), 10))
        }.set("IOCTX_MAX_AIO_QUEUE_PER_PROC", "16").stands(
            "aio_error = -11 EAGAIN", "accepted 16", "EAGAIN: yes",
            "aio_cancel(pipe, all) = AIO_CANCELED", "read file 10@0: 10, data f92b234"),
        Case(posix: "posix/process/switched-off") { s in
            let file = try s.files.regular()
            s.submit(s.reading(file))
            s.list(PosixCalls.wait, [s.reading(file)])
        }.set("IOCTX_ENGINE", "off").stands(
            "read file 4096@0 = -38 ENOSYS", "lio_listio(LIO_WAIT, 1) = -38 ENOSYS"),
        // A million requests leave nothing behind.
        Case(posix: "posix/process/a-million") { s in
            let file = try s.files.regular()
            let blocks = (0..<16).map { s.reading(file, 64, at: $0 * 64) }
            var wrong = 0
            func run(_ count: Int) {
                for round in 0..<count {
                    let block = blocks[round & 15]
                    if s.start(block) != 0 { wrong += 1 }
                    if s.quietError(block) != 0 || s.quietValue(block) != 64 { wrong += 1 }
                }
            }
            run(50_000)
            let before = residentPages()
            let descriptors = openDescriptors()
            run(950_000)
            s.line("wrong: \(wrong)")
            s.fact("no memory is lost", residentPages() < before + 64)
            s.fact("no descriptor is lost", openDescriptors() == descriptors)
        }.limit(seconds: 30).stands(
            "wrong: 0", "no memory is lost: yes", "no descriptor is lost: yes"),
        Case(posix: "posix/process/many-deferred-leave-nothing") { s in
            let pipe = try s.files.pipe()
            let blocks = (0..<64).map { _ in s.reading(pipe.reader, 1) }
            var wrong = 0
            func run(_ rounds: Int) {
                for _ in 0..<rounds {
                    for block in blocks where s.start(block) != 0 { wrong += 1 }
                    Glibc.write(pipe.writer.descriptor, String(repeating: "x", count: 64), 64)
                    for block in blocks {
                        while s.quietError(block) == EINPROGRESS { _ = s.quietSuspend([block]) }
                        if s.quietValue(block) != 1 { wrong += 1 }
                    }
                }
            }
            run(30)
            let before = residentPages()
            let descriptors = openDescriptors()
            run(100)
            s.line("wrong: \(wrong)")
            s.fact("no memory is lost", residentPages() < before + 64)
            s.fact("no descriptor is lost", openDescriptors() == descriptors)
        }.limit(seconds: 30),
        // Nothing is there before the first request.
        Case(posix: "posix/process/nothing-before-the-first") { s in
            let descriptors = openDescriptors()
            s.suspend([nil])
            s.cancel(try s.files.regular(), nil)
            s.initialize()
            s.line("threads: \(threads())")
            s.fact("no descriptor", openDescriptors() == descriptors + 1)
        },
        // Requests that wait for a pipe hold no daemon: files are read meanwhile.
        Case(posix: "posix/process/pipes-hold-no-daemon") { s in
            let pipes = try (0..<100).map { _ in try s.files.pipe() }
            let waiting = pipes.map { s.reading($0.reader, 1) }
            for block in waiting { _ = s.start(block) }
            s.outcome(s.reading(try s.files.regular(), 10))
            let file = try s.files.direct()
            s.outcome(s.reading(file, 4096))
            for pipe in pipes { Glibc.write(pipe.writer.descriptor, "x", 1) }
            var done = 0
            for block in waiting where s.wait(block) { done += 1 }
            s.line("done: \(done)")
        }.stands(
            "read file 10@0: 10, data f92b234", "read direct 4096@0: 4096, data bfa7000c",
            "done: 100"),
    ]

    private static func residentPages() -> Int {
        let text = read("/proc/self/statm").split(separator: " ")
        return text.count > 1 ? Int(text[1]) ?? 0 : 0
    }

    private static func threads() -> Int { entries("/proc/self/task") }

    private static func openDescriptors() -> Int { entries("/proc/self/fd") }

    private static func entries(_ path: String) -> Int {
        guard let folder = opendir(path) else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        return count
    }

    private static func read(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }
}

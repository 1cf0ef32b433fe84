// What the calls refuse, aio_error and aio_return, and aio_cancel.

import CTestBed
import Glibc
import TestBed

enum PosixCallCases {
    static let all: [Case] = refusals + status + cancelling

    /// A request that is wrong in one way; the errno may come either way.
    private static func wrong(
        _ name: String, isWrite: Bool,
        _ change: @escaping @Sendable (inout testbed_aiocb) -> Void
    ) -> Case {
        Case(posix: "posix/refusal/\(isWrite ? "write" : "read")-\(name)") { s in
            let file = try s.files.regular()
            s.outcome((isWrite ? s.writing(file) : s.reading(file)).change(change))
        }
    }

    private static let refusals: [Case] =
        [false, true].flatMap { isWrite in
            [
                // Refused by the call, or by the file: the value of aio_return tells them apart.
                wrong("priority-negative", isWrite: isWrite) { $0.aio_reqprio = -1 },
                wrong("priority-too-large", isWrite: isWrite) { $0.aio_reqprio = 21 },
                wrong("priority-largest", isWrite: isWrite) { $0.aio_reqprio = 20 },
                wrong("descriptor-negative", isWrite: isWrite) { $0.aio_fildes = -1 },
                wrong("descriptor-large", isWrite: isWrite) { $0.aio_fildes = 1 << 30 },
                Case(posix: "posix/refusal/\(isWrite ? "write" : "read")-offset-negative") { s in
                    let file = try s.files.regular()
                    let block = isWrite ? s.writing(file) : s.reading(file)
                    block.it.pointee.aio_offset = -1
                    let refused = s.start(block) != 0
                    s.fact("EINVAL", refused ? errno == EINVAL : s.wait(block))
                    s.error(block)
                },
                Case(posix: "posix/refusal/\(isWrite ? "write" : "read")-size-too-large") { s in
                    let file = try s.files.regular()
                    let block = isWrite ? s.writing(file) : s.reading(file)
                    block.it.pointee.aio_nbytes = Int.min
                    if s.start(block) == 0 { _ = s.wait(block) }
                    s.error(block)
                }.stands("aio_error = -22 EINVAL"),
            ]
        } + [
            Case(posix: "posix/refusal/bad-signal") { s in
                let file = try s.files.regular()
                for signal: Int32 in [-1, 65, 1000] {
                    s.outcome(s.reading(file, 10).signalling(signal))
                }
            }.stands(
                "read file 10@0: -22 EINVAL", "read file 10@0: -22 EINVAL",
                "read file 10@0: -22 EINVAL"),
            // A block that was cleared and no more says SIGEV_SIGNAL with signal 0.
            Case(posix: "posix/refusal/cleared-block") { s in
                let file = try s.files.regular()
                s.outcome(s.reading(file, 10).signalling(0))
            },
            Case(posix: "posix/refusal/unknown-notification") { s in
                let file = try s.files.regular()
                let block = s.reading(file, 10)
                testbed_notify(&block.it.pointee.aio_sigevent, 99, 0, 0)
                s.outcome(block)
            },
        ]

    private static let status: [Case] = [
        Case(posix: "posix/status/of-a-cleared-block") { s in
            let file = try s.files.regular()
            let block = s.reading(file)
            s.error(block)
            s.value(block)
        },
        Case(posix: "posix/status/under-way") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            for _ in 0..<3 { s.error(block) }
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.finish(block)
        },
        Case(posix: "posix/status/value-again") { s in
            let block = s.reading(try s.files.regular())
            s.outcome(block)
            for _ in 0..<3 {
                s.error(block)
                s.value(block)
            }
        },
        Case(posix: "posix/status/failed") { s in
            let block = s.reading(s.files.closed())
            s.outcome(block)
            s.error(block)
            s.fact("-1", s.quietValue(block) == -1)
        },
        Case(posix: "posix/status/value-leaves-errno") { s in
            let block = s.reading(s.files.closed())
            s.outcome(block)
            errno = EDOM
            _ = s.quietValue(block)
            s.fact("errno stays", errno == EDOM)
        },
        Case(posix: "posix/status/block-used-again") { s in
            let file = try s.files.regular()
            let block = s.reading(file, 100)
            for round in 0..<50 {
                block.it.pointee.aio_offset = round * 100
                _ = s.start(block)
                s.finish(block)
            }
        },
        Case(posix: "posix/status/copied-block") { s in
            let file = try s.files.regular()
            let block = s.reading(file)
            s.outcome(block)
            let copy = s.reading(file)
            copy.it.pointee = block.it.pointee
            s.error(copy)
            s.value(copy)
        },
        Case(posix: "posix/status/garbage-in-the-private-fields") { s in
            let file = try s.files.regular()
            let block = s.reading(file, 50)
            let it = block.it.pointee
            memset(block.it, 0xa5, MemoryLayout<testbed_aiocb>.size)
            block.change {
                $0.aio_fildes = it.aio_fildes
                $0.aio_reqprio = 0
                $0.aio_buf = it.aio_buf
                $0.aio_nbytes = it.aio_nbytes
                $0.aio_sigevent = it.aio_sigevent
                $0.aio_offset = it.aio_offset
                $0.aio_lio_opcode = 0
            }
            s.outcome(block)
        },
        Case(posix: "posix/status/aio-init") { s in
            s.initialize()
            s.outcome(s.reading(try s.files.regular(), 10))
            s.initialize()
        },
        Case(posix: "posix/status/file-closed-at-once") { s in
            let file = try s.files.regular(size: 1 << 20)
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let blocks = (0..<8).map { s.reading(file, 4096, at: $0 * 100_000) }
            for block in blocks { _ = s.start(block) }
            file.close()
            for (index, block) in blocks.enumerated() {
                _ = s.wait(block)
                let isRight = block.buffer.holds(seed: 1, from: index * 100_000)
                s.fact("\(index)", s.quietValue(block) == 4096 && isRight)
            }
        }.stands("0: yes", "1: yes", "2: yes", "3: yes", "4: yes", "5: yes", "6: yes", "7: yes"),
    ]

    private static let cancelling: [Case] = [
        Case(posix: "posix/cancel/done") { s in
            let file = try s.files.regular()
            let block = s.reading(file)
            s.outcome(block)
            s.cancel(file, block)
            s.cancel(file, nil)
        },
        Case(posix: "posix/cancel/nothing-ever") { s in
            s.cancel(try s.files.regular(), nil)
        },
        Case(posix: "posix/cancel/closed") { s in
            s.cancel(s.files.closed(), nil)
        },
        Case(posix: "posix/cancel/another-descriptor") { s in
            let file = try s.files.regular()
            let other = try s.files.regular(name: "other")
            let block = s.reading(file)
            s.outcome(block)
            s.cancel(other, block)
        },
        // The second of two on one pipe waits for the first under any implementation.
        Case(posix: "posix/cancel/queued") { s in
            let pipe = try s.files.pipe()
            let first = s.reading(pipe.reader, 10)
            let second = s.reading(pipe.reader, 10)
            s.submit(first)
            Clock.sleep(0.05)
            s.submit(second)
            s.cancel(pipe.reader, second)
            s.error(second)
            s.value(second)
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.finish(first)
            s.cancel(pipe.reader, second)
        },
        Case(posix: "posix/cancel/queued-notifies") { s in
            testbed_catch_values(40, 0)
            let pipe = try s.files.pipe()
            let first = s.reading(pipe.reader, 10)
            let second = s.reading(pipe.reader, 10).signalling(40, value: 3)
            s.submit(first)
            Clock.sleep(0.05)
            s.submit(second)
            s.cancel(pipe.reader, second)
            for _ in 0..<200 where testbed_caught() == 0 { usleep(1000) }
            s.line("signals: \(testbed_caught())")
        },
        // A request that waits for its pipe holds no daemon, so it can be ended.
        Case(posix: "posix/cancel/waiting") { s in
            let pipe = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            Clock.sleep(0.02)
            s.cancel(pipe.reader, block)
            s.error(block)
        }.stands(
            "read pipe 10@0 = 0", "aio_cancel(pipe, read pipe 10@0) = AIO_CANCELED",
            "aio_error = -125 ECANCELED"),
        Case(posix: "posix/cancel/all-of-a-pipe") { s in
            let pipe = try s.files.pipe()
            let blocks = (0..<5).map { _ in s.reading(pipe.reader, 10) }
            for block in blocks { s.submit(block) }
            s.cancel(pipe.reader, nil)
            for block in blocks { s.error(block) }
            s.cancel(pipe.reader, nil)
        }.stands(
            "read pipe 10@0 = 0", "read pipe 10@0 = 0", "read pipe 10@0 = 0", "read pipe 10@0 = 0",
            "read pipe 10@0 = 0", "aio_cancel(pipe, all) = AIO_CANCELED",
            "aio_error = -125 ECANCELED", "aio_error = -125 ECANCELED",
            "aio_error = -125 ECANCELED", "aio_error = -125 ECANCELED",
            "aio_error = -125 ECANCELED", "aio_cancel(pipe, all) = AIO_ALLDONE"),
        Case(posix: "posix/cancel/only-that-file") { s in
            let pipe = try s.files.pipe()
            let other = try s.files.pipe()
            let block = s.reading(pipe.reader, 10)
            s.submit(block)
            s.cancel(other.reader, nil)
            s.error(block)
            Glibc.write(pipe.writer.descriptor, "0123456789", 10)
            s.finish(block)
        },
        // Whatever the answer, the request ends as the answer says, and once.
        Case(posix: "posix/cancel/races") { s in
            let file = try s.files.direct()
            var contradictions = 0
            for round in 0..<300 {
                let block = s.reading(file, 4096, at: round % 16 * 4096)
                _ = s.start(block)
                if round % 3 == 0 { sched_yield() }
                let answer = s.quietCancel(file, round % 2 == 0 ? block : nil)
                let isDone = s.wait(block)
                let error = s.quietError(block)
                let wasCancelled = error == ECANCELED
                if !isDone || (answer == 0) != wasCancelled && answer != 1
                    || error != 0 && !wasCancelled
                {
                    contradictions += 1
                }
            }
            s.line("contradictions: \(contradictions)")
        },
    ]
}

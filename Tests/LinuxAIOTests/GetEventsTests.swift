// io_getevents: its deadlines, its numbers, and the requests that the kernel would have done.

import CLibAIO
import Glibc
import JobTable
import Paths
import Synchronization
import TestSupport
import Testing

@testable import LinuxAIO

@Suite struct DeadlineTests {
    private func deadline(_ seconds: Int, _ nanoseconds: Int) -> UInt64 {
        Ref<LinuxFace>.deadline(timespec(tv_sec: seconds, tv_nsec: nanoseconds))
    }

    @Test("No time at all is no wait") func zero() {
        #expect(deadline(0, 0) == 0)
        #expect(deadline(1, -1_000_000_000) == 0)
        #expect(deadline(Int.min, 0) == 0, "the product wraps around to 0, as in ktime_set")
    }

    @Test("A negative time, and one beyond the clock, is for ever: the kernel checks nothing")
    func forEver() {
        for (seconds, nanoseconds) in [
            (-1, 0), (0, -1), (Int.min, Int.min), (Int.max, 0), (Int.max, Int.max),
            (9_223_372_037, 0), (9_223_372_036, Int.max),
        ] {
            #expect(deadline(seconds, nanoseconds) == .max, "\(seconds) \(nanoseconds)")
        }
    }

    @Test("Any other time is added to the monotonic clock, also with absurd nanoseconds")
    func relative() {
        for (seconds, nanoseconds, expected) in [
            (0, 1, 1), (2, 500, 2_000_000_500), (0, 2_000_000_000, 2_000_000_000),
            (5, -1_000_000_000, 4_000_000_000), (9_000_000_000, 0, 9_000_000_000_000_000_000),
        ] as [(Int, Int, UInt64)] {
            let before = System.monotonicNs()
            let value = deadline(seconds, nanoseconds)
            let after = System.monotonicNs()
            #expect(value >= before + expected && value <= after + expected)
        }
    }
}

@Suite struct GetEventsTests {
    @Test("Numbers and pointers are checked in the kernel's order") func arguments() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let context = AioContext()
            let bad = UInt(0xffff_8000_0000_0000)
            func get(_ minimum: Int, _ maximum: Int, _ events: UInt = 0, timeout: UInt = 0) -> Int {
                LinuxAIO.getEvents(
                    context.address, minimum, maximum, events, timeout: timeout, sigmask: 0)
            }
            #expect(LinuxAIO.getEvents(0, 0, 0, 0, timeout: bad, sigmask: 0) == failure(EFAULT))
            #expect(LinuxAIO.getEvents(0, 0, 0, 0, timeout: 0, sigmask: bad) == failure(EFAULT))
            #expect(get(-1, 1) == failure(EINVAL))
            #expect(get(2, 1) == failure(EINVAL))
            #expect(get(0, -1) == failure(EINVAL))
            #expect(get(0, 0) == 0)
            #expect(get(0, 10) == 0, "with nothing there the pointer is not looked at")
            let file = Files.regular(100)
            let requests = (0..<3).map { Iocb.read(file, Buffer(10), data: UInt64($0)) }
            #expect(context.submit(requests) == 3)
            #expect(get(1, 1, 0) == failure(EFAULT))
            #expect(get(1, 1, bad) == failure(EFAULT), "and the event is not consumed")
            #expect(context.reap(1, 2).result == 2)
            #expect(context.results(1) == [2: 10])
        }
    }

    @Test("A zero time-out polls, a time-out gives what there is, none waits for all")
    func minimums() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let context = AioContext()
            let file = Files.regular(100)
            #expect(context.reap(1, timeoutNs: 0).result == 0)
            let requests = (0..<2).map { Iocb.read(file, Buffer(10), data: UInt64($0)) }
            #expect(context.submit(requests) == 2)
            #expect(context.reap(3, timeoutNs: 0).result == 2)
            #expect(context.submit(requests) == 2)
            #expect(context.reap(3, timeoutNs: 5_000_000).result == 2)
            #expect(context.reap(1, timeoutNs: 5_000_000).result == 0)
            #expect(context.submit(requests) == 2)
            #expect(context.reap(0, 1, timeoutNs: 1_000_000_000_000).result == 1)
            #expect(context.reap(0, 5, timeoutNs: 1_000_000_000_000).result == 1)
            #expect(context.reap(0, 5).result == 0, "no minimum never waits")
        }
    }

    /// Else each of its reads from a disk would be started by io_submit, which takes its time.
    @Test("Who finds plenty of events without sleeping is expected in io_getevents again")
    func plenty() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let context = AioContext()
            let file = Files.regular(100)
            let requests = (0..<Context.plenty).map { _ in Iocb.read(file, Buffer(10)) }
            let record = LinuxFace.current!.findUnpinned(context.address)!
            // The first reads of a file may be left to the daemon.
            #expect(context.submit(requests) == requests.count)
            #expect(context.reap(requests.count).result == requests.count)
            record.it.reapsExpected.store(0, ordering: .relaxed)
            #expect(context.submit(Array(requests.dropFirst())) == requests.count - 1)
            #expect(context.reap(1).result == requests.count - 1)
            #expect(record.it.reapsExpected.load(ordering: .relaxed) == 0)
            #expect(context.submit(requests) == requests.count)
            #expect(context.reap(1).result == requests.count)
            #expect(record.it.reapsExpected.load(ordering: .relaxed) > 0)
        }
    }

    @Test(
        "A sleeper wakes when it has its minimum, whoever submits",
        arguments: TestEngine.withDaemon)
    func sleeper(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let (reader, writer) = Files.pipe()
            let file = Files.regular(100)
            for round in 0..<50 {
                let requests = [
                    Iocb.read(reader, Buffer(1), data: 0), Iocb.read(file, Buffer(10), data: 1),
                    Iocb.poll(reader, data: 2),
                ]
                concurrently(2) { thread in
                    if thread == 0 {
                        let events = context.reap(3, 3, timeoutNs: round % 2 == 0 ? -1 : 90 << 30)
                        #expect(events.result == 3)
                        #expect(Set(events.events.map(\.data)) == [0, 1, 2])
                        return
                    }
                    if round % 3 == 0 { usleep(200) }
                    #expect(context.submit([requests[0]]) == 1)
                    #expect(context.submit([requests[1]]) == 1)
                    #expect(context.submit([requests[2]]) == 1)
                    _ = write(writer.number, "xy", 2)
                }
                var byte: UInt8 = 0
                #expect(read(reader.number, &byte, 1) == 1)
            }
        }
    }

    @Test("Several sleepers share the events and all wake", arguments: TestEngine.withDaemon)
    func severalSleepers(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let pipes = (0..<30).map { _ in Files.pipe() }
            let requests = pipes.enumerated().map {
                Iocb.poll($1.read, data: UInt64($0))
            }
            #expect(context.submit(requests) == 30)
            let total = Memory.record(Shared.self)!
            var mask: UInt64 = 0
            withAddress(of: &mask) { maskAddress in
                concurrently(4) { thread in
                    if thread == 0 {
                        for pipe in pipes { _ = write(pipe.write.number, "x", 1) }
                        return
                    }
                    // One of the three sleeps with a signal mask, as io_pgetevents does.
                    for _ in 0..<10 {
                        let got = context.reap(
                            1, 1, sigmask: thread == 1 ? UInt(bitPattern: maskAddress) : 0)
                        #expect(got.result == 1)
                        if let event = got.events.first { total.add(Int(event.data) + 1000) }
                    }
                }
            }
            #expect(total.count == 30 * 1000 + 30 * 29 / 2)
            #expect(context.reap(0).result == 0)
        }
    }

    @Test("io_destroy wakes a sleeper with -EINVAL", arguments: TestEngine.withDaemon)
    func destroyWakes(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            var mask: UInt64 = 0
            withAddress(of: &mask) { maskAddress in
                for round in 0..<20 {
                    let context = AioContext()
                    let address = context.address
                    let pipe = Files.pipe()
                    let poll = Iocb.poll(pipe.read)
                    #expect(context.submit(poll) == 1)
                    concurrently(2) { thread in
                        if thread == 0 {
                            let sigmask = round % 2 == 0 ? 0 : UInt(bitPattern: maskAddress)
                            let result = context.reap(5, 5, sigmask: sigmask).result
                            // The poll's own end may be seen first.
                            #expect(result == failure(EINVAL) || result == 1)
                            return
                        }
                        if round % 4 < 2 { usleep(2000) }
                        #expect(LinuxAIO.destroy(address) == 0)
                    }
                    context.forget()
                }
            }
        }
    }

    // MARK: Kernel order

    /// With the kernel's AIO a buffered read is complete when io_submit returns.
    @Test(
        "A poll for events after a cold buffered read finds it, with any minimum of 0 or 1",
        arguments: TestEngine.withDaemon)
    func overdue(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let file = Files.regular(4 << 20, of: 0x33)
            var deferred = 0
            for round in 0..<60 {
                if round % 20 == 0 { posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED) }
                let offset = Int64(round * 23 % 60 * 65_536)
                let read = Iocb.read(file, Buffer(4096), offset: offset, data: 1)
                #expect(context.submit(read) == 1)
                if context.ring.head == context.ring.tail { deferred += 1 }
                let events =
                    round % 2 == 0
                    ? context.reap(0, 8) : context.reap(1, 8, timeoutNs: 0)
                #expect(events.result == 1, "round \(round)")
                #expect(events.events.first?.res == 4096)
                #expect(read.buffer!.isFilled(with: 0x33))
            }
            if Files.canBeCold { #expect(deferred > 0) }
            let record = LinuxFace.current!.find(context.address)!
            #expect(record.it.overdue == 0 && record.it.inFlight == 0)
            LinuxFace.current!.unpin(record)
        }
    }

    @Test(
        "What the kernel would not have done either is not awaited",
        arguments: TestEngine.withDaemon)
    func notOverdue(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let (reader, writer) = Files.pipe()
            let poll = Iocb.poll(reader, data: 1)
            #expect(context.submit(poll) == 1)
            #expect(context.reap(0, 8).result == 0)
            #expect(context.reap(1, 8, timeoutNs: 0).result == 0)
            #expect(write(writer.number, "x", 1) == 1)
            #expect(context.results(1) == [1: Int64(POLLIN)])
        }
    }

    @Test("A write waits for a cold read that it overlaps", arguments: TestEngine.withDaemon)
    func writeAfterRead(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let file = Files.regular(1 << 20, of: 1)
            for round in 0..<20 {
                posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
                let offset = Int64(round * 40_960)
                let reads = (0..<8).map {
                    Iocb.read(
                        file, Buffer(4096), offset: offset + Int64($0 * 4096), data: UInt64($0))
                }
                let overwrite = Iocb.write(
                    file, Buffer(32_768, filledWith: 2), offset: offset, data: 100)
                // In one io_submit and in two.
                if round % 2 == 0 {
                    #expect(context.submit(reads + [overwrite]) == 9)
                } else {
                    #expect(context.submit(reads) == 8)
                    #expect(context.submit(overwrite) == 1)
                }
                let results = context.results(9)
                #expect(results[100] == 32_768)
                for read in reads {
                    #expect(read.buffer!.isFilled(with: 1), "a write overtook a read")
                }
            }
        }
    }
}

// Whole calls in this process, on each engine: what goes in comes out, once. With the layer off,
// every call is -ENOSYS.

import CLibAIO
import Glibc
import JobTable
import Paths
import Synchronization
import TestSupport
import Testing

@testable import LinuxAIO

private var jobsInUse: UInt64 {
    LinuxFace.current?.it.table.it.jobsInUse ?? 0
}

@Suite struct CallsTests {
    @Test("Every command does its work and gives its event", arguments: TestEngine.withDaemon)
    func everyCommand(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let file = Files.regular(16_384, of: 1)
            let lengths = [100, 0, 1, 4000, 95, 4000]
            let vectored = lengths.reduce(0, +)
            let write = Iocb.write(file, Buffer(4096, filledWith: 2), offset: 0, data: 1)
            let writev = Iocb.write(file, Buffer(vectored, filledWith: 3), offset: 4096, data: 2)
                .inVectors(lengths, isWrite: true)
            let fsync = Iocb(Int(IOCB_CMD_FSYNC), file, data: 3)
            let fdatasync = Iocb(Int(IOCB_CMD_FDSYNC), file, data: 4)
            #expect(context.submit([write, writev, fsync, fdatasync]) == 4)
            #expect(context.results(4) == [1: 4096, 2: Int64(vectored), 3: 0, 4: 0])
            posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
            let read = Iocb.read(file, Buffer(4096), offset: 0, data: 5)
            let readv = Iocb.read(file, Buffer(vectored), offset: 4096, data: 6)
                .inVectors(lengths, isWrite: false)
            let tail = Iocb.read(file, Buffer(8192), offset: 16_000, data: 7)
            let beyond = Iocb.read(file, Buffer(100), offset: 20_000, data: 8)
            let poll = Iocb.poll(file, data: 9)
            #expect(context.submit([read, readv, tail, beyond, poll]) == 5)
            #expect(
                context.results(5) == [
                    5: 4096, 6: Int64(vectored), 7: 384, 8: 0, 9: Int64(POLLIN),
                ])
            #expect(read.buffer!.isFilled(with: 2) && readv.buffer!.isFilled(with: 3))
            #expect(tail.buffer!.isFilled(with: 1, 384))
            while jobsInUse != 0 { sched_yield() }
        }
    }

    @Test(
        "A cold read across the end of the file, in many vectors, is summed up",
        arguments: TestEngine.withDaemon)
    func coldVectors(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let file = Files.regular(300_000, of: 9)
            for count in [3, 100, 1024] {
                // One page is cached, the rest is not: a short first part.
                posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
                var byte: UInt8 = 0
                #expect(pread(file.number, &byte, 1, 0) == 1)
                let length = 400_000 / count
                let read = Iocb.read(file, Buffer(length * count), data: 1)
                    .inVectors(Array(repeating: length, count: count), isWrite: false)
                #expect(context.submit(read) == 1)
                #expect(context.results(1) == [1: 300_000])
                #expect(read.buffer!.isFilled(with: 9, 300_000))
                #expect(read.buffer!.bytes[300_000...].allSatisfy { $0 == 0 })
            }
        }
    }

    @Test("Each event of an eventfd's requests counts one", arguments: TestEngine.withDaemon)
    func eventfds(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext(128)
            let eventfds = [Files.eventfd(), Files.eventfd()]
            let file = Files.regular(65_536)
            let pipes = (0..<20).map { _ in Files.pipe() }
            for _ in 0..<5 {
                posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
                let requests = (0..<40).map { (index: Int) -> Iocb in
                    let data = UInt64(index)
                    let request: Iocb =
                        index % 2 == 0
                        ? Iocb.read(file, Buffer(512), offset: Int64(index * 512), data: data)
                        : Iocb.poll(pipes[index / 2].read, data: data)
                    return request.signalling(eventfds[index / 2 % 2])
                }
                #expect(context.submit(requests) == 40)
                for pipe in pipes { #expect(write(pipe.write.number, "x", 1) == 1) }
                #expect(context.results(40).count == 40)
                // An event is visible before its eventfd counts it.
                var counts: [UInt64] = [0, 0]
                while counts != [20, 20] {
                    for index in 0..<2 { counts[index] += Files.take(eventfds[index]) }
                    if counts[0] > 20 || counts[1] > 20 { break }
                }
                #expect(counts == [20, 20])
                var byte: UInt8 = 0
                for pipe in pipes { #expect(read(pipe.read.number, &byte, 1) == 1) }
            }
            #expect(Files.take(eventfds[0]) == 0 && Files.take(eventfds[1]) == 0)
        }
    }

    // MARK: Slots

    @Test(
        "The ring is full at nr - 1, and has room again as soon as anybody consumes",
        arguments: TestEngine.withDaemon)
    func fullRing(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext(1)
            let room = Int(context.ring.nr) - 1
            let file = Files.regular(4096)
            let request = Iocb.read(file, Buffer(16))
            for round in 0..<5 {
                let accepted = context.submit(Array(repeating: request, count: 1000))
                #expect(accepted == room, "a partial count at the end of the ring")
                #expect(context.submit(request) == failure(EAGAIN))
                #expect(context.reap(0, round + 1).result == round + 1)
                for _ in 0...round { #expect(context.submit(request) == 1) }
                #expect(context.submit(request) == failure(EAGAIN))
                // The program consumes by itself.
                let ring = context.ring
                context.setHead((ring.head + 3) % ring.nr)
                #expect(context.submit([request, request, request, request]) == 3)
                #expect(context.reap(room, 1000).result == room)
            }
            // Requests in flight occupy slots as well.
            let (reader, writer) = Files.pipe()
            let poll = Iocb.poll(reader)
            #expect(context.submit(Array(repeating: poll, count: 100)) == 100)
            #expect(context.submit(Array(repeating: request, count: 1000)) == room - 100)
            #expect(context.submit(request) == failure(EAGAIN))
            #expect(write(writer.number, "x", 1) == 1)
            #expect(context.reap(room, room).result == room)
            #expect(context.submit(request) == 1)
        }
    }

    @Test(
        "A refused request takes no slot, and ends its io_submit",
        arguments: TestEngine.withDaemon)
    func refusals(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext(1)
            let file = Files.regular(4096)
            let good = Iocb.read(file, Buffer(16), data: 1)
            let bad = Iocb.read(file, Buffer(16), data: 2)
            bad.it.aio_fildes = 1 << 20
            for _ in 0..<500 { #expect(context.submit(bad) == failure(EBADF)) }
            #expect(context.submit([good, bad, good]) == 1)
            #expect(context.results(1) == [1: 16])
            bad.it.aio_fildes = file.number
            bad.it.aio_reserved2 = 1
            #expect(context.submit(bad) == failure(EINVAL))
            bad.it.aio_reserved2 = 0
            bad.it.aio_nbytes = 1 << 63
            #expect(context.submit(bad) == failure(EINVAL))
            bad.it.aio_nbytes = 16
            for opcode in [4, 6, 9, 99] as [UInt16] {
                bad.it.aio_lio_opcode = opcode
                #expect(context.submit(bad) == failure(EINVAL))
            }
            bad.it.aio_lio_opcode = UInt16(IOCB_CMD_PREAD)
            bad.it.aio_offset = -1
            for _ in 0..<3 {
                #expect(context.submit(bad) == failure(EINVAL), "with a warm hint as well")
            }
            bad.it.aio_offset = 0
            bad.it.aio_buf = 0xffff_8000_0000_0000
            #expect(context.submit(bad) == failure(EFAULT))
            #expect(LinuxAIO.submit(context.address, 1, 0) == failure(EFAULT))
            #expect(LinuxAIO.submit(context.address, -1, 0) == failure(EINVAL))
            #expect(LinuxAIO.submit(context.address, 0, 0) == 0)
            let record = LinuxFace.current!.find(context.address)!
            #expect(record.it.inFlight == 0)
            LinuxFace.current!.unpin(record)
            let room = Int(context.ring.nr) - 1
            #expect(context.submit(Array(repeating: good, count: 1000)) == room)
        }
    }

    @Test(
        "max_aio_queue_per_proc is -EAGAIN from io_submit, until something completes",
        arguments: TestEngine.withDaemon)
    func queueLimit(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use(("MAX_AIO_QUEUE_PER_PROC", "10"))
            let context = AioContext()
            let (reader, writer) = Files.pipe()
            let polls = (0..<20).map { Iocb.poll(reader, data: UInt64($0)) }
            #expect(context.submit(polls) == 10)
            #expect(context.submit(polls) == failure(EAGAIN))
            let file = Files.regular(4096)
            #expect(context.submit(Iocb.read(file, Buffer(16), data: 100)) == 1, "needs no job")
            #expect(write(writer.number, "x", 1) == 1)
            #expect(context.results(11).count == 11)
            while jobsInUse != 0 { sched_yield() }
            var byte: UInt8 = 0
            #expect(read(reader.number, &byte, 1) == 1)
            #expect(context.submit(polls) == 10)
        }
    }

    // MARK: Many at once

    /// The C program `many` does this through the library with more; here the sanitizers look.
    @Test(
        "Threads with many contexts: every request gives exactly one event",
        arguments: TestEngine.withDaemon)
    func manyContexts(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let file = Files.regular(1 << 20, of: 7)
            posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
            let contextsPerThread = 25
            concurrently(4) { thread in
                let pipe = Files.pipe()
                let contexts = (0..<contextsPerThread).map { _ in AioContext(16) }
                let requests = contexts.indices.map { (index: Int) -> [Iocb] in
                    (0..<16).map { (place: Int) -> Iocb in
                        let data = UInt64(index * 16 + place)
                        if place % 8 == 7 { return Iocb.poll(pipe.read, data: data) }
                        let offset = (thread * 400 + index * 16 + place) * 512 % (1 << 20)
                        return Iocb.read(file, Buffer(512), offset: Int64(offset), data: data)
                    }
                }
                for (context, requests) in zip(contexts, requests) {
                    #expect(context.submit(requests) == 16)
                }
                #expect(write(pipe.write.number, "x", 1) == 1)
                for (index, context) in contexts.enumerated() {
                    let results = context.results(16)
                    for place in 0..<16 {
                        let expected: Int64 = place % 8 == 7 ? Int64(POLLIN) : 512
                        #expect(results[UInt64(index * 16 + place)] == expected)
                    }
                    for request in requests[index] {
                        if let buffer = request.buffer { #expect(buffer.isFilled(with: 7)) }
                    }
                }
            }
            while jobsInUse != 0 { sched_yield() }
        }
    }

    @Test(
        "One context, submitters and a reaper: no event is lost or doubled over many laps",
        arguments: TestEngine.withDaemon)
    func sharedContext(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext(1)
            let file = Files.regular(65_536, of: 7)
            let perThread = 3000
            var counts = Array(repeating: 0, count: 2 * perThread)
            concurrently(3) { thread in
                if thread == 2 {
                    var left = 2 * perThread
                    while left > 0 {
                        let (result, events) = context.reap(1, 7)
                        if result < 1 { break }
                        for event in events { counts[Int(event.data)] += 1 }
                        left -= result
                    }
                    return
                }
                let request = Iocb.read(file, Buffer(64))
                var sent = 0
                while sent < perThread {
                    request.it.aio_data = UInt64(thread * perThread + sent)
                    request.it.aio_offset = Int64(sent % 1000 * 64)
                    switch context.submit(request) {
                    case 1: sent += 1
                    case failure(EAGAIN): sched_yield()
                    default:
                        Issue.record("io_submit failed")
                        return
                    }
                }
            }
            #expect(counts.allSatisfy { $0 == 1 })
            #expect(context.reap(0).result == 0)
        }
    }

    // MARK: Strict mode

    @Test("IOCTX_STRICT=1 answers -EFAULT for every bad pointer, and works otherwise")
    func strict() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use(("STRICT", "1"))
            #expect(LinuxAIO.setup(1, 4096) == failure(EFAULT))
            let context = AioContext()
            let file = Files.regular(4096, of: 5)
            let request = Iocb.read(file, Buffer(16), data: 1)
            #expect(context.submit(request) == 1)
            #expect(LinuxAIO.submit(context.address, 1, 4096) == failure(EFAULT))
            var pointer: UInt = 4096
            let result = withAddress(of: &pointer) {
                LinuxAIO.submit(context.address, 1, UInt(bitPattern: $0))
            }
            #expect(result == failure(EFAULT))
            #expect(LinuxAIO.cancel(context.address, 4096) == failure(EFAULT))
            #expect(
                LinuxAIO.getEvents(context.address, 1, 1, 4096, timeout: 0, sigmask: 0)
                    == failure(EFAULT))
            #expect(
                LinuxAIO.getEvents(context.address, 0, 0, 0, timeout: 4096, sigmask: 0)
                    == failure(EFAULT))
            #expect(context.results(1) == [1: 16])
            #expect(request.buffer!.isFilled(with: 5))
        }
    }

    @Test("Only a set IOCTX_STRICT other than 0 is strict", arguments: ["", "0", "1", "yes"])
    func strictVariable(value: String) async {
        await #expect(processExitsWith: .success) { [value = value as String] in
            unsetenv("IOCTX_STRICT")
            #expect(!UserMemory.fromEnvironment().isStrict)
            setenv("IOCTX_STRICT", value, 1)
            #expect(UserMemory.fromEnvironment().isStrict == (value == "1" || value == "yes"))
        }
    }

    @Test("IOCTX_ENGINE=off answers -ENOSYS from every call") func off() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            setenv("IOCTX_ENGINE", "off", 1)
            let request = Iocb(Int(IOCB_CMD_PREAD), nil)
            for _ in 0..<2 {
                #expect(LinuxAIO.submit(0, 0, 0) == failure(ENOSYS))
                #expect(LinuxAIO.destroy(0) == failure(ENOSYS))
                #expect(LinuxAIO.cancel(0, request.address) == failure(ENOSYS))
                #expect(
                    LinuxAIO.getEvents(0, 0, 0, 0, timeout: 0, sigmask: 0) == failure(ENOSYS))
                #expect(AioContext(1).setupResult == failure(ENOSYS))
            }
        }
    }
}

// The cancel protocol: every accepted request gives exactly one event, whoever wins.

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

/// Waits until a daemon waits for the files of `count` jobs.
private func awaitWaiting(_ count: Int) {
    while true {
        var waiting = 0
        LinuxFace.current!.it.table.forEachJob { if $0.state == .waiting { waiting += 1 } }
        if waiting == count { return }
        sched_yield()
    }
}

@Suite struct CancelTests {
    @Test(
        "A waiting poll ends with 0, a waiting read with -ECANCELED, and each with one event",
        arguments: TestEngine.withDaemon)
    func waiting(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let eventfd = Files.eventfd()
            let (reader, writer) = Files.pipe()
            let poll = Iocb.poll(reader, data: 1).signalling(eventfd)
            let read = Iocb.read(reader, Buffer(16), data: 2).signalling(eventfd)
            #expect(context.submit([poll, read]) == 2)
            awaitWaiting(2)
            #expect(context.cancel(poll) == failure(EINPROGRESS))
            #expect(context.results(1) == [1: 0])
            #expect(context.cancel(poll) == failure(EINVAL), "it is done")
            #expect(context.cancel(read) == failure(EINPROGRESS))
            #expect(context.results(1) == [2: Int64(-ECANCELED)])
            #expect(context.cancel(read) == failure(EINVAL))
            // It is signalled when the event is there already.
            var signalled: UInt64 = 0
            while signalled < 2 { signalled += Files.take(eventfd) }
            #expect(signalled == 2)
            #expect(write(writer.number, "x", 1) == 1)
            #expect(context.reap(0).result == 0, "nothing is left of either")
            while jobsInUse != 0 { sched_yield() }
        }
    }

    /// The request is held back before its hand-over, where it is certainly queued.
    @Test("A queued request is taken back and never runs", arguments: TestEngine.withDaemon)
    func queued(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let face = LinuxFace.current!
            let record = face.find(context.address)!
            let (reader, writer) = Files.pipe()
            let iocb = Iocb.read(reader, Buffer(16), data: 9)
            var vector = Vector(
                base: UInt(bitPattern: iocb.buffer!.bytes.baseAddress), length: 16)
            var batch = Batch()
            var request = Request(operation: .read, descriptor: reader.number)
            request.vectorCount = 1
            request.length = 16
            let outcome = withAddress(of: &vector) {
                request.vectors = UInt(bitPattern: $0)
                return face.it.engine.start(&request, &batch)
            }
            guard case .deferred(let job) = outcome else {
                Issue.record("not deferred")
                return
            }
            #expect(record.reserve(1) == 1)
            job.it.owner = record.address
            job.it.userObject = UInt64(iocb.address)
            job.it.userData = 9
            record.enqueue(job, in: face.it.table, isForKernel: false)
            #expect(context.cancel(iocb) == failure(EINPROGRESS))
            #expect(job.state == .cancelled)
            #expect(context.cancel(iocb) == failure(EINVAL), "it is cancelled already")
            #expect(write(writer.number, "hello", 5) == 5)
            face.it.engine.handOver(&batch)
            #expect(context.results(1) == [9: Int64(-ECANCELED)])
            var bytes = [UInt8](repeating: 0, count: 16)
            #expect(read(reader.number, &bytes, 16) == 5, "the read never ran")
            face.unpin(record)
        }
    }

    @Test(
        "Of two requests with one iocb the older is cancelled first",
        arguments: TestEngine.withDaemon)
    func oldestFirst(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let (reader, writer) = Files.pipe()
            let poll = Iocb.poll(reader, data: 1)
            #expect(context.submit(poll) == 1)
            poll.it.aio_data = 2
            #expect(context.submit(poll) == 1)
            awaitWaiting(2)
            #expect(context.cancel(poll) == failure(EINPROGRESS))
            #expect(context.results(1) == [1: 0])
            #expect(write(writer.number, "x", 1) == 1)
            #expect(context.results(1) == [2: Int64(POLLIN)])
        }
    }

    @Test(
        "What is done, unknown, another context's or has a key cannot be cancelled",
        arguments: TestEngine.withDaemon)
    func refused(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let other = AioContext()
            let pipe = Files.pipe()
            let poll = Iocb.poll(pipe.read)
            #expect(context.cancel(poll) == failure(EINVAL), "never submitted")
            #expect(LinuxAIO.cancel(0, 0) == failure(EFAULT), "the iocb comes first")
            #expect(LinuxAIO.cancel(context.address, .max - 63) == failure(EFAULT))
            #expect(context.submit(poll) == 1)
            awaitWaiting(1)
            #expect(other.cancel(poll) == failure(EINVAL))
            poll.it.aio_key = 1
            #expect(context.cancel(poll) == failure(EINVAL))
            poll.it.aio_key = 0
            #expect(context.cancel(poll) == failure(EINPROGRESS))
            #expect(context.results(1) == [0: 0])
            let file = Files.regular(4096)
            let read = Iocb.read(file, Buffer(16))
            #expect(context.submit(read) == 1)
            #expect(context.cancel(read) == failure(EINVAL), "finished in io_submit")
            #expect(context.results(1) == [0: 16])
        }
    }

    /// The kernel: a poll that is not ready is cancellable from the moment io_submit returns.
    @Test("A poll can be cancelled at once after its io_submit", arguments: TestEngine.withDaemon)
    func atOnce(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let pipe = Files.pipe()
            let poll = Iocb.poll(pipe.read)
            for round in 0..<2000 {
                #expect(context.submit(poll) == 1)
                let result = context.cancel(poll)
                #expect(result == failure(EINPROGRESS), "round \(round)")
                if result != failure(EINPROGRESS) { break }
                #expect(context.result() == 0)
            }
        }
    }

    /// Fails when a request gives no event or two, or a job is left over.
    @Test(
        "Cancellation against completion: one event each, with the winner's result",
        arguments: TestEngine.withDaemon)
    func race(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let context = AioContext()
            let pairs = (0..<4).map { _ in Files.pipe() }
            var buffer = [UInt8](repeating: 0, count: 64)
            for round in 0..<250 {
                let requests = pairs.enumerated().map { place, pair in
                    place % 2 == 0
                        ? Iocb.poll(pair.read, data: UInt64(place))
                        : Iocb.read(pair.read, Buffer(1), data: UInt64(place))
                }
                #expect(context.submit(requests) == 4)
                if round % 2 == 0 { awaitWaiting(4) }
                var cancelled = Array(repeating: 0, count: 4)
                concurrently(2) { thread in
                    for place in 0..<4 {
                        if thread == 0 {
                            _ = write(pairs[place].write.number, "x", 1)
                        } else {
                            cancelled[place] = context.cancel(requests[place])
                        }
                    }
                }
                let results = context.results(4)
                for place in 0..<4 {
                    let result = results[UInt64(place)] ?? -1
                    let done: Int64 = place % 2 == 0 ? Int64(POLLIN) : 1
                    let undone: Int64 = place % 2 == 0 ? 0 : Int64(-ECANCELED)
                    #expect(result == done || result == undone, "round \(round), \(place)")
                    if cancelled[place] == failure(EINVAL) { #expect(result == done) }
                    // What is still in the pipe is what no read has taken.
                    let left = place % 2 == 0 || result == undone ? 1 : 0
                    if left == 1 { #expect(read(pairs[place].read.number, &buffer, 64) == 1) }
                }
            }
            while jobsInUse != 0 { sched_yield() }
        }
    }

    @Test(
        "io_destroy ends what waits, and nothing of it is left", arguments: TestEngine.withDaemon)
    func destroyEndsWaiting(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            for round in 0..<30 {
                let context = AioContext()
                let survivor = AioContext()
                let (reader, writer) = Files.pipe()
                let requests = (0..<6).map {
                    $0 % 2 == 0 ? Iocb.poll(reader) : Iocb.read(reader, Buffer(16))
                }
                let kept = Iocb.poll(reader, data: 5)
                #expect(context.submit(requests) == 6)
                #expect(survivor.submit(kept) == 1)
                // Of the reads only the first waits for the pipe; the others wait for it.
                if round % 2 == 0 { awaitWaiting(5) }
                #expect(context.destroy() == 0)
                #expect(write(writer.number, "x", 1) == 1)
                #expect(survivor.results(1) == [5: Int64(POLLIN)], "another context's is not")
            }
            while jobsInUse != 0 { sched_yield() }
        }
    }
}

// The choice of engine, and requests that go to a daemon, on each engine.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import Paths

@Suite struct EngineChoiceTests {
    @Test(
        "IOCTX_ENGINE names the engine",
        arguments: zip(
            ["auto", "", "uring", "native", "threads", "off"],
            [Engine.automatic, .automatic, .uring, .automatic, .threads, .off].map(\.rawValue)))
    func known(value: String, engine: UInt8) async {
        await #expect(processExitsWith: .success) {
            [value = value as String, engine = engine as UInt8] in
            unsetenv("IOCTX_ENGINE")
            #expect(Engine.fromEnvironment() == .automatic && !Engine.isOffInEnvironment())
            setenv("IOCTX_ENGINE", value, 1)
            #expect(Engine.fromEnvironment().rawValue == engine)
            #expect(Engine.isOffInEnvironment() == (value == "off"))
        }
    }

    @Test(
        "An unknown engine is read as auto, and nothing is written where stderr may be a file",
        arguments: ["urin", "uringg", "OFF", "off ", "posix"])
    func unknown(value: String) async {
        let result = await #expect(
            processExitsWith: .success, observing: [\.standardErrorContent]
        ) { [value = value as String] in
            setenv("IOCTX_ENGINE", value, 1)
            #expect(Engine.fromEnvironment() == .automatic)
            #expect(!Engine.isOffInEnvironment())
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(!text.contains("IOCTX_ENGINE"))
    }

    @Test(
        "An errno is an obstacle of a kind",
        arguments: [
            ObstacleExample(0, .none), .init(7, .none),
            .init(-EPERM, .notPermitted), .init(-EACCES, .notPermitted),
            .init(-ENOSYS, .notImplemented), .init(-EINVAL, .kernelTooOld),
            .init(-EOPNOTSUPP, .kernelTooOld), .init(-EMFILE, .descriptorLimit),
            .init(-ENFILE, .descriptorLimit), .init(-ENOMEM, .noMemory), .init(-EIO, .other),
        ])
    func obstacles(example: ObstacleExample) {
        #expect(Obstacle(Int(example.result)) == example.obstacle)
    }

    struct ObstacleExample: Sendable {
        var result: Int32
        var obstacle: Obstacle

        init(_ result: Int32, _ obstacle: Obstacle) {
            self.result = result
            self.obstacle = obstacle
        }
    }

    @Test("The survey's choice is the first engine without an obstacle") func survey() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let survey = Engine.survey()
            #expect((survey.uringErrno == 0) == (survey.uring == .none))
            #expect((survey.threadsErrno == 0) == (survey.threads == .none))
            let expected: Engine =
                survey.uring == .none ? .uring : survey.threads == .none ? .threads : .inline
            #expect(survey.chosen == expected)
        }
    }

    @Test("What is tried in a child reports its result, or that the child was killed")
    func probeChild() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            #expect(SandboxProbe.runInChild { 42 } == 42)
            #expect(SandboxProbe.runInChild { failure(EPERM) } == failure(EPERM))
            let killed = SandboxProbe.runInChild {
                kill(getpid(), SIGKILL)
                return 0
            }
            #expect(killed == SandboxProbe.killed)
        }
    }
}

/// Every case starts a process of its own, because a daemon may outlive its request.
@Suite struct DaemonTests {
    @Test(
        "A read of an empty pipe waits for a writer, and a closed number does not matter",
        arguments: TestEngine.withDaemon)
    func pipe(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let buffer = Buffer(16)
            let (reader, writer) = Files.pipe()
            let started = engine.run(buffer.request(.read, reader.number), to: outbox, at: 0)
            #expect(started.isDeferred)
            // The number is a stranger's now, with bytes of its own to read.
            let stranger = Files.pipe()
            #expect(write(stranger.write.number, "stranger", 8) == 8)
            reader.reuse(for: stranger.read)
            #expect(write(writer.number, "hello", 5) == 5)
            outbox.await(1)
            #expect(outbox.result(at: 0) == 5)
            #expect(buffer.bytes[0] == UInt8(ascii: "h"))
        }
    }

    /// FreeBSD's aio on sockets has had this wrong: a blocking write is not short.
    @Test("A write larger than the pipe is completed whole", arguments: TestEngine.withDaemon)
    func largeWrite(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let count = 300_000
            let buffer = Buffer(count, filledWith: 6)
            let (reader, writer) = Files.pipe()
            let started = engine.run(buffer.request(.write, writer.number), to: outbox, at: 0)
            #expect(started.isDeferred)
            var received = 0
            let target = Buffer(10_000)
            while received < count {
                let got = read(reader.number, target.bytes.baseAddress!, 10_000)
                if got <= 0 { break }
                #expect(target.isFilled(with: 6, got))
                received += got
            }
            outbox.await(1)
            #expect(outbox.result(at: 0) == Int64(count))
        }
    }

    @Test(
        "A poll completes with what is ready; a cancelled one with 0, a cancelled read with -ECANCELED",
        arguments: TestEngine.withDaemon)
    func pollAndCancel(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let table = engine.it.table
            let outbox = Outbox.make()
            let buffer = Buffer(16)
            let pipes = (0..<3).map { _ in Files.pipe() }
            var poll = Request(operation: .poll, descriptor: pipes[0].read.number)
            poll.pollEvents = UInt32(POLLIN)
            let first = engine.run(poll, to: outbox, at: 0)
            poll.descriptor = pipes[1].read.number
            let second = engine.run(poll, to: outbox, at: 1)
            let third = engine.run(
                buffer.request(.read, pipes[2].read.number), to: outbox, at: 2)
            for case .deferred(let name) in [second, third] {
                let job = table.job(named: name)!
                while job.state != .waiting { sched_yield() }
                job.it.cancelRequested.store(true, ordering: .releasing)
            }
            engine.announceCancellations()
            outbox.await(2)
            #expect(first.isDeferred && outbox.count == 2, "the first still waits")
            #expect(outbox.result(at: 1) == 0)
            #expect(outbox.result(at: 2) == Int64(-ECANCELED))
            #expect(write(pipes[0].write.number, "x", 1) == 1)
            outbox.await(3)
            #expect(outbox.result(at: 0) == Int64(POLLIN))
        }
    }

    @Test("A job taken back while it is queued never runs", arguments: TestEngine.withDaemon)
    func takenBack(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let buffer = Buffer(16)
            let (reader, writer) = Files.pipe()
            var request = buffer.request(.read, reader.number)
            var batch = Batch()
            guard case .deferred(let job) = engine.start(&request, &batch) else {
                Issue.record("not deferred")
                return
            }
            job.it.owner = outbox.address
            job.it.userData = 0
            #expect(job.state == .queued)
            #expect(job.transition(from: .queued, to: .cancelled))
            #expect(write(writer.number, "hello", 5) == 5)
            engine.handOver(&batch)
            outbox.await(1)
            #expect(outbox.result(at: 0) == Int64(-ECANCELED))
            #expect(read(reader.number, buffer.bytes.baseAddress!, 16) == 5, "nothing was taken")
        }
    }

    @Test(
        "Cold reads and fsync give what the file has",
        arguments: TestEngine.withDaemon)
    func regularFile(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let file = Files.regular(1 << 20, of: 0x21)
            posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
            var deferred: UInt32 = 0
            let buffers = (0..<64).map { _ in Buffer(4096) }
            for (place, buffer) in buffers.enumerated() {
                // Far apart, so that reading ahead does not make them all warm.
                let offset = Int64(place * 37 % 64 * 16_384)
                let started = engine.run(
                    buffer.request(.read, file.number, offset: offset), to: outbox, at: place)
                if started.isDeferred {
                    deferred += 1
                } else {
                    #expect(started == .completed(4096))
                }
            }
            var sync = Request(operation: .fsync, descriptor: file.number)
            if Files.canBeCold { #expect(deferred > 0) }
            let fsync = engine.run(sync, to: outbox, at: 100)
            sync.operation = .fdatasync
            let fdatasync = engine.run(sync, to: outbox, at: 101)
            #expect(fsync.isDeferred && fdatasync.isDeferred)
            outbox.await(deferred + 2)
            #expect(buffers.allSatisfy { $0.isFilled(with: 0x21, 4096) })
            #expect(outbox.result(at: 100) == 0 && outbox.result(at: 101) == 0)
        }
    }

    @Test(
        "Direct I/O gives what the file has",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"),
        arguments: TestEngine.withDaemon)
    func directFile(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let direct = Files.regular(8192, of: 1, flags: O_RDWR | Files.directFlag)
            let source = Buffer(4096, filledWith: 2)
            #expect(
                engine.run(source.request(.write, direct.number, offset: 4096), to: outbox, at: 200)
                    .isDeferred)
            outbox.await(1)
            #expect(outbox.result(at: 200) == 4096)
            let target = Buffer(8192)
            #expect(
                engine.run(target.request(.read, direct.number), to: outbox, at: 201).isDeferred)
            outbox.await(2)
            #expect(outbox.result(at: 201) == 8192)
            #expect(target.isFilled(with: 1, 4096) && target.bytes[4096...].allSatisfy { $0 == 2 })
        }
    }

    /// Fails when a batch's jobs are mixed up, lost, or one of them runs twice.
    @Test(
        "Hundreds of waiting jobs on hundreds of pipes: each gets its own bytes, once",
        arguments: TestEngine.withDaemon)
    func manyPipes(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            let count = 200
            let pipes = (0..<count).map { _ in Files.pipe() }
            let buffers = (0..<count).map { _ in Buffer(16) }
            var batch = Batch()
            for place in 0..<count {
                var request = buffers[place].request(.read, pipes[place].read.number)
                guard case .deferred(let job) = engine.start(&request, &batch) else {
                    Issue.record("pipe \(place) was not deferred")
                    continue
                }
                job.it.owner = outbox.address
                job.it.userData = UInt64(place)
            }
            engine.handOver(&batch)
            for place in (0..<count).reversed() {
                var bytes = [UInt8](repeating: UInt8(place), count: 1 + place % 16)
                _ = write(pipes[place].write.number, &bytes, bytes.count)
            }
            outbox.await(UInt32(count))
            for place in 0..<count {
                #expect(outbox.result(at: place) == Int64(1 + place % 16), "pipe \(place)")
                #expect(buffers[place].isFilled(with: UInt8(place), 1 + place % 16))
            }
            let inUse = engine.it.table.it.jobsInUse
            #expect(inUse == 0)
        }
    }

    @Test(
        "A write that waits for its pipe ends when nobody reads that any more",
        arguments: TestEngine.withDaemon)
    func brokenPipe(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            signal(SIGPIPE, SIG_IGN)
            let engine = makeEngine(engine.choice)
            let outbox = Outbox.make()
            var pipe = Optional(Files.pipe())
            let writer = pipe!.write
            let buffer = Buffer(300_000)
            #expect(engine.run(buffer.request(.write, writer.number), to: outbox, at: 0).isDeferred)
            pipe = nil
            outbox.await(1)
            // The kernel reports what went through before, if anything did.
            let result = outbox.result(at: 0) ?? 0
            #expect(result == Int64(-EPIPE) || result > 0 && result < 300_000)
        }
    }

    @Test(
        "An fsync goes to a pool where the first station is on io_uring, unless that was asked for",
        arguments: [Engine.automatic, .uring, .threads, .inline].filter {
            $0 != .uring || TestEngine.withDaemon.contains(.uring)
        }.map(\.rawValue))
    func stationForSync(choice: UInt8) async {
        await #expect(processExitsWith: .success) { [choice = choice as UInt8] in
            boundedInTime()
            let choice = Engine(rawValue: choice)!
            let engine = makeEngine(choice)
            // No station yet: the first is started all the same.
            let first = engine.acquireStationForBlocking()
            let main = engine.it.station.current
            #expect((first == nil) == (choice == .inline) && (main == nil) == (choice == .inline))
            guard let first, let main else { return }
            #expect(first.it.kind == (choice == .uring ? .uring : .pool))
            #expect((first == main) == (choice != .automatic || main.it.kind == .pool))
            let second = engine.acquireStationForBlocking()
            #expect(second == first && engine.it.station.current == main)
            // Both calls retained that station and no other.
            #expect(first.it.users.load(ordering: .acquiring) == 2)
            if first != main { #expect(main.it.users.load(ordering: .acquiring) == 0) }
        }
    }

    /// A submitter that could not hand its jobs over does them itself, and may have the last of a
    /// file.
    @Test("A number of the pool's table is not closed in the program's")
    func privateNumber() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let engine = makeEngine(.threads)
            guard let station = engine.acquireStationForBlocking() else {
                Issue.record("no pool could be started")
                return
            }
            let number: Int32 = 900
            let file = Files.regular(1)
            #expect(dup2(file.number, number) == number)
            guard
                case .new(let index) = station.it.files.claim(
                    device: 1, inode: 1, flags: 0, number: number)
            else {
                Issue.record("no place for a file")
                return
            }
            station.it.files.announce(index)
            station.it.files.arrive(index, number: number)
            station.dropHeld(index)
            #expect(fcntl(number, F_GETFD) >= 0)
            // The manager may have been at it already.
            station.kick()
            while station.it.files.takeAbandoned() != nil { usleep(1000) }
        }
    }

    /// The thread that starts it is kept in a signal handler for longer than the daemon stays.
    @Test(
        "A station whose daemon leaves at once does not stay in its place",
        arguments: TestEngine.withDaemon)
    func shortLife(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            setenv("IOCTX_AIOD_LIFETIME", "1", 1)
            signal(SIGUSR1) { _ in usleep(4000) }
            let engine = makeEngine(engine.choice)
            let starter = Atomic<UInt>(0)
            let starts = Atomic<Int>(0)
            let signals = Atomic<Int>(0)
            concurrently(2) { index in
                if index == 0 {
                    // Who runs the tests may have blocked it.
                    var mask = sigset_t()
                    sigaddset(&mask, SIGUSR1)
                    pthread_sigmask(SIG_UNBLOCK, &mask, nil)
                    starter.store(UInt(pthread_self()), ordering: .releasing)
                    for start in 1...100 {
                        while engine.it.station.current != nil { usleep(100) }
                        starts.store(start, ordering: .releasing)
                        engine.warmUp()
                        while signals.load(ordering: .acquiring) < start { usleep(100) }
                    }
                } else {
                    for start in 1...100 {
                        while starts.load(ordering: .acquiring) < start { usleep(10) }
                        // From the start's beginning to a little beyond its end.
                        usleep(UInt32(start) * 5)
                        pthread_kill(pthread_t(starter.load(ordering: .acquiring)), SIGUSR1)
                        signals.store(start, ordering: .releasing)
                    }
                }
            }
        }
    }

    /// A program that closes what it does not know: the daemon finishes what it has, and another
    /// takes its place.
    @Test(
        "A station whose descriptor is lost finishes its jobs, also those cancelled later",
        arguments: TestEngine.withDaemon)
    func lostStation(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            boundedInTime()
            let kind = engine
            let engine = makeEngine(kind.choice)
            let outbox = Outbox.make()
            let buffers = (0..<3).map { _ in Buffer(16) }
            let pipes = (0..<3).map { _ in Files.pipe() }
            var names: [UInt64] = []
            for place in 0..<2 {
                let request = buffers[place].request(.read, pipes[place].read.number)
                if case .deferred(let name) = engine.run(request, to: outbox, at: place) {
                    names.append(name)
                    while engine.it.table.job(named: name)?.state != .waiting { sched_yield() }
                }
            }
            let first = engine.it.station.current!
            close(kind == .uring ? first.it.uring.parking.descriptor : first.it.pool.sender)
            engine.warmUp()
            let second = engine.it.station.current
            #expect(second != nil && second != first)
            guard let job = engine.it.table.job(named: names[0]) else {
                Issue.record("the job is gone")
                return
            }
            job.it.cancelRequested.store(true, ordering: .releasing)
            engine.announceCancellations()
            outbox.await(1)
            #expect(outbox.result(at: 0) == Int64(-ECANCELED))
            #expect(write(pipes[1].write.number, "hello", 5) == 5)
            outbox.await(2)
            #expect(outbox.result(at: 1) == 5)
            let request = buffers[2].request(.read, pipes[2].read.number)
            #expect(engine.run(request, to: outbox, at: 2).isDeferred)
            #expect(write(pipes[2].write.number, "again", 5) == 5)
            outbox.await(3)
            #expect(outbox.result(at: 2) == 5)
        }
    }
}

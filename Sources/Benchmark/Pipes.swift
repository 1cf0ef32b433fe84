// Cases on many pipes.

import CBenchmark
import CLibAIO
import Glibc
import TestBed

/// Pipes, and a request for each.
private final class Pipes {
    let readers: [Int32]
    let writers: [Int32]
    let slots: UnsafeMutablePointer<benchmark_slot>
    let list: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
    let events: UnsafeMutablePointer<io_event>
    /// Where every read puts its byte.
    let byte = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)

    static let count = 1000

    init() throws {
        var limit = rlimit(rlim_cur: 4096, rlim_max: 4096)
        var now = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &now)
        limit.rlim_max = now.rlim_max
        if now.rlim_cur < limit.rlim_cur {
            guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
                throw Skip("needs 'ulimit -n 4096'")
            }
        }
        var readers: [Int32] = []
        var writers: [Int32] = []
        for _ in 0..<Self.count {
            var ends: [Int32] = [0, 0]
            try Trouble.check("pipe", pipe(&ends))
            readers.append(ends[0])
            writers.append(ends[1])
        }
        self.readers = readers
        self.writers = writers
        slots = .allocate(capacity: Self.count)
        slots.initialize(repeating: benchmark_slot(), count: Self.count)
        list = .allocate(capacity: Self.count)
        events = .allocate(capacity: Self.count)
        for index in 0..<Self.count {
            slots[index].iocb.aio_fildes = readers[index]
            slots[index].iocb.aio_data = UInt64(index)
        }
    }

    func makePolls() {
        for index in 0..<Self.count {
            slots[index].iocb.aio_lio_opcode = UInt16(IOCB_CMD_POLL)
            slots[index].iocb.aio_buf = UInt64(POLLIN)
        }
    }

    func makeReads() {
        for index in 0..<Self.count {
            slots[index].iocb.aio_lio_opcode = UInt16(IOCB_CMD_PREAD)
            slots[index].iocb.aio_buf = UInt64(UInt(bitPattern: byte))
            slots[index].iocb.aio_nbytes = 1
        }
    }

    /// Submits the requests of these pipes with one call, or as many as it takes.
    func submit(_ range: some Sequence<Int>, _ context: UInt, _ calls: Calls) throws {
        var count = 0
        for index in range {
            list[count] = UnsafeMutableRawPointer(slots + index).assumingMemoryBound(to: iocb.self)
            count += 1
        }
        var done = 0
        while done < count {
            let result = calls.submit(context, count - done, list + done)
            if result <= 0 { throw Trouble("io_submit: \(Trouble.words(result))") }
            done += Int(result)
        }
    }

    func reap(_ least: Int, _ context: UInt, _ calls: Calls) throws -> Int {
        let result = calls.getevents(context, least, Self.count, events, nil)
        if result < 0 { throw Trouble("io_getevents: \(Trouble.words(result))") }
        return Int(result)
    }

    func feed(_ index: Int, bytes: Int = 1) throws {
        let buffer = [UInt8](repeating: 1, count: bytes)
        guard write(writers[index], buffer, bytes) == bytes else {
            throw Trouble("feeding a pipe: \(Trouble.words(errno))")
        }
    }
}

enum PipeCases {
    /// Requests that become ready together.
    private static let group = 8

    /// An event loop: some of many pipes become readable, are read, and polled again.
    static func poll(_ setting: Setting) throws -> Measurement {
        let pipes = try Pipes()
        let calls = try setting.calls
        let context = try calls.context(Pipes.count)
        pipes.makePolls()
        try pipes.submit(0..<Pipes.count, context, calls)
        var start = 0
        let turn = {
            let members = (0..<group).map { (start + $0 * 7) % Pipes.count }
            start = (start + 1) % Pipes.count
            for index in members { try pipes.feed(index) }
            var got = 0
            while got < group {
                let count = try pipes.reap(group - got, context, calls)
                for event in 0..<count {
                    let index = Int(pipes.events[event].data)
                    guard read(pipes.readers[index], pipes.byte, 1) == 1 else {
                        throw Trouble("a polled pipe is empty")
                    }
                }
                got += count
            }
            try pipes.submit(members, context, calls)
        }
        return try setting.repeated(operations: group, turn)
    }

    /// Every pipe is empty when the reads are submitted, and fed later.
    static func readThenFeed(_ setting: Setting) throws -> Measurement {
        let pipes = try Pipes()
        let calls = try setting.calls
        let context = try calls.context(Pipes.count)
        pipes.makeReads()
        // Whoever blocks in io_submit, blocks for ever.
        let submitter = Worker { try? pipes.submit(0..<Pipes.count, context, calls) }
        guard submitter.join(seconds: 1) else {
            var result = Measurement()
            result.answer = "blocks"
            while ChildTask.awaitTurn() {}
            return result
        }
        var isFirst = true
        return try setting.repeated(operations: Pipes.count) {
            if !isFirst { try pipes.submit(0..<Pipes.count, context, calls) }
            isFirst = false
            for index in 0..<Pipes.count { try pipes.feed(index) }
            var got = 0
            while got < Pipes.count {
                got += try pipes.reap(1, context, calls)
            }
        }
    }

    private static let readsOfEach = 1000
    /// The layer shares a held file once half of its places are taken.
    private static let filesOfEachMax = 3
    /// An epoll set has a socket and an eventfd of the layer's own.
    private static let ownPolls = 2

    /// What the daemon holds goes by the pipes, not by the requests: one poll for each, and few
    /// files.
    private static func checkHeld() throws {
        var held = DaemonView()
        for _ in 0..<100 where held.polls < Pipes.count {
            usleep(50_000)
            held = DaemonView()
        }
        guard (Pipes.count...Pipes.count + ownPolls).contains(held.polls),
            held.files <= filesOfEachMax * Pipes.count
        else {
            throw Trouble(
                "\(held.polls) polls and \(held.files) files are held for \(Pipes.count) pipes")
        }
    }

    /// A million reads wait; then every one gets its byte.
    static func million(_ setting: Setting) throws -> Measurement {
        let pipes = try Pipes()
        let calls = try setting.calls
        let count = readsOfEach * Pipes.count
        _ = ChildTask.awaitTurn()
        let before = try Memory.bytes()
        let context = try calls.context(count)
        pipes.makeReads()
        let start = benchmark_now_ns()
        for _ in 0..<readsOfEach { try pipes.submit(0..<Pipes.count, context, calls) }
        let used = try Memory.bytes() - before
        try checkHeld()
        for index in 0..<Pipes.count { try pipes.feed(index, bytes: readsOfEach) }
        var got = 0
        while got < count {
            got += try pipes.reap(1, context, calls)
        }
        var result = Measurement()
        result.operations = count
        result.seconds = Double(benchmark_now_ns() - start) * 1e-9
        _ = ChildTask.awaitTurn()
        result.itemBytes = Double(used) / Double(count)
        return result
    }
}

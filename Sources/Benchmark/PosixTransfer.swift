// Cases that keep a number of requests of POSIX AIO in flight, in whatever way programs do.

import CBenchmark
import CTestBed
import Glibc
import TestBed

struct PosixTransfer: Sendable {
    /// How a client learns that its requests are done.
    enum Waiting: Sendable {
        /// aio_suspend for all that are under way.
        case suspend
        /// All of them are one lio_listio, which waits.
        case list
        /// A queued signal for each.
        case signal
        /// A function is called for each, which writes to an eventfd.
        case function
    }

    /// Where and how. Its depth is that of each file.
    let transfer: Transfer
    var waiting = Waiting.suspend
    var files = 1

    func measure(_ setting: Setting) throws -> Measurement {
        let files = try (0..<files).map { try setting.open(transfer, number: $0) }
        let client = try PosixClient(self, try setting.posixCalls, files, seed: setting.seed)
        var result = try setting.measured(timed: transfer.isSlow) { seconds, isTimed in
            let start = benchmark_now_ns()
            let operations = try client.run(
                until: start + UInt64(seconds * 1e9), isTimed: isTimed)
            if operations == 0 {
                throw Trouble("the test file is too small: give a larger --size")
            }
            return Work(
                operations: operations, seconds: Double(benchmark_now_ns() - start) * 1e-9)
        }
        result.submit.add(client.submitTimes)
        result.completion.add(client.completionTimes)
        if transfer.operation != .read { for file in files { fsync(file.descriptor) } }
        return result
    }
}

/// The program that makes the requests, in one thread.
private final class PosixClient {
    private(set) var submitTimes = Samples()
    private(set) var completionTimes = Samples()

    private let shape: PosixTransfer
    private let calls: PosixCalls
    private let count: Int
    private let offsets: UnsafeMutablePointer<Offsets>
    private let blocks: UnsafeMutablePointer<testbed_aiocb>
    /// The addresses of the blocks that are under way, 0 for the others.
    private let pending: UnsafeMutablePointer<UInt>
    private let starts: UnsafeMutablePointer<UInt64>
    private var pendingCount = 0
    /// Notifications that have not come yet.
    private var expected = 0
    private var signals = sigset_t()
    private var bell: Int32 = -1
    private var isExhausted = false

    init(_ shape: PosixTransfer, _ calls: PosixCalls, _ files: [OpenFile], seed: UInt64) throws {
        self.shape = shape
        self.calls = calls
        let transfer = shape.transfer
        count = transfer.depth * files.count
        offsets = .allocate(capacity: files.count)
        for (number, file) in files.enumerated() {
            let own = Offsets(
                transfer.order, blockBytes: transfer.blockBytes, fileBytes: file.bytes,
                seed: seed &+ UInt64(number), share: 0, shares: 1)
            (offsets + number).initialize(to: own)
        }
        blocks = .allocate(capacity: count)
        memset(blocks, 0, count * MemoryLayout<testbed_aiocb>.stride)
        pending = .allocate(capacity: count)
        pending.initialize(repeating: 0, count: count)
        starts = .allocate(capacity: count)
        starts.initialize(repeating: 0, count: count)
        if shape.waiting == .function { bell = try Trouble.check("eventfd", eventfd(0, 0)) }
        if shape.waiting == .signal {
            sigemptyset(&signals)
            sigaddset(&signals, Self.signal)
            sigprocmask(SIG_BLOCK, &signals, nil)
        }
        let bytes = count * transfer.blockBytes
        // Touched now: a page that comes with the first read would be counted as its time.
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
        memset(memory, 0x5a, bytes)
        for index in 0..<count {
            blocks[index].aio_fildes = files[index / transfer.depth].descriptor
            blocks[index].aio_lio_opcode = transfer.operation == .read ? 0 : 1
            blocks[index].aio_buf = memory + index * transfer.blockBytes
            blocks[index].aio_nbytes = transfer.blockBytes
            askForNotification(&blocks[index])
        }
    }

    /// Of several others only one would be kept while they are pending.
    private static let signal = __libc_current_sigrtmin()
    private static let sigevSignal: Int32 = 0
    private static let sigevNone: Int32 = 1

    private func askForNotification(_ block: inout testbed_aiocb) {
        switch shape.waiting {
        case .suspend, .list:
            testbed_notify(&block.aio_sigevent, Self.sigevNone, 0, 0)
        case .signal:
            testbed_notify(&block.aio_sigevent, Self.sigevSignal, Self.signal, 0)
        case .function:
            let ring: @convention(c) (Int32) -> Void = { bell in eventfd_write(bell, 1) }
            testbed_notify_thread(&block.aio_sigevent, ring, bell, 0)
        }
    }

    /// What the client does until the time is over and its last request is done; the number of
    /// its requests.
    func run(until deadline: UInt64, isTimed: Bool) throws -> Int {
        // To read the clock costs a twentieth of a cached read.
        let stepsPerLook = shape.transfer.isSlow ? 1 : max(32 / count, 1)
        var operations = 0
        isExhausted = false
        try fill(isTimed)
        while benchmark_now_ns() < deadline && !isExhausted {
            for _ in 0..<stepsPerLook where !isExhausted {
                operations += try reap(isTimed)
                try fill(isTimed)
            }
        }
        while pendingCount > 0 { operations += try reap(isTimed) }
        while expected > 0 { try awaitOne() }
        return operations
    }

    /// Starts a request with each block that is free, in the order of the blocks.
    @inline(__always)
    private func fill(_ isTimed: Bool) throws {
        for index in 0..<count where pending[index] == 0 && !isExhausted {
            try start(index, isTimed)
        }
    }

    @inline(__always)
    private func start(_ index: Int, _ isTimed: Bool) throws {
        guard let offset = offsets[index / shape.transfer.depth].next() else {
            isExhausted = true
            return
        }
        let address = UInt(bitPattern: blocks + index)
        blocks[index].aio_offset = Int(offset)
        let start = isTimed ? benchmark_now_ns() : 0
        starts[index] = start
        pending[index] = address
        pendingCount += 1
        if shape.waiting == .list { return }
        let result =
            isSync(index)
            ? calls.fsync(O_DSYNC, address)
            : shape.transfer.operation == .read ? calls.read(address) : calls.write(address)
        guard result == 0 else { throw Trouble("making a request: \(Trouble.words(errno))") }
        if isTimed { submitTimes.add(benchmark_now_ns() &- start) }
        if shape.waiting != .suspend { expected += 1 }
    }

    /// Whether it is the last of a batch that ends with an fsync.
    private func isSync(_ index: Int) -> Bool {
        shape.transfer.operation == .writeAndSync && index == count - 1
    }

    /// Waits until one is done, or a whole batch, and takes the outcomes of all that are; how many.
    @inline(__always)
    private func reap(_ isTimed: Bool) throws -> Int {
        var reaped = 0
        repeat {
            try awaitOne()
            reaped += try collect(isTimed)
        } while reaped == 0 || shape.transfer.reapsBatches && pendingCount > 0
        return reaped
    }

    @inline(__always)
    private func awaitOne() throws {
        let list = UInt(bitPattern: pending)
        switch shape.waiting {
        case .suspend:
            try Trouble.check("aio_suspend", calls.suspend(list, Int32(count), 0))
        case .list:
            try Trouble.check(
                "lio_listio", calls.list(PosixCalls.wait, list, Int32(count), 0))
        case .signal:
            var number: Int32 = 0
            sigwait(&signals, &number)
            expected -= 1
        case .function:
            var calls: UInt64 = 0
            eventfd_read(bell, &calls)
            expected -= Int(calls)
        }
    }

    @inline(__always)
    private func collect(_ isTimed: Bool) throws -> Int {
        let now = isTimed ? benchmark_now_ns() : 0
        var collected = 0
        for index in 0..<count where pending[index] != 0 {
            let error = calls.error(pending[index])
            if error == EINPROGRESS { continue }
            guard error == 0,
                calls.value(pending[index]) == (isSync(index) ? 0 : shape.transfer.blockBytes)
            else { throw Trouble("a request ended with \(Trouble.words(error))") }
            pending[index] = 0
            collected += 1
            if isTimed { completionTimes.add(now &- starts[index]) }
        }
        pendingCount -= collected
        return collected
    }
}

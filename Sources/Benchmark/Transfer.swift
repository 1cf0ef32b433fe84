// Cases that keep a number of transfers on one file in flight, in whatever way programs do.

import CBenchmark
import CLibAIO
import Glibc
import TestBed

struct Transfer: Sendable {
    enum Operation: Sendable {
        case read, write
        /// Batches of which the last request is an FDSYNC.
        case writeAndSync
    }

    /// How a client learns of its events.
    enum Reaping: Sendable {
        case call
        /// It reads an eventfd before it calls io_getevents.
        case eventfd
        /// It waits for an eventfd and takes the events from the ring, as QEMU does.
        case ring
    }

    var place = Place.cached
    var isDirect = false
    var operation = Operation.read
    var order = Offsets.Order.random
    var blockBytes = 4096
    /// In flight in each context, and at most submitted by one call.
    var depth = 1
    var batch = 1
    /// Events that a client waits for at least: a whole batch, or one.
    var reapsBatches = false
    var threads = 1
    var sharesContext = false
    /// Contexts of each client, taken in turn.
    var contexts = 1
    var reaping = Reaping.call
    /// Whether a request takes so long that to look at the clock for each costs nothing.
    var isSlow: Bool {
        [.cold, .coldOverlay, .disk, .growing].contains(place) || operation == .writeAndSync
    }

    func measure(_ setting: Setting) throws -> Measurement {
        let file = try setting.open(self)
        let calls = setting.calls
        let shared = sharesContext ? try calls.context(depth * threads) : nil
        let clients = try (0..<threads).map { index in
            let offsets = Offsets(
                order, blockBytes: blockBytes, fileBytes: file.bytes, seed: setting.seed,
                share: index, shares: threads)
            return try Client(
                self, calls, file.descriptor, offsets,
                contexts: try (0..<contexts).map { _ in try shared ?? calls.context(depth) })
        }
        for client in clients { try client.prime() }
        try run(clients, seconds: setting.warmUpSeconds, isTimed: false)
        var result = try Measurement.taken {
            try run(clients, seconds: setting.seconds, isTimed: isSlow)
        }
        if !isSlow && !setting.isCounted {
            try run(clients, seconds: setting.seconds / 4, isTimed: true)
        }
        for client in clients {
            result.submit.add(client.submitTimes)
            result.completion.add(client.completionTimes)
        }
        if operation != .read { fsync(file.descriptor) }
        return result
    }

    /// How many operations the clients did, and the sum of their rates.
    @discardableResult
    private func run(_ clients: [Client], seconds: Double, isTimed: Bool) throws -> Work {
        let deadline = benchmark_now_ns() + UInt64(seconds * 1e9)
        if clients.count == 1 {
            clients[0].run(until: deadline, isTimed: isTimed)
        } else {
            let workers = clients.map { client in
                Worker { client.run(until: deadline, isTimed: isTimed) }
            }
            for worker in workers { while !worker.join() {} }
        }
        for client in clients { if let trouble = client.trouble { throw trouble } }
        return Work(
            operations: clients.reduce(0) { $0 + $1.operations },
            perSecond: clients.reduce(0) { $0 + Double($1.operations) / $1.seconds })
    }
}

/// One thread's part of a transfer.
private final class Client {
    private(set) var trouble: Trouble?
    private(set) var operations = 0
    private(set) var seconds = 0.0
    private(set) var submitTimes = Samples()
    private(set) var completionTimes = Samples()

    private let shape: Transfer
    private let calls: Calls
    private let file: Int32
    private var offsets: Offsets
    private let contexts: [UInt]
    private var turn = 0
    private let slots: UnsafeMutablePointer<benchmark_slot>
    private let list: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
    private let events: UnsafeMutablePointer<io_event>
    private var signal: Int32 = -1
    /// What the eventfd has said and the client has not reaped.
    private var signalled = 0
    private var prepared = 0
    private var isExhausted = false

    init(
        _ shape: Transfer, _ calls: Calls, _ file: Int32, _ offsets: Offsets, contexts: [UInt]
    ) throws {
        self.shape = shape
        self.calls = calls
        self.file = file
        self.offsets = offsets
        self.contexts = contexts
        let count = shape.depth * contexts.count
        slots = .allocate(capacity: count)
        slots.initialize(repeating: benchmark_slot(), count: count)
        list = .allocate(capacity: shape.depth)
        events = .allocate(capacity: shape.depth)
        if shape.reaping != .call { signal = try Trouble.check("eventfd", eventfd(0, 0)) }
        let bytes = count * shape.blockBytes
        // Touched now: a page that comes with the first read would be counted as its time.
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
        memset(memory, 0x5a, bytes)
        for index in 0..<count {
            slots[index].iocb.aio_fildes = file
            slots[index].buffer = UInt64(UInt(bitPattern: memory + index * shape.blockBytes))
            if signal >= 0 {
                slots[index].iocb.aio_flags = UInt32(IOCB_FLAG_RESFD)
                slots[index].iocb.aio_resfd = signal
            }
        }
    }

    /// Fills every context to its depth.
    func prime() throws {
        for (number, context) in contexts.enumerated() {
            var submitted = 0
            for index in 0..<shape.depth {
                prepare(slots + number * shape.depth + index)
                if prepared == shape.batch || index == shape.depth - 1 {
                    submitted += prepared
                    submit(context, isTimed: false)
                }
            }
        }
        if let trouble { throw trouble }
    }

    func run(until deadline: UInt64, isTimed: Bool) {
        let start = benchmark_now_ns()
        // To read the clock costs a twentieth of a cached read.
        let stepsPerLook = shape.isSlow ? 1 : max(32 / shape.batch, 1)
        operations = 0
        while benchmark_now_ns() < deadline && trouble == nil && !isExhausted {
            for _ in 0..<stepsPerLook where trouble == nil && !isExhausted { step(isTimed) }
        }
        seconds = Double(benchmark_now_ns() - start) / 1e9
    }

    /// Reaps what there is, and submits as much again.
    @inline(__always)
    private func step(_ isTimed: Bool) {
        let context = contexts[turn]
        turn = turn + 1 == contexts.count ? 0 : turn + 1
        let count = reap(context)
        let now = isTimed ? benchmark_now_ns() : 0
        for index in 0..<count {
            let event = events[index]
            guard let slot = UnsafeMutablePointer<benchmark_slot>(bitPattern: UInt(event.obj)),
                event.res == slot.pointee.iocb.aio_nbytes
            else { return fail("a request ended with \(event.res)") }
            if isTimed && slot.pointee.start_ns != 0 {
                completionTimes.add(now &- slot.pointee.start_ns)
            }
            prepare(slot)
            if prepared == shape.batch { submit(context, isTimed: isTimed) }
        }
        operations += count
        if prepared > 0 { submit(context, isTimed: isTimed) }
    }

    @inline(__always)
    private func prepare(_ slot: UnsafeMutablePointer<benchmark_slot>) {
        guard let offset = offsets.next() else {
            isExhausted = true
            return
        }
        switch shape.operation {
        case .writeAndSync where prepared == shape.batch - 1:
            set(slot, IOCB_CMD_FDSYNC, buffer: 0, bytes: 0, offset: 0)
        case .read:
            set(
                slot, IOCB_CMD_PREAD, buffer: slot.pointee.buffer, bytes: shape.blockBytes,
                offset: offset)
        case .write, .writeAndSync:
            set(
                slot, IOCB_CMD_PWRITE, buffer: slot.pointee.buffer, bytes: shape.blockBytes,
                offset: offset)
        }
        list[prepared] = UnsafeMutableRawPointer(slot).assumingMemoryBound(to: iocb.self)
        prepared += 1
    }

    @inline(__always)
    private func set(
        _ slot: UnsafeMutablePointer<benchmark_slot>, _ opcode: some BinaryInteger, buffer: UInt64,
        bytes: Int, offset: Int64
    ) {
        slot.pointee.iocb.aio_lio_opcode = UInt16(opcode)
        slot.pointee.iocb.aio_buf = buffer
        slot.pointee.iocb.aio_nbytes = UInt64(bytes)
        slot.pointee.iocb.aio_offset = offset
    }

    @inline(__always)
    private func submit(_ context: UInt, isTimed: Bool) {
        let start = isTimed ? benchmark_now_ns() : 0
        for index in 0..<prepared {
            UnsafeMutableRawPointer(list[index]!).assumingMemoryBound(to: benchmark_slot.self)
                .pointee.start_ns = start
        }
        var done = 0
        while done < prepared {
            let result = calls.submit(context, prepared - done, list + done)
            guard result > 0 else {
                return fail("io_submit: \(result == 0 ? "none taken" : Trouble.words(result))")
            }
            done += Int(result)
        }
        if isTimed { submitTimes.add(benchmark_now_ns() &- start) }
        prepared = 0
    }

    @inline(__always)
    private func reap(_ context: UInt) -> Int {
        let least = shape.reapsBatches ? shape.batch : 1
        // One context for several clients: none takes more than its share.
        let most = shape.reapsBatches ? shape.batch : shape.depth
        if shape.reaping != .call {
            while signalled < least {
                var value: UInt64 = 0
                guard read(signal, &value, 8) == 8 else {
                    fail("reading the eventfd: \(Trouble.words(errno))")
                    return 0
                }
                signalled += Int(value)
            }
        }
        let count: Int
        if shape.reaping == .ring {
            count = Int(benchmark_take(context, events, UInt32(most)))
        } else {
            count = Int(calls.getevents(context, least, most, events, nil))
        }
        signalled -= min(count, signalled)
        if count < 0 {
            fail("io_getevents: \(Trouble.words(Int32(count)))")
            return 0
        }
        return count
    }

    private func fail(_ words: String) {
        trouble = Trouble(words)
        prepared = 0
    }
}

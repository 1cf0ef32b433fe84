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
    /// Each context serves a buffered read before: what a layer makes of a context at its first
    /// request must hold for those to come.
    var beginsBuffered = false
    /// Whether a request takes so long that to look at the clock for each costs nothing.
    var isSlow: Bool {
        [.cold, .coldOverlay, .manyCold, .disk, .growing].contains(place)
            || operation == .writeAndSync || place != .ram && isDirect
    }

    /// Whether one side would undo the other's preparations, such as a cold page cache.
    var isLasting: Bool { [.cold, .coldOverlay, .manyCold, .growing].contains(place) }

    func measure(_ setting: Setting) throws -> Measurement {
        let file = try setting.open(self)
        let calls = try setting.calls
        let shared = sharesContext ? try calls.context(depth * threads) : nil
        let clients = try (0..<threads).map { index in
            let offsets = Offsets(
                order, blockBytes: blockBytes, fileBytes: file.bytes, seed: setting.seed,
                share: index, shares: threads)
            return try Client(
                self, calls, file.descriptor, offsets,
                contexts: try (0..<contexts).map { _ in try shared ?? calls.context(depth) })
        }
        if beginsBuffered {
            let buffered = try setting.open(Transfer(place: .cached))
            for client in clients { try client.readOnce(buffered.descriptor) }
        }
        var result = try setting.measured(timed: isSlow) { seconds, isTimed in
            try run(clients, seconds: seconds, isTimed: isTimed)
        }
        for client in clients {
            result.submit.add(client.submitTimes)
            result.completion.add(client.completionTimes)
        }
        if operation != .read { fsync(file.descriptor) }
        return result
    }

    /// What the clients do until the time is over and the last request has ended.
    private func run(_ clients: [Client], seconds: Double, isTimed: Bool) throws -> Work {
        let start = benchmark_now_ns()
        let deadline = start + UInt64(seconds * 1e9)
        let body = { (client: Client) in
            client.prime(isTimed)
            client.run(until: deadline, isTimed: isTimed)
        }
        if clients.count == 1 {
            body(clients[0])
        } else {
            let workers = clients.map { client in Worker { body(client) } }
            for worker in workers { while !worker.join() {} }
        }
        if sharesContext {
            // Each may have reaped what was another's.
            clients[0].reapRest(clients.reduce(0) { $0 + $1.takeInFlight(0) }, of: 0, isTimed)
        } else {
            for client in clients {
                for index in 0..<contexts {
                    client.reapRest(client.takeInFlight(index), of: index, isTimed)
                }
            }
        }
        for client in clients { if let trouble = client.trouble { throw trouble } }
        let operations = clients.reduce(0) { $0 + $1.takeOperations() }
        if operations == 0 { throw Trouble("the test file is too small: give a larger --size") }
        return Work(
            operations: operations,
            seconds: Double(benchmark_now_ns() - start) * 1e-9)
    }
}

/// One thread's part of a transfer.
private final class Client {
    private(set) var trouble: Trouble?
    private var operations = 0
    private(set) var submitTimes = Samples()
    private(set) var completionTimes = Samples()

    private let shape: Transfer
    private let calls: Calls
    private let file: Int32
    private var offsets: Offsets
    private let contexts: [UInt]
    /// Submitted by this client and not reaped by it, for each context.
    private let inFlight: UnsafeMutablePointer<Int>
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
        inFlight = .allocate(capacity: contexts.count)
        inFlight.initialize(repeating: 0, count: contexts.count)
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

    /// One read of another file on every context.
    func readOnce(_ other: Int32) throws {
        for index in contexts.indices {
            var iocb = slots[0].iocb
            iocb.aio_fildes = other
            iocb.aio_lio_opcode = UInt16(IOCB_CMD_PREAD)
            iocb.aio_buf = slots[0].buffer
            iocb.aio_nbytes = UInt64(shape.blockBytes)
            let taken = withUnsafeMutablePointer(to: &iocb) { pointer in
                list[0] = pointer
                let submitted = calls.submit(contexts[index], 1, list)
                return submitted < 1
                    ? submitted : calls.getevents(contexts[index], 1, 1, events, nil)
            }
            if taken < 1 { throw Trouble("the first read: \(Trouble.words(taken))") }
        }
    }

    /// Fills every context to its depth.
    func prime(_ isTimed: Bool) {
        for index in contexts.indices {
            for number in 0..<shape.depth {
                prepare(slots + index * shape.depth + number)
                if prepared == shape.batch { submit(index, isTimed) }
            }
            if prepared > 0 { submit(index, isTimed) }
        }
    }

    func run(until deadline: UInt64, isTimed: Bool) {
        // To read the clock costs a twentieth of a cached read.
        let stepsPerLook = shape.isSlow ? 1 : max(32 / shape.batch, 1)
        while benchmark_now_ns() < deadline && trouble == nil && !isExhausted {
            for _ in 0..<stepsPerLook where trouble == nil && !isExhausted { step(isTimed) }
        }
    }

    /// Reaps what there is, and submits as much again.
    @inline(__always)
    private func step(_ isTimed: Bool) {
        let index = turn
        turn = index + 1 == contexts.count ? 0 : index + 1
        let count = reap(index, least: shape.reapsBatches ? shape.batch : 1, isTimed)
        for event in 0..<count {
            prepare(slot(of: event))
            if prepared == shape.batch { submit(index, isTimed) }
        }
        if prepared > 0 { submit(index, isTimed) }
    }

    /// Reaps `count` and submits none.
    func reapRest(_ count: Int, of index: Int, _ isTimed: Bool) {
        var left = count
        while left > 0 && trouble == nil {
            left -= reap(index, least: min(shape.reapsBatches ? shape.batch : 1, left), isTimed)
        }
        inFlight[index] = 0
    }

    func takeInFlight(_ index: Int) -> Int {
        defer { inFlight[index] = 0 }
        return inFlight[index]
    }

    func takeOperations() -> Int {
        defer { operations = 0 }
        return operations
    }

    @inline(__always)
    private func slot(of event: Int) -> UnsafeMutablePointer<benchmark_slot> {
        // What the slot's own address was given for.
        UnsafeMutablePointer(bitPattern: UInt(events[event].obj))!
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
    private func submit(_ index: Int, _ isTimed: Bool) {
        let start = isTimed ? benchmark_now_ns() : 0
        for number in 0..<prepared {
            UnsafeMutableRawPointer(list[number]!).assumingMemoryBound(to: benchmark_slot.self)
                .pointee.start_ns = start
        }
        var done = 0
        while done < prepared {
            let result = calls.submit(contexts[index], prepared - done, list + done)
            guard result > 0 else {
                fail("io_submit: \(result == 0 ? "none taken" : Trouble.words(result))")
                return
            }
            done += Int(result)
        }
        if isTimed { submitTimes.add(benchmark_now_ns() &- start) }
        inFlight[index] += prepared
        prepared = 0
    }

    /// How many events it has reaped, of which `least` are waited for.
    @inline(__always)
    private func reap(_ index: Int, least: Int, _ isTimed: Bool) -> Int {
        // One context for several clients: none takes more than its share.
        let most = shape.reapsBatches ? shape.batch : shape.depth
        if shape.reaping != .call {
            while signalled < least {
                var value: UInt64 = 0
                guard read(signal, &value, 8) == 8 else {
                    return fail("reading the eventfd: \(Trouble.words(errno))")
                }
                signalled += Int(value)
            }
        }
        let count =
            shape.reaping == .ring
            ? Int(benchmark_take(contexts[index], events, UInt32(most)))
            : Int(calls.getevents(contexts[index], least, most, events, nil))
        signalled -= min(count, signalled)
        if count < 0 { return fail("io_getevents: \(Trouble.words(Int32(count)))") }
        let now = isTimed ? benchmark_now_ns() : 0
        for event in 0..<count {
            let slot = slot(of: event)
            guard events[event].res == slot.pointee.iocb.aio_nbytes else {
                return fail("a request ended with \(events[event].res)")
            }
            if isTimed { completionTimes.add(now &- slot.pointee.start_ns) }
        }
        inFlight[index] -= count
        operations += count
        return count
    }

    @discardableResult
    private func fail(_ words: String) -> Int {
        trouble = Trouble(words)
        prepared = 0
        return 0
    }
}

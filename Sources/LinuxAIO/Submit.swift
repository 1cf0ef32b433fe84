// io_submit: the kernel's checks in the kernel's order, then the path that suits the file.
//
// Events of requests that complete inline are gathered and published together, under one lock and
// one tail store, before io_submit returns; what a daemon must run is handed over once.

import CLibAIO
import JobTable
import Paths
import Synchronization

/// The events of one io_submit that are not published yet.
private struct Gathered {
    static let capacity: UInt32 = 32

    let context: ContextRef
    /// Room for `capacity` events.
    let events: UInt
    var count: UInt32 = 0
    /// Slots that were reserved ahead and are still unused.
    var slots: UInt32 = 0
    /// The eventfd of the gathered events, and how many of them want it signalled.
    var resfd: Int32 = -1
    var signals: UInt64 = 0
    /// The descriptor that was found to be an eventfd last in this submission.
    var checkedEventfd: Int32 = -1
    /// It was taken for one because it was one last time: to be looked at before anything that
    /// names it is published.
    var isUnchecked = false
    /// The next request, when it was tried at once, in vain.
    var attempt: Attempt?

    /// Makes the gathered events visible, then counts them in their eventfd, then wakes.
    @inline(__always)
    mutating func publish() {
        if count == 0 { return }
        context.publish(events, count: count, isSignalled: signals > 0)
        count = 0
        if signals > 0 {
            Eventfd.signal(resfd, count: signals, isJustSeen: isUnchecked)
            signals = 0
            context.signalled()
        }
        context.wakeSleepers()
    }

    @inline(__always)
    mutating func add(_ event: io_event, resfd eventfd: Int32) {
        if count == Self.capacity || (eventfd >= 0 && signals > 0 && eventfd != resfd) {
            publish()
        }
        Ref<io_event>(address: events &+ UInt(count) &* UInt(AioRing.eventBytes))?.it = event
        count &+= 1
        if eventfd >= 0 {
            resfd = eventfd
            signals &+= 1
        }
    }
}

extension Ref where Pointee == LinuxFace {
    /// io_submit(2). The number of accepted requests, or a negated errno.
    @inline(__always)
    func submit(_ address: UInt, count: Int, _ pointers: UInt) -> Int {
        guard it.isUsual, !Memory.isOutsideUserSpace(pointers), count > 0,
            let context = findUnpinned(address)
        else { return submitPinned(address, count: count, pointers) }
        if context.isAdopted { return submitAdopted(context, address, count: count, pointers) }
        // First: a handler that destroys the context must not wait for these slots.
        rememberInThread(context)
        return count == 1
            ? submitSingle(to: context, address, pointers)
            : submitMany(to: context, address, count: count, pointers)
    }

    /// A single read that comes from memory passes through here without a call.
    @inline(__always)
    private func submitSingle(to context: ContextRef, _ address: UInt, _ pointers: UInt) -> Int {
        if context.reserve(1, named: address) == 0 {
            return submitPinned(address, count: 1, pointers)
        }
        guard let read = PlainRead(at: pointers),
            let flags = it.engine.flagsToReadAtOnce(read.descriptor)
        else { return submitRest(of: context, pointers, attempt: nil) }
        let result = it.engine.readAtOnce(read.descriptor, read.vector, read.offset, flags)
        if result != read.length {
            return submitRest(of: context, pointers, attempt: Attempt(read, flags, result))
        }
        context.publish(read.event)
        context.wakeSleepers()
        releaseUnpinned(context)
        return 1
    }

    @inline(never)
    private func submitMany(
        to context: ContextRef, _ address: UInt, count: Int, _ pointers: UInt
    ) -> Int {
        withRoom { events in
            let slots = context.reserve(
                UInt32(truncatingIfNeeded: min(count, Int(Gathered.capacity))), named: address)
            if slots == 0 { return submitPinned(address, count: count, pointers) }
            var attempt: Attempt?
            let accepted = readAtOnce(
                min(count, Int(slots)), pointers, into: events, attempt: &attempt)
            if accepted < count {
                var gathered = Gathered(context: context, events: events)
                gathered.count = UInt32(truncatingIfNeeded: accepted)
                gathered.slots = slots &- gathered.count
                gathered.attempt = attempt
                return submitRest(&gathered, count: count, pointers)
            }
            context.publish(events, count: slots)
            context.wakeSleepers()
            releaseUnpinned(context)
            return accepted
        }
    }

    /// Room for the events of one call, on the stack.
    @inline(__always)
    private func withRoom(_ body: (_ events: UInt) -> Int) -> Int {
        unsafe withUnsafeTemporaryAllocation(
            byteCount: Int(Gathered.capacity) &* AioRing.eventBytes, alignment: 8
        ) { body(UInt(bitPattern: $0.baseAddress)) }
    }

    /// Reads that ask for nothing but their buffer, for as long as they come from memory: how many of
    /// `count`. The first of a submission, and the most of many.
    @inline(__always)
    private func readAtOnce(
        _ count: Int, _ pointers: UInt, into events: UInt, attempt: inout Attempt?
    ) -> Int {
        let engine = it.engine
        var accepted = 0
        var event = events
        var descriptor: Int32 = -1
        var flags: Int32 = 0
        while accepted < count {
            guard let read = PlainRead(at: pointers &+ UInt(bitPattern: accepted &* 8)) else {
                break
            }
            if read.descriptor != descriptor {
                guard let hinted = engine.flagsToReadAtOnce(read.descriptor) else { break }
                flags = hinted
                descriptor = read.descriptor
            }
            let result = engine.readAtOnce(descriptor, read.vector, read.offset, flags)
            if result != read.length {
                attempt = Attempt(read, flags, result)
                break
            }
            unsafe Ref<io_event>(address: event).unsafelyUnwrapped.it = read.event
            event &+= UInt(AioRing.eventBytes)
            accepted &+= 1
        }
        return accepted
    }

    /// Transfers of one buffer without flags, for as long as slots are reserved and the file was in
    /// the page cache last time. How many of `count` requests are accepted now,
    /// of which `first` were before; what the next one is, the rest finds out. With `mayTrust`
    /// the caller confirms the eventfd of reads afterwards.
    @inline(__always)
    private func submitPlain(
        from first: Int, _ count: Int, _ pointers: UInt, _ gathered: inout Gathered,
        mayTrust: Bool = false
    ) -> Int {
        var accepted = first
        while accepted < count && gathered.slots > 0 {
            let slot = pointers &+ UInt(bitPattern: accepted &* 8)
            guard let address = Ref<UInt>(address: slot)?.it, !Memory.isOutsideUserSpace(address),
                let plain = PlainTransfer(address)
            else { return accepted }
            if gathered.isUnchecked
                && (plain.isWrite || plain.resfd >= 0 && plain.resfd != gathered.checkedEventfd)
            {
                return accepted
            }
            if mayTrust && plain.resfd >= 0 && accepted == 0 && !plain.isWrite
                && it.engine.wasEventfd(plain.resfd)
            {
                gathered.checkedEventfd = plain.resfd
                gathered.isUnchecked = true
            }
            if plain.resfd >= 0 && !maySignal(plain.resfd, &gathered) { return accepted }
            var vector = plain.vector
            let length = vector.length
            var attempted: Int?
            let result = withAddress(of: &vector) {
                it.engine.transferAtOnce(
                    isWrite: plain.isWrite, plain.descriptor, UInt(bitPattern: $0), length,
                    plain.offset, attempted: &attempted)
            }
            guard let result else {
                gathered.attempt = Attempt(address: address, plain: plain, result: attempted)
                return accepted
            }
            gathered.slots &-= 1
            gathered.add(
                io_event(data: plain.data, obj: UInt64(address), res: Int64(result), res2: 0),
                resfd: plain.resfd)
            accepted &+= 1
        }
        return accepted
    }

    /// True when the descriptor is an eventfd, which is asked once in a submission.
    @inline(__always)
    private func maySignal(_ resfd: Int32, _ gathered: inout Gathered) -> Bool {
        if resfd != gathered.checkedEventfd {
            if it.engine.checkEventfd(resfd) != 0 { return false }
            gathered.checkedEventfd = resfd
        }
        return true
    }

    /// A single request that is no read from memory. Its reserved slot has kept the context until here.
    @inline(never)
    private func submitRest(
        of context: ContextRef, _ pointers: UInt, attempt: Attempt?
    ) -> Int {
        withRoom { events in
            var gathered = Gathered(context: context, events: events)
            gathered.slots = 1
            gathered.attempt = attempt
            return submitRest(&gathered, count: 1, pointers)
        }
    }

    /// The rest of an io_submit that began with cached reads. The reserved slots have kept the
    /// context until here.
    @inline(never)
    private func submitRest(_ gathered: inout Gathered, count: Int, _ pointers: UInt) -> Int {
        let context = gathered.context
        var accepted = Int(gathered.count)
        if gathered.attempt == nil {
            accepted = submitPlain(
                from: accepted, count, pointers, &gathered, mayTrust: accepted == 0)
            if gathered.isUnchecked && !it.engine.confirmEventfd(gathered.checkedEventfd) {
                let refusal = it.engine.checkEventfd(gathered.checkedEventfd)
                if refusal != 0 && accepted > 0 {
                    // It is the first request's, whose file was found.
                    context.unreserve(gathered.slots &+ gathered.count)
                    releaseUnpinned(context)
                    return refusal
                }
                gathered.checkedEventfd = -1
            }
            if accepted == count {
                gathered.publish()
                releaseUnpinned(context)
                return accepted
            }
            gathered.isUnchecked = false
        }
        context.it.pins.add(1, ordering: .sequentiallyConsistent)
        defer { unpin(context) }
        return submitOurs(
            &gathered, after: accepted, count: min(count, Int(context.it.ring.nr)), pointers)
    }

    @inline(never)
    private func submitPinned(_ address: UInt, count nr: Int, _ pointers: UInt) -> Int {
        if it.choice == .off { return failure(ENOSYS) }
        guard let context = find(address) else { return failure(EINVAL) }
        defer { unpin(context) }
        if nr < 0 { return failure(EINVAL) }
        let count = min(nr, Int(context.it.ring.nr))
        if count == 0 { return 0 }
        if context.isAdopted
            || context.mayBeAdopted
                && adopt(context, pointers)
        {
            return submitAdopted(context, address, count: nr, pointers)
        }
        let result = withRoom { events in
            var gathered = Gathered(context: context, events: events)
            return submitOurs(&gathered, after: 0, count: count, pointers)
        }
        return result == failure(EAGAIN) && context.isAdopted
            ? submitAdopted(context, address, count: nr, pointers) : result
    }

    private func submitOurs(
        _ gathered: inout Gathered, after first: Int, count: Int, _ pointers: UInt
    ) -> Int {
        let context = gathered.context
        var batch = Batch(
            readsMayGoUntried: context.isReapingExpected,
            kernelUser: context.isCallExpected ? context.address : 0)
        var accepted = first
        var result = 0
        while accepted < count {
            if !it.memory.isStrict && batch.isEmpty && gathered.attempt == nil {
                accepted = submitPlain(from: accepted, count, pointers, &gathered)
                if accepted == count { break }
            }
            result = submitNext(
                at: pointers &+ UInt(bitPattern: accepted &* 8), count &- accepted, &gathered,
                &batch)
            if result < 0 { break }
            accepted &+= 1
        }
        gathered.publish()
        it.engine.handOver(&batch) { context.mustWakeDaemon(looksSoon: $0) }
        if gathered.slots > 0 { context.unreserve(gathered.slots) }
        // Whoever destroys the context has ended what was in its request queue by then, or
        // this sees that it is dying.
        if context.isDying {
            cancelAll(of: context)
        }
        return accepted > 0 ? accepted : result
    }

    /// Submits the request whose address is at `pointer`, or the one that was tried at once.
    @inline(__always)
    private func submitNext(
        at pointer: UInt, _ remaining: Int, _ gathered: inout Gathered, _ batch: inout Batch
    ) -> Int {
        if let attempt = gathered.attempt {
            gathered.attempt = nil
            return submitOne(
                attempt.plain.iocb, attempt.address, attempted: attempt.result, remaining,
                &gathered, &batch)
        }
        var address: UInt = 0
        var iocb = iocb()
        if !it.memory.read(at: pointer, into: &address)
            || !it.memory.read(at: address, into: &iocb)
        {
            return failure(EFAULT)
        }
        return submitOne(iocb, address, attempted: nil, remaining, &gathered, &batch)
    }

    @inline(never)
    private func submitOne(
        _ iocb: iocb, _ address: UInt, attempted: Int?, _ remaining: Int,
        _ gathered: inout Gathered, _ batch: inout Batch
    ) -> Int {
        if iocb.aio_reserved2 != 0 || Int64(bitPattern: iocb.aio_nbytes) < 0 {
            return failure(EINVAL)
        }
        if gathered.slots == 0 && !reserve(remaining, &gathered) { return failure(EAGAIN) }

        if iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0 {
            let result = checkEventfd(iocb, &gathered)
            if result < 0 { return result }
        }
        var vector = Vector(base: 0, length: 0)
        let outcome = withAddress(of: &vector) { vectorAddress in
            start(
                iocb, address, UInt(bitPattern: vectorAddress), &batch, attempted: attempted)
        }
        let resfd = iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0 ? iocb.aio_resfd : -1
        switch outcome {
        case .completed(let result):
            gathered.slots &-= 1
            gathered.add(
                io_event(
                    data: iocb.aio_data, obj: UInt64(address), res: Int64(result), res2: 0),
                resfd: resfd)
        case .deferred(let job):
            gathered.slots &-= 1
            job.it.owner = gathered.context.address
            job.it.userObject = UInt64(address)
            job.it.userData = iocb.aio_data
            gathered.context.enqueue(
                job, in: it.table, isForKernel: it.engine.isForKernel(job))
            if batch.isFull { it.engine.handOver(&batch) }
        case .refused(let result):
            return result
        }
        return 0
    }

    /// Reserves slots for the rest of the call. What is gathered occupies slots only once, but
    /// before the ring is called full, it is published: somebody may be consuming.
    @inline(__always)
    private func reserve(_ remaining: Int, _ gathered: inout Gathered) -> Bool {
        gathered.slots = gathered.context.reserve(
            UInt32(truncatingIfNeeded: min(remaining, Int(Gathered.capacity))))
        if gathered.slots > 0 { return true }
        gathered.publish()
        gathered.slots = gathered.context.reserve(1)
        return gathered.slots > 0
    }

    /// Checks one request as fs/aio.c, __io_submit_one does, and starts it. `vector` is the
    /// address of a vector on the caller's stack.
    @inline(__always)
    private func start(
        _ iocb: iocb, _ address: UInt, _ vector: UInt, _ batch: inout Batch, attempted: Int?
    ) -> Outcome {
        var request: Request
        switch Int(iocb.aio_lio_opcode) {
        case Int(IOCB_CMD_PREAD), Int(IOCB_CMD_PWRITE):
            request = Request(
                operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_PREAD) ? .read : .write,
                descriptor: iocb.aio_fildes)
            describeBuffer(iocb, vector, &request)
            request.attempted = attempted
        case Int(IOCB_CMD_PREADV), Int(IOCB_CMD_PWRITEV):
            return startVectors(iocb, address, &batch)
        case Int(IOCB_CMD_FSYNC), Int(IOCB_CMD_FDSYNC):
            request = Request(
                operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_FSYNC) ? .fsync : .fdatasync,
                descriptor: iocb.aio_fildes)
            if iocb.aio_buf != 0 || iocb.aio_offset != 0 || iocb.aio_nbytes != 0
                || iocb.aio_rw_flags != 0
            {
                return refuseInvalid(iocb, address)
            }
        case Int(IOCB_CMD_POLL):
            request = Request(operation: .poll, descriptor: iocb.aio_fildes)
            if iocb.aio_buf > 0xffff || iocb.aio_offset != 0 || iocb.aio_nbytes != 0
                || iocb.aio_rw_flags != 0
            {
                return refuseInvalid(iocb, address)
            }
            request.pollEvents = UInt32(iocb.aio_buf) | UInt32(POLLERR | POLLHUP)
        default:
            return refuseInvalid(iocb, address)
        }
        return start(&request, iocb, address, &batch)
    }

    @inline(__always)
    private func start(
        _ request: inout Request, _ iocb: iocb, _ address: UInt, _ batch: inout Batch
    ) -> Outcome {
        if iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0 { request.resfd = iocb.aio_resfd }
        if iocb.aio_key != 0 || it.memory.isStrict {
            // The kernel finds the file before it stores the key.
            if !isOpen(iocb.aio_fildes) { return .refused(failure(EBADF)) }
            if !storeKey(iocb, address) { return .refused(failure(EFAULT)) }
        }
        return it.engine.start(&request, &batch)
    }

    /// A request with an array of vectors. They are copied before anything is transferred: the
    /// array may lie in a buffer that it describes.
    @inline(never)
    private func startVectors(_ iocb: iocb, _ address: UInt, _ batch: inout Batch) -> Outcome {
        let onStack = 64
        // The kernel counts vectors in 32 bits.
        let count = Int(UInt32(truncatingIfNeeded: iocb.aio_nbytes))
        if count <= onStack {
            return unsafe withUnsafeTemporaryAllocation(
                byteCount: onStack &* MemoryLayout<Vector>.stride, alignment: 16
            ) {
                startVectors(iocb, address, UInt(bitPattern: $0.baseAddress), count, &batch)
            }
        }
        if count > Job.vectorsMax { return startVectors(iocb, address, 0, count, &batch) }
        let block = it.table.borrowVectorBlock()
        if block == Job.none { return .refused(failure(EAGAIN)) }
        defer { it.table.returnVectorBlock(block) }
        return startVectors(iocb, address, it.table.blockAddress(block), count, &batch)
    }

    private func startVectors(
        _ iocb: iocb, _ address: UInt, _ copy: UInt, _ count: Int, _ batch: inout Batch
    ) -> Outcome {
        var request = Request(
            operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_PREADV) ? .read : .write,
            descriptor: iocb.aio_fildes)
        describeTransfer(iocb, &request)
        request.vectors = copy
        request.bufferError =
            count > Job.vectorsMax
            ? failure(EINVAL)
            : copyVectors(
                UInt(truncatingIfNeeded: iocb.aio_buf), to: copy, count, &request.length)
        request.vectorCount = request.bufferError == 0 ? count : 0
        return start(&request, iocb, address, &batch)
    }

    /// -EBADF comes before everything that is wrong with the request's own fields.
    @inline(never)
    private func refuseInvalid(_ iocb: iocb, _ address: UInt) -> Outcome {
        if !isOpen(iocb.aio_fildes) { return .refused(failure(EBADF)) }
        return .refused(storeKey(iocb, address) ? failure(EINVAL) : failure(EFAULT))
    }

    /// The kernel stores its key in the request; a program's own value never survives. A request
    /// that has it already is left alone: it may be in read-only memory. False for -EFAULT.
    @inline(__always)
    private func storeKey(_ iocb: iocb, _ address: UInt) -> Bool {
        if iocb.aio_key == 0 && !it.memory.isStrict { return true }
        return it.memory.write(UInt32(0), at: address &+ UInt(IOCTX_AIO_KEY_OFFSET))
    }

    private func isOpen(_ descriptor: Int32) -> Bool {
        let flags = System.fileFlags(descriptor)
        return flags >= 0 && flags & Int(IOCTX_O_PATH) == 0
    }

    @inline(never)
    private func checkEventfd(_ iocb: iocb, _ gathered: inout Gathered) -> Int {
        if iocb.aio_resfd >= 0 && maySignal(iocb.aio_resfd, &gathered) { return 0 }
        // The kernel finds the file first.
        return isOpen(iocb.aio_fildes) ? it.engine.checkEventfd(iocb.aio_resfd) : failure(EBADF)
    }

    // MARK: Buffers

    @inline(__always)
    private func describeBuffer(_ iocb: iocb, _ vector: UInt, _ request: inout Request) {
        let length = min(Int(truncatingIfNeeded: iocb.aio_nbytes), System.transferBytesMax)
        Ref<Vector>(address: vector)?.it = Vector(
            base: UInt(truncatingIfNeeded: iocb.aio_buf), length: length)
        request.vectors = vector
        request.vectorCount = 1
        request.length = length
        describeTransfer(iocb, &request)
        if isOutOfRange(UInt(truncatingIfNeeded: iocb.aio_buf), length) {
            request.bufferError = failure(EFAULT)
        }
    }

    /// Copies an array of vectors and adds their lengths up (lib/iov_iter.c, import_iovec). 0 or a
    /// negated errno.
    private func copyVectors(
        _ vectors: UInt, to copy: UInt, _ count: Int, _ length: inout Int
    ) -> Int {
        for index in 0..<count {
            let step = UInt(bitPattern: index &* MemoryLayout<Vector>.stride)
            var vector = Vector(base: 0, length: 0)
            if !it.memory.read(at: vectors &+ step, into: &vector) { return failure(EFAULT) }
            if vector.length < 0 { return failure(EINVAL) }
            // A single vector is cut before its range is checked, several are checked whole.
            if count == 1 { vector.length = min(vector.length, System.transferBytesMax) }
            if isOutOfRange(vector.base, vector.length) { return failure(EFAULT) }
            Ref<Vector>(address: copy &+ step)?.it = vector
            length = min(length &+ vector.length, System.transferBytesMax)
        }
        return 0
    }

    @inline(__always)
    private func isOutOfRange(_ base: UInt, _ length: Int) -> Bool {
        Memory.isKernelHalf(base) || Memory.isKernelHalf(base &+ UInt(bitPattern: length))
    }

    @inline(__always)
    private func describeTransfer(_ iocb: iocb, _ request: inout Request) {
        request.offset = iocb.aio_offset
        request.rwFlags = iocb.aio_rw_flags
        if iocb.aio_flags & UInt32(IOCB_FLAG_IOPRIO) != 0 {
            request.ioPriority = UInt16(bitPattern: iocb.aio_reqprio)
            request.priorityError = IOPriority.refusal(of: request.ioPriority)
        }
    }
}

/// A plain read without an eventfd, as a look at a few words tells. The kernel looks at the buffer:
/// the request's words about it are a vector as they lie there.
private struct PlainRead {
    let address: UInt
    let data: UInt64
    let descriptor: Int32
    let base: UInt64
    let length: Int
    let offset: Int64

    /// nil when the request that `slot`, which is in user space, points to is anything else.
    @inline(__always)
    init?(at slot: UInt) {
        let address = unsafe Ref<UInt>(address: slot).unsafelyUnwrapped.it
        guard !Memory.isOutsideUserSpace(address), let iocb = Ref<iocb>(address: address) else {
            return nil
        }
        let others =
            UInt64(UInt32(iocb.it.aio_lio_opcode) | iocb.it.aio_key | iocb.it.aio_flags)
            | iocb.it.aio_reserved2 | UInt64(UInt32(bitPattern: iocb.it.aio_rw_flags))
        length = Int(truncatingIfNeeded: iocb.it.aio_nbytes)
        offset = iocb.it.aio_offset
        // Offset -1 would be the file's own position.
        if others != 0 || offset < 0 || length <= 0 || length > System.transferBytesMax {
            return nil
        }
        self.address = address
        data = iocb.it.aio_data
        descriptor = iocb.it.aio_fildes
        base = iocb.it.aio_buf
    }

    @inline(__always)
    var vector: UInt { address &+ UInt(IOCTX_AIO_BUF_OFFSET) }

    /// Of a read that came to all its bytes.
    @inline(__always)
    var event: io_event {
        io_event(data: data, obj: UInt64(address), res: Int64(length), res2: 0)
    }
}

/// A plain read or write, which a look at a few words tells: opcode 0 or 1, key, flags and reserved
/// words 0 but for an eventfd, a buffer in user space, an offset that is not negative.
private struct PlainTransfer {
    let data: UInt64
    let isWrite: Bool
    let descriptor: Int32
    let vector: Vector
    let offset: Int64
    /// The eventfd to signal, or -1.
    let resfd: Int32

    /// nil when the request at that address is anything else.
    @inline(__always)
    init?(_ address: UInt) {
        guard let iocb = Ref<iocb>(address: address) else { return nil }
        let opcode = iocb.it.aio_lio_opcode
        let length = iocb.it.aio_nbytes
        let base = iocb.it.aio_buf
        let flags = iocb.it.aio_flags
        if UInt32(opcode & ~1) | iocb.it.aio_key != 0
            || UInt32(bitPattern: iocb.it.aio_rw_flags) | flags & ~UInt32(IOCB_FLAG_RESFD) != 0
            || iocb.it.aio_reserved2 != 0 || iocb.it.aio_offset < 0
            || length &- 1 >= UInt64(System.transferBytesMax)
            || Memory.isKernelHalf(UInt(base &+ length)) || Memory.isKernelHalf(UInt(base))
        {
            return nil
        }
        data = iocb.it.aio_data
        isWrite = opcode != 0
        descriptor = iocb.it.aio_fildes
        vector = Vector(base: UInt(base), length: Int(length))
        offset = iocb.it.aio_offset
        resfd = flags != 0 ? iocb.it.aio_resfd : -1
        if flags != 0 && resfd < 0 { return nil }
    }

    init(_ read: PlainRead) {
        data = read.data
        isWrite = false
        descriptor = read.descriptor
        vector = Vector(base: UInt(truncatingIfNeeded: read.base), length: read.length)
        offset = read.offset
        resfd = -1
    }

    /// The request itself.
    var iocb: iocb {
        var iocb = CLibAIO.iocb()
        iocb.aio_data = data
        iocb.aio_lio_opcode = isWrite ? UInt16(IOCB_CMD_PWRITE) : UInt16(IOCB_CMD_PREAD)
        iocb.aio_fildes = descriptor
        iocb.aio_buf = UInt64(vector.base)
        iocb.aio_nbytes = UInt64(vector.length)
        iocb.aio_offset = offset
        if resfd >= 0 {
            iocb.aio_flags = UInt32(IOCB_FLAG_RESFD)
            iocb.aio_resfd = resfd
        }
        return iocb
    }
}

/// A plain transfer that was tried at once and needs a closer look. It is not read from the
/// program's memory again: that may lie in the buffer, part of which has been read by now.
private struct Attempt {
    let address: UInt
    let plain: PlainTransfer
    /// What a read with RWF_NOWAIT came to.
    let result: Int?

    @inline(__always)
    init(address: UInt, plain: PlainTransfer, result: Int?) {
        self.address = address
        self.plain = plain
        self.result = result
    }

    /// A read with those flags that did not come to all its bytes.
    @inline(__always)
    init(_ read: PlainRead, _ flags: Int32, _ result: Int) {
        // More are the length that another thread has stored in the request meanwhile.
        let isShort = flags != 0 && result < read.length
        self.init(
            address: read.address, plain: PlainTransfer(read), result: isShort ? result : nil)
    }
}

/// block/ioprio.c, ioprio_check_cap.
private enum IOPriority {
    static func refusal(of priority: UInt16) -> Int {
        switch priority >> 13 {
        case 0: return priority & 7 == 0 ? 0 : failure(EINVAL)
        case 1: return mayBeRealTime() ? 0 : failure(EPERM)
        case 2, 3: return 0
        default: return failure(EINVAL)
        }
    }

    /// CAP_SYS_ADMIN or CAP_SYS_NICE.
    private static func mayBeRealTime() -> Bool {
        var header = (UInt32(0x2008_0522), Int32(0))
        var sets = (UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0))
        let result = withAddress(of: &header) { headerAddress in
            withAddress(of: &sets) { systemCall(Int32(SYS_capget), headerAddress, $0) }
        }
        return result == 0 && sets.0 & (1 << 21 | 1 << 23) != 0
    }
}

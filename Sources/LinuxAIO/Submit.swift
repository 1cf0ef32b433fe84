// io_submit: one request after the other, each on the path that suits its file.
//
// Plain requests, which a look at a few words tells, are tried at once (PlainRequests.swift).
// All others are checked as the kernel does it, in its order (RequestChecks.swift), and go the
// general way. Events of requests that complete inline are gathered and published together,
// under one lock and one tail store, before io_submit returns (Gathered.swift); what a daemon
// must run is handed over once.

import CLibAIO
import JobTable
import Paths
import Synchronization

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
        Gathered.withRoomForEvents { events in
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

    /// A single request that is no read from memory. Its reserved slot has kept the context until
    /// here.
    @inline(never)
    private func submitRest(
        of context: ContextRef, _ pointers: UInt, attempt: Attempt?
    ) -> Int {
        Gathered.withRoomForEvents { events in
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
        context.it.pins.wrappingAdd(1, ordering: .sequentiallyConsistent)
        defer { unpin(context) }
        return submitOurs(
            &gathered, after: accepted, count: min(count, Int(context.it.ring.nr)), pointers)
    }

    @inline(never)
    private func submitPinned(_ address: UInt, count nr: Int, _ pointers: UInt) -> Int {
        if it.engine.it.choice == .off { return failure(ENOSYS) }
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
        let result = Gathered.withRoomForEvents { events in
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
            coldReads: context.chooseForColdReads(),
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
        // Who fell asleep before has seen none of it with the kernel.
        if context.hasFutexSleepers { it.engine.ensureKernelReaper() }
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
        if gathered.slots == 0 && !reserve(remaining, &gathered) {
            return failure(gathered.context.isDying ? EINVAL : EAGAIN)
        }

        if iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0 {
            let result = checkEventfd(iocb, &gathered)
            if result < 0 { return result }
        }
        // Where no daemon can be had it waits here, perhaps for who waits for those before it. And
        // who has the event of an fsync, which is handed over at once, has those of the writes.
        let isSync =
            Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_FSYNC)
            || Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_FDSYNC)
        if isSync || !it.engine.isFileByHint(iocb.aio_fildes) { gathered.publish() }
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
            let refusal = it.engine.handOverUnseen(&batch)
            if refusal < 0 {
                gathered.context.dequeue(job, in: it.table)
                it.table.free(job, from: .finished)
                gathered.slots &+= 1
                return refusal
            }
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
}

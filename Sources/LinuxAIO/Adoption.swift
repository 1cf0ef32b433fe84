// Adoption: the native path. A context whose first request is O_DIRECT, or a POLL, gets the
// kernel's ring.
//
// The kernel lets its aio_ring be moved (mremap) and then knows the context by the new address.
// So while our ring is empty, a fresh context of the kernel's is moved onto the very address that
// the program knows; from then on the program's ring is the kernel's, and requests, eventfds,
// ring readers and sleepers are served by the kernel without a thread of ours in between. What
// remains of ours is the look-up, the order gate, and reaping in user space where nobody sleeps in
// the kernel: events that are in the ring are taken without a system call.
//
// Adopted contexts behave as the kernel's in everything: a cold buffered read on one blocks
// io_submit. They are bounded in number, because they count against fs.aio-max-nr; where the kernel
// refuses, the context stays ours and O_DIRECT goes to the shared context of NativeDaemon.swift, or
// to a daemon.

import CLibAIO
import JobTable
import Paths
import Synchronization

enum Adoption {
    /// Most contexts, and most events of all together, that one process takes from the kernel.
    static let contextsMax: UInt32 = 16
    static let eventsMax: UInt32 = 8192
}

extension Ref where Pointee == LinuxFace {
    var mayAdopt: Bool { it.engine.it.choice == .automatic }

    /// At io_setup. Where contexts may become the kernel's, a daemon is started by the first
    /// request that needs one: once there is a second thread, the C library makes the program's
    /// read and write slower.
    func warmUpUnlessAdoptable() {
        if mayAdopt { ioctx_note_starter() } else { it.engine.warmUp() }
    }

    /// Before a sleep for events of a context of ours: it may be a handler that submits meanwhile,
    /// and that starts no daemon. Once, so that a daemon which found nothing to do may leave.
    func warmUpForHandlers() {
        if mayAdopt && !it.isWarm.load(ordering: .relaxed) && it.engine.warmUp() {
            it.isWarm.store(true, ordering: .relaxed)
        }
    }

    /// Whether a context that has never been used should be the kernel's; asked at its first
    /// io_submit. True when it is now.
    @inline(never)
    func adopt(_ context: ContextRef, _ pointers: UInt) -> Bool {
        let isFirst = context.clear(ContextState.fresh)
        if !isFirst || !suitsKernel(pointers) || !it.engine.kernelAIOIsUsable()
            || !reserveAdoption(context.it.quota)
        {
            return context.isAdopted
        }
        if moveKernelRing(onto: context) {
            // Whoever sleeps for an event of our ring must now sleep for one of the kernel's.
            context.wakeAll()
            return true
        }
        it.lock.lock()
        it.adoptedContexts &-= 1
        it.adoptedEvents &-= context.it.quota
        it.lock.unlock()
        return false
    }

    private func suitsKernel(_ pointers: UInt) -> Bool {
        var address: UInt = 0
        var iocb = iocb()
        if !it.memory.read(at: pointers, into: &address)
            || !it.memory.read(at: address, into: &iocb)
        {
            return false
        }
        let isSignalled = iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0
        switch Int(iocb.aio_lio_opcode) {
        case Int(IOCB_CMD_PREAD), Int(IOCB_CMD_PREADV), Int(IOCB_CMD_PWRITE):
            return KernelAIO.suits(
                iocb.aio_fildes, isWrite: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_PWRITE),
                end: iocb.aio_offset &+ Int64(truncatingIfNeeded: iocb.aio_nbytes),
                isSignalled: isSignalled)
        case Int(IOCB_CMD_PWRITEV):
            // The vectors' lengths are not known yet; the start must at least be inside.
            return KernelAIO.suits(
                iocb.aio_fildes, isWrite: true, end: iocb.aio_offset &+ 1,
                isSignalled: isSignalled)
        case Int(IOCB_CMD_POLL):
            // Which the kernel never blocks on; and who begins so has another context for files.
            return true
        default:
            return false
        }
    }

    private func reserveAdoption(_ events: UInt32) -> Bool {
        it.lock.lock()
        defer { it.lock.unlock() }
        if it.adoptedContexts >= Adoption.contextsMax || events > Adoption.eventsMax
            || it.adoptedEvents > Adoption.eventsMax &- events
        {
            return false
        }
        it.adoptedContexts &+= 1
        it.adoptedEvents &+= events
        return true
    }

    private func moveKernelRing(onto context: ContextRef) -> Bool {
        let made = KernelAIO.setup(events: context.it.quota)
        if made < 0 && made > -4096 { return false }
        let kernelRing = UInt(bitPattern: made)
        var moved = false
        context.it.lock.lock()
        let bytes = context.it.ring.pages.bytes
        let address = context.it.address.load(ordering: .relaxed)
        if Ref<aio_ring>(address: kernelRing)?.it.nr == context.it.ring.nr
            && context.it.inFlight == 0 && context.it.ring.isUntouched
            && !context.isDying
        {
            let result = systemCall(
                Int32(SYS_mremap), made, bytes, bytes,
                Int(IOCTX_MREMAP_MAYMOVE | IOCTX_MREMAP_FIXED), Int(bitPattern: address))
            moved = UInt(bitPattern: result) == address
            if moved { _ = context.set(ContextState.adopted) }
        }
        context.it.lock.unlock()
        if !moved { _ = KernelAIO.destroy(kernelRing) }
        return moved
    }

    // MARK: Calls on an adopted context

    /// Submits to the kernel, which finds the context by itself: nobody need keep the record. Of a
    /// context that another thread ends meanwhile, what the kernel took may be counted for the next
    /// one with that record.
    func submitAdopted(
        _ context: ContextRef, _ address: UInt, count: Int, _ pointers: UInt
    ) -> Int {
        var most = count
        if it.engine.mayHaveDeferred && count > 0 {
            most = awaitDeferred(min(count, Int(context.it.ring.nr)), pointers)
            if most == 0 { return failure(EAGAIN) }
        }
        let accepted = KernelAIO.submit(address, most, pointers)
        if accepted > 0 { context.it.counts.adopted.add(UInt64(accepted)) }
        return accepted
    }

    /// What is deferred on another context must not be overtaken: see KernelOrder.swift. How many
    /// of the requests may be submitted: all of them, or those before the one that may not wait.
    private func awaitDeferred(_ count: Int, _ pointers: UInt) -> Int {
        for index in 0..<count {
            var address: UInt = 0
            var iocb = iocb()
            if !it.memory.read(at: pointers &+ UInt(bitPattern: index &* 8), into: &address)
                || !it.memory.read(at: address, into: &iocb)
            {
                return count
            }
            let opcode = Int(iocb.aio_lio_opcode)
            if opcode == Int(IOCB_CMD_POLL) { continue }
            let isOneBuffer = opcode == Int(IOCB_CMD_PREAD) || opcode == Int(IOCB_CMD_PWRITE)
            let isWrite = opcode == Int(IOCB_CMD_PWRITE) || opcode == Int(IOCB_CMD_PWRITEV)
            var request = Request(
                operation: isWrite ? .write : .read, descriptor: iocb.aio_fildes)
            request.offset = iocb.aio_offset
            request.rwFlags = iocb.aio_rw_flags
            // As far as anybody knows without reading the vectors; an fsync is for all bytes.
            request.length = isOneBuffer ? Int(truncatingIfNeeded: iocb.aio_nbytes) : Int.max / 2
            if !it.engine.awaitDeferred(before: request) { return index }
        }
        return count
    }

    /// Reaps in user space what is there, and in the kernel otherwise, by the program's time-out.
    /// The context is pinned and its lock held, and given back.
    func reapAdoptedLocked(_ reaping: Reaping) -> Int {
        let context = reaping.context
        let address = context.it.address.load(ordering: .relaxed)
        if reaping.sigmask == 0 && !it.memory.isStrict && reaping.minimum >= 0
            && reaping.maximum >= max(reaping.minimum, 1) && mayTakeLocked(context)
        {
            let taken = takeFromKernelRing(
                context, into: reaping.events, count: reaping.maximum, minimum: reaping.minimum)
            if taken != 0 || reaping.minimum == 0 {
                context.it.lock.unlock()
                return taken
            }
        }
        context.it.kernelReapers &+= 1
        context.it.lock.unlock()
        let result =
            reaping.sigmask != 0 && KernelAIO.mayBeTrapped
            ? reapInSlices(reaping)
            : KernelAIO.getEvents(
                address, reaping.minimum, reaping.maximum, reaping.events, timeout: reaping.timeout,
                sigmask: reaping.sigmask)
        if result == failure(EINTR) && !isStillThere { return result }
        context.it.lock.lock()
        context.it.kernelReapers &-= 1
        context.it.lock.unlock()
        return result
    }

    /// io_pgetevents without the call of that name: takes what is there, and sleeps in between with
    /// the caller's mask for a millisecond at a time.
    private func reapInSlices(_ reaping: Reaping) -> Int {
        var reaping = reaping
        let address = reaping.context.it.address.load(ordering: .relaxed)
        var none = timespec(tv_sec: 0, tv_nsec: 0)
        while true {
            let taken = withAddress(of: &none) {
                KernelAIO.getEvents(
                    address, 0, reaping.maximum &- reaping.taken,
                    reaping.events &+ UInt(bitPattern: reaping.taken &* AioRing.eventBytes),
                    timeout: UInt(bitPattern: $0), sigmask: 0)
            }
            if taken < 0 { return reaping.taken > 0 ? reaping.taken : taken }
            reaping.taken &+= taken
            if reaping.taken >= reaping.minimum { return finish(reaping, 0) }
            let slept = sleepInSlices(reaping)
            if slept != 0 {
                return reaping.taken == 0 && slept == failure(EINTR) ? slept : reaping.taken
            }
        }
    }

    /// Whether events of an adopted context may be taken in user space: no thread reaps in the
    /// kernel, and the ring is still there, for io_destroy takes the lock before the ring goes.
    func mayTakeLocked(_ context: ContextRef) -> Bool {
        context.it.kernelReapers == 0 && !context.isDying
    }

    /// Takes events from the kernel's ring if there are enough; 0 when there are not, -EFAULT when
    /// they cannot be stored. Under the context's lock, when `mayTakeLocked`.
    func takeFromKernelRing(
        _ context: ContextRef, into events: UInt, count: Int, minimum: Int
    ) -> Int {
        let ring = RingView(
            address: context.it.address.load(ordering: .relaxed), nr: context.it.ring.nr)
        if Memory.isOutsideUserSpace(events) { return ring.isEmpty ? 0 : failure(EFAULT) }
        return ring.takeFromKernel(into: events, count: count, minimum: minimum)
    }

    /// Ends an adopted context that can no longer be found, and whose ring nobody reads any more.
    /// The kernel awaits its requests and wakes its sleepers. 0, or -EINVAL where the program has
    /// unmapped the ring.
    func destroyAdopted(_ context: ContextRef) -> Int {
        let result = KernelAIO.destroy(context.it.address.load(ordering: .relaxed))
        it.lock.lock()
        it.adoptedContexts &-= 1
        it.adoptedEvents &-= context.it.quota
        it.lock.unlock()
        return result
    }
}

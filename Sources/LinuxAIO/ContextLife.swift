// How contexts come and go: io_setup's and io_destroy's book-keeping, and the program's views of
// the rings.
//
// Under the face's lock a context is in the hash chain of its address and its events are in the
// quota, or neither. A new one takes the address of an old one whose ring the program has
// unmapped: that one is ended like a destroyed one, but nobody waits for what it has in flight.
// The program's view is unmapped unless the program has put something else there.

import CLibAIO
import JobTable
import Paths
import Synchronization

extension Ref where Pointee == LinuxFace {
    // MARK: io_setup

    /// Makes a context for `n` events. Its address, or a negated errno: fs/aio.c, ioctx_alloc.
    func make(events n: UInt32) -> Int {
        let bytes = AioRing.bytes(forEvents: n, processors: it.processors)
        if bytes < 0 { return bytes }
        let quota = it.table.it.limits.aioMaxNr
        if n > quota { return failure(EAGAIN) }
        it.lock.lock()
        var evicted: ContextRef?
        defer {
            it.lock.unlock()
            if let evicted { abandon(evicted) }
        }
        if it.quotaUsed > quota &- n { return failure(EAGAIN) }
        guard let context = freeRecordLocked(),
            let (pages, address) = it.arena.allocateViews(bytes: bytes)
        else { return failure(ENOMEM) }
        context.prepare(
            ring: AioRing(pages: pages, id: context.it.index), quota: n, mayBeAdopted: mayAdopt)
        // Whatever had this address was unmapped by the program, or the kernel would not have
        // given it out again.
        evicted = evictLocked(address)
        if let evicted {
            evicted.it.pins.wrappingAdd(1, ordering: .sequentiallyConsistent)
            _ = evicted.set(ContextState.dying)
        }
        it.lowestFree = context.it.index &+ 1
        context.it.address.store(address, ordering: .releasing)
        linkLocked(context, at: address)
        showLocked()
        return Int(bitPattern: address)
    }

    func linkLocked(_ context: ContextRef, at address: UInt) {
        let head = bucket(address)
        context.it.hashNext.store(head.it.load(ordering: .relaxed), ordering: .relaxed)
        head.it.store(context.it.index &+ 1, ordering: .releasing)
        it.quotaUsed &+= context.it.quota
        it.linkedCount &+= 1
    }

    /// Shows what was linked or unlinked to outsiders.
    private func showLocked() {
        it.counters.it.linux.contexts.setLocked(UInt64(it.linkedCount))
        it.counters.it.linux.aioNr.setLocked(UInt64(it.quotaUsed))
    }

    /// Ends a pinned context that is dying and can no longer be found; what it has in flight
    /// completes unseen.
    private func abandon(_ context: ContextRef) {
        context.wakeAll()
        cancelAll(of: context)
        unpin(context)
    }

    /// The free record with the lowest index, as the kernel gives out the lowest id.
    private func freeRecordLocked() -> ContextRef? {
        var index = it.lowestFree
        let count = it.contextCount.load(ordering: .relaxed)
        while index < count
            && it.contexts[index].it.address.load(ordering: .relaxed) != 0
        {
            index &+= 1
        }
        if index == count {
            if index == it.contexts.opened && !it.contexts.grow() { return nil }
            it.contextCount.store(count &+ 1, ordering: .relaxed)
            it.counters.it.linux.contextsUsed.store(count &+ 1, ordering: .relaxed)
        }
        let context = it.contexts[index]
        context.it.index = index
        return context
    }

    /// Takes the context with that name out, if there is one.
    private func evictLocked(_ address: UInt) -> ContextRef? {
        var next = bucket(address).it.load(ordering: .relaxed)
        while next != 0 {
            let context = it.contexts[next &- 1]
            if context.it.address.load(ordering: .relaxed) == address {
                unlinkLocked(context)
                return context
            }
            next = context.it.hashNext.load(ordering: .relaxed)
        }
        return nil
    }

    /// Takes a context out of its hash chain, and its events out of the quota; nothing when that
    /// has been done.
    func unlinkLocked(_ context: ContextRef) {
        let head = bucket(context.it.address.load(ordering: .relaxed))
        var next = head.it.load(ordering: .relaxed)
        var previous: ContextRef?
        while next != 0 {
            let current = it.contexts[next &- 1]
            if current == context {
                let next = context.it.hashNext.load(ordering: .relaxed)
                if let previous {
                    previous.it.hashNext.store(next, ordering: .relaxed)
                } else {
                    head.it.store(next, ordering: .releasing)
                }
                it.quotaUsed &-= context.it.quota
                it.linkedCount &-= 1
                return
            }
            previous = current
            next = current.it.hashNext.load(ordering: .relaxed)
        }
    }

    // MARK: io_destroy

    /// Ends a pinned context: takes back what is queued, waits for what runs. 0 or -EINVAL.
    func destroy(_ context: ContextRef) -> Int {
        if !context.set(ContextState.dying) { return failure(EINVAL) }
        it.lock.lock()
        unlinkLocked(context)
        showLocked()
        it.lock.unlock()
        context.wakeAll()
        // Whoever reads the kernel's ring has the lock, and has not seen it dying; nor has whoever
        // is making the context the kernel's.
        context.it.lock.lock()
        let isAdopted = context.isAdopted
        context.it.lock.unlock()
        if isAdopted { return destroyAdopted(context) }
        cancelAll(of: context)
        unmapView(of: context)
        // A handler that interrupted a call on this very context cannot wait for that call.
        let thread = CurrentThread()
        if thread.isNested && thread.context == context.address { return 0 }
        context.it.sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        while true {
            let seen = context.it.changes.load(ordering: .sequentiallyConsistent)
            context.it.lock.lock()
            let busy =
                context.it.inFlight != 0
                || context.it.unannounced.load(ordering: .sequentiallyConsistent) != 0
            let isWithKernel = context.it.kernelJobs > 0
            context.it.lock.unlock()
            if !busy { break }
            if isWithKernel { it.engine.ensureKernelReaper() }
            let slept = context.it.changes.wait(while: seen, until: .max)
            if slept == failure(EINTR) && !isStillThere { return 0 }
        }
        context.it.sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        return 0
    }

    /// Unmaps the program's view unless the program has put something else there.
    private func unmapView(of context: ContextRef) {
        it.lock.lock()
        let address = context.it.address.load(ordering: .relaxed)
        if isViewLocked(of: context, at: address) ?? true {
            Memory.unmap(address, bytes: context.it.ring.pages.bytes)
        }
        it.lock.unlock()
    }

    /// True when the address is a view of the context's ring: what is changed through our view is
    /// found changed through theirs. nil where a sandbox forbids the look, or might kill for it.
    func isViewLocked(of context: ContextRef, at address: UInt) -> Bool? {
        if !it.memory.mayLook { return nil }
        guard let mine = Ref<aio_ring>(address: context.it.ring.pages.address) else {
            return false
        }
        let mark = UInt32(truncatingIfNeeded: System.monotonicNs()) | 1 << 31
        mine.it.compat_features = mark
        var header = aio_ring()
        let copied = UserMemory.copyIn(address, &header)
        mine.it.compat_features = UInt32(AIO_RING_COMPAT_FEATURES)
        if copied == failure(EFAULT) { return false }
        return copied < 0 ? nil : header.compat_features == mark
    }
}

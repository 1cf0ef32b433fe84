// Finding contexts, and holding what was found.
//
// A context is found by looking its address up, never by following the caller's pointer. Look-up
// takes no lock: it walks a hash chain of records that are never unmapped, pins what it finds
// and looks again. A chain that changes under the walk can at worst lead away, so a miss is
// confirmed under the lock before it is answered; there a context is found, too, whose ring the
// program has moved. The last to let go of a dying context makes its record free.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == LinuxFace {
    /// The context of that address, pinned; nil for an unknown, stale or dying one.
    @inline(__always)
    func find(_ address: UInt) -> ContextRef? {
        guard let context = findOnce(address) ?? findAgain(address) else { return nil }
        rememberInThread(context)
        if it.memory.isStrict && !isVisible(context, at: address) {
            unpin(context)
            return nil
        }
        return context
    }

    @inline(never)
    private func findAgain(_ address: UInt) -> ContextRef? {
        if Memory.isOutsideUserSpace(address) { return nil }
        it.lock.lock()
        defer { it.lock.unlock() }
        return findOnce(address) ?? findMovedLocked(address)
    }

    /// True when the program can still read the ring's id where the context's name says; the
    /// kernel reads it there at every call.
    private func isVisible(_ context: ContextRef, at address: UInt) -> Bool {
        // The kernel looks for itself.
        if context.isAdopted { return true }
        var id = UInt32.max
        return UserMemory.copyIn(address, &id) == 4 && id == context.it.index
    }

    /// A context whose view the program moved with mremap: its name is the new address. The old
    /// name is gone with the move, as in the kernel (fs/aio.c, aio_ring_mremap).
    private func findMovedLocked(_ address: UInt) -> ContextRef? {
        var header = aio_ring()
        if !it.memory.mayLook
            || UserMemory.copyIn(address, &header) != MemoryLayout<aio_ring>.size
        {
            return nil
        }
        if header.id >= it.contextCount.load(ordering: .relaxed) { return nil }
        let context = it.contexts[header.id]
        let oldAddress = context.it.address.load(ordering: .relaxed)
        if oldAddress == 0 || context.isDying
            || isViewLocked(of: context, at: address) != true
        {
            return nil
        }
        unlinkLocked(context)
        context.it.address.store(address, ordering: .sequentiallyConsistent)
        linkLocked(context, at: address)
        return findOnce(address)
    }

    @inline(__always)
    private func findOnce(_ address: UInt) -> ContextRef? {
        guard let context = findUnpinned(address) else { return nil }
        context.it.pins.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if context.it.address.load(ordering: .sequentiallyConsistent) == address
            && !context.isDying
            && (context.visibleId == context.it.index
                || context.isAdopted)
        {
            return context
        }
        unpin(context)
        return nil
    }

    /// For a handler that interrupts this call: see `destroy`.
    @inline(__always)
    func rememberInThread(_ context: ContextRef) {
        let thread = CurrentThread()
        if !thread.isNested { thread.context = context.address }
    }

    /// The record that had that address a moment ago. The caller makes it stay and looks again.
    @inline(__always)
    func findUnpinned(_ address: UInt) -> ContextRef? {
        let first = bucket(address).it.load(ordering: .acquiring)
        if first == 0 { return nil }
        let context = it.contexts[first &- 1]
        return context.it.address.load(ordering: .relaxed) == address
            ? context : findBehind(context, address)
    }

    /// The same in the rest of a hash chain, which may be changed meanwhile, even into a ring.
    @inline(never)
    private func findBehind(_ first: ContextRef, _ address: UInt) -> ContextRef? {
        var next = first.it.hashNext.load(ordering: .relaxed)
        var steps: UInt32 = 0
        while next != 0 && steps <= it.contextCount.load(ordering: .relaxed) {
            let context = it.contexts[next &- 1]
            if context.it.address.load(ordering: .relaxed) == address { return context }
            next = context.it.hashNext.load(ordering: .relaxed)
            steps &+= 1
        }
        return nil
    }

    @inline(__always)
    func bucket(_ address: UInt) -> Ref<Atomic<UInt32>> {
        let page = address >> 12
        return it.heads[Int(bitPattern: (page ^ page >> 12) % UInt(LinuxFace.buckets))]
    }

    /// Lets go of a context; the last to let go of a dying one makes its record free.
    @inline(__always)
    func unpin(_ context: ContextRef) {
        let left = context.it.pins.wrappingSubtract(1, ordering: .sequentiallyConsistent).newValue
        if left == 0 && context.isDying {
            release(context)
        }
    }

    /// After slots that were reserved without a pin are used: who held the record by them alone
    /// may have been the last.
    @inline(__always)
    func releaseUnpinned(_ context: ContextRef) {
        if context.isDying { release(context) }
    }

    @inline(never)
    private func release(_ context: ContextRef) {
        it.lock.lock()
        context.it.lock.lock()
        // Only one of several that saw 0 pins finds the address still set.
        if context.it.pins.load(ordering: .sequentiallyConsistent) == 0
            && context.isDying
            && context.it.address.load(ordering: .relaxed) != 0 && context.it.inFlight == 0
            && context.it.unannounced.load(ordering: .sequentiallyConsistent) == 0
        {
            context.it.address.store(0, ordering: .sequentiallyConsistent)
            it.arena.free(context.it.ring.pages)
            it.lowestFree = min(it.lowestFree, context.it.index)
            it.counters.it.linux.addLocked(context.it.counts)
        }
        context.it.lock.unlock()
        it.lock.unlock()
    }
}

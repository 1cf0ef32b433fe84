// All contexts of the process: look-up by address, io_setup's and io_destroy's book-keeping.
//
// A context is found by looking its address up, never by following the caller's pointer. Look-up
// takes no lock: it walks a hash chain of records that are never unmapped, pins what it finds and
// looks again. A chain that changes under the walk can at worst lead away, so a miss is confirmed
// under the lock before it is answered.

import CLibAIO
import JobTable
import Paths
import Synchronization

struct LinuxFace: ~Copyable {
    static let buckets = 4096

    let lock: FutexLock  // (f)
    let table: Ref<JobTable>  // constant
    let engine: Ref<EngineRecord>  // constant
    let choice: Engine  // constant
    let processors: UInt32  // constant
    let memory: UserMemory  // constant
    /// Neither strict nor off; constant.
    let isUsual: Bool
    /// A daemon has been started for those who sleep.
    let isWarm = Atomic<Bool>(false)
    var contexts: Reserve<Context>  // (f) to grow
    let contextCount = Atomic<UInt32>(0)  // (f) to write: records ever used
    var lowestFree: UInt32 = 0  // (f) no free record below
    var arena: RingArena  // (f)
    var linkedCount: UInt32 = 0  // (f) contexts that can be found
    var quotaUsed: UInt32 = 0  // (f) sum of their io_setup's arguments
    var adoptedContexts: UInt32 = 0  // (f)
    var adoptedEvents: UInt32 = 0  // (f) sum of their io_setup's arguments
    let counters: Ref<Counters>  // constant
    let heads: UInt  // address of `buckets` atomic indexes, each plus one

    /// The face of this process, or nil before the first io_setup.
    @inline(__always)
    static var current: Ref<LinuxFace>? {
        guard let root = ProcessRoot.current else { return nil }
        return Ref(address: root.it.linuxFace.load(ordering: .acquiring))
    }

    /// The face, made if necessary. `failure` receives a negated errno when there is none.
    static func create(_ failureResult: inout Int) -> Ref<LinuxFace>? {
        if let face = current { return face }
        failureResult = failure(ENOMEM)
        guard let root = ProcessRoot.create() else { return nil }
        root.it.creationLock.lock()
        defer { root.it.creationLock.unlock() }
        if let face = Ref<LinuxFace>(address: root.it.linuxFace.load(ordering: .acquiring)) {
            return face
        }
        let choice = Engine.fromEnvironment()
        let memory = UserMemory.fromEnvironment()
        let heads = Memory.map(
            bytes: buckets &* MemoryLayout<Atomic<UInt32>>.stride,
            protection: PROT_READ | PROT_WRITE)
        guard heads != 0, let table = JobTable.createLocked(in: root),
            let engine = EngineRecord.createLocked(in: root, table: table, choice: choice),
            let contexts = Reserve<Context>(capacity: 1 << 17), let arena = RingArena(),
            let face = Memory.record(LinuxFace.self)
        else { return nil }
        unsafe face.pointer.initialize(
            to: LinuxFace(
                lock: FutexLock(), table: table, engine: engine, choice: choice,
                processors: Limits.possibleProcessors(),
                memory: memory, isUsual: !memory.isStrict && choice != .off, contexts: contexts,
                arena: arena, counters: table.it.counters, heads: heads))
        let counters = table.it.counters
        counters.it.linux.contextsAddress = UInt64(face.it.contexts[0].address)
        counters.it.linux.contextsStride = UInt32(MemoryLayout<Context>.stride)
        table.it.linuxHooks = FaceHooks(
            publish: { job in LinuxFace.publish(job) },
            wake: { context in LinuxFace.jobAnnounced(context) })
        root.it.linuxFace.store(face.address, ordering: .releasing)
        return face
    }

    /// The job table's hook: a job of this face is finished.
    private static func publish(_ address: UInt) {
        guard let job = JobRef(address: address), let context = ContextRef(address: job.it.owner),
            let face = current
        else { return }
        context.publish(job, in: face.it.table, isForKernel: face.it.engine.isForKernel(job))
    }

    /// The job table's hook: the eventfd, if any, has been signalled.
    private static func jobAnnounced(_ address: UInt) {
        guard let context = ContextRef(address: address), let face = current else { return }
        context.signalled()
        context.wakeSleepers()
        face.unpin(context)
    }
}

extension Ref where Pointee == LinuxFace {
    // MARK: Look-up

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
        context.it.pins.add(1, ordering: .sequentiallyConsistent)
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
        var next = first.it.hashNext
        var steps: UInt32 = 0
        while next != 0 && steps <= it.contextCount.load(ordering: .relaxed) {
            let context = it.contexts[next &- 1]
            if context.it.address.load(ordering: .relaxed) == address { return context }
            next = context.it.hashNext
            steps &+= 1
        }
        return nil
    }

    @inline(__always)
    private func bucket(_ address: UInt) -> Ref<Atomic<UInt32>> {
        let page = address >> 12
        let index = (page ^ page >> 12) % UInt(LinuxFace.buckets)
        return unsafe Ref<Atomic<UInt32>>(address: it.heads &+ index &* 4).unsafelyUnwrapped
    }

    /// Lets go of a context; the last to let go of a dying one makes its record free.
    @inline(__always)
    func unpin(_ context: ContextRef) {
        let left = context.it.pins.subtract(1, ordering: .sequentiallyConsistent).newValue
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
        evicted?.it.pins.add(1, ordering: .sequentiallyConsistent)
        it.lowestFree = context.it.index &+ 1
        context.it.address.store(address, ordering: .releasing)
        linkLocked(context, at: address)
        showLocked()
        return Int(bitPattern: address)
    }

    private func linkLocked(_ context: ContextRef, at address: UInt) {
        let head = bucket(address)
        context.it.hashNext = head.it.load(ordering: .relaxed)
        head.it.store(context.it.index &+ 1, ordering: .releasing)
        it.quotaUsed &+= context.it.quota
        it.linkedCount &+= 1
    }

    /// Shows what was linked or unlinked to outsiders.
    private func showLocked() {
        it.counters.it.linux.contexts.setLocked(UInt64(it.linkedCount))
        it.counters.it.linux.aioNr.setLocked(UInt64(it.quotaUsed))
    }

    /// Ends a pinned context that can no longer be found; what it has in flight completes unseen.
    private func abandon(_ context: ContextRef) {
        _ = context.set(ContextState.dying)
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
            next = context.it.hashNext
        }
        return nil
    }

    /// Takes a context out of its hash chain, and its events out of the quota; nothing when that
    /// has been done.
    private func unlinkLocked(_ context: ContextRef) {
        let head = bucket(context.it.address.load(ordering: .relaxed))
        var next = head.it.load(ordering: .relaxed)
        var previous: ContextRef?
        while next != 0 {
            let current = it.contexts[next &- 1]
            if current == context {
                if let previous {
                    previous.it.hashNext = context.it.hashNext
                } else {
                    head.it.store(context.it.hashNext, ordering: .releasing)
                }
                it.quotaUsed &-= context.it.quota
                it.linkedCount &-= 1
                return
            }
            previous = current
            next = current.it.hashNext
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
        if context.isAdopted {
            destroyAdopted(context)
            return 0
        }
        cancelAll(of: context)
        unmapView(of: context)
        // A handler that interrupted a call on this very context cannot wait for that call.
        let thread = CurrentThread()
        if thread.isNested && thread.context == context.address { return 0 }
        context.it.sleepers.add(1, ordering: .sequentiallyConsistent)
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
            _ = context.it.changes.wait(while: seen, until: .max)
        }
        context.it.sleepers.subtract(1, ordering: .sequentiallyConsistent)
        return 0
    }

    /// Takes a queued job back; its daemon will finish it. False when a daemon has won it.
    func takeBack(_ job: JobRef) -> Bool {
        if !job.transition(from: .queued, to: .cancelled) { return false }
        it.engine.deliverCancelled(job)
        return true
    }

    /// Ends everything of the context that may never end by itself: what waits for readiness.
    func cancelAll(of context: ContextRef) {
        var any = false
        context.it.lock.lock()
        var next = context.it.jobsHead
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.ownerNext
            // I/O on files ends by itself, and an accepted write must be written.
            if !job.awaitsReadiness { continue }
            if !takeBack(job) {
                job.it.cancelRequested.store(true, ordering: .releasing)
                any = true
            }
        }
        context.it.lock.unlock()
        if any { it.engine.announceCancellations() } else { it.engine.nudge() }
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
    private func isViewLocked(of context: ContextRef, at address: UInt) -> Bool? {
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

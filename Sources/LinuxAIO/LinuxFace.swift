// The Linux face of this process: its record, how it is made, and what daemons tell it.
//
// There is one, made by the first io_setup and reached from the root page. It knows all
// contexts: how they are found is in ContextLookUp.swift, how they come and go in
// ContextLife.swift. In the record, (f) is the face's lock.

import CLibAIO
import JobTable
import Paths
import Synchronization

struct LinuxFace: ~Copyable {
    static let buckets = 4096

    let lock: FutexLock  // (f)
    let table: Ref<JobTable>  // constant
    let engine: Ref<EngineRecord>  // constant
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
    let heads: Records<Atomic<UInt32>>  // indexes, each plus one

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
        let memory = UserMemory.fromEnvironment()
        guard let table = JobTable.createLocked(in: root),
            let engine = EngineRecord.createLocked(in: root, table: table),
            let heads = Records<Atomic<UInt32>>(count: buckets),
            let contexts = Reserve<Context>(capacity: 1 << 17), let arena = RingArena(),
            let face = Memory.record(LinuxFace.self, unique: true)
        else { return nil }
        unsafe face.pointer.initialize(
            to: LinuxFace(
                lock: FutexLock(), table: table, engine: engine,
                processors: Limits.possibleProcessors(),
                memory: memory, isUsual: !memory.isStrict && engine.it.choice != .off,
                contexts: contexts,
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
    /// False in a child that a signal handler forked while its parent slept in a call: what that
    /// call knows is memory that the child does not have (ProcessRoot.swift).
    var isStillThere: Bool { LinuxFace.current == self }
}

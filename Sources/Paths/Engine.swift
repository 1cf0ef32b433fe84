// Which engine serves the daemon path, and the record of it that every path shares.

import CLibAIO
public import JobTable
import Synchronization

/// What runs the requests that would block their submitter.
public enum Engine: UInt8, Sendable {
    /// The kernel's own AIO for contexts that begin with O_DIRECT or POLL, and for O_DIRECT of
    /// POSIX AIO or of another context; for the rest io_uring if it can be had, else threads, else
    /// inline.
    case automatic
    /// One daemon with an io_uring of its own.
    case uring
    /// A bounded pool of daemons that call preadv, pwritev and fsync.
    case threads
    /// No daemon can be had: everything runs in io_submit, as buffered I/O does in the kernel. No
    /// variable asks for it; it is what `survey` may find.
    case inline
    /// Every call answers -ENOSYS.
    case off

    /// The engine that IOCTX_ENGINE asks for. An unknown value is read as automatic, and nothing is
    /// said of it: stderr is the program's, and its number may be that of a file. The tool tells.
    public static func fromEnvironment() -> Engine {
        guard let value = unsafe environmentValue("IOCTX_ENGINE") else { return .automatic }
        // Direct requests go to the kernel's AIO, where it takes them, as a rule: `native` asks for
        // that.
        if unsafe equals(value, "") || equals(value, "auto") || equals(value, "native") {
            return .automatic
        }
        if unsafe equals(value, "uring") { return .uring }
        if unsafe equals(value, "threads") { return .threads }
        if unsafe equals(value, "off") { return .off }
        return .automatic
    }

    /// True when IOCTX_WRITES=async: buffered writes go to a daemon.
    static func writesAreAsyncInEnvironment() -> Bool {
        guard let value = unsafe environmentValue("IOCTX_WRITES") else { return false }
        return unsafe equals(value, "async")
    }

    /// True when IOCTX_ENGINE=off, for the calls that come before any io_setup.
    public static func isOffInEnvironment() -> Bool {
        guard let value = unsafe environmentValue("IOCTX_ENGINE") else { return false }
        return unsafe equals(value, "off")
    }

    private static func equals(_ value: UnsafeMutablePointer<CChar>, _ word: StaticString) -> Bool {
        for index in 0..<word.utf8CodeUnitCount
        where unsafe UInt8(bitPattern: value[index]) != word.utf8Start[index] {
            return false
        }
        return unsafe value[word.utf8CodeUnitCount] == 0
    }
}

/// A place for a station, and when to try again to fill it.
struct StationSlot: ~Copyable {
    /// The station's address; 0 when there is none at the moment.
    let address = Atomic<UInt>(0)
    /// After a failed start, nobody tries again before this time on the monotonic clock.
    let retryAtNs = Atomic<UInt64>(0)
    /// When a station was lost last, on that clock.
    let lostAtNs = Atomic<UInt64>(0)
    /// After two losses, only who cannot do without starts another before this time.
    let restartAtNs = Atomic<UInt64>(0)

    static let patienceNs: UInt64 = 1_000_000_000

    /// The station, which may leave at any time unless it is retained.
    @inline(__always)
    var current: Ref<Station>? { Ref(address: address.load(ordering: .acquiring)) }

    /// Notes the loss of a station. The second within a short time is no accident: there are
    /// threads with descriptor tables of their own, of which each would replace the station of the
    /// others. They do for a while without.
    func noteLoss() {
        let now = System.monotonicNs()
        if lostAtNs.exchange(now, ordering: .relaxed) &+ Self.patienceNs > now {
            restartAtNs.store(now &+ Self.patienceNs, ordering: .relaxed)
        }
    }

    func forget(_ station: Ref<Station>) {
        _ = address.compareExchange(
            expected: station.address, desired: 0, ordering: .acquiringAndReleasing)
    }
}

/// The engine's record: one per process.
public struct EngineRecord: ~Copyable {
    /// What IOCTX_ENGINE asked for, of both faces; constant.
    public let choice: Engine
    /// Buffered writes are deferred; constant.
    let writesAreAsync: Bool
    let table: Ref<JobTable>  // constant
    /// Deferred reads, for what must come after them.
    public var reads: OrderGate
    /// Deferred requests on streams, and writes that are one at a time.
    let streams: StreamGate
    var syncs: SyncGate

    /// Serialises the start of stations; guards everything that says (e).
    let startLock = FutexLock()
    /// The station that takes hand-overs.
    let station = StationSlot()
    /// The pool that takes fsyncs and extending writes beside a daemon on io_uring, which would
    /// pass them on to a thread of the kernel's and wait for that: two wake-ups more than a pool's
    /// worker needs.
    let poolStation = StationSlot()
    /// The station of the kernel's AIO.
    let nativeStation = StationSlot()
    /// All stations ever made, linked by `nextStation`, for reuse and for cancellation.
    let stations = Atomic<UInt>(0)
    /// io_uring, or a station of the kernel's AIO, cannot be had in this process, ever.
    var uringIsHopeless = false  // (e)
    let nativeIsHopeless = Atomic<Bool>(false)  // (e) to write
    /// What KernelAIO.isUsable() has answered; nil before it was asked.
    var kernelAIOIsUsable: Bool?  // (e)

    /// False when a seccomp filter kills for what daemons do with their scheduling and I/O
    /// priority: then they keep what they inherit.
    let mayTuneThreads = Atomic<Bool>(true)  // (e) to write

    /// Hints about descriptors: see FileHints.swift.
    let hints: Records<Atomic<UInt32>>

    private init(
        choice: Engine, table: Ref<JobTable>, hints: consuming Records<Atomic<UInt32>>,
        streams: consuming StreamGate
    ) {
        self.streams = streams
        self.choice = choice
        writesAreAsync = Engine.writesAreAsyncInEnvironment()
        self.table = table
        self.hints = hints
        reads = OrderGate()
        syncs = SyncGate()
    }

    /// The process's engine, made if necessary. The caller holds the root's creation lock.
    public static func createLocked(
        in root: Ref<ProcessRoot>, table: Ref<JobTable>, choice: Engine = .fromEnvironment()
    ) -> Ref<EngineRecord>? {
        if let engine = Ref<EngineRecord>(address: root.it.engine.load(ordering: .acquiring)) {
            return engine
        }
        guard let hints = Records<Atomic<UInt32>>(count: FileHints.count),
            let streams = StreamGate(), let engine = Memory.record(EngineRecord.self)
        else { return nil }
        unsafe engine.pointer.initialize(
            to: EngineRecord(
                choice: choice, table: table, hints: hints, streams: streams))
        root.it.engine.store(engine.address, ordering: .releasing)
        return engine
    }
}

extension Ref where Pointee == EngineRecord {
    /// Makes sure that a daemon runs, so that the first request that needs one finds it. False when
    /// none can be had now.
    @discardableResult
    public func warmUp() -> Bool {
        guard let station = acquireStation() else { return false }
        station.release()
        return true
    }

    /// A station that takes hand-overs until `release` is called on it; nil when no daemon can be
    /// had, in which case the request runs inline. `mustStart` is for requests that cannot: then
    /// the suspicion of being in a handler is not enough to start none.
    func acquireStation(mustStart: Bool = false) -> Ref<Station>? {
        acquire(it.station, mustStart: mustStart) { startLocked() }
    }

    /// The same for what always blocks whoever does it: an fsync, an extending write.
    func acquireStationForBlocking() -> Ref<Station>? {
        if it.choice != .uring {
            if it.station.current == nil { warmUp() }
            // Not retained: the kind is all that matters, and a look at the station's descriptor
            // would cost a system call for each request.
            if it.station.current?.it.kind == .uring, let pool = acquirePool() { return pool }
        }
        return acquireStation()
    }

    private func acquirePool() -> Ref<Station>? {
        acquire(it.poolStation) { start(.pool, in: it.poolStation) == 0 }
    }

    /// The station of the kernel's AIO, which has no other to stand for it.
    func acquireNativeStation() -> Ref<Station>? {
        if it.nativeIsHopeless.load(ordering: .relaxed) { return nil }
        return acquire(it.nativeStation) { startNativeLocked() }
    }

    private func acquire(
        _ slot: borrowing StationSlot, mustStart: Bool = false, start: () -> Bool
    ) -> Ref<Station>? {
        var hasStarted = false
        while true {
            if let station = slot.current {
                if station.retain() {
                    if station.isReachable() { return station }
                    abandon(station, in: slot)
                    station.release()
                    // The way in cannot be looked at, or another thread has no use for it.
                    if hasStarted { return nil }
                    continue
                }
                if slot.current == station {
                    // It is deciding whether to leave: a few instructions, if it gets a processor.
                    System.sleep(nanoseconds: 1_000)
                    continue
                }
            }
            // pthread_create is not for signal handlers, and a nested call is surely in one.
            let thread = CurrentThread()
            if thread.isNested || !mustStart && thread.mayBeInHandler { return nil }
            let now = System.monotonicNs()
            if slot.retryAtNs.load(ordering: .relaxed) > now
                || !mustStart && slot.restartAtNs.load(ordering: .relaxed) > now
            {
                return nil
            }
            it.startLock.lock()
            if slot.current == nil && !start() {
                slot.retryAtNs.store(
                    System.monotonicNs() &+ StationSlot.patienceNs, ordering: .relaxed)
                it.startLock.unlock()
                return nil
            }
            it.startLock.unlock()
            hasStarted = true
        }
    }

    /// The station's descriptor in the program's table is gone: its daemon finishes what it has
    /// and leaves, and the next request starts another.
    private func abandon(_ station: Ref<Station>, in slot: borrowing StationSlot) {
        if lose(station) { slot.noteLoss() }
        station.wakeWithoutDescriptor()
    }

    /// No more hand-overs to a daemon on io_uring whose rings have turned out to be of no use, and
    /// no other such daemon.
    func giveUpUring(_ station: Ref<Station>) {
        it.startLock.lock()
        it.uringIsHopeless = true
        it.startLock.unlock()
        _ = lose(station)
    }

    /// No more hand-overs to a station, which only finishes what it has. False when it was lost
    /// already.
    private func lose(_ station: Ref<Station>) -> Bool {
        forget(station)
        return !station.it.isLost.exchange(true, ordering: .sequentiallyConsistent)
    }

    /// No more hand-overs to a station.
    func forget(_ station: Ref<Station>) {
        it.station.forget(station)
        it.poolStation.forget(station)
        it.nativeStation.forget(station)
    }

    /// Whether the kernel's AIO may be asked for. Found out once: where a seccomp filter is active,
    /// it takes a child.
    public func kernelAIOIsUsable() -> Bool {
        it.startLock.lock()
        defer { it.startLock.unlock() }
        return kernelAIOIsUsableLocked()
    }

    private func kernelAIOIsUsableLocked() -> Bool {
        if let known = it.kernelAIOIsUsable { return known }
        it.kernelAIOIsUsable = KernelAIO.isUsable()
        return it.kernelAIOIsUsable ?? false
    }

    private func startNativeLocked() -> Bool {
        let result =
            kernelAIOIsUsableLocked()
            ? start(.native, in: it.nativeStation)
            : failure(it.kernelAIOIsUsable == nil ? EAGAIN : ENOSYS)
        if result < 0 && !isForNow(result) { it.nativeIsHopeless.store(true, ordering: .relaxed) }
        return result == 0
    }

    /// A start that failed for the lack of something, such as the system's contexts: it may succeed
    /// later.
    private func isForNow(_ result: Int) -> Bool {
        result == failure(EMFILE) || result == failure(ENOMEM) || result == failure(EAGAIN)
            || result == failure(ENFILE)
    }

    private func startLocked() -> Bool {
        if it.choice == .inline || it.choice == .off { return false }
        if it.choice != .threads && !it.uringIsHopeless {
            let result = start(.uring, in: it.station)
            if result == 0 { return true }
            it.uringIsHopeless = !isForNow(result)
        }
        return it.choice != .uring && start(.pool, in: it.station) == 0
    }

    private func start(_ kind: Station.Kind, in slot: borrowing StationSlot) -> Int {
        let refusal = SandboxProbe.refusal(of: kind)
        if refusal < 0 { return refusal }
        guard let station = idleStation(kind) else { return failure(ENOMEM) }
        // Held meanwhile: a daemon that left before it is in the slot would never leave the slot.
        station.it.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
        defer { station.release() }
        it.mayTuneThreads.store(SandboxProbe.mayTuneThreads(), ordering: .relaxed)
        let result = station.start()
        if result == 0 { slot.address.store(station.address, ordering: .releasing) }
        return result
    }

    /// A station record whose daemon has left, or a new one.
    private func idleStation(_ kind: Station.Kind) -> Ref<Station>? {
        var next = Ref<Station>(address: it.stations.load(ordering: .acquiring))
        while let station = next {
            if station.it.kind == kind
                && station.it.state.load(ordering: .acquiring) == Station.dead
            {
                return station
            }
            next = Ref<Station>(address: station.it.nextStation)
        }
        guard let station = Station.make(kind, engine: self) else { return nil }
        station.it.nextStation = it.stations.load(ordering: .relaxed)
        it.stations.store(station.address, ordering: .releasing)
        return station
    }

    /// A job was taken back while queued: if a gate has it, its daemon gets it now.
    public func deliverCancelled(_ job: JobRef) {
        let station = Ref<Station>(address: job.it.station.load(ordering: .relaxed))
        if unpark(job) {
            station?.requeue(job)
        } else if job.it.isExclusive, let station, station.it.kind == .pool {
            // It lies in the workers' queue behind one that may take long: nobody was woken for it.
            if station.wakeWorkers(1) == 0 { station.kick() }
        }
    }

    func unpark(_ job: JobRef) -> Bool {
        job.isInStreamGate ? it.streams.unpark(job) : it.syncs.unpark(job)
    }

    /// Whether there is a station that nobody can reach any more, and that has not left yet.
    var hasLostStation: Bool {
        var next = Ref<Station>(address: it.stations.load(ordering: .acquiring))
        while let station = next {
            if station.it.isLost.load(ordering: .sequentiallyConsistent)
                && station.it.state.load(ordering: .acquiring) != Station.dead
            {
                return true
            }
            next = Ref<Station>(address: station.it.nextStation)
        }
        return false
    }

    /// Tells every daemon to look for jobs whose cancellation was requested.
    public func announceCancellations() {
        var next = Ref<Station>(address: it.stations.load(ordering: .acquiring))
        while let station = next {
            // One that is starting has no job, and no way in yet. Acquire pairs with the release in
            // started(): the way in is written before.
            let state = station.it.state.load(ordering: .acquiring)
            if state == Station.ready || state == Station.leaving {
                station.it.cancellations.store(1, ordering: .sequentiallyConsistent)
                station.kick()
            }
            next = Ref<Station>(address: station.it.nextStation)
        }
    }
}

// What the layer counts, in a page that readers outside the process find by its name: counters.h
// says where, what each number means, and how to read it.
//
// The page is a private mapping of a file in memory: the file gives it its name and nothing else,
// so a forked child can never write its parent's. Where no such file can be had, the page has no
// name, and nobody outside finds it.
//
// Lock key: that of the owner; (f) Linux face, (t) job table, (p) POSIX face. Without one: atomic.

import CLibAIO
public import Synchronization

/// A number that only grows.
public struct Counter: ~Copyable {
    let value: Atomic<UInt64>

    /// Under the lock that guards the counter: a plain addition to whoever reads it.
    @inline(__always)
    public func addLocked(_ count: UInt64 = 1) {
        value.store(value.load(ordering: .relaxed) &+ count, ordering: .relaxed)
    }

    /// For what was counted and then did not come to be.
    public func subtractLocked() { addLocked(.max) }

    /// For a counter that no lock guards.
    @inline(__always)
    public func add(_ count: UInt64 = 1) { value.wrappingAdd(count, ordering: .relaxed) }

    /// Adds what another has counted, which is zero after that.
    public func takeLocked(from other: borrowing Counter) {
        addLocked(other.value.exchange(0, ordering: .relaxed))
    }
}

/// How many there are, and how many there were at most.
public struct Gauge: ~Copyable {
    let now: Atomic<UInt64>
    let most: Atomic<UInt64>

    /// As it is now; others may change it meanwhile.
    public var current: UInt64 { now.load(ordering: .relaxed) }

    /// Under the lock that guards the gauge.
    @inline(__always)
    public func setLocked(_ value: UInt64) {
        now.store(value, ordering: .relaxed)
        if value > most.load(ordering: .relaxed) { most.store(value, ordering: .relaxed) }
    }

    /// For a gauge that no lock guards.
    public func raise() {
        let value = now.wrappingAdd(1, ordering: .relaxed).newValue
        if value > most.load(ordering: .relaxed) { most.max(value, ordering: .relaxed) }
    }

    /// Takes back what `raise` added, or more.
    public func lower(_ count: UInt64 = 1) { now.wrappingSubtract(count, ordering: .relaxed) }
}

/// struct ioctx_linux_counts, field by field: counters.h says what each counts.
public struct LinuxCounts: ~Copyable {
    public let inlined: Counter
    public let readiness: Counter
    public let daemon: Counter
    public let adopted: Counter
    public let finished: Counter
    public let cancelled: Counter

    /// Adds the other's counts and empties them. Under the locks of both.
    public func takeLocked(from other: borrowing LinuxCounts) {
        inlined.takeLocked(from: other.inlined)
        readiness.takeLocked(from: other.readiness)
        daemon.takeLocked(from: other.daemon)
        adopted.takeLocked(from: other.adopted)
        finished.takeLocked(from: other.finished)
        cancelled.takeLocked(from: other.cancelled)
    }
}

/// struct ioctx_counters from `contexts_address` to `gone`, field by field: see counters.h.
public struct LinuxCounters: ~Copyable {
    public var contextsAddress: UInt64  // constant once the face exists
    public var contextsStride: UInt32  // constant once the face exists
    public let contextsUsed: Atomic<UInt32>  // (f)
    public let contexts: Gauge  // (f)
    public let aioNr: Gauge  // (f)
    let moves: Atomic<UInt64>  // (f)
    public let eagain: Counter
    private let unused: (UInt64, UInt64)
    let gone: LinuxCounts  // (f)

    /// Takes over the counts of a context that is gone. The caller holds its lock and the face's.
    public func addLocked(_ context: borrowing LinuxCounts) {
        let before = moves.load(ordering: .relaxed)
        // Who reads numbers that are on their way has found this odd, or finds it changed: release
        // and acquire keep them between the two stores.
        moves.store(before &+ 1, ordering: .relaxed)
        atomicMemoryFence(ordering: .releasing)
        gone.takeLocked(from: context)
        moves.store(before &+ 2, ordering: .releasing)
    }
}

/// struct ioctx_counters from `posix_inlined` on, field by field: see counters.h.
public struct PosixCounters: ~Copyable {
    public let inlined: Counter
    public let readiness: Counter
    public let daemon: Counter
    public let native: Counter
    public let finished: Counter  // (p)
    public let cancelled: Counter  // (p)
    public let eagain: Counter
}

/// struct ioctx_counters, field by field: counters.h has the layout and what each number means.
public struct Counters: ~Copyable {
    private let magic: Atomic<UInt64>
    private var version: UInt32
    private var bytes: UInt32
    private var process: Int32
    private var maxAioProcs: UInt32
    private var targetAioProcs: UInt32
    private var maxAioQueuePerProc: UInt32
    private var maxBufAio: UInt32
    private var aiodLifetimeMs: UInt32
    private var aiodTimeoutMs: UInt32
    private var aioMaxNr: UInt32
    public var linux: LinuxCounters
    public let daemons: Gauge
    public let numAioProcs: Gauge
    let numQueueCount: Gauge  // (t)
    public let numBufAio: Gauge
    private let unused: (UInt64, UInt64)
    public let posix: PosixCounters

    /// The page, with these limits in it; nil without memory.
    static func make(_ limits: Limits) -> Ref<Counters>? {
        guard let counters = Ref<Counters>(address: mapPage()) else { return nil }
        counters.it.version = UInt32(IOCTX_COUNTERS_VERSION)
        counters.it.bytes = UInt32(MemoryLayout<Counters>.size)
        counters.it.process = Int32(truncatingIfNeeded: systemCall(Int32(SYS_getpid)))
        counters.it.maxAioProcs = limits.maxAioProcs
        counters.it.targetAioProcs = limits.targetAioProcs
        counters.it.maxAioQueuePerProc = limits.jobsMax
        counters.it.maxBufAio = limits.maxBufAio
        counters.it.aiodLifetimeMs = limits.aiodLifetimeMs
        counters.it.aiodTimeoutMs = limits.aiodTimeoutMs
        counters.it.aioMaxNr = limits.aioMaxNr
        // Release: whoever finds it finds what is above.
        counters.it.magic.store(UInt64(IOCTX_COUNTERS_MAGIC), ordering: .releasing)
        return counters
    }

    /// A page with the name, or without one, or 0.
    private static func mapPage() -> UInt {
        let file = Memory.file(named: "ioctx", bytes: Memory.pageBytes)
        var page: UInt = 0
        if file >= 0 {
            page = Memory.map(
                bytes: Memory.pageBytes, protection: PROT_READ | PROT_WRITE, file: file)
            System.close(file)
        }
        return page != 0
            ? page : Memory.map(bytes: Memory.pageBytes, protection: PROT_READ | PROT_WRITE)
    }
}

// The page of counters: its layout is that of counters.h, and readers outside find it by its name.

import CLibAIO
import Glibc
import TestSupport
import Testing

@testable import JobTable

private func makeCounters(_ limits: Limits = Limits()) -> Ref<Counters> {
    Counters.make(limits)!
}

extension Ref where Pointee == Counters {
    /// The same memory as a reader of another process takes it.
    fileprivate var seen: ioctx_counters { Ref<ioctx_counters>(address: address)!.it }
}

@Suite struct CountersTests {
    @Test("Version 1 has its fields at these places, for ever") func places() {
        #expect(IOCTX_COUNTERS_VERSION == 1)
        let magic = UInt64(IOCTX_COUNTERS_MAGIC)
        #expect(withUnsafeBytes(of: magic) { Array($0) } == Array("ioctxcnt".utf8))
        #expect(MemoryLayout<ioctx_counters>.size == 312)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.version) == 8)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.bytes) == 12)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.pid) == 16)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.max_aio_procs) == 20)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.aio_max_nr) == 44)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.contexts_address) == 48)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.contexts) == 64)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.aio_nr) == 80)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.moves) == 96)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.linux_eagain) == 104)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.gone) == 128)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.daemons) == 176)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.num_aio_procs) == 192)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.num_queue_count) == 208)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.num_buf_aio) == 224)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.posix_inlined) == 256)
        #expect(MemoryLayout<ioctx_counters>.offset(of: \.posix_eagain) == 304)
        #expect(MemoryLayout<ioctx_context_counts>.size == 64)
        #expect(MemoryLayout<ioctx_context_counts>.offset(of: \.counts) == 16)
    }

    @Test("What the layer writes is found where counters.h says") func layout() {
        var limits = Limits()
        limits.maxAioProcs = 1
        limits.targetAioProcs = 2
        limits.maxAioQueuePerProc = 3
        limits.maxBufAio = 4
        limits.aiodLifetimeMs = 5
        limits.aiodTimeoutMs = 6
        limits.aioMaxNr = 7
        let counters = makeCounters(limits)
        #expect(MemoryLayout<Counters>.size == MemoryLayout<ioctx_counters>.size)
        counters.it.linux.contextsAddress = 8
        counters.it.linux.contextsStride = 9
        counters.it.linux.contextsUsed.store(10, ordering: .relaxed)
        counters.it.linux.contexts.setLocked(12)
        counters.it.linux.contexts.setLocked(11)
        counters.it.linux.aioNr.setLocked(14)
        counters.it.linux.aioNr.setLocked(13)
        counters.it.linux.eagain.add(15)
        counters.it.daemons.raise()
        counters.it.numAioProcs.setLocked(17)
        counters.it.numQueueCount.setLocked(18)
        counters.it.numBufAio.setLocked(19)
        counters.it.posix.inlined.add(20)
        counters.it.posix.readiness.add(21)
        counters.it.posix.daemon.add(22)
        counters.it.posix.native.add(23)
        counters.it.posix.finished.addLocked(24)
        counters.it.posix.cancelled.addLocked(25)
        counters.it.posix.eagain.add(26)
        let seen = counters.seen
        #expect(seen.magic == UInt64(IOCTX_COUNTERS_MAGIC))
        #expect(seen.version == 1 && seen.bytes == 312 && seen.pid == getpid())
        #expect(seen.max_aio_procs == 1 && seen.target_aio_procs == 2)
        #expect(seen.max_aio_queue_per_proc == 3 && seen.max_buf_aio == 4)
        #expect(seen.aiod_lifetime == 5 && seen.aiod_timeout == 6 && seen.aio_max_nr == 7)
        #expect(seen.contexts_address == 8 && seen.contexts_stride == 9)
        #expect(seen.contexts_used == 10)
        #expect(seen.contexts.now == 11 && seen.contexts.most == 12)
        #expect(seen.aio_nr.now == 13 && seen.aio_nr.most == 14)
        #expect(seen.linux_eagain == 15)
        #expect(seen.daemons.now == 1 && seen.daemons.most == 1)
        #expect(seen.num_aio_procs.now == 17 && seen.num_aio_procs.most == 17)
        #expect(seen.num_queue_count.now == 18 && seen.num_buf_aio.now == 19)
        #expect(seen.posix_inlined == 20 && seen.posix_readiness == 21)
        #expect(seen.posix_daemon == 22 && seen.posix_native == 23)
        #expect(seen.posix_finished == 24 && seen.posix_cancelled == 25)
        #expect(seen.posix_eagain == 26)
    }

    @Test("The counts of a context that is gone move, and readers can tell when") func moves() {
        let counters = makeCounters()
        let context = Memory.record(LinuxCounts.self)!
        for round in 1...2 as ClosedRange<UInt64> {
            context.it.inlined.addLocked(1)
            context.it.readiness.addLocked(2)
            context.it.daemon.addLocked(3)
            context.it.adopted.add(4)
            context.it.finished.addLocked(5)
            context.it.cancelled.addLocked(6)
            counters.it.linux.addLocked(context.it)
            let seen = counters.seen
            #expect(seen.moves == 2 * round)
            #expect(seen.gone.inlined == round && seen.gone.readiness == 2 * round)
            #expect(seen.gone.daemon == 3 * round && seen.gone.adopted == 4 * round)
            #expect(seen.gone.finished == 5 * round && seen.gone.cancelled == 6 * round)
            let left = Ref<ioctx_linux_counts>(address: context.address)!.it
            #expect(left.inlined + left.readiness + left.daemon + left.adopted == 0)
            #expect(left.finished + left.cancelled == 0)
        }
    }

    @Test("Without a lock nothing is lost, and the most is what there was") func atomics() {
        let counters = makeCounters()
        concurrently(4) { _ in
            for _ in 0..<10_000 {
                counters.it.daemons.raise()
                counters.it.posix.inlined.add()
                counters.it.daemons.lower()
            }
            counters.it.daemons.raise()
        }
        #expect(counters.seen.posix_inlined == 40_000)
        #expect(counters.seen.daemons.now == 4 && counters.seen.daemons.most == 4)
        counters.it.daemons.lower(4)
        #expect(counters.seen.daemons.now == 0 && counters.seen.daemons.most == 4)
    }

    @Test("The page has its name in /proc/PID/maps, and no descriptor is left") func name() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            // By what they lead to: other threads of the test open and close some.
            let links = (0..<1024).map { number in
                var target = [UInt8](repeating: 0, count: 64)
                let length = readlink("/proc/self/fd/\(number)", &target, target.count)
                return String(decoding: target.prefix(max(length, 0)), as: UTF8.self)
            }
            #expect(!links.contains { $0.contains("memfd:ioctx") })
            let start = String(table.it.counters.address, radix: 16)
            let line = linesOfMaps().first { $0.hasSuffix("/memfd:ioctx (deleted)") }
            #expect(line?.contains(start + "-") == true)
            #expect(line?.contains(" rw-p ") == true, "private")
        }
    }

    @Test("Where a file of a page would be too large, the page has no name") func unnamed() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            var limit = rlimit(rlim_cur: 4095, rlim_max: 4095)
            setrlimit(Int32(RLIMIT_FSIZE.rawValue), &limit)
            let table = makeTable()
            #expect(table.it.counters.seen.magic == UInt64(IOCTX_COUNTERS_MAGIC))
            #expect(!linesOfMaps().contains { $0.contains("memfd:ioctx") })
        }
    }

    @Test("Jobs are counted while they are not free") func jobs() {
        let table = makeTable()
        let jobs = (0..<3).map { _ in table.allocateQueued() }
        #expect(table.it.counters.seen.num_queue_count.now == 3)
        for job in jobs { table.finishAndFree(job) }
        #expect(table.it.counters.seen.num_queue_count.now == 0)
        #expect(table.it.counters.seen.num_queue_count.most == 3)
    }
}

private func linesOfMaps() -> [String] {
    let descriptor = open("/proc/self/maps", O_RDONLY)
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 65536)
    while case let count = read(descriptor, &room, room.count), count > 0 {
        bytes += room[..<count]
    }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
}

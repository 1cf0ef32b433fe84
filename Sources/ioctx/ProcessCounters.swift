// The counters of a process on the layer, read from its memory while it runs: see counters.h.

import CLibAIO
import Glibc

/// What a process has counted at one moment. A request counts as finished only if it counts as
/// made.
struct ProcessCounters {
    struct Context {
        let counts: ioctx_context_counts
        /// Events in the ring that nobody has taken; nil where there is no ring to look at.
        let unreaped: UInt32?
    }

    let pid: pid_t
    let name: String
    /// With `gone` being all of Linux AIO, contexts that live included.
    private(set) var block: ioctx_counters
    private(set) var contexts: [Context] = []

    init(of pid: pid_t) throws(Failure) {
        let mappings = try Mapping.all(of: pid)
        let memory = open("/proc/\(pid)/mem", O_RDONLY | O_CLOEXEC)
        if memory < 0 { throw Self.unreadable(pid, errno) }
        defer { close(memory) }
        guard let address = Self.findBlock(in: memory, mappings) else {
            throw Self.blockMissing(pid, mappings)
        }
        name = String((SystemFile.text(of: "/proc/\(pid)/comm") ?? "").prefix { $0 != "\n" })
        self.pid = pid
        block = ioctx_counters()
        if try !read(memory, at: address) { throw Self.unreadable(pid, ESRCH) }
    }

    // MARK: Reading

    private static func fill<T>(_ value: inout T, from memory: Int32, at address: UInt) -> Bool {
        withUnsafeMutableBytes(of: &value) {
            pread(memory, $0.baseAddress, $0.count, Int(bitPattern: address)) == $0.count
        }
    }

    private static func findBlock(in memory: Int32, _ mappings: [Mapping]) -> UInt? {
        mappings.first { mapping in
            var magic: UInt64 = 0
            return mapping.name.description == "/memfd:\(IOCTX_COUNTERS_NAME) (deleted)"
                && fill(&magic, from: memory, at: mapping.start)
                && magic == UInt64(IOCTX_COUNTERS_MAGIC)
        }?.start
    }

    /// Reads everything twice: what is finished from the first time, what was made from the second.
    /// False when the process has ended.
    private mutating func read(_ memory: Int32, at address: UInt) throws(Failure) -> Bool {
        var before = ioctx_counters()
        // A process that is stopped between two stores would be waited for in vain.
        for _ in 0..<100 {
            guard Self.fill(&before, from: memory, at: address) else { return false }
            guard before.version == IOCTX_COUNTERS_VERSION else {
                throw Failure(
                    "process \(pid) counts in version \(before.version), and this tool knows "
                        + "\(IOCTX_COUNTERS_VERSION): use the ioctx that came with its library")
            }
            let finished = Self.records(before, memory)
            let made = Self.records(before, memory)
            guard Self.fill(&block, from: memory, at: address) else { return false }
            guard let finished, let made else {
                throw Failure(
                    "the counters of process \(pid) lead nowhere: it has written over them")
            }
            add(made, finished: finished, before, memory)
            // Not the copy in the block: what follows it there may have moved after it was copied.
            var after = ioctx_counters()
            guard Self.fill(&after, from: memory, at: address) else { return false }
            if before.moves & 1 == 0 && before.moves == after.moves { break }
        }
        return true
    }

    /// Far more than the layer has room for: what else the block says, it does not say by itself.
    private static let recordsBytesMax = 1 << 30

    /// The beginnings of the contexts' records; nil where they cannot be read.
    private static func records(
        _ block: ioctx_counters, _ memory: Int32
    ) -> [ioctx_context_counts]? {
        let stride = Int(block.contexts_stride)
        let size = MemoryLayout<ioctx_context_counts>.size
        guard block.contexts_used > 0, stride >= size else { return [] }
        guard Int(block.contexts_used) <= recordsBytesMax / stride else { return nil }
        let wanted = Int(block.contexts_used) * stride
        var bytes = [UInt8](repeating: 0, count: wanted)
        let count = pread(memory, &bytes, wanted, Int(truncatingIfNeeded: block.contexts_address))
        guard count == wanted else { return nil }
        return bytes.withUnsafeBytes { bytes in
            Swift.stride(from: 0, to: bytes.count, by: stride).map {
                bytes.loadUnaligned(fromByteOffset: $0, as: ioctx_context_counts.self)
            }
        }
    }

    private mutating func add(
        _ made: [ioctx_context_counts], finished: [ioctx_context_counts],
        _ before: ioctx_counters, _ memory: Int32
    ) {
        block.posix_finished = before.posix_finished
        block.posix_cancelled = before.posix_cancelled
        block.gone.finished = before.gone.finished
        block.gone.cancelled = before.gone.cancelled
        contexts = []
        for (var record, earlier) in zip(made, finished) {
            record.counts.finished = earlier.counts.finished
            record.counts.cancelled = earlier.counts.cancelled
            block.gone.inlined &+= record.counts.inlined
            block.gone.readiness &+= record.counts.readiness
            block.gone.daemon &+= record.counts.daemon
            block.gone.adopted &+= record.counts.adopted
            block.gone.finished &+= record.counts.finished
            block.gone.cancelled &+= record.counts.cancelled
            if record.address != 0 && Int(record.state) & IOCTX_CONTEXT_DYING == 0 {
                contexts.append(
                    Context(counts: record, unreaped: Self.unreaped(record.address, memory)))
            }
        }
    }

    private static func unreaped(_ address: UInt64, _ memory: Int32) -> UInt32? {
        var ring = aio_ring()
        guard fill(&ring, from: memory, at: UInt(truncatingIfNeeded: address)), ring.nr > 0,
            ring.magic == UInt32(AIO_RING_MAGIC)
        else { return nil }
        let head = ring.head % ring.nr
        let tail = ring.tail % ring.nr
        return tail >= head ? tail - head : ring.nr - head + tail
    }

    // MARK: Failing

    private static func unreadable(_ pid: pid_t, _ error: Int32) -> Failure {
        ProcessFile.unreadable(pid, error, condition: " where kernel.yama.ptrace_scope is 0")
    }

    private static func blockMissing(_ pid: pid_t, _ mappings: [Mapping]) -> Failure {
        let hasLayer = mappings.contains {
            $0.isExecutable && $0.object()?.isLayer == true
        }
        return Failure(
            hasLayer
                ? "process \(pid) has the layer, but no counters that can be found: it has made no "
                    + "request yet, or its sandbox, or 'ulimit -f', forbids memfd_create"
                : "process \(pid) is not on the layer: start it with 'ioctx run'")
    }
}

// All cases, in the order in which they run, with what each should come to.

import CLibAIO
import Glibc
import TestBed

public enum Catalog {
    public static let all: [Case] =
        cached + direct + cold + writes + pipes + contexts
        + posix + curves

    /// The cases whose names match any of the patterns; all of them where there is none.
    public static func matching(_ patterns: [String]) -> [Case] {
        guard !patterns.isEmpty else { return all }
        return all.filter { one in patterns.contains { Pattern.matches($0, one.name) } }
    }

    private static func batch(_ size: Int, _ place: Place = .cached) -> Transfer {
        Transfer(place: place, depth: size, batch: size, reapsBatches: true)
    }

    private static func deep(_ place: Place, _ depth: Int, batch: Int = 1) -> Transfer {
        Transfer(
            place: place, isDirect: place == .disk || place == .ram,
            order: place == .cold || place == .coldOverlay ? .permuted : .random,
            depth: depth, batch: batch, reapsBatches: batch > 1)
    }

    private static let cached = [
        Case("cached/depth-1", Transfer(), .rate(1.6)),
        Case("cached/depth-32", Transfer(depth: 32, reapsBatches: true), .rate(1.35)),
        Case("cached/batch-16", batch(16), .rate(1.1)),
        Case("cached/two-threads", batch(16).with { $0.threads = 2 }, .rate(1.1)),
        Case(
            "cached/shared-context",
            batch(16).with {
                $0.threads = 4
                $0.sharesContext = true
            }, .rate(1.3)),
        Case("cached/eventfd-batch-4", batch(4).with { $0.reaping = .eventfd }, .rate(1)),
        Case("cached/strict", Transfer(), .rate).set("IOCTX_STRICT", "1"),
        Case("tmpfs/depth-1", Transfer(place: .tmpfs), .rate(1)),
        Case("tmpfs/batch-16", batch(16, .tmpfs), .rate(1)),
        Case("overlay/depth-1", Transfer(place: .overlay), .rate(1)),
        Case("overlay/batch-16", batch(16, .overlay), .rate(1)),
    ]

    private static let direct = [
        Case("direct/ram-depth-1", deep(.ram, 1), .rate(1.2)),
        Case("direct/ram-depth-32", deep(.ram, 32, batch: 8), .rate(1)),
        Case("direct/disk-depth-1", deep(.disk, 1), .rate(1)),
        Case("direct/disk-depth-32", deep(.disk, 32), .rate(1)),
        Case(
            "direct/mixed-disk-depth-1", deep(.disk, 1).with { $0.beginsBuffered = true },
            .rate(0.97)),
        Case(
            "direct/mixed-disk-depth-32", deep(.disk, 32).with { $0.beginsBuffered = true },
            .rate(0.97)),
        Case("direct/ring-disk-depth-32", ringReader(.disk, 32), .rate(0.97)),
        Case("direct/ring-disk-depth-1", ringReader(.disk, 1), .rate(0.97)),
        Case("direct/ring-ram-depth-1", ringReader(.ram, 1), .rate(0.97)),
        Case(
            "direct/extending-write",
            Transfer(
                place: .growing, isDirect: true, operation: .write, order: .sequential, depth: 32),
            .submitMean(1.0 / 20)),
    ]

    /// What is reaped together is submitted together.
    private static func ringReader(_ place: Place, _ depth: Int) -> Transfer {
        deep(place, depth).with {
            $0.batch = depth
            $0.reaping = .ring
        }
    }

    private static let cold = [
        Case(
            "cold/random", deep(.cold, 32), .rate(5), .submitMean(1.0 / 6), .submitP99(1.0 / 10)),
        Case("cold/random-threads", deep(.cold, 32), .rate(4)).set("IOCTX_ENGINE", "threads"),
        Case("cold/random-overlay", deep(.coldOverlay, 32), .rate(3)),
        Case("cold/sequential-4k", sequential(4096), .rate(1)),
        Case("cold/sequential-128k", sequential(128 << 10), .rate(1)),
    ]

    private static func sequential(_ blockBytes: Int) -> Transfer {
        Transfer(place: .cold, order: .sequential, blockBytes: blockBytes, depth: 8)
    }

    private static let writes = [
        Case("write/batch-8", batch(8, .written).with { $0.operation = .write }, .rate(1)),
        Case("write/batch-8-async", batch(8, .written).with { $0.operation = .write }, .rate)
            .set("IOCTX_WRITES", "async"),
        Case("write/fsync", batch(8, .written).with { $0.operation = .writeAndSync }, .rate(1)),
    ]

    private static let pipes = [
        Case("pipes/poll", .none, inOneGo: false, .rate(1)) { try PipeCases.poll($0) },
        Case("pipes/read-then-feed", .none, .works) { try PipeCases.readThenFeed($0) },
        Case("pipes/million", .none, .itemBytes(256)) { try PipeCases.million($0) }
            .set("IOCTX_AIO_MAX_NR", "1100000").ours,
    ]

    private static let contexts = [
        Case("contexts/setup-destroy", .none, .rate(3000)) {
            try ContextCases.setupAndDestroy($0)
        },
        Case("contexts/round-robin", batch(4).with { $0.contexts = 1000 }, .rate(1)),
        Case("contexts/idle", .none, .itemBytes(1024)) { try ContextCases.idleMemory($0) }
            .set("IOCTX_AIO_MAX_NR", "1100000").ours,
    ]

    /// Beside the C library, which runs one request of a descriptor at a time.
    private static let posix = [
        Case(
            "posix/cached-depth-1", PosixTransfer(transfer: Transfer()), .rate(3),
            .completionP50(1.0 / 3)),
        Case("posix/cached-write", PosixTransfer(transfer: write(1, isDirect: false)), .rate(1)),
        Case("posix/list-64", list(.cached, files: 1), .rate(3)),
        Case("posix/list-64-files", list(.many, files: 64), .rate(3)),
        Case("posix/cold-depth-32", PosixTransfer(transfer: deep(.cold, 32)), .rate(4)),
        Case("posix/direct-depth-1", PosixTransfer(transfer: deep(.disk, 1)), .rate(1)),
        Case("posix/direct-depth-32", PosixTransfer(transfer: deep(.disk, 32)), .rate(5)),
        Case("posix/direct-ram-depth-1", PosixTransfer(transfer: deep(.ram, 1)), .rate(1)),
        Case("posix/direct-write-depth-1", PosixTransfer(transfer: write(1)), .rate(1)),
        Case("posix/direct-write-depth-32", PosixTransfer(transfer: write(32)), .rate(1)),
        Case(
            "posix/fsync",
            PosixTransfer(transfer: batch(8, .written).with { $0.operation = .writeAndSync }),
            .rate(1)),
        Case(
            "posix/files-64-direct",
            PosixTransfer(transfer: Transfer(place: .many, isDirect: true), files: 64), .rate(1)),
        Case(
            "posix/files-64-cold",
            PosixTransfer(transfer: Transfer(place: .manyCold, order: .permuted), files: 64),
            .rate(1)),
        Case(
            "posix/signal", PosixTransfer(transfer: deep(.disk, 8), waiting: .signal), .rate(1)),
        Case(
            "posix/function", PosixTransfer(transfer: deep(.disk, 8), waiting: .function),
            .rate(1)),
    ]

    private static func write(_ depth: Int, isDirect: Bool = true) -> Transfer {
        Transfer(place: .written, isDirect: isDirect, operation: .write, depth: depth)
    }

    /// 64 reads in each call.
    private static func list(_ place: Place, files: Int) -> PosixTransfer {
        PosixTransfer(
            transfer: Transfer(place: place, depth: 64 / files), waiting: .list, files: files)
    }

    /// How the throughput grows with one number; the rest of each curve is above.
    private static let curves =
        [1, 2, 8, 128].map { Case("curve/cold-depth-\($0)", deep(.cold, $0), .rate) }
        + [2, 8, 128].map { Case("curve/direct-depth-\($0)", deep(.disk, $0), .rate) }
        + [1, 4].map { count in
            Case("curve/threads-\(count)", batch(16).with { $0.threads = count }, .rate)
        }
        + [10, 100].map { count in
            Case("curve/contexts-\(count)", batch(4).with { $0.contexts = count }, .rate)
        }
}

/// Cases that differ in one number.
struct Curve {
    let title: String
    let xLabel: String
    let points: [(x: Int, name: String)]

    static let all = [
        Curve(
            title: "Cold random reads", xLabel: "requests in flight",
            points: [
                (1, "curve/cold-depth-1"), (2, "curve/cold-depth-2"), (8, "curve/cold-depth-8"),
                (32, "cold/random"), (128, "curve/cold-depth-128"),
            ]),
        Curve(
            title: "O_DIRECT reads from the disk", xLabel: "requests in flight",
            points: [
                (1, "direct/disk-depth-1"), (2, "curve/direct-depth-2"),
                (8, "curve/direct-depth-8"), (32, "direct/disk-depth-32"),
                (128, "curve/direct-depth-128"),
            ]),
        Curve(
            title: "Cached reads in batches of 16", xLabel: "threads with a context each",
            points: [
                (1, "curve/threads-1"), (2, "cached/two-threads"), (4, "curve/threads-4"),
            ]),
        Curve(
            title: "Cached reads, four to a context in turn", xLabel: "contexts",
            points: [
                (10, "curve/contexts-10"), (100, "curve/contexts-100"),
                (1000, "contexts/round-robin"),
            ]),
    ]
}

extension Transfer {
    func with(_ change: (inout Transfer) -> Void) -> Transfer {
        var copy = self
        change(&copy)
        return copy
    }
}

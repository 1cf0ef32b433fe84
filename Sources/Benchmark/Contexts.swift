// Cases about contexts themselves.

import CBenchmark
import CLibAIO
import Glibc
import TestBed

enum ContextCases {
    private static let requests = 128

    static func setupAndDestroy(_ setting: Setting) throws -> Measurement {
        let calls = try setting.calls
        return try setting.repeated(operations: 1) {
            let context = try calls.context(requests)
            let result = calls.destroy(context)
            if result < 0 { throw Trouble("io_destroy: \(Trouble.words(result))") }
        }
    }

    private static let idleCount = 10_000
    private static let idleRequests = 8

    /// What an idle context costs beyond the pages of its ring.
    static func idleMemory(_ setting: Setting) throws -> Measurement {
        let calls = try setting.calls
        // The first brings what the layer needs in any case.
        _ = try calls.context(idleRequests)
        _ = ChildTask.awaitTurn()
        let before = try Memory.bytes()
        let start = benchmark_now_ns()
        var ringBytes = 0
        for _ in 0..<idleCount {
            let context = try calls.context(idleRequests)
            guard let ring = UnsafePointer<aio_ring>(bitPattern: context) else { continue }
            let bytes =
                Int(ring.pointee.header_length)
                + Int(ring.pointee.nr) * MemoryLayout<io_event>.size
            ringBytes += (bytes + 4095) / 4096 * 4096
        }
        let seconds = Double(benchmark_now_ns() - start) * 1e-9
        var result = Measurement()
        result.operations = idleCount
        result.seconds = seconds
        _ = ChildTask.awaitTurn()
        result.itemBytes = Double(try Memory.bytes() - before - ringBytes) / Double(idleCount)
        return result
    }
}

enum Memory {
    /// The process's memory, each page once however often it is mapped, and its page tables.
    static func bytes() throws -> Int {
        try field("Pss:", of: "/proc/self/smaps_rollup")
            + field("VmPTE:", of: "/proc/self/status")
    }

    private static func field(_ name: String, of path: String) throws -> Int {
        for line in TextFile.lines(path) {
            let words = line.split(whereSeparator: \.isWhitespace)
            if words.count > 1, words[0] == name, let number = Int(words[1]) {
                return number * 1024
            }
        }
        throw Skip("\(path) has no \(name)")
    }
}

extension Setting {
    /// Warms up with `work`, which is given its seconds, and measures it at every turn.
    func measured(_ work: (Double) throws -> Work) throws -> Measurement {
        _ = try work(warmUpSeconds)
        var result = Measurement()
        while ChildTask.awaitTurn() { try result.add { try work(seconds) } }
        return result
    }

    /// The same with times of each request: taken all the while, or in a run of their own.
    func measured(timed: Bool, _ work: (Double, Bool) throws -> Work) throws -> Measurement {
        let result = try measured { seconds in try work(seconds, timed) }
        if !timed && !isCounted { _ = try work(Self.timedSeconds, true) }
        return result
    }

    /// Some ten thousand operations.
    private static let timedSeconds = 0.05

    /// Does `step` again and again, which is so many operations.
    func repeated(operations: Int, _ step: () throws -> Void) throws -> Measurement {
        try measured { seconds in
            let start = benchmark_now_ns()
            let deadline = start + UInt64(seconds * 1e9)
            var steps = 0
            repeat {
                try step()
                steps += 1
            } while benchmark_now_ns() < deadline
            return Work(
                operations: steps * operations,
                seconds: Double(benchmark_now_ns() - start) * 1e-9)
        }
    }
}

// Runs cases: the two sides by turns, each measurement in a process of its own.
//
// The layer reads its environment once in a process, and what one measurement leaves behind would
// change the next; so this program starts itself for each. The pairs are what is compared: what
// disturbs the machine for longer than a round disturbs both sides of a pair.

import CBenchmark
import CConformance
import FoundationEssentials
import Glibc
import TestBed

public struct Plan: Sendable {
    public var tool: String
    /// The layer, and what it is measured against; nil for the system calls.
    public var layer: String
    public var other: String?
    /// An existing file to read from; nil for one made in the folder.
    public var file: String?
    public var folder: String
    public var fileBytes: Int?
    public var rounds: Int
    public var seconds: Double

    public init(
        tool: String, layer: String, other: String?, file: String?, folder: String,
        fileBytes: Int?, rounds: Int, seconds: Double
    ) {
        self.tool = tool
        self.layer = layer
        self.other = other
        self.file = file
        self.folder = folder
        self.fileBytes = fileBytes
        self.rounds = rounds
        self.seconds = seconds
    }

    /// Where distributions have libaio, whatever the environment would put in front of it.
    public static var systemLibrary: String? {
        let folders = [
            "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64",
            "/usr/lib", "/lib",
        ]
        for name in ["libaio.so.1", "libaio.so.1t64"] {
            for folder in folders where access("\(folder)/\(name)", R_OK) == 0 {
                return "\(folder)/\(name)"
            }
        }
        return nil
    }
}

public final class Runner {
    private let plan: Plan
    private let scratch: Scratch
    /// Called often while a child runs, with the share of the whole run that is done.
    private let look: (String, Double) -> Void
    private let isInterrupted: () -> Bool

    /// `look` is called often, with a case's name and the share of the run that is done.
    /// `isInterrupted` is asked where only an answer is wanted, which then comes by `look`.
    public init(
        _ plan: Plan, _ scratch: Scratch, look: @escaping (String, Double) -> Void,
        isInterrupted: @escaping () -> Bool
    ) {
        self.plan = plan
        self.scratch = scratch
        self.look = look
        self.isInterrupted = isInterrupted
    }

    private var share = 0.0
    private var current = ""

    public func run(_ cases: [Case], report: (CaseResult) throws -> Void) throws {
        for (index, one) in cases.enumerated() {
            current = one.name
            share = Double(index) / Double(cases.count)
            look(current, share)
            try report(try measure(one, step: 1 / Double(cases.count)))
        }
    }

    private func measure(_ one: Case, step: Double) throws -> CaseResult {
        var result = CaseResult(one)
        do {
            let children = one.isOurs ? plan.rounds : plan.rounds * 2 + 2
            for round in 0..<plan.rounds {
                let other = one.isOurs ? nil : try run(one, .other, round)
                share += one.isOurs ? 0 : step / Double(children)
                look(current, share)
                let layer = try run(one, .layer, round)
                share += step / Double(children)
                look(current, share)
                result.add(other: other, layer: layer)
            }
            if !one.isOurs {
                result.otherCalls = try count(one, .other)
                result.layerCalls = try count(one, .layer)
            }
        } catch let skip as Skip {
            result.skip(skip.reason)
        } catch let trouble as Trouble {
            result.fail(trouble.description)
        }
        return result
    }

    private enum Side: String {
        case other, layer
    }

    private func task(_ one: Case, _ side: Side, seconds: Double, round: Int, isCounted: Bool)
        throws -> ChildTask
    {
        ChildTask(
            name: one.name, library: side == .layer ? plan.layer : plan.other,
            folder: scratch.folder, file: try scratch.file(for: one.place),
            device: one.place == .ram ? try scratch.device() : nil, seconds: seconds,
            seed: UInt64(round + 1), isCounted: isCounted)
    }

    private func run(_ one: Case, _ side: Side, _ round: Int) throws -> Measurement {
        try answer(
            side, task(one, side, seconds: plan.seconds, round: round, isCounted: false),
            finish: { _ in nil })
    }

    /// Long enough for some hundred operations of whatever kind, since a tracer makes them slow.
    private static let countedSeconds = 0.1

    /// System calls for each operation, by name; nil where nothing may be traced.
    private func count(_ one: Case, _ side: Side) throws -> [String: Double]? {
        var calls = benchmark_calls()
        var result: Int32 = 0
        let task = try task(
            one, side, seconds: min(plan.seconds, Self.countedSeconds), round: plan.rounds,
            isCounted: true)
        let measured: Measurement
        do {
            measured = try answer(side, task) { child in
                result = benchmark_trace(
                    child, &calls,
                    { Unmanaged<Runner>.fromOpaque($0!).takeUnretainedValue().answerToTracer },
                    Unmanaged.passUnretained(self).toOpaque())
                return result
            }
        } catch let trouble as Trouble {
            if result == -EPERM { return nil }
            throw trouble
        }
        guard measured.operations > 0 else { return nil }
        return CallNames.named(calls).mapValues { Double($0) / Double(measured.operations) }
    }

    private var answerToTracer: Int32 { isInterrupted() ? 1 : 0 }

    /// Starts a child and returns what it says. `finish` may look after it in the meantime; it
    /// has reaped it when it returns a wait status.
    private func answer(_ side: Side, _ task: ChildTask, finish: (pid_t) -> Int32?) throws
        -> Measurement
    {
        var ends: [Int32] = [0, 0]
        let result = conformance_pipe(&ends, O_CLOEXEC)
        if result < 0 { throw Trouble("pipe: \(Trouble.words(result))") }
        let json = String(decoding: try JSONEncoder().encode(task), as: UTF8.self)
        let arguments = [plan.tool, "bench", "--child", json]
        let words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        let child = conformance_spawn(plan.tool, words, ends[1])
        close(ends[1])
        defer { close(ends[0]) }
        if child < 0 { throw Trouble("starting '\(plan.tool)': \(Trouble.words(child))") }
        scratch.child = child
        defer { scratch.child = nil }
        let reaped = finish(child)
        let bytes = read(ends[0])
        var status = reaped ?? 0
        if reaped == nil { waitpid(child, &status, 0) }
        let name = side == .layer ? "the layer" : plan.other ?? "the kernel"
        guard let answer = try? JSONDecoder().decode(ChildAnswer.self, from: bytes) else {
            let number = status & 0x7f
            if number == SIGALRM { throw Trouble("\(name): no end") }
            throw Trouble(
                "\(name): ended "
                    + (number == 0
                        ? "with \(status >> 8 & 0xff)" : "by \(String(cString: strsignal(number)))")
            )
        }
        switch answer {
        case .measured(let measurement): return measurement
        case .skipped(let reason): throw Skip(reason)
        case .trouble(let words): throw Trouble("\(name): \(words)")
        }
    }

    private func read(_ descriptor: Int32) -> Data {
        var bytes = Data()
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&state, 1, 100) == 1 {
                let got = Glibc.read(descriptor, &chunk, chunk.count)
                if got <= 0 { return bytes }
                bytes += chunk.prefix(got)
            }
            look(current, share)
        }
    }
}

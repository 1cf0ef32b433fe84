// Runs cases: the two sides by turns, each measurement in a process of its own.
//
// The layer reads its environment once in a process, and what one measurement leaves behind would
// change the next; so this program starts itself for each. The pairs are what is compared: what
// disturbs the machine for longer than a round disturbs both sides of a pair.

import CBenchmark
import FoundationEssentials
import Glibc
import TestBed

public struct Plan: Sendable {
    public var tool: String
    public var libaio: Sides
    public var posix: Sides
    public var rounds: Int
    /// Of one measurement.
    public var seconds: Double

    public init(tool: String, libaio: Sides, posix: Sides, rounds: Int, seconds: Double) {
        self.tool = tool
        self.libaio = libaio
        self.posix = posix
        self.rounds = rounds
        self.seconds = seconds
    }

    /// The layer, and what it is measured against; nil for the system calls, or the C library.
    public struct Sides: Sendable {
        public var layer: String
        public var other: String?

        public init(layer: String, other: String?) {
            self.layer = layer
            self.other = other
        }
    }

    fileprivate func sides(of one: Case) -> Sides {
        one.interface == .posix ? posix : libaio
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
        scratch.look = { [unowned self] in self.look(current, share) }
    }

    private var share = 0.0
    private var current = ""

    /// Calls `report` with each result as soon as it is known. A case that cannot be measured has a
    /// result, too; what `report` throws ends the run.
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
            for round in 0..<plan.rounds {
                try add(round, of: one, to: &result)
                share += step / Double(plan.rounds)
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
        scratch.endChildren()
        return result
    }

    private enum Side {
        case other, layer
    }

    private func add(_ round: Int, of one: Case, to result: inout CaseResult) throws {
        func run(_ child: Child) throws -> Measurement {
            try child.turn()
            return try child.end()
        }
        if one.isOurs {
            return result.add(other: nil, layer: try run(try start(one, .layer, round)))
        }
        if one.slices == 1 {
            let other = try run(try start(one, .other, round))
            return result.add(other: other, layer: try run(try start(one, .layer, round)))
        }
        let other = try start(one, .other, round)
        let layer = try start(one, .layer, round)
        for _ in 0..<one.slices {
            try other.turn()
            try layer.turn()
        }
        result.add(other: try other.end(), layer: try layer.end())
    }

    private func start(_ one: Case, _ side: Side, _ round: Int) throws -> Child {
        let child = try child(
            one, side, seconds: plan.seconds / Double(one.slices), round: round, isCounted: false)
        try child.awaitReady()
        return child
    }

    private func child(
        _ one: Case, _ side: Side, seconds: Double, round: Int, isCounted: Bool
    ) throws -> Child {
        let sides = plan.sides(of: one)
        let task = ChildTask(
            name: one.name, library: side == .layer ? sides.layer : sides.other,
            folder: scratch.folder, file: try scratch.file(for: one.place),
            device: one.place == .ram ? try scratch.device() : nil, seconds: seconds,
            seed: UInt64(round + 1), isCounted: isCounted)
        return try Child(
            side == .layer ? "the layer" : sides.other ?? "the other side", plan.tool, task,
            scratch,
            look: { [self] in look(current, share) })
    }

    /// Long enough for some hundred operations of whatever kind, since a tracer makes them slow.
    private static let countedSeconds = 0.1

    /// System calls for each operation, by name; nil where nothing may be traced.
    private func count(_ one: Case, _ side: Side) throws -> [String: Double]? {
        // There the layer goes by the time that a read takes, and a traced one takes long.
        if one.place == .overlay { return nil }
        let child = try child(
            one, side, seconds: min(plan.seconds, Self.countedSeconds), round: plan.rounds,
            isCounted: true)
        guard let calls = try child.trace(isInterrupted) else { return nil }
        let measured = try child.end()
        guard measured.operations > 0 else { return nil }
        return CallNames.named(calls).mapValues { Double($0) / Double(measured.operations) }
    }
}

// The results of a run: what goes into the table, the JSON and the page.

import Glibc

/// A whole run.
public struct RunResults: Encodable, Sendable {
    public let schema = 1
    public let machine: Machine
    /// What was compared, in words and as the path of a library.
    public let other: String
    public let layer: String
    public let file: String
    public let rounds: Int
    /// Of one measurement.
    public let seconds: Double
    public private(set) var cases: [CaseResult] = []

    public init(
        machine: Machine, other: String, layer: String, file: String, rounds: Int, seconds: Double
    ) {
        self.machine = machine
        self.other = other
        self.layer = layer
        self.file = file
        self.rounds = rounds
        self.seconds = seconds
    }

    public mutating func add(_ result: CaseResult) {
        cases.append(result)
    }
}

public struct CaseResult: Encodable, Sendable {
    public enum Status: String, Encodable, Sendable {
        case measured, skipped, failed
    }

    /// A line of the table.
    public struct Line: Encodable, Sendable {
        public let quantity: Goal.Quantity
        /// Medians of the sides.
        public let other: Double?
        public let layer: Double?
        public let ratio: Spread?
        /// In words and as a number: "at least 1.6".
        public let goal: String?
        public let bound: Double?
        public let isReached: Bool?
        /// Instead of a number on the other side.
        public let answer: String?
    }

    public struct Side: Encodable, Sendable {
        /// By rounds.
        public fileprivate(set) var perSecond: [Double] = []
        public fileprivate(set) var cpuNanosecondsEach: Double?
        public fileprivate(set) var submit = Latency()
        public fileprivate(set) var completion = Latency()
        fileprivate(set) var systemCallsEach: [String: Double]?
        /// For each request, all of them together; nil where they could not be counted.
        public var systemCalls: Double? { systemCallsEach.map { $0.values.reduce(0, +) } }
        fileprivate var rounds: [Measurement] = []

        private enum CodingKeys: String, CodingKey {
            case perSecond, cpuNanosecondsEach, submit, completion, systemCallsEach
        }

        fileprivate mutating func add(_ measurement: Measurement) {
            rounds.append(measurement)
            perSecond.append(measurement.perSecond)
            cpuNanosecondsEach = Statistics.median(
                rounds.filter { $0.operations > 0 }.map {
                    $0.cpuSeconds * 1e9 / Double($0.operations)
                })
            submit.add(measurement.submit)
            completion.add(measurement.completion)
        }
    }

    /// Nanoseconds, over all rounds.
    public struct Latency: Encodable, Sendable {
        public private(set) var distribution = Distribution()

        fileprivate mutating func add(_ other: Distribution) {
            distribution.add(other)
        }

        private enum CodingKeys: String, CodingKey {
            case mean, p50, p90, p99, p999, max
        }

        public func encode(to encoder: any Encoder) throws {
            if distribution.isEmpty {
                var empty = encoder.singleValueContainer()
                return try empty.encodeNil()
            }
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(distribution.mean, forKey: .mean)
            for (key, percentile) in [
                (CodingKeys.p50, 50.0), (.p90, 90), (.p99, 99), (.p999, 99.9), (.max, 100),
            ] {
                try container.encode(distribution.percentile(percentile), forKey: key)
            }
        }
    }

    public let name: String
    public private(set) var status = Status.measured
    public private(set) var reason: String?
    public private(set) var other = Side()
    public private(set) var layer = Side()
    private let goals: [Goal]

    private enum CodingKeys: String, CodingKey {
        case name, status, reason, lines, other, layer
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(status, forKey: .status)
        try container.encodeIfPresent(reason, forKey: .reason)
        guard status == .measured else { return }
        try container.encode(lines, forKey: .lines)
        if !other.rounds.isEmpty { try container.encode(other, forKey: .other) }
        try container.encode(layer, forKey: .layer)
    }

    init(_ one: Case) {
        name = one.name
        goals = one.goals
    }

    var otherCalls: [String: Double]? {
        get { other.systemCallsEach }
        set { other.systemCallsEach = newValue }
    }

    var layerCalls: [String: Double]? {
        get { layer.systemCallsEach }
        set { layer.systemCallsEach = newValue }
    }

    mutating func add(other measurement: Measurement?, layer ours: Measurement) {
        if let measurement { other.add(measurement) }
        layer.add(ours)
    }

    mutating func skip(_ reason: String) {
        status = .skipped
        self.reason = reason
    }

    mutating func fail(_ reason: String) {
        status = .failed
        self.reason = reason
    }

    public var lines: [Line] {
        goals.map { goal in
            let others = other.rounds.compactMap { goal.value(in: $0) }
            let layers = layer.rounds.compactMap { goal.value(in: $0) }
            let ratio = Spread(layers, over: others)
            let theirs = Statistics.median(others)
            let ours = Statistics.median(layers)
            // Bytes are bounded as they are; everything else in relation to the other side.
            let judged = goal.quantity == .itemBytes ? ours : ratio?.median
            let (words, bound, reached): (String?, Double?, Bool?) =
                switch goal.bound {
                case .atLeast(let least):
                    ("at least \(Number.goal(least))", least, judged.map { $0 >= least })
                case .atMost(let most):
                    ("at most \(Number.goal(most))", most, judged.map { $0 <= most })
                case .report:
                    goal.quantity == .works ? ("works", nil, ours != nil) : (nil, nil, nil)
                }
            return Line(
                quantity: goal.quantity, other: theirs, layer: ours, ratio: ratio, goal: words,
                bound: bound, isReached: reached, answer: other.rounds.first?.answer)
        }
    }
}

/// Numbers for readers.
public enum Number {
    /// With so many digits after the point.
    public static func fixed(_ value: Double, _ digits: Int) -> String {
        withVaList([digits, value]) { arguments in
            var buffer = [CChar](repeating: 0, count: 400)
            vsnprintf(&buffer, buffer.count, "%.*f", arguments)
            return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
        }
    }

    /// A small one as its reciprocal: 1/20.
    static func goal(_ value: Double) -> String {
        value < 0.5 ? "1/" + text(1 / value) : text(value)
    }

    /// With three digits that count, or as many as the whole part has.
    public static func text(_ value: Double) -> String {
        let size = abs(value)
        let digits =
            switch size {
            case 0, 1..<10: 2
            case 10..<100: 1
            case 100...: 0
            case 0.1...: 3
            default: 4
            }
        let text = fixed(value, digits)
        guard text.contains(".") else { return text }
        let short = text.reversed().drop { $0 == "0" }.drop { $0 == "." }
        return String(short.reversed())
    }
}

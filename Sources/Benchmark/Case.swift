// What a case is: something to do on either side, and what is expected of the comparison.

public struct Case: Sendable {
    public let name: String
    /// What a goal is about; each is a line of the table.
    public let goals: [Goal]
    /// For the layer's side.
    public private(set) var environment: [String: String] = [:]
    /// Whether the kernel has no counterpart, or blocks for ever.
    public private(set) var isOurs = false

    /// How many turns the sides take in a round. What is soon under way takes short ones, so that
    /// both meet the same machine.
    let slices: Int
    let place: Place
    let interface: Interface
    let measure: @Sendable (Setting) throws -> Measurement

    private static let slicesOfMany = 16

    init(_ name: String, _ transfer: Transfer, _ goals: Goal...) {
        self.name = name
        self.goals = goals
        place = transfer.place
        interface = .libaio
        slices = transfer.isLasting ? 1 : Self.slicesOfMany
        measure = { try transfer.measure($0) }
    }

    init(_ name: String, _ posix: PosixTransfer, _ goals: Goal...) {
        self.name = name
        self.goals = goals
        place = posix.transfer.place
        interface = .posix
        // Threads of the C library's serve a list. The scheduler takes its time to settle where,
        // and after each pause anew: short turns would show what no program meets that goes on.
        let isOneGo = posix.transfer.isLasting || posix.waiting == .list
        slices = isOneGo ? 1 : Self.slicesOfMany
        measure = { try posix.measure($0) }
    }

    init(
        _ name: String, _ place: Place, inOneGo: Bool = true, _ goals: Goal...,
        measure: @escaping @Sendable (Setting) throws -> Measurement
    ) {
        self.name = name
        self.goals = goals
        self.place = place
        interface = .libaio
        slices = inOneGo ? 1 : Self.slicesOfMany
        self.measure = measure
    }

    func set(_ variable: String, _ value: String) -> Case {
        var copy = self
        copy.environment[variable] = value
        return copy
    }

    /// Measured on the layer alone.
    var ours: Case {
        var copy = self
        copy.isOurs = true
        return copy
    }
}

/// Whose functions a case calls.
enum Interface: Sendable {
    case libaio, posix
}

/// A quantity of a case and what it should come to: the layer's divided by the other side's.
public struct Goal: Sendable {
    public enum Quantity: String, Codable, Sendable {
        case rate
        case submitMean = "submit_mean"
        case submitP99 = "submit_p99"
        case completionP50 = "completion_p50"
        case itemBytes = "item_bytes"
        case works

        public var words: String {
            switch self {
            case .rate: "per second"
            case .submitMean: "mean in io_submit"
            case .submitP99: "p99 in io_submit"
            case .completionP50: "p50 to completion"
            case .itemBytes: "bytes each"
            case .works: "works"
            }
        }
    }

    public enum Bound: Sendable {
        case atLeast(Double)
        case atMost(Double)
        /// Nothing is expected: it is for the reader.
        case report
    }

    public let quantity: Quantity
    public let bound: Bound

    static func rate(_ least: Double) -> Goal { Goal(quantity: .rate, bound: .atLeast(least)) }
    static let rate = Goal(quantity: .rate, bound: .report)

    static func submitMean(_ most: Double) -> Goal {
        Goal(quantity: .submitMean, bound: .atMost(most))
    }

    static func submitP99(_ most: Double) -> Goal {
        Goal(quantity: .submitP99, bound: .atMost(most))
    }

    static func completionP50(_ most: Double) -> Goal {
        Goal(quantity: .completionP50, bound: .atMost(most))
    }

    static func itemBytes(_ most: Double) -> Goal {
        Goal(quantity: .itemBytes, bound: .atMost(most))
    }

    static let works = Goal(quantity: .works, bound: .report)

    /// The quantity in one measurement; nil where it was not taken.
    func value(in measurement: Measurement) -> Double? {
        switch quantity {
        case .rate: measurement.perSecond
        case .submitMean: measurement.submit.isEmpty ? nil : measurement.submit.mean
        case .submitP99: measurement.submit.isEmpty ? nil : measurement.submit.percentile(99)
        case .completionP50:
            measurement.completion.isEmpty ? nil : measurement.completion.percentile(50)
        case .itemBytes: measurement.itemBytes
        case .works: measurement.answer == nil ? measurement.perSecond : nil
        }
    }
}

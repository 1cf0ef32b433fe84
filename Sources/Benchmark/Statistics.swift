// What is said of the rounds together.

import Glibc

public enum Statistics {
    /// The middle of the values, or the mean of the two in the middle; nil of none.
    public static func median(_ values: [Double]) -> Double? {
        if values.isEmpty { return nil }
        let sorted = values.sorted()
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }
}

/// The pairwise ratios: their median, and how far they reach.
public struct Spread: Codable, Equatable, Sendable {
    public let median: Double
    public let least: Double
    public let most: Double

    /// Of each value of `upper` and the value of `lower` in the same round. Nil without any.
    public init?(_ upper: [Double], over lower: [Double]) {
        let ratios = zip(upper, lower).filter { $0.1 > 0 }.map { $0.0 / $0.1 }
        guard let median = Statistics.median(ratios) else { return nil }
        self.median = median
        least = ratios.min() ?? median
        most = ratios.max() ?? median
    }
}

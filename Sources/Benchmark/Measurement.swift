// What one side of a case does in one round.

import CBenchmark
import Glibc
import Histogram

public struct Measurement: Codable, Sendable {
    public var operations = 0
    public var seconds = 0.0
    /// Of all threads of the process, user and system.
    var cpuSeconds = 0.0
    /// Nanoseconds inside the call that submits.
    public var submit = Distribution()
    /// Nanoseconds from there to the event.
    public var completion = Distribution()
    /// Bytes of memory for each item.
    public var itemBytes: Double?
    /// In words, where there is no number: "blocks".
    public var answer: String?

    init() {}

    public var perSecond: Double { seconds > 0 ? Double(operations) / seconds : 0 }

    /// Adds what `body` does, and the processor's time for it, between the tracer's marks.
    mutating func add(_ body: () throws -> Work) rethrows {
        var before = rusage()
        var after = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &before)
        benchmark_mark(1)
        let work = try body()
        benchmark_mark(0)
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &after)
        operations += work.operations
        seconds += work.seconds
        cpuSeconds += Self.cpuSeconds(after) - Self.cpuSeconds(before)
    }

    private static func cpuSeconds(_ usage: rusage) -> Double {
        Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
            + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6
    }
}

struct Work {
    var operations: Int
    var seconds: Double
}

/// Times as they were taken, for whoever has no time to sort them in. Later ones are dropped when
/// there are too many.
struct Samples {
    private static let countMax = 1 << 20
    fileprivate private(set) var times: UnsafeMutablePointer<UInt32>
    fileprivate private(set) var count = 0

    init() {
        times = .allocate(capacity: Self.countMax)
    }

    @inline(__always)
    mutating func add(_ ns: UInt64) {
        guard count < Self.countMax else { return }
        times[count] = UInt32(clamping: ns)
        count += 1
    }
}

/// How often each time was seen, in nanoseconds, to two digits.
public struct Distribution: Codable, Sendable {
    private(set) var histogram = Histogram<UInt64>(
        highestTrackableValue: UInt64(UInt32.max), numberOfSignificantValueDigits: .two)

    public init() {}

    public var isEmpty: Bool { histogram.totalCount == 0 }

    mutating func add(_ samples: Samples) {
        for index in 0..<samples.count { histogram.record(UInt64(samples.times[index])) }
    }

    mutating func add(_ other: Distribution) {
        histogram.add(other.histogram)
    }

    public mutating func record(_ ns: UInt64) {
        histogram.record(ns)
    }

    public func percentile(_ percentile: Double) -> Double {
        Double(histogram.valueAtPercentile(percentile))
    }

    public var mean: Double { isEmpty ? 0 : histogram.mean }

    /// Each time that was seen, and how often.
    public var pairs: [(nanoseconds: UInt64, count: UInt64)] {
        histogram.recordedValues().map { ($0.value, $0.count) }
    }

    // MARK: As JSON

    public init(from decoder: any Decoder) throws {
        let pairs = try [[UInt64]](from: decoder)
        for pair in pairs { histogram.record(pair[0], count: pair[1]) }
    }

    public func encode(to encoder: any Encoder) throws {
        try pairs.map { [$0.nanoseconds, $0.count] }.encode(to: encoder)
    }
}

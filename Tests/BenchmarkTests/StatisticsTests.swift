// Proves what is said of several rounds, and of the times in them.

import Testing

@testable import Benchmark

@Suite struct StatisticsTests {
    @Test func medianOfAnOddAndAnEvenNumber() {
        #expect(Statistics.median([3, 1, 2]) == 2)
        #expect(Statistics.median([4, 1, 2, 3]) == 2.5)
        #expect(Statistics.median([7]) == 7)
        #expect(Statistics.median([]) == nil)
    }

    /// The ratio of the medians would be 1: the pairs say that one side is twice as fast.
    @Test func ratiosAreOfPairs() throws {
        let spread = try #require(Spread([2, 20, 6, 400, 30], over: [1, 10, 3, 200, 20]))
        #expect(spread.median == 2)
        #expect(spread.least == 1.5)
        #expect(spread.most == 2)
    }

    @Test func nothingToDivideByIsNoRatio() {
        #expect(Spread([], over: []) == nil)
        #expect(Spread([1, 2], over: [0, 0]) == nil)
        #expect(Spread([1, 4], over: [0, 2])?.median == 2)
    }

    @Test func percentilesAreCloseToTheTimes() {
        var times = Distribution()
        for time in 1...1000 { times.record(UInt64(time) * 100) }
        for (percentile, time) in [(50.0, 50_000.0), (99, 99_000), (100, 100_000)] {
            #expect(abs(times.percentile(percentile) - time) <= time / 100)
        }
        #expect(abs(times.mean - 50_050) < 500)
    }

    @Test func sharesOfADistributionAreOne() {
        var times = Distribution()
        for time in [1, 10, 1000, 1001, 5_000_000] { times.record(UInt64(time)) }
        let shares = Plot.shares(of: times)
        #expect(abs(shares.values.reduce(0, +) - 1) < 1e-9)
        #expect(shares[0] == 0.2)
        #expect(shares[36] == 0.4)
    }

    @Test(arguments: [
        (0, "0"), (1, "1"), (1.6, "1.6"), (0.97, "0.97"), (0.998, "0.998"), (4545.4, "4545"),
        (12.34, "12.3"),
        (0.0754, "0.0754"), (100, "100"), (20, "20"),
    ])
    func numbers(_ value: Double, _ text: String) {
        #expect(Number.text(value) == text)
    }

    @Test func smallGoalsAreReciprocals() {
        #expect(Number.goal(1.0 / 20) == "1/20")
        #expect(Number.goal(0.97) == "0.97")
    }
}

// Proves that a line of the table is judged by the right quantity, in the right direction.

import Testing

@testable import Benchmark

@Suite struct GoalTests {
    private func line(_ goal: Goal, other: Measurement?, layer: Measurement) throws
        -> CaseResult.Line
    {
        var result = CaseResult(Case("case", .none, goal) { _ in Measurement() })
        result.add(other: other, layer: layer)
        return try #require(result.lines.first)
    }

    private func measurement(rate: Int = 1, submit: UInt64 = 100, itemBytes: Double? = nil)
        -> Measurement
    {
        var result = Measurement()
        result.operations = rate
        result.seconds = 1
        result.submit.record(submit)
        result.itemBytes = itemBytes
        return result
    }

    @Test func ratesShouldBeHigh() throws {
        let kernel = measurement(rate: 100)
        #expect(
            try line(.rate(1.6), other: kernel, layer: measurement(rate: 160)).isReached == true)
        #expect(
            try line(.rate(1.6), other: kernel, layer: measurement(rate: 159)).isReached == false)
        #expect(try line(.rate, other: kernel, layer: measurement(rate: 10)).isReached == nil)
    }

    @Test func timesShouldBeShort() throws {
        let kernel = measurement(submit: 100_000)
        let goal = Goal.submitMean(1.0 / 20)
        #expect(try line(goal, other: kernel, layer: measurement(submit: 4000)).isReached == true)
        #expect(try line(goal, other: kernel, layer: measurement(submit: 6000)).isReached == false)
    }

    @Test func bytesAreJudgedAlone() throws {
        let goal = Goal.itemBytes(256)
        #expect(try line(goal, other: nil, layer: measurement(itemBytes: 185)).isReached == true)
        #expect(try line(goal, other: nil, layer: measurement(itemBytes: 300)).isReached == false)
    }

    @Test func whatBlocksHasNoRatio() throws {
        var kernel = Measurement()
        kernel.answer = "blocks"
        let line = try line(.works, other: kernel, layer: measurement(rate: 10))
        #expect(line.isReached == true && line.ratio == nil && line.answer == "blocks")
    }

    @Test func namesAreDistinctAndFound() {
        #expect(Set(Catalog.all.map(\.name)).count == Catalog.all.count)
        #expect(Catalog.matching(["cached/depth-1"]).map(\.name) == ["cached/depth-1"])
        #expect(Catalog.matching(["tmpfs/*", "overlay/*"]).count == 4)
        #expect(Catalog.matching([]).count == Catalog.all.count)
        #expect(Catalog.matching(["no such case"]).isEmpty)
    }
}

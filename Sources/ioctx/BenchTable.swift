// The results of `ioctx bench` as lines of a table, each case as soon as it is known.

import Benchmark

enum BenchTable {
    private static let ratios = Columns(
        .left(44), .right(10), .right(10), .right(8), .right(16), .right(16))

    static let head = ratios.line(["", "other", "layer", "ratio", "range", "to reach", ""])

    static func lines(of result: CaseResult) -> String {
        switch result.status {
        case .skipped: return "\(result.name): skipped, \(result.reason ?? "")\n"
        case .failed: return "\(result.name): FAILED, \(result.reason ?? "")\n"
        case .measured: break
        }
        return result.lines.map { line in
            ratios.line([
                "\(result.name), \(line.quantity.words)",
                line.answer ?? line.other.map { Self.amount($0, line.quantity) } ?? "-",
                line.layer.map { Self.amount($0, line.quantity) } ?? "-",
                line.ratio.map { Number.text($0.median) } ?? "-",
                line.ratio.map { "\(Number.text($0.least)) - \(Number.text($0.most))" } ?? "-",
                line.goal ?? "-",
                line.isReached.map { $0 ? "reached" : "MISSED" } ?? "",
            ])
        }.joined()
    }

    private static let costs = Columns(
        .left(30), .right(6), .right(9), .right(12), .right(12), .right(12), .right(14), .right(12))

    /// What a request costs, and how long it takes, on either side.
    static func details(of results: [CaseResult]) -> String {
        var text =
            "\n"
            + costs.line([
                "each request", "", "calls", "CPU", "submit p50", "p99", "completion p50", "p99",
            ])
        for result in results where result.status == .measured {
            for (name, side) in [("other", result.other), ("layer", result.layer)]
            where !side.perSecond.isEmpty {
                func time(_ latency: CaseResult.Latency, _ percentile: Double) -> String {
                    latency.distribution.isEmpty
                        ? "-" : microseconds(latency.distribution.percentile(percentile))
                }
                text += costs.line([
                    result.name, name, side.systemCalls.map { Number.text($0) } ?? "-",
                    side.cpuNanosecondsEach.map(microseconds) ?? "-", time(side.submit, 50),
                    time(side.submit, 99), time(side.completion, 50), time(side.completion, 99),
                ])
            }
        }
        return text
    }

    private static func microseconds(_ nanoseconds: Double) -> String {
        Number.text(nanoseconds / 1e3) + " us"
    }

    private static func amount(_ value: Double, _ quantity: Goal.Quantity) -> String {
        switch quantity {
        case .rate, .works:
            value >= 1e6
                ? Number.text(value / 1e6) + " M"
                : value >= 1e4 ? Number.text(value / 1e3) + " k" : Number.text(value)
        case .submitMean, .submitP99, .completionP50: Number.text(value / 1e3) + " us"
        case .itemBytes: Number.text(value) + " B"
        }
    }
}

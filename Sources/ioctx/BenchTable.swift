// The results of `ioctx bench` as lines of a table, each case as soon as it is known.

import Benchmark

struct BenchTable {
    private static let widths = [44, 10, 10, 8, 16, 16]

    var head: String { Self.row(["", "other", "layer", "ratio", "range", "to reach", ""]) }

    func lines(of result: CaseResult) -> String {
        switch result.status {
        case .skipped: return "\(result.name): skipped, \(result.reason ?? "")\n"
        case .failed: return "\(result.name): FAILED, \(result.reason ?? "")\n"
        case .measured: break
        }
        return result.lines.map { line in
            Self.row([
                "\(result.name), \(line.quantity.rawValue)",
                line.answer ?? line.other.map { Self.amount($0, line.quantity) } ?? "-",
                line.layer.map { Self.amount($0, line.quantity) } ?? "-",
                line.ratio.map { Number.text($0.median) } ?? "-",
                line.ratio.map { "\(Number.text($0.least)) - \(Number.text($0.most))" } ?? "-",
                line.goal ?? "-",
                line.isReached.map { $0 ? "reached" : "MISSED" } ?? "",
            ])
        }.joined()
    }

    private static func row(_ cells: [String]) -> String {
        var text = ""
        for (index, cell) in cells.enumerated() {
            guard index < widths.count else {
                text += "  " + cell
                break
            }
            let blanks = String(repeating: " ", count: max(widths[index] - cell.count, 0))
            text += index == 0 ? cell + blanks : "  " + blanks + cell
        }
        return String(text.reversed().drop { $0 == " " }.reversed()) + "\n"
    }

    private static func amount(_ value: Double, _ quantity: Goal.Quantity) -> String {
        switch quantity {
        case .rate, .works:
            value >= 1e6
                ? Number.text(value / 1e6) + " M"
                : value >= 1e4 ? Number.text(value / 1e3) + " k" : Number.text(value)
        case .submitMean, .submitP99: Number.text(value / 1e3) + " us"
        case .itemBytes: Number.text(value) + " B"
        }
    }
}

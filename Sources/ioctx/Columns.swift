// Lines of text in columns.

struct Columns {
    enum Column {
        case left(Int)
        case right(Int)
    }

    private let columns: [Column]

    /// The width of each, two spaces apart; what comes behind the last has the width that it needs.
    init(_ columns: Column...) {
        self.columns = columns
    }

    /// With nothing behind the last letter but the line's end.
    func line(_ cells: [String]) -> String {
        let padded = cells.enumerated().map { index, cell in
            guard index < columns.count else { return cell }
            switch columns[index] {
            case .left(let width): return cell + Self.blanks(width - cell.count)
            case .right(let width): return Self.blanks(width - cell.count) + cell
            }
        }
        let text = padded.joined(separator: "  ")
        return text[..<(text.lastIndex { $0 != " " }.map(text.index(after:)) ?? text.startIndex)]
            + "\n"
    }

    private static func blanks(_ count: Int) -> String {
        String(repeating: " ", count: max(count, 0))
    }
}

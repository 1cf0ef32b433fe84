// The progress bar.

import Glibc

final class Progress {
    /// What is counted.
    enum Unit {
        case bytes
        /// Parts of the whole that mean nothing to a reader.
        case parts
    }

    var label: String
    private let unit: Unit
    private let isShown: Bool
    private let total: Int?
    private let interruption: Interruption
    private let startNs = Progress.nowNs()
    private var drawnNs = Progress.nowNs()
    private var isDrawn = false

    private static let periodNs = 100_000_000
    private static let barWidth = 16
    /// 99,999 minutes: more is not told, and need not be a number at all.
    private static let secondsShownMax = 5_999_999.0

    /// A bar in a log file, or where the line cannot be drawn again, is noise.
    static var terminalCanShowIt: Bool {
        isatty(STDERR_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"
    }

    init(
        _ label: String, total: Int?, unit: Unit = .bytes, isShown: Bool,
        interruption: Interruption
    ) {
        self.label = label
        self.unit = unit
        self.total = total
        self.isShown = isShown
        self.interruption = interruption
    }

    deinit {
        clear()
    }

    var seconds: Double { Double(Self.nowNs() - startNs) / 1e9 }

    /// Call it often: it draws seldom, and ends the tool when the user wants that.
    func step(_ done: Int) {
        if let signal = interruption.pending() {
            clear()
            interruption.obey(signal)
        }
        let now = Self.nowNs()
        guard isShown, now - drawnNs >= Self.periodNs else { return }
        drawnNs = now
        isDrawn = true
        // Back to the start of the line, and the rest of the old line away.
        let line = Self.fitting(lines(done), columns: Self.columns)
        _ = Output.writeAll("\r\(line)\u{1b}[K", to: STDERR_FILENO)
    }

    func clear() {
        guard isDrawn else { return }
        isDrawn = false
        _ = Output.writeAll("\r\u{1b}[K", to: STDERR_FILENO)
    }

    /// The first that leaves the last column free, where some terminals go on to the next line.
    static func fitting(_ lines: [String], columns: Int) -> String {
        lines.first { $0.count < columns } ?? ""
    }

    /// Of the terminal, which may change its size; any number where it does not say.
    private static var columns: Int {
        var size = winsize()
        let isKnown = ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        return isKnown ? Int(size.ws_col) : Int.max
    }

    /// What there is to say, and then with less and less of it.
    private func lines(_ done: Int) -> [String] {
        let rate = Double(done) / max(seconds, 1e-3)
        let amount = ByteCount.text(Double(done))
        let speed = "\(ByteCount.text(rate))/s"
        guard let total, total > 0 else {
            return ["\(label) \(amount), \(speed)", "\(amount), \(speed)", amount]
        }
        let share = min(Double(done) / Double(total), 1)
        let full = Int(share * Double(Self.barWidth))
        let bar =
            String(repeating: "#", count: full)
            + String(repeating: ".", count: Self.barWidth - full)
        let left =
            rate > 0 ? Int(min(Double(total - done) / rate, Self.secondsShownMax).rounded(.up)) : 0
        let amounts =
            unit == .bytes ? " \(amount) of \(ByteCount.text(Double(total))), \(speed)" : ""
        // Of nothing, nothing can be told.
        let rest = rate > 0 ? ", \(left / 60):\(left % 60 < 10 ? "0" : "")\(left % 60) left" : ""
        let percent = "\(Int(share * 100))%"
        return [
            "\(label) [\(bar)] \(percent)\(amounts)\(rest)",
            "\(label) [\(bar)] \(percent)\(rest)",
            "\(label) \(percent)\(rest)",
            "\(label) \(percent)",
            percent,
        ]
    }

    private static func nowNs() -> Int {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec * 1_000_000_000 + now.tv_nsec
    }
}

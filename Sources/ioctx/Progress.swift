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
        _ = Output.writeAll("\r\(line(done))\u{1b}[K", to: STDERR_FILENO)
    }

    func clear() {
        guard isDrawn else { return }
        isDrawn = false
        _ = Output.writeAll("\r\u{1b}[K", to: STDERR_FILENO)
    }

    private func line(_ done: Int) -> String {
        let rate = Double(done) / max(seconds, 1e-3)
        let speed = "\(ByteCount.text(rate))/s"
        guard let total, total > 0 else {
            return "\(label) \(ByteCount.text(Double(done))), \(speed)"
        }
        let share = min(Double(done) / Double(total), 1)
        let full = Int(share * Double(Self.barWidth))
        let bar =
            String(repeating: "#", count: full)
            + String(repeating: ".", count: Self.barWidth - full)
        let left = rate > 0 ? Int((Double(total - done) / rate).rounded(.up)) : 0
        let amounts =
            unit == .bytes
            ? " \(ByteCount.text(Double(done))) of \(ByteCount.text(Double(total))), \(speed)" : ""
        // Of nothing, nothing can be told.
        let rest = rate > 0 ? ", \(left / 60):\(left % 60 < 10 ? "0" : "")\(left % 60) left" : ""
        return "\(label) [\(bar)] \(Int(share * 100))%\(amounts)\(rest)"
    }

    private static func nowNs() -> Int {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec * 1_000_000_000 + now.tv_nsec
    }
}

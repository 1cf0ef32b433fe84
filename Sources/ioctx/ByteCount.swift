// Sizes as people write them and read them: 256k on the command line, 1.5 GiB in a report.

/// A number of bytes, with an optional k, m, g or t for powers of 1024, as fio and dd have them.
struct ByteCount {
    let bytes: Int

    private static let suffixes: [Character] = ["k", "m", "g", "t"]

    init(bytes: Int) {
        self.bytes = bytes
    }

    init?(_ text: String) {
        var digits = text.lowercased()[...]
        var shift = 0
        if let last = digits.last, let index = Self.suffixes.firstIndex(of: last) {
            shift = 10 * (index + 1)
            digits = digits.dropLast()
        }
        guard !digits.isEmpty, digits.allSatisfy(\.isASCII), digits.allSatisfy(\.isNumber),
            let number = Int(digits)
        else { return nil }
        let (product, overflows) = number.multipliedReportingOverflow(by: 1 << shift)
        if overflows { return nil }
        bytes = product
    }

    /// The number for a reader, with one digit after the point.
    static func text(_ bytes: Double) -> String {
        var value = bytes
        var unit = "B"
        for next in ["KiB", "MiB", "GiB", "TiB"] where value >= 1024 {
            value /= 1024
            unit = next
        }
        return unit == "B" ? "\(Int(value)) B" : "\(tenths(value)) \(unit)"
    }

    static func tenths(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}

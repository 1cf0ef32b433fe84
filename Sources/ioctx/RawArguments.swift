// The command line as bytes. Swift repairs arguments that are not UTF-8, which would make a
// file name or a program's argument a different one; and it reads them from /proc, and finds none
// where that is missing.

import Glibc

enum RawArguments {
    typealias List = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

    nonisolated(unsafe) private static var count: CInt = 0
    nonisolated(unsafe) private static var list: List?

    /// The C library hands its functions of this section what it hands main, and before that.
    @section(".init_array") @used
    private static let note: @convention(c) (CInt, List?) -> Void = { count, list in
        RawArguments.count = count
        RawArguments.list = list
    }

    private static var all: [UnsafeMutablePointer<CChar>] {
        (0..<Int(count)).compactMap { list?[$0] }
    }

    /// As the parser wants them: text, and without the tool's own name. Two that differ do so here.
    static var text: [String] { all.dropFirst().map(text) }

    /// Of what is no UTF-8, each byte beyond ASCII is a character for private use.
    private static func text(of argument: UnsafeMutablePointer<CChar>) -> String {
        if let valid = String(validatingCString: argument) { return valid }
        var text = String.UnicodeScalarView()
        for byte in Path(cString: argument).bytes {
            text.append(
                byte < 0x80 ? Unicode.Scalar(byte) : Unicode.Scalar(0xf700 + UInt32(byte))!)
        }
        return String(text)
    }

    /// What the tool was started as; nil for who names it nothing.
    static var name: Path? { all.first.map { Path(cString: $0) } }

    /// The last `count` arguments, ended by nil as execve wants them.
    static func last(_ count: Int) -> [UnsafeMutablePointer<CChar>?] {
        all.suffix(count) + [nil]
    }

    /// The bytes that the parser's `argument` came from.
    static func path(_ argument: String) -> Path {
        // Not by ==, for which a letter with an accent is also a letter and an accent.
        let raw = all.dropFirst().first { text(of: $0).utf8.elementsEqual(argument.utf8) }
        return raw.map { Path(cString: $0) } ?? Path(argument)
    }
}

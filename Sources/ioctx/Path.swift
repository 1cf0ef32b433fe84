// File names. Swift repairs text that is not UTF-8, which would make a name a different one.

import Glibc

/// Any bytes but zero.
struct Path: CustomStringConvertible {
    private(set) var bytes: [UInt8]

    init(_ text: String) {
        bytes = Array(text.utf8)
    }

    init(cString: UnsafePointer<CChar>) {
        bytes = Array(UnsafeRawBufferPointer(start: cString, count: strlen(cString)))
    }

    init(bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes)
    }

    var description: String { String(decoding: bytes, as: UTF8.self) }

    /// Calls `body` with the name as C has it.
    func withCString<R>(_ body: (UnsafePointer<CChar>) -> R) -> R {
        (bytes + [0]).withUnsafeBytes {
            // An array of bytes that ends in zero is a C string; only the type says otherwise.
            body($0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
    }

    /// The name without symbolic links; nil, with errno set, where it leads nowhere.
    func resolved() -> Path? {
        withCString { name in
            guard let real = realpath(name, nil) else { return nil }
            defer { free(real) }
            return Path(cString: real)
        }
    }

    private static let slash = UInt8(ascii: "/")

    var endsInSlash: Bool { bytes.last == Self.slash }

    var lastComponent: Path {
        let trimmed = bytes.reversed().drop { $0 == Self.slash }
        return Path(bytes: trimmed.prefix { $0 != Self.slash }.reversed())
    }

    /// The folder the name is in, with its slash: empty for a plain name.
    var folder: Path {
        let trimmed = bytes.reversed().drop { $0 == Self.slash }
        return Path(bytes: trimmed.drop { $0 != Self.slash }.reversed())
    }

    func appending(_ component: Path) -> Path {
        let needsSlash = !bytes.isEmpty && !endsInSlash
        return Path(bytes: bytes + (needsSlash ? [Self.slash] : []) + component.bytes)
    }
}

// Why a case could not be carried through.

import Glibc

/// Thrown by a case that went wrong in itself: it says nothing of what was to be found out.
public struct Trouble: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }

    /// What the C library calls an errno, which may be negated.
    public static func words(_ error: Int32) -> String {
        String(cString: strerror(abs(error)))
    }

    /// The result of a function of the C library, or what errno says.
    @discardableResult
    public static func check(_ what: String, _ result: Int32) throws -> Int32 {
        if result < 0 { throw Trouble("\(what): \(words(errno))") }
        return result
    }
}

// Why a case does not run.

/// Thrown by a case that this machine or this side cannot run.
public struct Skip: Error {
    public let reason: String

    public init(_ reason: String) {
        self.reason = reason
    }

    /// Throws where a call of the test bed has answered with a negated errno.
    public static func check(_ what: String, _ result: Int32) throws {
        if result < 0 { throw Skip("\(what): \(Trouble.words(result))") }
    }
}

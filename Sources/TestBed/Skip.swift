// Why a case does not run.

/// Thrown by a case that this machine or this side cannot run.
public struct Skip: Error {
    public let reason: String

    public init(_ reason: String) {
        self.reason = reason
    }
}

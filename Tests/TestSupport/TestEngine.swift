// The engines that tests run on.

import Glibc

@testable import Paths

public enum TestEngine: String, Codable, Sendable, CaseIterable {
    case uring
    case threads
    /// Gives O_DIRECT to the kernel's AIO, and the rest to one of the others.
    case auto

    /// Those with a daemon that this machine allows. Tried here and not in a child, as
    /// Engine.survey() does: a child of a process with many threads may find a lock of the
    /// sanitizer's taken for ever.
    public static let withDaemon: [TestEngine] =
        SandboxProbe.tryUring() == 0 ? [.uring, .threads] : [.threads]

    public static let available = withDaemon + [.auto]

    /// The first line of an exit test: this process's layer uses this engine. Whatever hangs ends
    /// with SIGALRM, which is a failure.
    public func use(_ variables: (String, String)...) {
        boundedInTime()
        setenv("IOCTX_ENGINE", rawValue, 1)
        for (name, value) in variables { setenv("IOCTX_\(name)", value, 1) }
    }
}

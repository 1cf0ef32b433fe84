// Which engines this machine allows, for the tool: the stations find out for themselves, at their
// start.

import CLibAIO
import JobTable

/// Why an engine cannot serve.
public enum Obstacle: UInt8, Sendable {
    case none
    case notPermitted
    case notImplemented
    case killedBySeccomp
    case kernelTooOld
    case descriptorLimit
    case noMemory
    case other

    init(_ result: Int) {
        switch result {
        case 0...: self = .none
        case failure(EPERM), failure(EACCES): self = .notPermitted
        case failure(ENOSYS): self = .notImplemented
        case failure(EINVAL), failure(EOPNOTSUPP): self = .kernelTooOld
        case failure(EMFILE), failure(ENFILE): self = .descriptorLimit
        case failure(ENOMEM): self = .noMemory
        default: self = .other
        }
    }
}

/// What automatic choice would find in this process.
public struct EngineSurvey: Sendable {
    /// Why the engine on io_uring, and that on threads, cannot serve.
    public let uring: Obstacle
    public let threads: Obstacle
    /// The errno behind an obstacle, not negated; 0 for none.
    public let uringErrno: Int32
    public let threadsErrno: Int32
    /// What `auto` comes to.
    public let chosen: Engine
}

extension Engine {
    /// Tries each engine's system calls in a child process, so that a seccomp filter that kills
    /// kills the child.
    public static func survey() -> EngineSurvey {
        let uring = SandboxProbe.runInChild { SandboxProbe.tryUringDaemon() }
        let threads = SandboxProbe.runInChild { SandboxProbe.tryPrivateTable() }
        let uringFound = found(uring)
        let threadsFound = found(threads)
        return EngineSurvey(
            uring: uringFound.obstacle, threads: threadsFound.obstacle,
            uringErrno: uringFound.errno, threadsErrno: threadsFound.errno,
            chosen: uringFound.obstacle == .none
                ? .uring : (threadsFound.obstacle == .none ? .threads : .inline))
    }

    private static func found(_ result: Int) -> (obstacle: Obstacle, errno: Int32) {
        switch result {
        case SandboxProbe.killed: (.killedBySeccomp, 0)
        case SandboxProbe.childless: (.other, EAGAIN)
        default: (Obstacle(result), Int32(max(-result, 0)))
        }
    }
}

// The place where it is noticed that the user wants the tool to stop.

import Glibc

/// The signals that ask the tool to stop. They are blocked and asked for rather than handled, so
/// that the temporary file can be removed by ordinary code.
final class Interruption {
    private static let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]
    private var wanted = sigset_t()
    private let who: String
    private let cleanUp: () -> Void

    /// `who` is stopped; `cleanUp` runs before the signal takes its course.
    init(_ who: String, cleanUp: @escaping () -> Void) {
        self.who = who
        self.cleanUp = cleanUp
        sigemptyset(&wanted)
        for signal in Self.signals {
            var action = sigaction()
            sigaction(signal, nil, &action)
            // Whoever started us with a signal ignored, as nohup does, wants it ignored.
            if action.__sigaction_handler.sa_handler.map({ unsafeBitCast($0, to: Int.self) }) != 1 {
                sigaddset(&wanted, signal)
            }
        }
        sigprocmask(SIG_BLOCK, &wanted, nil)
        // A file size limit and a reader that leaves are errors like others, with a message.
        signal(SIGXFSZ, SIG_IGN)
        signal(SIGPIPE, SIG_IGN)
    }

    func pending() -> Int32? {
        var set = sigset_t()
        sigpending(&set)
        return Self.signals.first {
            sigismember(&set, $0) == 1 && sigismember(&wanted, $0) == 1
        }
    }

    /// Ends the tool by the signal, without waiting for requests that are under way.
    func obey(_ signal: Int32) -> Never {
        cleanUp()
        let name = String(cString: strsignal(signal))
        Failure.report("\(who): stopped by a signal (\(name)) before it was complete")
        sigprocmask(SIG_UNBLOCK, &wanted, nil)
        Glibc.exit(128 + signal)
    }
}

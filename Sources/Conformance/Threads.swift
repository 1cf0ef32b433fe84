// Threads and child processes of a case.

import CConformance
import Glibc

final class Worker {
    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    private var thread = pthread_t()
    private var joined = false

    init(_ body: @escaping () -> Void) {
        let argument = Unmanaged.passRetained(Body(body)).toOpaque()
        pthread_create(
            &thread, nil,
            { raw in
                Unmanaged<Body>.fromOpaque(raw!).takeRetainedValue().run()
                return nil
            }, argument)
    }

    /// False when the thread is still at work after `seconds`.
    @discardableResult
    func join(seconds: Double = 5) -> Bool {
        if joined { return true }
        joined = conformance_join(thread, seconds) == 0
        return joined
    }

    func cancel() {
        pthread_cancel(thread)
    }

    /// Sends a signal to this thread alone.
    func signal(_ number: Int32) {
        pthread_kill(thread, number)
    }
}

extension Scene {
    /// Runs `body` in a fork and writes down how it ended, if not by itself.
    func inChild(seconds: Double = 5, _ body: () -> Void) {
        let child = conformance_fork()
        if child == 0 {
            body()
            _exit(0)
        }
        line("child \(ending(of: child, seconds: seconds))")
    }

    func ending(of child: Int32, seconds: Double = 5) -> String {
        var status: Int32 = 0
        let deadline = Clock.now + seconds
        while waitpid(child, &status, WNOHANG) != child {
            if Clock.now > deadline {
                kill(child, SIGKILL)
                waitpid(child, &status, 0)
                return "did not end"
            }
            usleep(1000)
        }
        let signal = status & 0x7f
        if signal == 0 { return "ended with \(status >> 8 & 0xff)" }
        return "died of \(conformance_signal_name(signal).map { String(cString: $0) } ?? "?")"
    }
}

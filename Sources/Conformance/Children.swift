// Child processes of a case.

import CTestBed
import Glibc
import TestBed

extension Scene {
    /// Runs `body` in a fork and writes down how it ended, if not by itself.
    func inChild(seconds: Double = 5, _ body: () -> Void) {
        let child = testbed_fork()
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
        return "died of \(testbed_signal_name(signal).map { String(cString: $0) } ?? "?")"
    }
}

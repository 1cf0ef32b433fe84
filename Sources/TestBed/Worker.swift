// Threads of a case.

import CTestBed
import Glibc

/// A thread, started at once.
public final class Worker {
    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    private var thread = pthread_t()
    private var joined = false

    public init(_ body: @escaping () -> Void) {
        let argument = Unmanaged.passRetained(Body(body)).toOpaque()
        pthread_create(
            &thread, nil,
            { raw in
                Unmanaged<Body>.fromOpaque(raw!).takeRetainedValue().run()
                return nil
            }, argument)
    }

    /// Sends the thread that calls this a signal after so many seconds, and does the rest after as
    /// many again.
    public static func interrupting(
        _ signal: Int32 = SIGUSR1, after seconds: Double = 0.05, then rest: (() -> Void)? = nil
    ) -> Worker {
        let caller = pthread_self()
        return Worker {
            Clock.sleep(seconds)
            pthread_kill(caller, signal)
            guard let rest else { return }
            Clock.sleep(seconds)
            rest()
        }
    }

    /// Waits for a thread that must end: throws when it is still at work after `seconds`.
    public func end(seconds: Double = 5) throws {
        if !join(seconds: seconds) {
            throw Trouble("a thread is still at work after \(seconds) s")
        }
    }

    /// False when the thread is still at work after `seconds`.
    public func join(seconds: Double = 5) -> Bool {
        if joined { return true }
        joined = testbed_join(thread, seconds) == 0
        return joined
    }

    public func cancel() {
        pthread_cancel(thread)
    }

    /// Sends a signal to this thread alone.
    public func signal(_ number: Int32) {
        pthread_kill(thread, number)
    }
}

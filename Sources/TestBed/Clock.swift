// Time, as cases have it.

import Glibc

/// Seconds on the clock that is never set.
public enum Clock {
    public static var now: Double {
        var time = Glibc.timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    public static func timespec(_ seconds: Double) -> Glibc.timespec {
        let whole = Int(seconds)
        return Glibc.timespec(
            tv_sec: whole, tv_nsec: Int((seconds - Double(whole)) * 1_000_000_000))
    }

    public static func sleep(_ seconds: Double) {
        usleep(UInt32(seconds * 1_000_000))
    }
}

// Waking a thread that must sleep in ppoll.
//
// io_pgetevents changes the signal mask and sleeps in one step. No futex call does that; ppoll
// does, but it wakes for descriptors only. So such a sleeper has an eventfd, and whoever
// publishes its event lets the daemon, which holds the eventfd, signal it: a daemon has no
// business in the program's descriptor table, and another thread of the program cannot trust
// the number.

import CLibAIO
public import JobTable

/// An eventfd for one sleeper.
public struct Notifier {
    /// In the program's table, for ppoll.
    public let descriptor: Int32
    /// nil once used.
    private var hold: EventfdHold?

    /// Nil when no daemon can be had.
    public init?(_ engine: Ref<EngineRecord>) {
        let made = systemCall(Int32(SYS_eventfd2), 0, Int(O_CLOEXEC | O_NONBLOCK))
        if made < 0 { return nil }
        descriptor = System.awayFromStandardStreams(Int32(truncatingIfNeeded: made))
        hold = EventfdHold(engine, descriptor)
        if hold == nil {
            System.close(descriptor)
            return nil
        }
    }

    /// Makes the eventfd readable. Once; called under the lock that guards the sleeper.
    public mutating func signal() {
        hold?.signal()
        hold = nil
    }

    /// The sleeper is awake and will not look at the descriptor again.
    public mutating func finish() {
        hold?.giveUp()
        hold = nil
        System.close(descriptor)
    }
}

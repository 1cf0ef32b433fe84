// Looking for a while before falling asleep.
//
// Waking a thread whose processor has halted takes its waker some twenty microseconds in a virtual
// machine, and the thread as many more until it runs. Who can expect what it waits for sooner than
// that looks for it first. Where that turns out to be in vain, it is not done the next times: an
// idle process sleeps.

import CLibAIO
import Synchronization

/// Whether looking pays, for one kind of wait. Zeroed memory is ready for use.
public struct Patience: ~Copyable {
    private static let lookNs: UInt64 = 60_000
    /// After n vain looks in a row, at most so many, 2^n - 1 waits begin without one.
    private static let vainMax: UInt32 = 8

    /// In the low four bits the vain looks in a row, above them the waits still to pass without
    /// one. A hint: what gets lost between two threads does no harm.
    private let state = Atomic<UInt32>(0)

    /// Of somebody who has not looked in vain yet.
    public init() {}

    /// Looks until `isOver`, unless that has not paid lately; at most as long as `mayLook`. True
    /// when it is over.
    @inline(never)
    public borrowing func look(while mayLook: () -> Bool, until isOver: () -> Bool) -> Bool {
        let state = state.load(ordering: .relaxed)
        if state >> 4 > 0 {
            self.state.store(state &- 1 << 4, ordering: .relaxed)
            return isOver()
        }
        if !mayLook() { return isOver() }
        let end = System.monotonicNs() &+ Self.lookNs
        repeat {
            for _ in 0..<16 {
                if isOver() {
                    self.state.store(0, ordering: .relaxed)
                    return true
                }
                ioctx_pause()
            }
        } while mayLook() && System.monotonicNs() < end
        let vain = min((state & 0xf) &+ 1, Self.vainMax)
        self.state.store(vain | (1 << vain &- 1) << 4, ordering: .relaxed)
        return false
    }
}

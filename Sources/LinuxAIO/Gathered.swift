// The events of one io_submit that are not published yet, and the slots it has reserved ahead.
//
// With them is what the call knows by then: the eventfd that it has looked at, and a request
// that it has tried in vain. The events lie on the stack of the call. Each has one of the
// context's slots until it is published, and what is gathered at one time is signalled in one
// eventfd at most: an event for another one publishes those before it. The order is always the
// same: events, eventfd, sleepers.

import CLibAIO
import JobTable
import Paths

/// The events of one io_submit that are not published yet.
struct Gathered {
    static let capacity: UInt32 = 32

    let context: ContextRef
    /// Room for `capacity` events.
    let events: UInt
    var count: UInt32 = 0
    /// Slots that were reserved ahead and are still unused.
    var slots: UInt32 = 0
    /// The eventfd of the gathered events, and how many of them want it signalled.
    var resfd: Int32 = -1
    var signals: UInt64 = 0
    /// The descriptor that was found to be an eventfd last in this submission.
    var checkedEventfd: Int32 = -1
    /// It was taken for one because it was one last time: to be looked at before anything that
    /// names it is published.
    var isUnchecked = false
    /// The next request, when it was tried at once, in vain.
    var attempt: Attempt?

    /// Room for the events of one call, on its stack.
    @inline(__always)
    static func withRoomForEvents(_ body: (_ events: UInt) -> Int) -> Int {
        withRoom(for: io_event.self, Int(capacity), body)
    }

    /// Makes the gathered events visible, then counts them in their eventfd, then wakes.
    @inline(__always)
    mutating func publish() {
        if count == 0 { return }
        context.publish(events, count: count, isSignalled: signals > 0)
        count = 0
        if signals > 0 {
            Eventfd.signal(resfd, count: signals, isJustSeen: isUnchecked)
            signals = 0
            context.signalled()
        }
        context.wakeSleepers()
    }

    @inline(__always)
    mutating func add(_ event: io_event, resfd eventfd: Int32) {
        if count == Self.capacity || (eventfd >= 0 && signals > 0 && eventfd != resfd) {
            publish()
        }
        Ref<io_event>(address: events &+ UInt(count) &* UInt(AioRing.eventBytes))?.it = event
        count &+= 1
        if eventfd >= 0 {
            resfd = eventfd
            signals &+= 1
        }
    }
}

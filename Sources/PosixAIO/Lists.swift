// The requests of one lio_listio, counted down: the last to be done wakes the caller or sends the
// list's own notification.
//
// A list is referred to by each of its deferred requests that is not done, and by the call. Who
// drops the last reference gives it back.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

struct List: ~Copyable {
    var index: UInt32  // constant once opened
    var next: UInt32  // (l) free list
    let references: Atomic<UInt32>
    let failures: Atomic<UInt32>
    /// LIO_WAIT: the caller sleeps on `references` until its own is the last.
    var isAwaited: Bool  // constant while in use
    var notifiesIndividually: Bool  // constant while in use
    /// LIO_NOWAIT's own.
    var notification: Notification  // constant while in use
    /// The eventfd of that; nil where no daemon could have it.
    var eventfd: EventfdHold?  // constant while in use
}

typealias ListRef = Ref<List>

struct Lists: ~Copyable {
    static let capacity: UInt32 = 65_536

    let lock = FutexLock()  // (l)
    private var lists: Reserve<List>
    private var freeHead = Job.none  // (l)

    init?() {
        guard let reserve = Reserve<List>(capacity: Self.capacity) else { return nil }
        lists = reserve
    }

    /// A list with one reference, for the call; nil when there are too many.
    mutating func allocate() -> ListRef? {
        lock.lock()
        defer { lock.unlock() }
        if freeHead == Job.none && !growLocked() { return nil }
        let list = lists[freeHead]
        freeHead = list.it.next
        list.it.references.store(1, ordering: .relaxed)
        list.it.failures.store(0, ordering: .relaxed)
        return list
    }

    mutating func free(_ list: ListRef) {
        lock.lock()
        list.it.next = freeHead
        freeHead = list.it.index
        lock.unlock()
    }

    private mutating func growLocked() -> Bool {
        lists.grow(freeHead: &freeHead) { list, index, next in
            list.it.index = index
            list.it.next = next
        }
    }
}

extension Ref where Pointee == PosixFace {
    /// A list with one reference, for the call; nil when there are too many, or no thread to
    /// notify by.
    func list(_ notification: Notification, isAwaited: Bool) -> ListRef? {
        withSignalsBlocked {
            guard let list = it.lists.allocate() else { return nil }
            list.it.isAwaited = isAwaited
            var notification = notification
            list.it.eventfd =
                notification.kind == Int32(IOCTX_SIGEV_EVENTFD)
                ? EventfdHold(it.engine, notification.descriptor) : nil
            if notification.needsThread(ofList: true) && list.it.eventfd == nil
                && !expectThread(for: &notification)
            {
                it.lists.free(list)
                return nil
            }
            list.it.notification = notification
            return list
        }
    }

    /// Counts a request of the list as done.
    func settle(_ list: ListRef, failed: Bool, isInline: Bool) {
        if failed { list.it.failures.wrappingAdd(1, ordering: .relaxed) }
        if !isInline { leave(list) }
    }

    /// Drops a reference: of a request that is done, or of the call.
    func leave(_ list: ListRef) {
        let isAwaited = list.it.isAwaited
        let references = list.it.references.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        let left = references.newValue
        if left == 0 {
            let notification = list.it.notification
            let eventfd = list.it.eventfd
            it.lists.free(list)
            if let eventfd {
                eventfd.signal()
            } else if !isAwaited {
                notify(notification, ofList: true, isInline: false)
            }
        } else if left == 1 && isAwaited {
            // The list may be another's by now; whoever sleeps on it looks again.
            list.it.references.wake()
        }
    }
}

// Telling the program that a request is done: a queued signal, a function in a thread, or an
// eventfd.
//
// Functions run in threads of ours that share the program's descriptor table, not the daemons'.
// One of them runs what came while it was busy; another waits beside it and takes over when it is
// stuck in a function for a millisecond, so that a function may block for ever. Only a request
// that brings attributes gets a thread of its own. These threads are started by the program's
// threads, when a request is made, and by each other, never by a daemon.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

/// What is to be done by a notifier thread.
private struct Errand: ~Copyable {
    var index: UInt32  // constant once opened
    var next: UInt32  // (n)
    var notification: Notification  // (n)
}

/// A copy of a thread's attributes, for a request or list that is not done: the program may destroy
/// its own as soon as it is.
private struct SavedAttributes: ~Copyable {
    /// Room for a pthread_attr_t (IOCTX_ATTRIBUTES_BYTES), which belongs to whose request it is.
    /// First: a pointer to it is one to the record.
    var attributes: InlineArray<8, UInt64>
    var index: UInt32  // constant once opened
    var next: UInt32  // (n) free list
}

struct NotifierThreads: ~Copyable {
    /// How long a function may take before another thread takes the next.
    static let patienceNs: UInt64 = 1_000_000

    let lock = FutexLock()  // (n)
    private var errands: Reserve<Errand>
    private var freeHead = Job.none  // (n)
    private var head = Job.none  // (n)
    private var tail = Job.none  // (n)
    private var saved: Reserve<SavedAttributes>
    private var savedFreeHead = Job.none  // (n)
    /// Threads that run no function, those that are starting included.
    var waiting: UInt32 = 0  // (n)
    /// Threads that run a function.
    var running: UInt32 = 0  // (n)
    /// Functions begun so far: a thread beside a busy one sees whether that gets on.
    var begun: UInt32 = 0  // (n)
    /// Requests and lists that will need a thread when they are done.
    var expected: UInt32 = 0  // (n)
    /// Errands that no thread has begun.
    private var queued: UInt32 = 0  // (n)
    /// Changes when there is something to do.
    let bell = Atomic<UInt32>(0)

    private static let capacity: UInt32 = 1 << 20

    init?() {
        guard let errands = Reserve<Errand>(capacity: Self.capacity),
            let saved = Reserve<SavedAttributes>(capacity: Self.capacity)
        else { return nil }
        self.errands = errands
        self.saved = saved
    }

    /// No more can be expected: there would be no room for them when they are due.
    var isFull: Bool { queued &+ expected >= min(errands.capacity, saved.capacity) }

    var isEmpty: Bool { head == Job.none }

    /// False when there is no memory for it.
    fileprivate mutating func appendLocked(_ notification: Notification) -> Bool {
        if freeHead == Job.none && !growLocked() { return false }
        let errand = errands[freeHead]
        freeHead = errand.it.next
        errand.it.notification = notification
        errand.it.next = Job.none
        if tail == Job.none {
            head = errand.it.index
        } else {
            errands[tail].it.next = errand.it.index
        }
        tail = errand.it.index
        queued &+= 1
        return true
    }

    fileprivate mutating func takeLocked() -> Notification? {
        if head == Job.none { return nil }
        let errand = errands[head]
        head = errand.it.next
        if head == Job.none { tail = Job.none }
        errand.it.next = freeHead
        freeHead = errand.it.index
        queued &-= 1
        return errand.it.notification
    }

    /// Room for a copy of attributes; nil without memory.
    fileprivate mutating func roomForAttributesLocked() -> UInt? {
        if savedFreeHead == Job.none
            && !saved.grow(
                freeHead: &savedFreeHead,
                link: { record, index, next in
                    record.it.index = index
                    record.it.next = next
                })
        {
            return nil
        }
        let record = saved[savedFreeHead]
        savedFreeHead = record.it.next
        return record.address
    }

    fileprivate mutating func freeAttributesLocked(_ address: UInt) {
        guard let record = Ref<SavedAttributes>(address: address) else { return }
        record.it.next = savedFreeHead
        savedFreeHead = record.it.index
    }

    private mutating func growLocked() -> Bool {
        errands.grow(freeHead: &freeHead) { errand, index, next in
            errand.it.index = index
            errand.it.next = next
        }
    }
}

extension Notification {
    /// True for what a thread of ours must do: functions, and the eventfd of a list that no daemon
    /// could have. That of a request is signalled by its daemon.
    func needsThread(ofList: Bool) -> Bool {
        kind == Int32(IOCTX_SIGEV_THREAD) || ofList && kind == Int32(IOCTX_SIGEV_EVENTFD)
    }

    /// True for a function that gets a thread of its own.
    var hasAttributes: Bool { kind == Int32(IOCTX_SIGEV_THREAD) && attributes != 0 }
}

extension Ref where Pointee == PosixFace {
    /// Announces a notification that a thread must do, so that there is one when it is due. In a
    /// thread of the program. Its attributes, if it has any, become a copy of the program's. False
    /// when no thread can be had, or too many are waiting for one.
    func expectThread(for notification: inout Notification) -> Bool {
        it.notifier.lock.lock()
        defer { it.notifier.lock.unlock() }
        if it.notifier.isFull { return false }
        if notification.hasAttributes {
            guard let copy = it.notifier.roomForAttributesLocked() else { return false }
            if ioctx_copy_attributes(copy, notification.attributes) != 0 {
                it.notifier.freeAttributesLocked(copy)
                return false
            }
            notification.attributes = copy
        }
        it.notifier.expected &+= 1
        if it.notifier.waiting > 0 || startNotifierLocked() || it.notifier.running > 0 {
            return true
        }
        it.notifier.expected &-= 1
        dropAttributesLocked(of: notification)
        return false
    }

    /// What was announced is not coming.
    func unexpectThread(for notification: Notification) {
        it.notifier.lock.lock()
        it.notifier.expected &-= 1
        dropAttributesLocked(of: notification)
        it.notifier.lock.unlock()
    }

    /// Of one that a thread was expected for.
    private func dropAttributesLocked(of notification: Notification) {
        if !notification.hasAttributes { return }
        ioctx_drop_attributes(notification.attributes)
        it.notifier.freeAttributesLocked(notification.attributes)
    }

    /// Called in threads of the program or of the notifier only: what a daemon starts would share
    /// its descriptor table. The stack is the usual one, for the program's functions.
    private func startNotifierLocked() -> Bool {
        it.notifier.waiting &+= 1
        let error = unsafe ioctx_thread_start(
            { argument in
                Ref<PosixFace>(address: UInt(bitPattern: argument))?.serveNotifications()
                return nil
            }, UnsafeMutableRawPointer(pointer), 0)
        if error != 0 { it.notifier.waiting &-= 1 }
        return error == 0
    }

    /// Sends a notification of a request or a list. `isInline`: by its submitter.
    func notify(_ notification: Notification, ofList: Bool = false, isInline: Bool) {
        switch Int(notification.kind) {
        case Int(IOCTX_SIGEV_SIGNAL):
            if notification.signal != 0 { queueSignal(notification) }
        case Int(IOCTX_SIGEV_EVENTFD) where isInline && !ofList:
            Eventfd.signal(notification.descriptor, count: 1)
        default:
            if notification.needsThread(ofList: ofList) { post(notification) }
        }
    }

    /// struct siginfo as SI_ASYNCIO has it.
    private struct SignalInformation {
        var signal: Int32
        var errno: Int32 = 0
        var code = Int32(IOCTX_SI_ASYNCIO)
        var padding: Int32 = 0
        var process: Int32
        var user: Int32
        var value: UInt
        var rest = InlineArray<12, UInt64>(repeating: 0)
    }

    private func queueSignal(_ notification: Notification) {
        let process = systemCall(Int32(SYS_getpid))
        var information = SignalInformation(
            signal: notification.signal, process: Int32(truncatingIfNeeded: process),
            user: Int32(truncatingIfNeeded: systemCall(Int32(SYS_getuid))),
            value: notification.value)
        _ = withAddress(of: &information) {
            systemCall(Int32(SYS_rt_sigqueueinfo), process, Int(notification.signal), $0)
        }
    }

    private func post(_ notification: Notification) {
        it.notifier.lock.lock()
        let appended = it.notifier.appendLocked(notification)
        if it.notifier.expected > 0 { it.notifier.expected &-= 1 }
        it.notifier.bell.wrappingAdd(1, ordering: .relaxed)
        if !appended { dropAttributesLocked(of: notification) }
        it.notifier.lock.unlock()
        if appended { it.notifier.bell.wake(1) }
    }

    // MARK: The threads

    /// A notifier thread's life.
    private func serveNotifications() {
        let name: StaticString = "aiod/n"
        _ = unsafe systemCall(
            Int32(SYS_prctl), Int(PR_SET_NAME), Int(bitPattern: name.utf8Start))
        it.counters.it.daemons.raise()
        it.notifier.lock.lock()
        while awaitErrandLocked() {
            while let notification = it.notifier.takeLocked() {
                it.notifier.waiting &-= 1
                it.notifier.running &+= 1
                it.notifier.begun &+= 1
                // Somebody must be there if this function never returns.
                if it.notifier.waiting == 0
                    && (it.notifier.expected > 0 || !it.notifier.isEmpty)
                {
                    _ = startNotifierLocked()
                }
                it.notifier.lock.unlock()
                perform(notification)
                // In a child that the function forked, this thread ends with it.
                if !isStillThere { return }
                it.notifier.lock.lock()
                it.notifier.running &-= 1
                it.notifier.waiting &+= 1
            }
        }
        it.notifier.waiting &-= 1
        it.notifier.lock.unlock()
        it.counters.it.daemons.lower()
    }

    /// Waits until there is something that this thread should do. False when it should leave.
    private func awaitErrandLocked() -> Bool {
        let lifetimeNs = UInt64(it.table.it.limits.aiodLifetimeMs) &* 1_000_000
        // When the busy ones were seen to get on last, and how far they were.
        var patientUntilNs: UInt64 = 0
        var begun: UInt32?
        while true {
            if it.notifier.isEmpty { begun = nil }
            if !it.notifier.isEmpty {
                if it.notifier.running == 0 { return true }
                let now = System.monotonicNs()
                if begun != it.notifier.begun {
                    begun = it.notifier.begun
                    patientUntilNs = now &+ NotifierThreads.patienceNs
                } else if now >= patientUntilNs {
                    return true
                }
            }
            let untilNs = begun == nil ? System.monotonicNs() &+ lifetimeNs : patientUntilNs
            let seen = it.notifier.bell.load(ordering: .relaxed)
            it.notifier.lock.unlock()
            let result = it.notifier.bell.wait(while: seen, until: untilNs)
            it.notifier.lock.lock()
            if result == failure(ETIMEDOUT) && begun == nil && it.notifier.isEmpty
                && (it.notifier.expected == 0 || it.notifier.waiting > 1)
            {
                return false
            }
        }
    }

    private func perform(_ notification: Notification) {
        if notification.kind == Int32(IOCTX_SIGEV_EVENTFD) {
            Eventfd.signal(notification.descriptor, count: 1)
            return
        }
        var hasThread = false
        if notification.hasAttributes {
            hasThread =
                ioctx_notify_in_thread(
                    notification.function, notification.value, notification.attributes) == 0
            withSignalsBlocked {
                it.notifier.lock.lock()
                dropAttributesLocked(of: notification)
                it.notifier.lock.unlock()
            }
        }
        // Where a thread with those attributes is not to be had, too: who waits for the function
        // must not wait for ever.
        if !hasThread {
            unsafe ioctx_call_notification(
                notification.function, notification.value,
                { argument in
                    Ref<PosixFace>(address: UInt(bitPattern: argument))?.notifierEnded()
                }, UnsafeMutableRawPointer(pointer))
        }
    }

    /// The program's function has ended its thread, with no signal blocked.
    private func notifierEnded() {
        if !isStillThere { return }
        withSignalsBlocked {
            it.notifier.lock.lock()
            it.notifier.running &-= 1
            if it.notifier.waiting == 0 && (it.notifier.expected > 0 || !it.notifier.isEmpty) {
                _ = startNotifierLocked()
            }
            it.notifier.lock.unlock()
        }
        it.counters.it.daemons.lower()
    }
}

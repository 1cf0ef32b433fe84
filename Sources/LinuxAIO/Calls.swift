// The calls themselves, as the exports see them: io_setup(2), io_destroy(2), io_submit(2),
// io_cancel(2), io_getevents(2). All return the result or a negated errno and never touch errno.
//
// Every call may come from a signal handler that interrupted another call of the layer in the
// same thread. Where that one was in a critical section, nothing can be done without waiting for
// oneself: setup, submit, cancel and destroy answer -EAGAIN, and getevents leaves the events to
// the interrupted call.

import CLibAIO
import JobTable
import Paths
import Synchronization

/// Linux native AIO. Callable from any thread and, with the limits above, from signal handlers; no
/// call is a cancellation point.
public enum LinuxAIO {
    /// io_setup(2). `contextp` points to 0 and receives the context.
    /// -EFAULT, -EINVAL (already set, no events, absurd size), -EAGAIN (quota), -ENOMEM, -ENOSYS.
    public static func setup(_ events: Int32, _ contextp: UInt) -> Int {
        enter { nested in
            if nested { return failure(EAGAIN) }
            if !CurrentThread().isNested { CurrentThread().noteUsualMask() }
            var result = 0
            guard let face = LinuxFace.create(&result) else { return result }
            if face.it.engine.it.choice == .off { return failure(ENOSYS) }
            var before: UInt = 0
            if !face.it.memory.read(at: contextp, into: &before) { return failure(EFAULT) }
            if before != 0 || events == 0 { return failure(EINVAL) }
            result = face.make(events: UInt32(bitPattern: events))
            if result < 0 && result > -4096 { return result }
            let address = UInt(bitPattern: result)
            if !face.it.memory.write(address, at: contextp) {
                if let context = face.find(address) {
                    _ = face.destroy(context)
                    face.unpin(context)
                }
                return failure(EFAULT)
            }
            face.warmUpUnlessAdoptable()
            return 0
        }
    }

    /// io_destroy(2). Queued requests are taken back, running ones awaited. -EINVAL, -ENOSYS.
    public static func destroy(_ context: UInt) -> Int {
        withContext(context) { face, context in face.destroy(context) }
    }

    /// io_submit(2). The number of requests accepted, or the errno of the first.
    @inline(__always)
    public static func submit(_ context: UInt, _ nr: Int, _ pointers: UInt) -> Int {
        enter { nested in
            guard let face = LinuxFace.current else { return failureWithoutFace }
            let result = nested ? failure(EAGAIN) : face.submit(context, count: nr, pointers)
            if result == failure(EAGAIN) { face.it.counters.it.linux.eagain.add() }
            return result
        }
    }

    /// io_cancel(2). -EINPROGRESS when the request will end early, with its event in the ring;
    /// -EINVAL when it is unknown, done, or cannot be stopped.
    public static func cancel(_ context: UInt, _ iocb: UInt) -> Int {
        if isOff { return failure(ENOSYS) }
        // Of the request the kernel reads the key alone.
        var key: UInt32 = 0
        if Memory.isOutsideUserSpace(iocb)
            || !memory.read(at: iocb &+ UInt(IOCTX_AIO_KEY_OFFSET), into: &key)
        {
            return failure(EFAULT)
        }
        if key != 0 { return failure(EINVAL) }
        return withContext(context) { face, context in face.cancel(context, UInt64(iocb)) }
    }

    /// io_getevents(2) and io_pgetevents(2). The number of events stored at `events`.
    /// -EFAULT, -EINVAL, -EINTR, -ENOSYS.
    @inline(__always)
    public static func getEvents(
        _ context: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt, timeout: UInt,
        sigmask: UInt
    ) -> Int {
        enter { nested in
            if minimum > 0 { CurrentThread().waitsOutsideOfHandlers() }
            if !nested, let face = LinuxFace.current, sigmask == 0, !Memory.isKernelHalf(timeout),
                let taken = face.takeReady(context, minimum, maximum, events, timeout: timeout)
            {
                return taken
            }
            return reap(
                context, minimum, maximum, events, timeout: timeout, sigmask: sigmask,
                nested: nested)
        }
    }

    @inline(never)
    private static func reap(
        _ context: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt, timeout: UInt,
        sigmask: UInt, nested: Bool
    ) -> Int {
        if isOff { return failure(ENOSYS) }
        var time = timespec(tv_sec: 0, tv_nsec: 0)
        if timeout != 0 && !memory.read(at: timeout, into: &time) { return failure(EFAULT) }
        var mask: UInt64 = 0
        if sigmask != 0 && !memory.read(at: sigmask, into: &mask) { return failure(EFAULT) }
        let deadlineNs = timeout == 0 ? .max : Ref<LinuxFace>.deadline(time)
        if nested { return minimum <= 0 || timeout != 0 ? 0 : failure(EINTR) }
        guard let face = LinuxFace.current, let context = face.find(context) else {
            return failure(EINVAL)
        }
        defer { if face.isStillThere { face.unpin(context) } }
        if minimum < 0 || maximum < minimum { return failure(EINVAL) }
        if minimum > 0 && !context.isAdopted { face.warmUpForHandlers() }
        var reaping = Reaping(
            context: context, minimum: minimum, maximum: maximum, events: events,
            deadlineNs: deadlineNs, sigmask: sigmask, timeout: timeout)
        return face.reap(&reaping)
    }

    /// io_pgetevents(2) as the kernel has it: `sigset` is 0 or points to a mask's address and size.
    /// As `getEvents`, and -EINVAL for a mask of another size than the kernel's.
    public static func getEvents(
        _ context: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt, timeout: UInt,
        sigset: UInt
    ) -> Int {
        if isOff { return failure(ENOSYS) }
        var mask = (address: UInt(0), bytes: UInt(0))
        if sigset != 0 && !memory.read(at: sigset, into: &mask) { return failure(EFAULT) }
        if mask.address != 0 && mask.bytes != 8 {
            // What is wrong with the time-out comes first.
            var time = timespec(tv_sec: 0, tv_nsec: 0)
            let isRead = timeout == 0 || memory.read(at: timeout, into: &time)
            return isRead ? failure(EINVAL) : failure(EFAULT)
        }
        return getEvents(
            context, minimum, maximum, events, timeout: timeout, sigmask: mask.address)
    }

    /// At exit: what was accepted as a write is awaited.
    public static func rundown() {
        guard let face = LinuxFace.current, !CurrentThread().interruptedLayer else { return }
        face.it.engine.ensureKernelReaper()
        face.it.table.awaitWrites()
    }

    // MARK: Entering and leaving

    /// True when IOCTX_ENGINE=off was found by the first io_setup.
    private static var isOff: Bool {
        guard let face = LinuxFace.current else { return Engine.isOffInEnvironment() }
        return face.it.engine.it.choice == .off
    }

    private static var memory: UserMemory {
        LinuxFace.current?.it.memory ?? UserMemory.fromEnvironment()
    }

    private static var failureWithoutFace: Int {
        Engine.isOffInEnvironment() ? failure(ENOSYS) : failure(EINVAL)
    }

    @inline(__always)
    private static func withContext(
        _ address: UInt, _ body: (Ref<LinuxFace>, ContextRef) -> Int
    ) -> Int {
        withFace { face in
            guard let context = face.find(address) else { return failure(EINVAL) }
            defer { if face.isStillThere { face.unpin(context) } }
            return body(face, context)
        }
    }

    @inline(__always)
    private static func withFace(_ body: (Ref<LinuxFace>) -> Int) -> Int {
        enter { nested in
            if nested { return failure(EAGAIN) }
            guard let face = LinuxFace.current else { return failureWithoutFace }
            return face.it.engine.it.choice == .off ? failure(ENOSYS) : body(face)
        }
    }

    @inline(__always)
    private static func enter(_ body: (_ nested: Bool) -> Int) -> Int {
        let thread = CurrentThread()
        if thread.interruptedLayer { return body(true) }
        thread.enterCall()
        defer { thread.leaveCall() }
        return body(false)
    }
}

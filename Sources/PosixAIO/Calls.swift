// The calls, as the exports see them: the functions of <aio.h> and those of FreeBSD. All return a
// value or a negated errno and never touch errno.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

/// POSIX AIO (POSIX.1-2017, <aio.h>) and FreeBSD's additions. aio_error, aio_return and aio_suspend
/// are async-signal-safe; aio_suspend and aio_waitcomplete are cancellation points.
public enum PosixAIO {
    /// aio_read(3), aio_write(3) and their vectored forms; `which` is one of IOCTX_AIO_*.
    /// -EINVAL, -EAGAIN, -EBADF (an eventfd), -ENOSYS (IOCTX_ENGINE=off).
    public static func start(_ block: UInt, _ which: Int32) -> Int {
        enter(block) { face, block in face.start(block, Transfer(which)) }
    }

    /// aio_fsync(3) with O_SYNC or O_DSYNC. -EINVAL, -EBADF, -EAGAIN.
    public static func sync(_ operation: Int32, _ block: UInt) -> Int {
        if operation != O_SYNC && operation != O_DSYNC { return failure(EINVAL) }
        return enter(block) { face, block in
            face.startSync(block, operation == O_DSYNC ? .fdatasync : .fsync)
        }
    }

    /// aio_error(3): the request's errno, EINPROGRESS while it is under way. No lock, but with
    /// signals blocked, where the kernel has events that nobody has taken.
    ///
    /// A request that another process made, before a fork, is told to be cancelled.
    public static func error(_ block: UInt) -> Int {
        guard let block = BlockRef(address: block) else { return failure(EINVAL) }
        // Acquire pairs with the release in store(): what the request read is there.
        var error = block.it.error.load(ordering: .acquiring)
        if error == EINPROGRESS {
            let isOurs = PosixFace.current?.job(of: block) != nil
            if isOurs { _ = PosixFace.current?.takeFromKernel() }
            error = block.it.error.load(ordering: .acquiring)
            if error == EINPROGRESS && !isOurs { error = ECANCELED }
        }
        return Int(error)
    }

    /// aio_return(3): what read(2) or the like would have returned, -1 for a request that failed.
    /// -EINVAL for one that is under way. No lock.
    public static func value(_ block: UInt) -> Int {
        guard let block = BlockRef(address: block) else { return failure(EINVAL) }
        let face = PosixFace.current
        if block.it.error.load(ordering: .acquiring) == EINPROGRESS {
            let isOurs = face?.job(of: block) != nil
            // It may be done just now; else it is of another process, before a fork: see aio_error.
            if block.it.error.load(ordering: .acquiring) == EINPROGRESS {
                return isOurs ? failure(EINVAL) : -1
            }
        }
        face?.it.done.remove(block)
        return max(block.it.result.load(ordering: .relaxed), -1)
    }

    /// aio_suspend(3). -EAGAIN, -EINTR, -EINVAL. A cancellation point.
    public static func suspend(_ blocks: UInt, _ count: Int32, timeout: UInt) -> Int {
        guard count >= 0, let deadlineNs = deadline(timeout) else { return failure(EINVAL) }
        // Without a face no request is pending.
        return PosixFace.current?.suspend(blocks, Int(count), until: deadlineNs) ?? 0
    }

    /// aio_cancel(3): AIO_CANCELED, AIO_NOTCANCELED or AIO_ALLDONE. -EBADF, -EINVAL.
    public static func cancel(_ descriptor: Int32, _ block: UInt) -> Int {
        if System.fileFlags(descriptor) < 0 { return failure(EBADF) }
        let block = BlockRef(address: block)
        if let block, block.it.descriptor != descriptor { return failure(EINVAL) }
        guard let face = PosixFace.current else { return Int(IOCTX_AIO_ALLDONE) }
        if CurrentThread().interruptedLayer { return Int(IOCTX_AIO_NOTCANCELED) }
        return withSignalsBlocked { face.cancel(descriptor, block) }
    }

    /// FreeBSD's aio_waitcomplete(2). The value of the request stored at `blockp`, or its errno;
    /// with 0 stored there: -EAGAIN, -EINTR, -EINVAL. A cancellation point.
    public static func waitComplete(_ blockp: UInt, timeout: UInt) -> Int {
        guard let target = Ref<UInt>(address: blockp) else { return failure(EINVAL) }
        target.it = 0
        guard let deadlineNs = deadline(timeout) else { return failure(EINVAL) }
        guard let face = PosixFace.current else { return failure(EAGAIN) }
        var block: UInt = 0
        let result = face.waitComplete(&block, until: deadlineNs)
        target.it = block
        return result
    }

    /// lio_listio(3). `event` is the address of a struct sigevent or 0; without `individually`
    /// the requests' own notifications are left out. -EINVAL, -EAGAIN, -EBADF (an
    /// eventfd), -EIO, -EINTR.
    public static func list(
        _ mode: Int32, _ blocks: UInt, _ count: Int32, event: UInt, individually: Bool
    ) -> Int {
        if mode != Int32(IOCTX_LIO_WAIT) && mode != Int32(IOCTX_LIO_NOWAIT) || count < 0 {
            return failure(EINVAL)
        }
        let isAwaited = mode == Int32(IOCTX_LIO_WAIT)
        let notification =
            isAwaited ? .none : Ref<Notification>(address: event)?.it ?? .none
        let refusal = notification.refusal
        if refusal < 0 { return refusal }
        return enter { face in
            guard let list = face.list(notification, isAwaited: isAwaited) else {
                return face.refuse(blocks, Int(count), failure(EAGAIN))
            }
            list.it.notifiesIndividually = individually
            let (refused, reason) = face.start(blocks, Int(count), list: list)
            let result: Int
            if isAwaited {
                result = face.awaitAll(list)
            } else {
                withSignalsBlocked { face.leave(list) }
                result = 0
            }
            if result == failure(EINTR) || refused == 0 { return result }
            return reason == failure(EAGAIN) ? reason : failure(EIO)
        }
    }

    /// At exit: what was accepted as a write is awaited. `frame` is an address in the stack of the
    /// thread that exits.
    public static func rundown(frame: UInt) {
        guard let face = PosixFace.current, !CurrentThread().interruptedLayer else { return }
        withSignalsBlocked { face.forgetBlocks(around: frame) }
        face.it.engine.ensureKernelReaper()
        face.it.table.awaitWrites()
    }

    // MARK: Entering and leaving

    @inline(__always)
    private static func enter(_ block: UInt, _ body: (Ref<PosixFace>, BlockRef) -> Int) -> Int {
        guard let block = BlockRef(address: block) else { return failure(EINVAL) }
        return enter { body($0, block) }
    }

    /// A call that makes no request for want of what it needs.
    private static func refuse() -> Int {
        PosixFace.current?.it.counters.it.posix.eagain.add()
        return failure(EAGAIN)
    }

    /// For the calls that make requests. They are not for handlers (POSIX); one that interrupted
    /// the layer in a lock is told to try again.
    @inline(__always)
    private static func enter(_ body: (Ref<PosixFace>) -> Int) -> Int {
        let thread = CurrentThread()
        if thread.interruptedLayer { return refuse() }
        guard let face = PosixFace.create() else { return failure(EAGAIN) }
        if face.it.engine.it.choice == .off { return failure(ENOSYS) }
        thread.enterCall()
        defer { thread.leaveCall() }
        return body(face)
    }
}

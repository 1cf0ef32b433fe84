// struct aiocb as the C library lays it out, with its private fields as our state.
//
// The program keeps the block alive and leaves it alone until the request is done (POSIX), so a
// daemon may write the outcome into it; from the store of `error` on, it is the program's again.
// What is found in the private fields of a block may be anything: the program need not have
// cleared them, and may have copied them.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

/// struct sigevent.
struct Notification {
    var value: UInt
    var signal: Int32
    var kind: Int32
    /// SIGEV_THREAD: the function and the attributes of its thread, which are the program's in a
    /// block and a copy of ours once a thread is expected.
    var function: UInt
    var attributes: UInt
    var reserved: (UInt64, UInt64, UInt64, UInt64)

    static let none = Notification(
        value: 0, signal: 0, kind: Int32(IOCTX_SIGEV_NONE), function: 0, attributes: 0,
        reserved: (0, 0, 0, 0))

    /// The eventfd of a SIGEV_EVENTFD.
    var descriptor: Int32 { Int32(truncatingIfNeeded: value) }

    /// The eventfd to signal, or -1.
    var eventfd: Int32 { kind == Int32(IOCTX_SIGEV_EVENTFD) ? descriptor : -1 }

    /// -EINVAL for a signal that there is none of, -EBADF or -EINVAL for what is no eventfd, or 0.
    /// An unknown kind is no notification, as in the C library: programs leave the field
    /// uncleared. Signal 0 in a cleared block is none either.
    var refusal: Int {
        switch Int(kind) {
        case Int(IOCTX_SIGEV_SIGNAL):
            return signal < 0 || signal > 64 ? failure(EINVAL) : 0
        case Int(IOCTX_SIGEV_EVENTFD):
            return Eventfd.check(descriptor)
        default:
            return 0
        }
    }
}

struct ControlBlock: ~Copyable {
    var descriptor: Int32
    var opcode: Int32
    var priority: Int32
    var buffer: UInt
    var length: Int
    var notification: Notification
    /// __next_prio: the name of the deferred job.
    let job: Atomic<UInt64>
    /// __abs_prio and __policy: the place in the done queue.
    let place: Atomic<UInt64>
    /// __error_code: EINPROGRESS, then 0 or the request's errno.
    let error: Atomic<Int32>
    /// __return_value: valid when `error` is not EINPROGRESS.
    let result: Atomic<Int>
    var offset: Int64
}

typealias BlockRef = Ref<ControlBlock>

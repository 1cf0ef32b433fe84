// Signalling an eventfd of the program from one of its own threads.
//
// Invariant: eight bytes must never land in a file that is not an eventfd. The number is the
// program's and may have been reused since it was checked, so it is compared again each time with
// what all files without an inode of their own have in common; those of them that are not
// eventfds refuse the write or take it for nothing.

import CLibAIO
import JobTable

/// What a descriptor that was named by IOCB_FLAG_RESFD leads to, and its signal.
public enum Eventfd {
    /// 0 when the descriptor is an eventfd, -EBADF when it is not open, -EINVAL otherwise.
    public static func check(_ descriptor: Int32) -> Int {
        var status = FileStatus()
        let result = status.look(at: descriptor)
        if result < 0 || System.openFlags(descriptor) < 0 { return failure(EBADF) }
        if status.type != FileType.anonymous { return failure(EINVAL) }
        switch AnonymousFile.name(of: descriptor) {
        case .eventfd: return 0
        case .unknown: return isLikely(descriptor) ? 0 : failure(EINVAL)
        default: return failure(EINVAL)
        }
    }

    /// True when a descriptor that was an eventfd still is one, at a third of the cost of `check`:
    /// of the files without an inode of their own, eventfds are those that can be written to.
    /// False when it cannot be told.
    static func isStill(_ descriptor: Int32) -> Bool {
        isAnonymous(descriptor)
            && System.readiness(of: descriptor, UInt32(POLLOUT)) == Int(POLLOUT)
    }

    static func isAnonymous(_ descriptor: Int32) -> Bool {
        var status = FileStatus()
        return status.look(at: descriptor) >= 0 && status.type == FileType.anonymous
    }

    /// Adds `count` to the descriptor if it still is what `check` saw; `isJustSeen` says so.
    public static func signal(_ descriptor: Int32, count: UInt64, isJustSeen: Bool = false) {
        if !isJustSeen && !isAnonymous(descriptor) { return }
        var value = count
        var left = count
        while left > 0 {
            let result = withAddress(of: &value) {
                systemCall(Int32(SYS_write), Int(descriptor), $0, 8)
            }
            if result == 8 {
                left &-= value
            } else if value > 1 && result == failure(EAGAIN) {
                // Nearly full: the kernel's own signalling stops at the highest value.
                value = 1
            } else {
                return
            }
        }
    }

    /// Without /proc: an eventfd can be written to, unless it is full, and refuses to be read into
    /// less than eight bytes, before anything is consumed (eventfd(2)). Files of which a read would
    /// wait cannot be written to.
    private static func isLikely(_ descriptor: Int32) -> Bool {
        if System.readiness(of: descriptor, UInt32(POLLOUT)) != Int(POLLOUT) { return false }
        var value: UInt32 = 0
        let result = withAddress(of: &value) {
            systemCall(Int32(SYS_read), Int(descriptor), $0, 4)
        }
        return result == failure(EINVAL)
    }
}

extension Ref where Pointee == EngineRecord {
    /// True when the descriptor was an eventfd last time.
    @inline(__always)
    public func wasEventfd(_ descriptor: Int32) -> Bool { hint(descriptor) == .eventfd }

    /// For a descriptor that was an eventfd last time, just before it is signalled: true when
    /// eight bytes can do no harm there. Now and then it is looked at closely, for the files that
    /// share this with eventfds.
    public func confirmEventfd(_ descriptor: Int32) -> Bool {
        Eventfd.isAnonymous(descriptor) && !CurrentThread().isTimeToDoubt()
            || checkEventfd(descriptor) == 0
    }

    /// 0 when the descriptor is an eventfd, -EBADF when it is not open, -EINVAL otherwise.
    public func checkEventfd(_ descriptor: Int32) -> Int {
        if hint(descriptor) == .eventfd && Eventfd.isStill(descriptor) { return 0 }
        let result = Eventfd.check(descriptor)
        if result == 0 { setHint(descriptor, .eventfd) }
        return result
    }
}

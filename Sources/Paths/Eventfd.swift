// Signalling an eventfd of the program from one of its own threads.
//
// Invariant: eight bytes must never land in a file that is not an eventfd. The number is the
// program's and may have been reused since it was checked, so it is compared again each time with
// what all files without an inode of their own have in common; those of them that are not
// eventfds refuse the write or take it for nothing.

import CLibAIO
import JobTable

public enum Eventfd {
    /// 0 when the descriptor is an eventfd, -EBADF when it is not open, -EINVAL otherwise.
    public static func check(_ descriptor: Int32) -> Int {
        var status = stat()
        let result = System.status(of: descriptor, into: &status)
        if result < 0 || isPathOnly(descriptor) { return failure(EBADF) }
        if !isAnonymous(status) { return failure(EINVAL) }
        // Files without an inode of their own have no type bits; only the link's name tells what
        // they are.
        var name = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))
        var path = linkPath(descriptor)
        let length = withAddress(of: &path) { pathAddress in
            withAddress(of: &name) {
                systemCall(Int32(SYS_readlinkat), Int(AT_FDCWD), pathAddress, $0, 32)
            }
        }
        if length < 0 { return refusesShortRead(descriptor) ? 0 : failure(EINVAL) }
        // "anon_ino" "de:[even" "tfd]" as little-endian words (proc_pid_fd(5)).
        let isEventfd =
            length == 20 && name.0 == 0x6f6e_695f_6e6f_6e61 && name.1 == 0x6e65_7665_5b3a_6564
            && name.2 == 0x5d64_6674
        return isEventfd ? 0 : failure(EINVAL)
    }

    /// Adds `count` to the descriptor if it still is what `check` saw.
    public static func signal(_ descriptor: Int32, count: UInt64) {
        var status = stat()
        if System.status(of: descriptor, into: &status) < 0 || !isAnonymous(status) { return }
        var value = count
        _ = withAddress(of: &value) {
            systemCall(Int32(SYS_write), Int(descriptor), $0, 8)
        }
    }

    static func isPlausible(_ descriptor: Int32) -> Bool {
        var status = stat()
        return System.status(of: descriptor, into: &status) == 0 && isAnonymous(status)
    }

    private static func isAnonymous(_ status: stat) -> Bool {
        FileType.of(status) == FileType.anonymous
    }

    private static func isPathOnly(_ descriptor: Int32) -> Bool {
        let flags = System.fileFlags(descriptor)
        return flags < 0 || flags & Int(IOCTX_O_PATH) != 0
    }

    /// "/proc/self/fd/N" with a terminating zero.
    private static func linkPath(_ descriptor: Int32) -> (UInt64, UInt64, UInt64, UInt64) {
        // "/proc/se" "lf/fd/" and the digits, little-endian.
        var path: (UInt64, UInt64, UInt64, UInt64) = (
            0x6573_2f63_6f72_702f, 0x0000_2f64_662f_666c, 0, 0
        )
        var digits = 1
        var scale: Int32 = 10
        while descriptor / scale > 0 && digits < 10 {
            digits &+= 1
            scale = scale &* 10
        }
        var rest = descriptor
        var position = 14 &+ digits
        while position > 14 {
            position &-= 1
            withAddress(of: &path) {
                Ref<UInt8>(address: UInt(bitPattern: $0) &+ UInt(bitPattern: position))?.it =
                    UInt8(truncatingIfNeeded: 48 &+ rest % 10)
            }
            rest /= 10
        }
        return path
    }

    /// Without /proc: an eventfd refuses to be read into less than eight bytes, before anything
    /// is consumed (eventfd(2)).
    private static func refusesShortRead(_ descriptor: Int32) -> Bool {
        var value: UInt32 = 0
        let result = withAddress(of: &value) {
            systemCall(Int32(SYS_read), Int(descriptor), $0, 4)
        }
        return result == failure(EINVAL)
    }
}

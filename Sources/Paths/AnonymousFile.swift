// Files without an inode of their own: eventfds, timerfds, signalfds, epoll sets and others. They
// have no type bits; only the name of their link in /proc tells what they are (proc_pid_fd(5)).

import CLibAIO
import JobTable

enum AnonymousFile {
    enum Name {
        case eventfd
        case timerfd
        case signalfd
        case other
        /// There is no /proc to look at.
        case unknown
    }

    static func name(of descriptor: Int32) -> Name {
        var name = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))
        var path = linkPath(descriptor)
        let length = withAddress(of: &path) { pathAddress in
            withAddress(of: &name) {
                systemCall(Int32(SYS_readlinkat), Int(AT_FDCWD), pathAddress, $0, 32)
            }
        }
        if length < 0 { return .unknown }
        // "anon_ino" "de:[" as little-endian numbers, then the name and its bracket.
        if name.0 != 0x6f6e_695f_6e6f_6e61 || name.1 & 0xffff_ffff != 0x5b3a_6564 { return .other }
        switch (name.1 >> 32, name.2) {
        case (0x6e65_7665, 0x5d64_6674): return .eventfd  // "even" "tfd]"
        case (0x656d_6974, 0x5d64_6672): return .timerfd  // "time" "rfd]"
        case (0x6e67_6973, 0x5d64_666c_61): return .signalfd  // "sign" "alfd]"
        default: return .other
        }
    }

    /// True when the kernel's AIO can read the file; where nobody can tell, the read decides.
    static func isReadable(_ descriptor: Int32) -> Bool {
        name(of: descriptor) != .other
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
}

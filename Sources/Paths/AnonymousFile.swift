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
        var path = ShortPath(ofDescriptor: descriptor)
        let length = withAddress(of: &name) { path.readLink(into: $0, room: 32) }
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
}

// Descriptors and files for the tests of every module.

import CLibAIO
import Glibc
import JobTable

/// A descriptor that is closed with its last use.
public final class Descriptor {
    public let number: Int32

    public init(_ number: Int32) {
        precondition(number >= 0, "no descriptor")
        self.number = number
    }

    deinit { close(number) }

    /// Makes this number mean another file, as after a close and an open, in one step: other
    /// tests of the process open files as well.
    public func reuse(for other: Descriptor) {
        precondition(dup2(other.number, number) == number)
    }
}

public enum Files {
    /// A regular file without a name, of `count` bytes of that value, on a disk.
    public static func regular(_ count: Int, of value: UInt8 = 0x5a, flags: Int32 = O_RDWR)
        -> Descriptor
    {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        precondition(made >= 0, "no temporary file")
        let block = [UInt8](repeating: value, count: 65_536)
        var left = count
        while left > 0 { left -= write(made, block, min(left, block.count)) }
        fsync(made)
        let opened = open(path, flags)
        unlink(path)
        close(made)
        return Descriptor(opened)
    }

    /// The same, of 64 KiB, with nothing of it in the page cache.
    public static func cold(flags: Int32 = 0) -> Descriptor {
        let file = regular(65_536, flags: O_RDWR | flags)
        posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED)
        return file
    }

    /// Where temporary files lie: TMPDIR, or a folder that is on a disk almost everywhere.
    public static var folder: String { getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp" }

    public static let directFlag = Int32(IOCTX_O_DIRECT)

    /// True when files of the folder take O_DIRECT.
    public static let haveDirect: Bool = {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        let opened = open(path, O_RDWR | directFlag)
        unlink(path)
        close(made)
        if opened >= 0 { close(opened) }
        return opened >= 0
    }()

    /// True when files of the folder are read from a disk once their pages are dropped.
    public static let canBeCold: Bool = {
        var fileSystem = statfs()
        guard statfs(folder, &fileSystem) == 0 else { return false }
        // tmpfs, ramfs (statfs(2)).
        return ![0x0102_1994, 0x8584_58f6].contains(UInt32(truncatingIfNeeded: fileSystem.f_type))
    }()

    public static func pipe() -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(Glibc.pipe(&ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    public static func socketPair() -> (Descriptor, Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    public static func device(_ path: String, _ flags: Int32 = O_RDWR) -> Descriptor {
        Descriptor(open(path, flags))
    }

    public static func make(_ number: Int32, _ a: Int = 0, _ b: Int = 0) -> Descriptor {
        Descriptor(Int32(systemCall(number, a, b)))
    }

    public static func eventfd(_ count: Int = 0, flags: Int32 = O_NONBLOCK) -> Descriptor {
        make(Int32(SYS_eventfd2), count, Int(flags))
    }

    public static func epoll() -> Descriptor { make(Int32(SYS_epoll_create1)) }
    public static func timerfd() -> Descriptor {
        make(Int32(SYS_timerfd_create), Int(CLOCK_MONOTONIC))
    }

    public static func signalfd() -> Descriptor {
        var mask: UInt64 = 0
        return withAddress(of: &mask) {
            Descriptor(Int32(systemCall(Int32(SYS_signalfd4), -1, $0, 8, 0)))
        }
    }

    /// The contents of a file whose size is not known, as those of /proc.
    public static func text(of path: String) -> String {
        let file = Descriptor(open(path, O_RDONLY))
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let got = read(file.number, &chunk, chunk.count)
            if got <= 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk.prefix(got)
        }
    }

    public static func memfd(_ count: Int = 0, of value: UInt8 = 0x5a) -> Descriptor {
        let name: StaticString = "unit"
        let made = make(Int32(SYS_memfd_create), Int(bitPattern: name.utf8Start))
        let block = [UInt8](repeating: value, count: count)
        precondition(write(made.number, block, count) == count)
        return made
    }

    /// The count of an eventfd, which is 0 afterwards.
    public static func take(_ eventfd: Descriptor) -> UInt64 {
        var value: UInt64 = 0
        return read(eventfd.number, &value, 8) == 8 ? value : 0
    }
}

// What the kernel tells of an open file, without more of it than the layer looks at: it is asked
// once for each request that must be looked up.

import CLibAIO

/// The type bits of st_mode (inode(7)); 0 for files without an inode of their own.
public enum FileType {
    public static let socket: UInt32 = 0o140000
    public static let regular: UInt32 = 0o100000
    public static let block: UInt32 = 0o060000
    public static let directory: UInt32 = 0o040000
    public static let character: UInt32 = 0o020000
    public static let pipe: UInt32 = 0o010000
    public static let anonymous: UInt32 = 0
    static let mask: UInt32 = 0o170000
}

/// Type, identity and size of a file.
public struct FileStatus {
    /// One of FileType's.
    public var type: UInt32 = 0
    public var device: UInt64 = 0
    public var inode: UInt64 = 0
    /// The device that a device's node stands for.
    public var specialDevice: UInt64 = 0
    /// Bytes.
    public var size: Int64 = 0

    /// Of no file.
    @inline(__always)
    public init() {}

    /// fstat(2) of an open file. 0 or a negated errno, upon which nothing is changed.
    @inline(__always)
    public mutating func look(at descriptor: Int32) -> Int {
        withRoom(for: stat.self, 1) { room in
            let result = systemCall(
                Int32(SYS_fstat), Int(descriptor), Int(bitPattern: room))
            if result < 0 { return result }
            let found = unsafe Ref<stat>(address: room).unsafelyUnwrapped
            type = UInt32(found.it.st_mode) & FileType.mask
            device = UInt64(found.it.st_dev)
            inode = UInt64(found.it.st_ino)
            specialDevice = UInt64(found.it.st_rdev)
            size = Int64(found.it.st_size)
            return 0
        }
    }

    /// The same of a file that may be written to. fstat marks the file's times as seen, upon which
    /// the next writes must give it new ones (fs/inode.c, multigrain timestamps, since Linux 6.13):
    /// on ext4 each an entry in the journal, and a longer fsync. A filter of system calls may kill
    /// for statx: then it is fstat all the same.
    public mutating func lookWithoutTimes(at descriptor: Int32) -> Int {
        if System.isFiltered || extendedLook(at: descriptor) < 0 { return look(at: descriptor) }
        return 0
    }

    private mutating func extendedLook(at descriptor: Int32) -> Int {
        ExtendedStatus.look(
            at: descriptor, for: ExtendedStatus.type | ExtendedStatus.inode | ExtendedStatus.size
        ) { found in
            type = UInt32(found.it.mode) & FileType.mask
            device = found.it.device
            inode = found.it.inode
            specialDevice = found.it.specialDevice
            size = Int64(truncatingIfNeeded: found.it.size)
        }
    }

    /// Whether the file can be written to in units that are never torn: statx(2),
    /// STATX_ATTR_WRITE_ATOMIC.
    public static func hasAtomicWrites(_ descriptor: Int32) -> Bool {
        var attributes: UInt64 = 0
        let result = ExtendedStatus.look(at: descriptor, for: ExtendedStatus.atomicWrites) {
            attributes = $0.it.attributes
        }
        return result == 0 && attributes & 0x40_0000 != 0
    }
}

/// struct statx (include/uapi/linux/stat.h), as far as it is looked at, and room for the rest.
private struct ExtendedStatus {
    // STATX_*: what is wanted.
    static let type: UInt32 = 0x1
    static let inode: UInt32 = 0x100
    static let size: UInt32 = 0x200
    static let atomicWrites: UInt32 = 0x1_0000

    var mask: UInt32 = 0
    var blockBytes: UInt32 = 0
    /// STATX_ATTR_*.
    var attributes: UInt64 = 0
    var links: UInt32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
    var mode: UInt16 = 0
    var spare: UInt16 = 0
    var inode: UInt64 = 0
    var size: UInt64 = 0
    var blocks: UInt64 = 0
    var attributesMask: UInt64 = 0
    var times = InlineArray<8, UInt64>(repeating: 0)
    var specialMajor: UInt32 = 0
    var specialMinor: UInt32 = 0
    var major: UInt32 = 0
    var minor: UInt32 = 0
    var rest = InlineArray<14, UInt64>(repeating: 0)

    var device: UInt64 { Self.device(major, minor) }
    var specialDevice: UInt64 { Self.device(specialMajor, specialMinor) }

    /// As in struct stat: include/linux/kdev_t.h, new_encode_dev.
    private static func device(_ major: UInt32, _ minor: UInt32) -> UInt64 {
        UInt64(minor & 0xff | major << 8 | (minor & ~0xff) << 12)
    }

    /// statx(2) of an open file: 0, having called `body`, or a negated errno.
    @inline(__always)
    static func look(
        at descriptor: Int32, for mask: UInt32, _ body: (Ref<ExtendedStatus>) -> Void
    ) -> Int {
        let path: StaticString = ""
        return withRoom(for: ExtendedStatus.self, 1) { room in
            let result = unsafe systemCall(
                Int32(SYS_statx), Int(descriptor), Int(bitPattern: path.utf8Start),
                0x1000, Int(mask), Int(bitPattern: room))  // AT_EMPTY_PATH
            if result < 0 { return result }
            body(unsafe Ref<ExtendedStatus>(address: room).unsafelyUnwrapped)
            return 0
        }
    }
}

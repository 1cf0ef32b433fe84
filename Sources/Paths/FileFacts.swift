// What a look at a descriptor's file tells: two system calls, three of one that may be written to.

import CLibAIO
import JobTable

/// What is known of a descriptor after asking the kernel.
struct FileFacts {
    var kind = FileKind.unknown
    /// F_GETFL.
    var flags = 0
    var status = FileStatus()

    var isRegular: Bool { status.type == FileType.regular }
    var isBlock: Bool { status.type == FileType.block }
    var isSocket: Bool { status.type == FileType.socket }
    var isPipe: Bool { status.type == FileType.pipe }
    var isReadable: Bool { flags & Int(O_ACCMODE) != Int(O_WRONLY) }
    var isWritable: Bool { Self.isWritable(flags) }
    var isNonBlocking: Bool { flags & Int(O_NONBLOCK) != 0 }
    var isDirect: Bool { flags & Int(IOCTX_O_DIRECT) != 0 }
    /// Of a block device.
    var isInMemory: Bool { MemoryDevices.contains(status.specialDevice) }
    var isAnonymous: Bool { status.type == FileType.anonymous }
    var device: UInt64 { status.device }
    var inode: UInt64 { status.inode }

    /// A terminal or another character device, which is ready for a write and blocks it all the
    /// same: it has room, but not for all of it.
    var blocksWriters: Bool {
        kind == .stream && status.type == FileType.character
    }

    /// Two descriptions of such a file with equal flags do the same I/O.
    var isShareable: Bool { isRegular || isBlock || isPipe || isSocket }

    /// Asks the kernel. -EBADF for a closed descriptor or one opened with O_PATH; another error for
    /// a file that cannot be looked at, such as one on a file system that has failed.
    static func of(_ descriptor: Int32, _ facts: inout FileFacts) -> Int {
        facts.flags = System.openFlags(descriptor)
        if facts.flags < 0 { return facts.flags }
        let result = status(of: descriptor, flags: facts.flags, into: &facts.status)
        if result < 0 { return result }
        facts.kind = facts.kindFromStatus()
        return 0
    }

    /// fstat(2) of a file, given its F_GETFL: one that may be written to, without its times.
    static func status(of descriptor: Int32, flags: Int, into status: inout FileStatus) -> Int {
        isWritable(flags)
            ? status.lookWithoutTimes(at: descriptor) : status.look(at: descriptor)
    }

    private static func isWritable(_ flags: Int) -> Bool {
        flags & Int(O_ACCMODE) != Int(O_RDONLY)
    }

    private func kindFromStatus() -> FileKind {
        switch status.type {
        case FileType.regular:
            return isDirect ? .direct : .cached
        case FileType.block:
            return !isDirect ? .cached : isInMemory ? .memory : .direct
        case FileType.directory:
            return .directory
        case FileType.character:
            // null, zero, full, random, urandom (mem(4)); not kmsg, which waits.
            let isMemoryDevice = (status.specialDevice >> 8) & 0xfff == 1
            let minor = status.specialDevice & 0xff
            return isMemoryDevice && minor >= 3 && minor <= 9 ? .memory : .stream
        default:
            return .stream
        }
    }

    /// True for files that have a write operation that the kernel's AIO can use. /dev/full and
    /// files without an inode of their own do not, though write(2) works on some.
    var hasWrite: Bool {
        !(kind == .directory || isAnonymous || isFull)
    }

    /// /dev/full
    var isFull: Bool { status.type == FileType.character && status.specialDevice == 0x107 }

    /// True for O_DIRECT I/O up to `end` that goes beyond the end of the file: a write makes it
    /// longer.
    func isExtended(by end: Int64) -> Bool {
        kind == .direct && isRegular && end > status.size
    }

    /// True for O_DIRECT I/O on a regular file or block device that does not make the file longer:
    /// what the kernel's AIO does without blocking its submitter. A disk in memory needs it only
    /// where an eventfd is signalled, for which the kernel takes no call of its own.
    func suitsKernelAIO(isWrite: Bool, end: Int64, isSignalled: Bool = false) -> Bool {
        if kind == .memory { return isSignalled && isBlock && isDirect }
        return kind == .direct && !(isWrite && isExtended(by: end))
    }

    /// The kind of a buffered file that answered EOPNOTSUPP to RWF_NOWAIT.
    func kindWithoutNowait(_ descriptor: Int32) -> FileKind {
        // What fstatfs tells is about the device's node.
        if isBlock { return isInMemory ? .memory : .quick }
        switch Self.fileSystemType(descriptor) {
        case 0x0102_1994, 0x8584_58f6, 0x9584_58f6:  // tmpfs, ramfs, hugetlbfs (statfs(2))
            return .memory
        default:
            return Self.isOnControlFileSystem(descriptor) ? .memory : .quick
        }
    }

    /// proc, sysfs, cgroup2, debugfs, tracefs: files that are the kernel's own variables.
    static func isOnControlFileSystem(_ descriptor: Int32) -> Bool {
        switch fileSystemType(descriptor) {
        case 0x9fa0, 0x6265_6572, 0x6367_7270, 0x6462_6720, 0x7472_6163: return true
        default: return false
        }
    }

    /// File systems whose files have no fsync operation (statfs(2), include/uapi/linux/magic.h):
    /// proc, debugfs, tracefs, mqueue, nsfs, secretmem, securityfs, binfmt_misc, and those that
    /// cannot be written to: squashfs, iso9660, erofs, cramfs, romfs. Of some, directories have
    /// one; they have none on sysfs and cgroups, whose files do.
    static func isOnFileSystemWithoutFsync(_ descriptor: Int32, isDirectory: Bool) -> Bool {
        switch fileSystemType(descriptor) {
        case 0x9fa0, 0x7371_7368, 0x9660, 0xe0f5_e1e2, 0x28cd_3d45, 0x7275: return true
        case 0x6462_6720, 0x7472_6163, 0x1980_0202, 0x6e73_6673, 0x5345_434d, 0x7363_6673,
            0x4249_4e4d:
            return !isDirectory
        case 0x6265_6572, 0x6367_7270, 0x27_e0eb: return isDirectory
        default: return false
        }
    }

    /// ext4, xfs, btrfs and most block devices: their buffered reads take RWF_NOWAIT. For files
    /// that are open for writing only, where it cannot be tried.
    static func isOnWaitingFileSystem(_ descriptor: Int32, _ facts: FileFacts) -> Bool {
        if facts.isBlock { return true }
        switch fileSystemType(descriptor) {
        case 0xef53, 0x5846_5342, 0x9123_683e: return true
        default: return false
        }
    }

    private static func fileSystemType(_ descriptor: Int32) -> UInt32 {
        var fileSystem = statfs()
        let result = withAddress(of: &fileSystem) {
            systemCall(Int32(SYS_fstatfs), Int(descriptor), $0)
        }
        return result < 0 ? 0 : UInt32(truncatingIfNeeded: fileSystem.f_type)
    }
}

extension FileFacts {
    /// What is needed to read a regular file or block device for direct I/O, by its flags alone:
    /// nil where the descriptor leads to no such file now. A pipe may have O_DIRECT, too, but not
    /// O_LARGEFILE, which open(2) sets. The identity is left out.
    init?(ofDirectFile descriptor: Int32) {
        self.init()
        flags = System.openFlags(descriptor)
        if flags < 0 || !isDirect || flags & Int(IOCTX_O_LARGEFILE) == 0 { return nil }
        kind = .direct
        status.type = FileType.regular
    }
}

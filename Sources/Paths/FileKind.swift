// What kind of file a descriptor has, which decides the path of a request.
//
// Finding out costs two system calls; for files that are read from the page cache a hint saves
// them. A hint may be stale, because the program may have closed the descriptor and reused its
// number: then a request may be slow, or fail with an error that the file never gives to its own
// kind, upon which the kind is looked up and the request done again. It is never answered wrongly.

import CLibAIO
import JobTable
import Synchronization

/// What decides the path of a request on a file.
public enum FileKind: UInt32 {
    case unknown = 0
    /// Regular file or block device through the page cache; RWF_NOWAIT works.
    case cached
    /// The same on a file system without RWF_NOWAIT; the last plain read was quick.
    case quick
    /// The same; the last plain read was slow, so reads go to a daemon.
    case slow
    /// RWF_NOWAIT works, but was in vain for many reads: they go to a daemon untried.
    case cold
    /// Memory-backed, through the page cache or not: never blocks.
    case memory
    /// Regular file or block device with O_DIRECT.
    case direct
    /// Pipe, socket, terminal, eventfd and the like: waits for readiness.
    case stream
    case directory
    /// An eventfd that was named to be signalled; as a file to read it is a stream.
    case eventfd

    /// Through the page cache, or memory-backed.
    @inline(__always)
    var isBuffered: Bool {
        rawValue >= FileKind.cached.rawValue && rawValue <= FileKind.memory.rawValue
    }
}

/// The type bits of st_mode (inode(7)); 0 for files without an inode of their own.
enum FileType {
    static let socket: UInt32 = 0o140000
    static let regular: UInt32 = 0o100000
    static let block: UInt32 = 0o060000
    static let directory: UInt32 = 0o040000
    static let character: UInt32 = 0o020000
    static let pipe: UInt32 = 0o010000
    static let anonymous: UInt32 = 0

    static func of(_ status: stat) -> UInt32 { UInt32(status.st_mode) & 0o170000 }
}

/// What is known of a descriptor after asking the kernel.
struct FileFacts {
    var kind = FileKind.unknown
    /// F_GETFL.
    var flags = 0
    var status = stat()

    var isRegular: Bool { FileType.of(status) == FileType.regular }
    var isBlock: Bool { FileType.of(status) == FileType.block }
    var isSocket: Bool { FileType.of(status) == FileType.socket }
    var isPipe: Bool { FileType.of(status) == FileType.pipe }
    var isReadable: Bool { flags & Int(O_ACCMODE) != Int(O_WRONLY) }
    var isWritable: Bool { flags & Int(O_ACCMODE) != Int(O_RDONLY) }
    var isNonBlocking: Bool { flags & Int(O_NONBLOCK) != 0 }
    var isDirect: Bool { flags & Int(IOCTX_O_DIRECT) != 0 }
    /// Of a block device.
    var isInMemory: Bool { MemoryDevices.contains(UInt64(status.st_rdev)) }
    var isAnonymous: Bool { FileType.of(status) == FileType.anonymous }
    var device: UInt64 { UInt64(status.st_dev) }
    var inode: UInt64 { UInt64(status.st_ino) }

    /// Two descriptions of such a file with equal flags do the same I/O.
    var isShareable: Bool { isRegular || isBlock || isPipe || isSocket }

    /// Asks the kernel. -EBADF for a closed descriptor or one opened with O_PATH, which the
    /// kernel's AIO does not see either.
    static func of(_ descriptor: Int32, _ facts: inout FileFacts) -> Int {
        facts.flags = System.fileFlags(descriptor)
        if facts.flags < 0 || facts.flags & Int(IOCTX_O_PATH) != 0 { return failure(EBADF) }
        let result =
            facts.isWritable
            ? System.statusWithoutTimes(of: descriptor, into: &facts.status)
            : System.status(of: descriptor, into: &facts.status)
        if result < 0 { return failure(EBADF) }
        facts.kind = facts.kindFromStatus()
        return 0
    }

    private func kindFromStatus() -> FileKind {
        switch FileType.of(status) {
        case FileType.regular:
            return isDirect ? .direct : .cached
        case FileType.block:
            return !isDirect ? .cached : isInMemory ? .memory : .direct
        case FileType.directory:
            return .directory
        case FileType.character:
            // null, zero, full, random, urandom (mem(4)); not kmsg, which waits.
            let isMemoryDevice = (status.st_rdev >> 8) & 0xfff == 1
            let minor = status.st_rdev & 0xff
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
    var isFull: Bool { FileType.of(status) == FileType.character && status.st_rdev == 0x107 }

    /// True for O_DIRECT writes up to `end` that make the file longer.
    func isExtended(by end: Int64) -> Bool {
        kind == .direct && isRegular && end > Int64(status.st_size)
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

/// The kind that each of the lower descriptors had last time.
enum FileHints {
    static let count = 4096
    static var bytes: Int { count &* MemoryLayout<Atomic<UInt32>>.stride }
    /// So many tries in vain make a file cold: each of them starts the disk, which takes its time.
    static let missesMax: UInt32 = 16
    /// So many slow reads in a row make a file slow. One may have lost the processor meanwhile.
    static let slowReadsMax: UInt32 = 2
    /// A plain read of so many bytes that takes longer than this was not served from memory, which
    /// copies a page in less than a microsecond; the quickest disks take ten times that.
    static func slowReadNs(length: Int) -> UInt64 { 20_000 &+ UInt64(clamping: length) }
    /// One in so many reads of a slow or cold file is tried inline again, twice as many after each try
    /// that was in vain: interval 0 to the last.
    static let firstInterval: UInt32 = 4
    static let intervalMax: UInt32 = 6

    // A hint: the kind in the lowest four bits; the interval of a slow or cold file in the next; above
    // them a count, of such a file's reads since the last try, or of another's misses.
    fileprivate static let kindMask: UInt32 = 0xf
    fileprivate static let countUnit: UInt32 = 1 << 8

    fileprivate static func interval(_ hint: UInt32) -> UInt32 { hint >> 4 & 0xf }
    fileprivate static func counted(_ hint: UInt32) -> UInt32 { hint / countUnit }
    fileprivate static func hint(_ kind: FileKind, interval: UInt32) -> UInt32 {
        kind.rawValue | interval << 4
    }
}

extension Ref where Pointee == EngineRecord {
    @inline(__always)
    private func hintSlot(_ descriptor: Int32) -> Ref<Atomic<UInt32>>? {
        if descriptor < 0 || Int(descriptor) >= FileHints.count { return nil }
        return Ref<Atomic<UInt32>>(
            address: it.hints
                &+ UInt(bitPattern: Int(descriptor)) &* UInt(MemoryLayout<Atomic<UInt32>>.stride))
    }

    @inline(__always)
    func hint(_ descriptor: Int32) -> FileKind {
        guard let slot = hintSlot(descriptor) else { return .unknown }
        return FileKind(rawValue: slot.it.load(ordering: .relaxed) & FileHints.kindMask) ?? .unknown
    }

    /// Drops a hint that has turned out to be about another file.
    func forgetHint(_ descriptor: Int32, unless kind: FileKind) {
        let hinted = hint(descriptor)
        let isBuffered = kind == .cached
        if hinted == .unknown || isBuffered || hinted == kind { return }
        setHint(descriptor, .unknown)
    }

    func setHint(_ descriptor: Int32, _ kind: FileKind) {
        hintSlot(descriptor)?.it.store(kind.rawValue, ordering: .relaxed)
    }

    /// After a read that was served from memory. A file whose reads go to a daemon becomes one of that
    /// kind only after several in a row, or nearly.
    func hintQuick(_ descriptor: Int32, _ kind: FileKind) {
        guard let slot = hintSlot(descriptor) else { return }
        let hinted = hint(descriptor)
        let interval = FileHints.interval(slot.it.load(ordering: .relaxed))
        if (hinted == .slow || hinted == .cold) && interval > 0 {
            slot.it.store(
                FileHints.hint(hinted, interval: interval &- min(interval, 2)), ordering: .relaxed)
        } else {
            setHint(descriptor, kind)
        }
    }

    /// Reads go to a daemon from now on, for a longer time than before if they did.
    func hintSlow(_ descriptor: Int32, _ kind: FileKind = .slow) {
        guard let slot = hintSlot(descriptor) else { return }
        let interval = FileHints.interval(slot.it.load(ordering: .relaxed))
        let isAgain = hint(descriptor) == kind
        slot.it.store(
            FileHints.hint(
                kind, interval: isAgain ? min(interval &+ 1, FileHints.intervalMax) : 0),
            ordering: .relaxed)
    }

    /// After a read that was not served from memory: with RWF_NOWAIT in vain (`cached`), or a plain
    /// one that was slow (`quick`).
    func hintMiss(_ descriptor: Int32, _ kind: FileKind) {
        guard let slot = hintSlot(descriptor) else { return }
        let misses = FileHints.counted(slot.it.load(ordering: .relaxed)) &+ 1
        let becomes = kind == .quick ? FileKind.slow : FileKind.cold
        let missesMax = kind == .quick ? FileHints.slowReadsMax : FileHints.missesMax
        if hint(descriptor) == becomes || misses >= missesMax {
            hintSlow(descriptor, becomes)
        } else {
            slot.it.store(kind.rawValue | misses &* FileHints.countUnit, ordering: .relaxed)
        }
    }

    /// Counts a request on a slow or cold file; true when it is time to try one inline.
    func isTimeToRetry(_ descriptor: Int32) -> Bool {
        guard let slot = hintSlot(descriptor) else { return true }
        let value = slot.it.wrappingAdd(FileHints.countUnit, ordering: .relaxed).newValue
        return FileHints.counted(value) >= FileHints.firstInterval << FileHints.interval(value)
    }
}

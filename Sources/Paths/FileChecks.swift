// What the kernel's io_submit checks about a request and its file, in the kernel's order
// (fs/aio.c, aio_prep_rw, aio_read, aio_write and aio_fsync).

import CLibAIO
import JobTable
import Synchronization

enum FileChecks {
    private static let nowait = Int32(IOCTX_RWF_NOWAIT)
    private static let atomic = Int32(IOCTX_RWF_ATOMIC)
    private static let dontCache = Int32(IOCTX_RWF_DONTCACHE)
    private static let appendAndNoAppend =
        Int32(IOCTX_RWF_APPEND) | Int32(IOCTX_RWF_NOAPPEND)
    /// Flags that every kernel knows that the layer runs on, and two that it takes for few files:
    /// these are asked about.
    private static let known =
        Int32(IOCTX_RWF_HIPRI) | Int32(IOCTX_RWF_DSYNC) | Int32(IOCTX_RWF_SYNC) | nowait
        | atomic | dontCache

    /// All other flags of which the running kernel was asked: those that it takes, and those that
    /// it does not.
    private static let taken = Atomic<Int32>(0)
    private static let untaken = Atomic<Int32>(0)

    /// The flag with which a write goes to its offset although O_APPEND is set for its description
    /// after its submission; 0 on kernels without it (before Linux 6.9).
    static var keepsOffset: Int32 {
        kernelTakes(Int32(IOCTX_RWF_NOAPPEND)) ? Int32(IOCTX_RWF_NOAPPEND) : 0
    }

    /// The errno with which io_submit refuses a read or write, or 0.
    static func refusal(of request: Request, _ facts: FileFacts) -> Int {
        if request.priorityError != 0 { return request.priorityError }
        if request.rwFlags != 0 {
            let result = flagsRefusal(of: request, facts)
            if result < 0 { return result }
        }
        let access = accessRefusal(of: request, facts)
        if access < 0 { return access }
        let isWrite = request.operation == .write
        if isWrite ? !facts.hasWrite : !hasRead(request.descriptor, facts) {
            return failure(EINVAL)
        }
        if request.bufferError != 0 { return request.bufferError }
        if request.offset < 0 { return failure(EINVAL) }
        let (_, overflow) = request.offset.addingReportingOverflow(Int64(request.length))
        return overflow ? failure(EINVAL) : 0
    }

    /// True for an answer to a write that may mean another kind of file than was thought, /dev/full
    /// among them: nothing was written, and the request may be started again.
    @inline(__always)
    static func isRefusal(_ result: Int) -> Bool {
        result < 0
            && (result == failure(EBADF) || result == failure(EINVAL)
                || result == failure(ESPIPE) || result == failure(EISDIR)
                || result == failure(EOPNOTSUPP) || result == failure(EAGAIN)
                || result == failure(ENOSPC) || result == failure(EINTR))
    }

    /// -EBADF for a file that is not open for the transfer, or 0.
    static func accessRefusal(of request: Request, _ facts: FileFacts) -> Int {
        let isOpen = request.operation == .write ? facts.isWritable : facts.isReadable
        return isOpen ? 0 : failure(EBADF)
    }

    /// include/linux/fs.h, kiocb_set_rw_flags; before the access mode.
    private static func flagsRefusal(of request: Request, _ facts: FileFacts) -> Int {
        let flags = request.rwFlags
        if flags & ~known != 0 && !kernelTakes(flags & ~known) { return failure(EOPNOTSUPP) }
        if flags & appendAndNoAppend == appendAndNoAppend { return failure(EINVAL) }
        let isWrite = request.operation == .write
        if flags & atomic != 0 && !(isWrite && FileStatus.hasAtomicWrites(request.descriptor)) {
            return failure(EOPNOTSUPP)
        }
        if flags & (nowait | dontCache) == 0 { return 0 }
        if facts.kind == .directory || facts.isFull { return failure(EOPNOTSUPP) }
        // Of file systems alone some take it.
        if flags & dontCache != 0 && facts.kind == .stream { return failure(EOPNOTSUPP) }
        if facts.isAnonymous {
            let name = AnonymousFile.name(of: request.descriptor)
            return name == .other ? failure(EOPNOTSUPP) : 0
        }
        // All others are told by the transfer, if it comes to one.
        let isTried =
            facts.kind != .direct && request.length > 0 && request.bufferError == 0
            && request.offset >= 0
        if !isTried && facts.kind != .stream && !takes(flags, request.descriptor, facts) {
            return failure(EOPNOTSUPP)
        }
        let isWrongWay = isWrite ? !facts.isWritable : !facts.isReadable
        if isWrongWay && facts.kind == .cached
            && facts.kindWithoutNowait(request.descriptor) == .memory
        {
            return failure(EOPNOTSUPP)
        }
        return 0
    }

    /// True for a write with a flag that the file takes, but not for buffered writes: the file
    /// system says so in the event. RWF_ATOMIC is asked about before; RWF_NOWAIT is tried.
    static func answersInEvent(_ request: Request, _ facts: FileFacts) -> Bool {
        if request.operation != .write || facts.kind != .cached { return false }
        if request.rwFlags & atomic != 0 { return true }
        return request.rwFlags & nowait != 0
            && (facts.isReadable
                ? takes(request.rwFlags, request.descriptor, facts)
                : FileFacts.isOnWaitingFileSystem(request.descriptor, facts))
    }

    /// True when the file takes the flags: one byte at offset 1 is tried, for with O_DIRECT the
    /// kernel looks at the flags first and then refuses the offset. Files that are open for writing
    /// only are not tried, but for block devices with O_DIRECT.
    private static func takes(_ flags: Int32, _ descriptor: Int32, _ facts: FileFacts) -> Bool {
        if !facts.isReadable && !(facts.isBlock && facts.kind == .direct) { return true }
        return transferByte(
            isWrite: !facts.isReadable, flags & (nowait | dontCache), descriptor, offset: 1)
            != failure(EOPNOTSUPP)
    }

    /// A write comes from the first page, where nothing is mapped: should the descriptor lead to a
    /// file by now that would take it, there is nothing to be written.
    private static func transferByte(
        isWrite: Bool, _ flags: Int32, _ descriptor: Int32, offset: Int64
    ) -> Int {
        var byte: UInt8 = 0
        return withAddress(of: &byte) { byteAddress in
            var vector = Vector(base: isWrite ? 8 : UInt(bitPattern: byteAddress), length: 1)
            return withAddress(of: &vector) {
                System.transfer(
                    isWrite: isWrite, descriptor, UInt(bitPattern: $0), 1, offset, flags)
            }
        }
    }

    /// Asks the kernel once for each new flag, with a read of /dev/zero.
    private static func kernelTakes(_ flags: Int32) -> Bool {
        if flags & untaken.load(ordering: .relaxed) != 0 { return false }
        if flags & ~taken.load(ordering: .relaxed) == 0 { return true }
        for bit in 0..<Int32(32) where flags >> bit & 1 != 0 {
            guard let isTaken = readsZero(with: 1 << bit) else { return false }
            if isTaken {
                taken.bitwiseOr(1 << bit, ordering: .relaxed)
            } else {
                untaken.bitwiseOr(1 << bit, ordering: .relaxed)
            }
        }
        return flags & ~taken.load(ordering: .relaxed) == 0
    }

    /// True when a byte of /dev/zero can be read with those flags; nil when the file cannot be had
    /// now.
    private static func readsZero(with flags: Int32) -> Bool? {
        if !System.mayOpenFiles { return nil }
        let path: StaticString = "/dev/zero"
        let opened = unsafe systemCall(
            Int32(SYS_openat), Int(AT_FDCWD), Int(bitPattern: path.utf8Start),
            Int(O_RDONLY | O_CLOEXEC))
        if opened < 0 { return nil }
        let descriptor = Int32(truncatingIfNeeded: opened)
        defer { System.close(descriptor) }
        return transferByte(isWrite: false, flags, descriptor, offset: 0) == 1
    }

    /// Of the files without an inode of their own, counters and signals can be read.
    private static func hasRead(_ descriptor: Int32, _ facts: FileFacts) -> Bool {
        if facts.kind == .directory { return false }
        return !facts.isAnonymous || AnonymousFile.isReadable(descriptor)
    }

    /// True for a file that tells when it becomes ready: pipes and the like, but also some in /proc
    /// and /sys, and message queues. Epoll refuses most others (epoll_ctl(2), EPERM); those in
    /// /proc/sys it takes, though hardly any of them tells (fs/proc/proc_sysctl.c, proc_sys_poll).
    static func canBeAwaited(_ descriptor: Int32) -> Bool {
        let set = systemCall(Int32(SYS_epoll_create1), Int(O_CLOEXEC))
        if set < 0 { return false }
        defer { System.close(Int32(truncatingIfNeeded: set)) }
        var event = ioctx_epoll_event()
        let added = withAddress(of: &event) {
            systemCall(Int32(SYS_epoll_ctl), set, Int(EPOLL_CTL_ADD), Int(descriptor), $0)
        }
        return added == 0 && !isSystemVariable(descriptor)
    }

    private static func isSystemVariable(_ descriptor: Int32) -> Bool {
        var name = (UInt64(0), UInt64(0))
        var path = ShortPath(ofDescriptor: descriptor)
        let length = withAddress(of: &name) { path.readLink(into: $0, room: 16) }
        // "/proc/sy" "s/" as little-endian numbers.
        return length > 0 && name.0 == 0x7973_2f63_6f72_702f && name.1 & 0xffff == 0x2f73
    }

    /// True when the file has an fsync operation: most regular files, block devices and
    /// directories.
    static func hasFsync(_ descriptor: Int32, _ facts: FileFacts) -> Bool {
        let isDirectory = facts.kind == .directory
        if !facts.isRegular && !isDirectory { return facts.isBlock }
        return !FileFacts.isOnFileSystemWithoutFsync(descriptor, isDirectory: isDirectory)
    }
}

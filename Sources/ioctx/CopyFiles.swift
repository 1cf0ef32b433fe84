// The two ends of a copy: what kind of file each is, how it is opened, and how a regular
// destination appears under its name only when it is complete.

import CLibAIO
import Glibc

/// An open file, twice where --direct is given: for aligned requests, and for the odd ones.
struct OpenFile {
    enum Kind {
        case regular, blockDevice, characterDevice, stream
    }

    /// What every O_DIRECT request is a multiple of: the largest logical block in use.
    static let alignmentBytes = 4096

    /// What messages call it.
    let name: Path
    let kind: Kind
    let status: stat
    /// Bytes in it; nil where only reading tells.
    let length: Int?
    /// Requests carry an offset that counts, so several may be under way at once.
    let isPositioned: Bool
    let isDirect: Bool
    /// Takes any request.
    let descriptor: Int32
    private let directDescriptor: Int32
    // lseek(2); the C library's header names them for _GNU_SOURCE only.
    private static let seekData: Int32 = 3
    private static let seekHole: Int32 = 4
    private static let directFlag = Int32(IOCTX_O_DIRECT)

    init(
        _ path: Path, name: Path? = nil, flags: Int32, mode: mode_t = 0, direct: Bool
    ) throws(Failure) {
        let name = name ?? path
        self.name = name
        descriptor = try Self.open(path, name, flags, mode)
        var status = stat()
        fstat(descriptor, &status)
        self.status = status
        switch status.st_mode & S_IFMT {
        case S_IFREG: kind = .regular
        case S_IFBLK: kind = .blockDevice
        case S_IFCHR: kind = .characterDevice
        case S_IFDIR:
            throw Failure("'\(name)' is a folder: name one file to copy")
        default: kind = .stream
        }
        let end = lseek(descriptor, 0, SEEK_END)
        isPositioned = lseek(descriptor, 0, SEEK_CUR) >= 0
        // A regular file without length may be one of /proc, which have contents all the same;
        // those of /sys have a length that their contents do not reach.
        let hasLength =
            kind == .blockDevice || kind == .regular && end > 0 && !Self.endsBefore(end, descriptor)
        length = hasLength ? end : nil
        isDirect = direct && (kind == .regular || kind == .blockDevice)
        let isNew = flags & O_CREAT != 0
        do {
            // The new file's mode may not let its owner open it, as that of a copy of such a file.
            if isDirect && isNew { fchmod(descriptor, status.st_mode | S_IRUSR | S_IWUSR) }
            directDescriptor =
                isDirect
                ? try Self.open(path, name, flags & ~(O_CREAT | O_EXCL) | Self.directFlag, 0) : -1
            if isDirect && isNew { fchmod(descriptor, status.st_mode) }
        } catch {
            if isNew { _ = path.withCString { unlink($0) } }
            throw error
        }
    }

    /// Whether the last byte of so many is none; false where it cannot be read.
    private static func endsBefore(_ end: Int, _ descriptor: Int32) -> Bool {
        var last: UInt8 = 0
        return pread(descriptor, &last, 1, end - 1) == 0
    }

    /// The descriptor that takes a request of this shape.
    func descriptor(for buffer: UnsafeMutableRawBufferPointer, offset: Int) -> Int32 {
        let bits = offset | buffer.count | Int(bitPattern: buffer.baseAddress)
        return isDirect && bits % Self.alignmentBytes == 0 ? directDescriptor : descriptor
    }

    /// The same file by whatever name; for a disk, also by another node.
    func isSame(as other: stat) -> Bool {
        if status.st_dev == other.st_dev && status.st_ino == other.st_ino { return true }
        return kind == .blockDevice && other.st_mode & S_IFMT == S_IFBLK
            && status.st_rdev == other.st_rdev
    }

    /// The next bytes at or after `offset` that are no hole, up to `end`; nil when only a hole
    /// is left. A file system that cannot tell calls all of it data.
    func data(from offset: Int, end: Int) -> Range<Int>? {
        let start = lseek(descriptor, offset, Self.seekData)
        if start < 0 {
            return errno == ENXIO ? nil : offset..<end
        }
        if start >= end { return nil }
        let hole = lseek(descriptor, start, Self.seekHole)
        let unit = Self.alignmentBytes
        let first = max(offset, start / unit * unit)
        let last = hole < 0 ? end : min(end, (hole + unit - 1) / unit * unit)
        return first..<max(first, last)
    }

    private static func open(
        _ path: Path, _ name: Path, _ flags: Int32, _ mode: mode_t
    ) throws(Failure) -> Int32 {
        let descriptor = path.withCString { Glibc.open($0, flags | O_CLOEXEC, mode) }
        if descriptor >= 0 { return descriptor }
        let error = errno
        if error == EINVAL, flags & directFlag != 0 {
            throw Failure(
                "cannot open '\(name)' with O_DIRECT, which its file system does not have: "
                    + "leave out --direct")
        }
        let verb = flags & O_CREAT != 0 ? "create" : "open"
        throw Failure.system("cannot \(verb) '\(name)'", error)
    }
}

/// Where the copy goes. A regular file is written under a temporary name in the same folder and
/// renamed when it is complete and on the disk; devices and streams are written as they are.
final class Destination {
    let file: OpenFile
    private let path: Path
    private var temporary: Path?

    init(_ name: Path, source: OpenFile, direct: Bool, readBack: Bool) throws(Failure) {
        let target = try Self.target(name, source: source)
        let access = readBack ? O_RDWR : O_WRONLY
        if let existing = target.existing, existing.st_mode & S_IFMT != S_IFREG {
            path = target.path
            file = try OpenFile(path, flags: access, direct: direct)
            return
        }
        // A link to a file goes on leading to it, as with cp; a name that is new has no real path.
        path = target.existing == nil ? target.path : target.path.resolved() ?? target.path
        let temporary = try Self.unusedName(in: path.folder)
        // The umask applies. Bits beyond the permissions are not carried over to another owner.
        file = try OpenFile(
            temporary, name: path, flags: O_RDWR | O_CREAT | O_EXCL,
            mode: source.status.st_mode & 0o777, direct: direct)
        self.temporary = temporary
    }

    /// Gives the complete file its length, which may end in a hole, and its name.
    func commit(length: Int?) throws(Failure) {
        guard let temporary else { return }
        if let length, ftruncate(file.descriptor, off_t(length)) != 0 {
            throw Failure.system("cannot set the length of '\(path)'", errno)
        }
        let renamed = temporary.withCString { from in path.withCString { rename(from, $0) } }
        guard renamed == 0 else {
            throw Failure.system("cannot rename '\(temporary)' to '\(path)'", errno)
        }
        self.temporary = nil
    }

    /// Removes what is not complete.
    func discard() {
        if let temporary { _ = temporary.withCString { unlink($0) } }
        temporary = nil
    }

    private static func target(
        _ name: Path, source: OpenFile
    ) throws(Failure) -> (path: Path, existing: stat?) {
        var path = name
        var existing = status(of: path)
        if let folder = existing, folder.st_mode & S_IFMT == S_IFDIR {
            path = path.appending(source.name.lastComponent)
            existing = status(of: path)
        } else if path.endsInSlash {
            throw Failure("'\(path)' is no folder: create it first, or leave out the last slash")
        }
        guard let found = existing else {
            var link = stat()
            if path.withCString({ lstat($0, &link) }) == 0 {
                throw Failure("'\(path)' is a link that leads nowhere: remove it first")
            }
            return (path, nil)
        }
        switch found.st_mode & S_IFMT {
        case S_IFDIR:
            throw Failure("'\(path)' is a folder: choose another name for the copy")
        case S_IFREG where path.withCString({ access($0, W_OK) }) != 0:
            throw Failure.system("cannot replace '\(path)'", errno)
        default:
            guard !source.isSame(as: found) else {
                throw Failure(
                    "'\(source.name)' and '\(path)' are the same file: nothing to copy")
            }
            return (path, found)
        }
    }

    private static func status(of path: Path) -> stat? {
        var status = stat()
        return path.withCString { stat($0, &status) } == 0 ? status : nil
    }

    /// The name does not contain the destination's, which may be as long as a name can be.
    private static func unusedName(in folder: Path) throws(Failure) -> Path {
        for attempt in 0..<1000 {
            let name = folder.appending(Path(".ioctx-cp.\(getpid()).\(attempt)"))
            if status(of: name) == nil { return name }
        }
        throw Failure("no temporary name is free in '\(folder)': remove old .ioctx-cp.* files")
    }
}

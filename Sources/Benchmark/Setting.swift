// Where a case finds its file or device, made ready for one measurement, in the child.

import CBenchmark
import CTestBed
import CLibAIO
import Glibc
import TestBed

/// Where the bytes are.
enum Place: String, Sendable {
    /// A file of the scratch folder, read into the page cache first.
    case cached
    /// The same file, taken out of the page cache first.
    case cold
    /// The same file, for O_DIRECT.
    case disk
    /// A file of its own, empty at first.
    case growing
    /// A file of its own, written before.
    case written
    /// Files of their own, written before; in the page cache, or out of it.
    case many, manyCold
    case tmpfs
    /// The file in a folder that is merged with another; cached and cold.
    case overlay, coldOverlay
    /// A block device in memory.
    case ram
    /// Nothing but pipes, or contexts.
    case none
}

struct OpenFile {
    let descriptor: Int32
    let bytes: Int
}

struct Setting {
    let task: ChildTask
    var calls: Calls {
        get throws { try task.library.map { try Calls(library: $0) } ?? Calls() }
    }
    var posixCalls: PosixCalls {
        get throws { try PosixCalls(Library(task.library ?? Library.ofC)) }
    }
    var warmUpSeconds: Double { min(task.seconds / 4, 0.1) }
    var seconds: Double { task.seconds }
    var isCounted: Bool { task.isCounted }
    var seed: UInt64 { task.seed }

    /// More than a processor's own cache holds, and soon read.
    static let cachedBytes = 16 << 20

    private static let bytesOfMany = 4 << 20

    /// `number` tells several files of a case apart.
    func open(_ transfer: Transfer, number: Int = 0) throws -> OpenFile {
        let direct = transfer.isDirect ? Int32(IOCTX_O_DIRECT) : 0
        switch transfer.place {
        case .cached:
            let file = try open(task.file, O_RDONLY)
            return try warmed(file)
        case .overlay:
            return try warmed(try open(try overlaid(), O_RDONLY))
        case .cold, .coldOverlay:
            let path = transfer.place == .cold ? task.file : try overlaid()
            let file = try open(path, O_RDONLY)
            if transfer.order != .sequential {
                posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_RANDOM)
            }
            try cool(file)
            return file
        case .disk:
            return try open(task.file, O_RDONLY | direct)
        case .ram:
            guard let device = task.device else { throw Skip("no device in memory") }
            return try open(device, O_RDONLY | direct)
        case .tmpfs:
            return try inMemory()
        case .growing:
            let path = "\(task.folder)/growing"
            close(try Trouble.check(path, Glibc.open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)))
            defer { unlink(path) }
            return OpenFile(
                descriptor: try open(path, O_WRONLY | direct).descriptor, bytes: Int.max >> 1)
        case .written:
            let path = "\(task.folder)/written"
            try fill(path, bytes: Self.cachedBytes)
            return try open(path, O_RDWR | direct)
        case .many, .manyCold:
            let path = "\(task.folder)/many-\(number)"
            try fill(path, bytes: Self.bytesOfMany)
            let file = try open(path, O_RDONLY | direct)
            if transfer.isDirect { return file }
            if transfer.place == .many { return try warmed(file) }
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_RANDOM)
            try cool(file)
            return file
        case .none:
            throw Skip("it has no file")
        }
    }

    private func open(_ path: String, _ flags: Int32) throws -> OpenFile {
        let descriptor = Glibc.open(path, flags | O_CLOEXEC)
        if descriptor < 0 && errno == EINVAL && flags & Int32(IOCTX_O_DIRECT) != 0 {
            throw Skip("the file system of '\(path)' refuses O_DIRECT")
        }
        try Trouble.check(path, descriptor)
        return OpenFile(descriptor: descriptor, bytes: Int(lseek(descriptor, 0, SEEK_END)))
    }

    private func fill(_ path: String, bytes: Int) throws {
        let descriptor = try Trouble.check(
            path, Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600))
        defer { close(descriptor) }
        if lseek(descriptor, 0, SEEK_END) != bytes {
            try TestFile.fill(descriptor, bytes: bytes)
        }
    }

    // MARK: The page cache

    private func warmed(_ file: OpenFile) throws -> OpenFile {
        let bytes = min(file.bytes, Self.cachedBytes)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var offset = 0
        while offset < bytes {
            let got = pread(file.descriptor, buffer, min(1 << 20, bytes - offset), offset)
            if got <= 0 { throw Trouble("reading the test file: \(Trouble.words(errno))") }
            offset += got
        }
        let resident = benchmark_resident_bytes(file.descriptor, bytes)
        guard resident >= bytes else {
            throw Trouble("the file does not stay in the page cache: free some memory")
        }
        return OpenFile(descriptor: file.descriptor, bytes: bytes)
    }

    private func cool(_ file: OpenFile) throws {
        for _ in 0..<10 {
            posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let resident = benchmark_resident_bytes(file.descriptor, file.bytes)
            if resident < 0 { throw Trouble("mincore: \(Trouble.words(Int32(resident)))") }
            // A page or two may be in somebody's hands.
            if resident <= file.bytes / 1000 { return }
            usleep(10_000)
        }
        throw Skip("'\(task.file)' does not leave the page cache: it may be mapped, or in memory")
    }

    // MARK: Other file systems

    private func overlaid() throws -> String {
        if geteuid() != 0 { throw Skip("needs root, to mount overlayfs") }
        try Skip.check("a mount name space", testbed_private_mounts())
        let folders = ["upper", "work", "merged"].map { "\(task.folder)/\($0)" }
        for folder in folders { mkdir(folder, 0o700) }
        guard let slash = task.file.lastIndex(of: "/") else { throw Skip("no folder") }
        let options =
            "lowerdir=\(task.file[..<slash]),upperdir=\(folders[0]),workdir=\(folders[1])"
        try Skip.check(
            "mounting overlayfs", testbed_mount("none", folders[2], "overlay", options))
        return folders[2] + task.file[slash...]
    }

    private func inMemory() throws -> OpenFile {
        var status = statfs()
        guard statfs("/dev/shm", &status) == 0, status.f_type == 0x0102_1994 else {
            throw Skip("/dev/shm is no tmpfs")
        }
        let path = "/dev/shm/ioctx-bench-\(getpid())"
        let descriptor = try Trouble.check(
            path, Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600))
        unlink(path)
        try TestFile.fill(descriptor, bytes: Self.cachedBytes)
        return OpenFile(descriptor: descriptor, bytes: Self.cachedBytes)
    }
}

enum TestFile {
    /// Bytes that no device can compress or share. `look` is called now and then.
    static func fill(_ descriptor: Int32, bytes: Int, look: () -> Void = {}) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var offset = 0
        var generator = SystemRandomNumberGenerator()
        let words = buffer.bindMemory(to: UInt64.self)
        for index in words.indices { words[index] = generator.next() }
        while offset < bytes {
            // Each piece differs from the others.
            for index in stride(from: 0, to: words.count, by: 64) { words[index] &+= 1 }
            let count = min(buffer.count, bytes - offset)
            guard pwrite(descriptor, buffer.baseAddress, count, offset) == count else {
                throw Trouble("writing the test file: \(Trouble.words(errno))")
            }
            offset += count
            look()
        }
        guard fsync(descriptor) == 0 else {
            throw Trouble("writing the test file: \(Trouble.words(errno))")
        }
    }
}

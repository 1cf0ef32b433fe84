// What a run makes in the file system, and takes away again.

import CTestBed
import Glibc
import TestBed

public final class Scratch {
    public let folder: String
    /// In the file system of the run; `folder` may be on a disk that is made in it.
    private let top: String
    private var slowDisk: SlowDisk?
    private let given: String?
    private let fileBytes: Int?
    private var filled = 0
    private var zram: ZRAM?
    private var loop: Int32 = -1
    private var devicePath: String?
    /// Called while something is made that takes long.
    var look: () -> Void = {}
    /// Those at work in it.
    var children: Set<pid_t> = []

    private static let diskBytes = 1 << 30
    private static let deviceBytes = 64 << 20
    /// For files beside the large one, as they grow.
    private static let slowDiskBytes = 1 << 30

    /// An empty folder in `parent`, or on a disk of its own that takes `slowDiskUs` microseconds
    /// for each transfer. `file` is one to read from, made here where it is nil. Throws Trouble.
    public init(in parent: String, file: String?, fileBytes: Int?, slowDiskUs: Int?) throws {
        var template = Array("\(parent)/ioctx-bench-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw Trouble("a folder in '\(parent)': \(Trouble.words(errno))")
        }
        top = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        given = file
        self.fileBytes = fileBytes
        if let slowDiskUs {
            do {
                let disk = try SlowDisk(
                    in: top, bytes: (fileBytes ?? Self.diskBytes) + Self.slowDiskBytes,
                    transferUs: UInt32(clamping: slowDiskUs))
                slowDisk = disk
                folder = disk.folder
            } catch let skip as Skip {
                Folder.remove(top)
                throw Trouble("a slow disk: \(skip.reason)")
            }
        } else {
            folder = top
        }
        mkdir("\(folder)/lower", 0o700)
    }

    /// Kills those who are at work.
    func endChildren() {
        for child in children {
            // It is a session of its own, with whatever it has started.
            kill(-child, SIGKILL)
            var status: Int32 = 0
            while waitpid(child, &status, 0) == child && status & 0xff == 0x7f {}
        }
        children = []
    }

    /// Removes everything. For a signal's way out, too.
    public func remove() {
        endChildren()
        zram?.remove()
        zram = nil
        if loop >= 0 { close(loop) }
        slowDisk?.remove()
        slowDisk = nil
        Folder.remove(top)
    }

    /// The file for a case about `place`, as large as that needs.
    func file(for place: Place) throws -> String {
        if let given {
            if [.growing, .written, .many, .manyCold].contains(place) {
                throw Skip("--file is only read from")
            }
            return given
        }
        let path = "\(folder)/lower/file"
        let wanted: Int
        switch place {
        case .cached, .overlay: wanted = min(Setting.cachedBytes, fileBytes ?? Setting.cachedBytes)
        case .cold, .coldOverlay, .disk: wanted = fileBytes ?? Self.diskBytes
        default: wanted = 0
        }
        if wanted > filled {
            let descriptor = try Trouble.check(
                path, open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600))
            defer { close(descriptor) }
            var space = statvfs()
            if fstatvfs(descriptor, &space) == 0,
                UInt64(space.f_bavail) * UInt64(space.f_frsize) < UInt64(wanted - filled)
            {
                throw Trouble("'\(folder)' has too little room: choose a --dir, or a --size")
            }
            try TestFile.fill(descriptor, bytes: wanted, look: look)
            filled = wanted
        }
        return path
    }

    /// A block device in memory: zram, else a loop device on tmpfs.
    func device() throws -> String {
        if let devicePath { return devicePath }
        if geteuid() != 0 { throw Skip("needs root, to make a block device in memory") }
        let path: String
        if let made = try? ZRAM(bytes: Self.deviceBytes) {
            zram = made
            path = made.path
        } else {
            path = try loopDevice()
        }
        let descriptor = try Trouble.check(path, open(path, O_RDWR | O_CLOEXEC))
        defer { close(descriptor) }
        try TestFile.fill(descriptor, bytes: Self.deviceBytes)
        // With pages of it in the cache, every direct read has them looked through.
        posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
        devicePath = path
        return path
    }

    private func loopDevice() throws -> String {
        let memory = testbed_memfd("device")
        if memory < 0 { throw Skip("memfd_create: \(Trouble.words(memory))") }
        defer { close(memory) }
        ftruncate(memory, Self.deviceBytes)
        do {
            let device = try LoopDevice(over: memory)
            loop = device.descriptor
            return device.path
        } catch let skip as Skip {
            throw Skip("no zram, and \(skip.reason)")
        }
    }
}

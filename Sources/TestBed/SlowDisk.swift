// A disk in memory whose transfers take as long as one likes, with an ext4 on it, which root may
// add: what a program gains depends on how long its disk takes.
//
// A file that answers late (slow_file.c), and a loop device on it. The mounts are in a name space
// of the process's own, the device goes with the last that has it open, and the server of the file
// ends with the process: a crash leaves an empty folder and an empty file behind.

import CTestBed
import Glibc

public final class SlowDisk {
    /// Where the file system is mounted.
    public let folder: String
    private let file: String
    private var server: Int32 = -1

    /// Adds one of `bytes`, each of whose transfers takes `transferUs` microseconds, mounted below
    /// `parent`. Throws Skip.
    public init(in parent: String, bytes: Int, transferUs: UInt32) throws {
        guard geteuid() == 0 else { throw Skip("needs root, to make a disk") }
        folder = "\(parent)/slow"
        file = "\(parent)/slow-file"
        mkdir(folder, 0o700)
        close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600))
        try Skip.check("a mount name space", testbed_private_mounts())
        server = testbed_slow_file(file, UInt64(bytes), transferUs)
        try Skip.check("a slow file by FUSE", server)
        do {
            // With O_DIRECT the loop device has many transfers under way at once.
            let backing = open(file, O_RDWR | O_CLOEXEC | Int32(TESTBED_O_DIRECT))
            if backing < 0 { throw Skip("the slow file: \(Trouble.words(errno))") }
            defer { close(backing) }
            let device = try LoopDevice(over: backing)
            defer { close(device.descriptor) }
            try SystemProgram.run(
                "mkfs.ext4", ["-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", device.path])
            // Nobody fills in the rest of its tables while something is measured.
            try Skip.check(
                "mounting ext4", testbed_mount(device.path, folder, "ext4", "noinit_itable"))
        } catch {
            remove()
            throw error
        }
    }

    /// Takes it away again.
    public func remove() {
        if server < 0 { return }
        umount2(folder, Int32(MNT_DETACH))
        umount2(file, Int32(MNT_DETACH))
        kill(server, SIGKILL)
        waitpid(server, nil, 0)
        server = -1
        unlink(file)
        rmdir(folder)
    }
}

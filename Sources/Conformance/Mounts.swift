// File systems and devices that root can make for a case.
//
// Mounts go into a name space of the case's own process, and loop devices free themselves when
// nothing holds them, so that a crash leaves nothing behind.

import CTestBed
import Glibc
import TestBed

extension Scene {
    private func folder(_ name: String) -> String {
        let path = "\(folder)/\(name)"
        mkdir(path, 0o777)
        return path
    }

    private func image(_ bytes: Int) throws -> File {
        let image = try open("\(folder)/image", O_RDWR | O_CREAT, name: "image")
        try must("image", Int(ftruncate(image.descriptor, bytes)))
        return image
    }

    private func privateMounts() throws {
        try needRoot()
        try must("a mount name space", Int(testbed_private_mounts()))
    }

    /// A fresh file system of this type in an image, mounted.
    func mounted(_ type: String, megabytes: Int, options: [String]) throws -> String {
        if let mounted { return mounted }
        try privateMounts()
        let path = "\(folder)/image"
        let image = try image(megabytes << 20)
        try SystemProgram.run("mkfs.\(type)", options + [path])
        let device = try LoopDevice(over: image.descriptor)
        let target = folder("mounted")
        try must("mounting \(type)", Int(testbed_mount(device.path, target, type, nil)))
        close(device.descriptor)
        image.close()
        chmod(target, 0o777)
        mounted = target
        return target
    }

    func tmpfs(bytes: Int) throws -> String {
        try privateMounts()
        let target = folder("tmpfs")
        try must("mounting tmpfs", Int(testbed_mount("none", target, "tmpfs", "size=\(bytes)")))
        return target
    }

    func overlay() throws -> String {
        if let mounted { return mounted }
        try privateMounts()
        let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"))
        let target = folder("merged")
        let options = "lowerdir=\(lower),upperdir=\(upper),workdir=\(work)"
        try must("mounting overlay", Int(testbed_mount("none", target, "overlay", options)))
        mounted = target
        return target
    }

    /// A loop device over a file of 64 KiB of pattern 1.
    func loopDevice(_ flags: Int32) throws -> File {
        try needRoot()
        let backing = try regular(name: "backing \(flags)")
        // Its descriptor stays open: it is what holds the device.
        let device = try LoopDevice(over: backing.descriptor)
        backing.close()
        return try open(device.path, flags, name: "loop")
    }

    /// A compressed RAM disk of its own, which the runner takes away again.
    func zram(_ flags: Int32) throws -> File {
        try needRoot()
        let zram = try ZRAM(bytes: 1 << 20)
        Transcript.write("Z", zram.number)
        let device = try open(zram.path, O_RDWR, name: "zram")
        let buffer = Buffer(Scene.fileBytes)
        buffer.fill(seed: 1)
        Glibc.pwrite(device.descriptor, buffer.pointer, buffer.count, 0)
        Glibc.fsync(device.descriptor)
        device.close()
        return try open(zram.path, flags, name: "zram")
    }
}

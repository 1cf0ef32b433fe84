// The kinds of file that requests are made on, each ready to be read from and written to.
//
// A stream is fed before it is read and drained before it is written, because the kernel does those
// requests inside io_submit and would wait there.

import CTestBed
import CLibAIO
import Glibc
import TestBed

extension Scene {
    static let fileBytes = 65536

    /// Ends the case with an error of its own rather than a line: the machine is to blame.
    func must(_ what: String, _ result: Int) throws {
        if result < 0 { throw Skip("\(what): \(Self.value(result))") }
    }

    private func checked(_ what: String, _ result: Int32) throws -> Int32 {
        if result < 0 { throw Skip("\(what): \(Self.value(-Int(errno)))") }
        return result
    }

    func needRoot() throws {
        if geteuid() != 0 { throw Skip("needs root") }
    }

    func open(_ path: String, _ flags: Int32, name: String) throws -> File {
        let descriptor = try checked(name, Glibc.open(path, flags | O_CLOEXEC, 0o600))
        self.name(descriptor, name)
        return File(descriptor: descriptor, name: name, path: path)
    }

    func file(_ descriptor: Int32, _ name: String) -> File {
        self.name(descriptor, name)
        return File(descriptor: descriptor, name: name)
    }

    /// A file of 64 KiB, all of pattern 1, open as asked.
    func regular(
        _ flags: Int32 = O_RDWR, name: String = "file", in folder: String? = nil,
        size: Int = Scene.fileBytes
    ) throws -> File {
        let path = "\(folder ?? self.folder)/\(name)"
        let writer = try open(path, O_RDWR | O_CREAT | O_TRUNC, name: name)
        let buffer = Buffer(size)
        buffer.fill(seed: 1)
        try must("writing \(name)", Glibc.write(writer.descriptor, buffer.pointer, size))
        Glibc.fsync(writer.descriptor)
        writer.close()
        return try open(path, flags, name: name)
    }

    func direct(_ flags: Int32 = O_RDWR, in folder: String? = nil, name: String = "direct") throws
        -> File
    {
        do {
            return try regular(flags | Int32(IOCTX_O_DIRECT), name: name, in: folder)
        } catch let skip as Skip where skip.reason.hasSuffix("EINVAL") {
            throw Skip("the test folder's file system refuses O_DIRECT")
        }
    }

    func memfd() throws -> File {
        let file = self.file(try checked("memfd", testbed_memfd("suite")), "memfd")
        let buffer = Buffer(Scene.fileBytes)
        buffer.fill(seed: 1)
        Glibc.write(file.descriptor, buffer.pointer, buffer.count)
        lseek(file.descriptor, 0, SEEK_SET)
        return file
    }

    /// A descriptor's number that is not open.
    func closed() -> File {
        let descriptor = dup(STDIN_FILENO)
        close(descriptor)
        return file(descriptor, "closed")
    }

    // MARK: Streams

    private func pair(_ read: Int32, _ write: Int32, _ name: String, peer: Int32, reading: Bool)
        -> File
    {
        var result = file(reading ? read : write, name)
        let buffer = Buffer(4096)
        buffer.fill(seed: 1)
        result.feed = {
            // Exactly one piece is there to read, whatever was before.
            while testbed_bytes_readable(read) > 0 {
                if Glibc.read(read, Buffer(65536).pointer, 65536) <= 0 { break }
            }
            Glibc.write(peer, buffer.pointer, buffer.count)
        }
        result.drain = {
            while testbed_bytes_readable(peer) > 0 {
                if Glibc.read(peer, Buffer(65536).pointer, 65536) <= 0 { break }
            }
        }
        return result
    }

    func pipe() throws -> (reader: File, writer: File) {
        var ends: [Int32] = [0, 0]
        _ = try checked("pipe", Glibc.pipe(&ends))
        return (
            pair(ends[0], ends[1], "pipe", peer: ends[1], reading: true),
            pair(ends[0], ends[1], "pipe's writer", peer: ends[0], reading: false)
        )
    }

    func fifo() throws -> (reader: File, writer: File) {
        let path = "\(folder)/fifo"
        _ = try checked("mkfifo", mkfifo(path, 0o600))
        defer { unlink(path) }
        // Open both ways first, because a FIFO's open waits for the other end.
        let both = try open(path, O_RDWR, name: "fifo")
        let reader = try open(path, O_RDONLY, name: "fifo").descriptor
        let writer = try open(path, O_WRONLY, name: "fifo's writer").descriptor
        both.close()
        return (
            pair(reader, writer, "fifo", peer: writer, reading: true),
            pair(reader, writer, "fifo's writer", peer: reader, reading: false)
        )
    }

    func sockets(_ type: Int32 = Int32(SOCK_STREAM.rawValue), name: String = "socket") throws
        -> (near: File, far: File)
    {
        var ends: [Int32] = [0, 0]
        _ = try checked("socketpair", socketpair(AF_UNIX, type, 0, &ends))
        return (
            pair(ends[0], ends[0], name, peer: ends[1], reading: true),
            pair(ends[1], ends[1], "\(name)'s peer", peer: ends[0], reading: true)
        )
    }

    func tcp() throws -> (near: File, far: File) {
        let listener = try checked("socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let near = try checked("socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        let far = try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = try checked("bind", bind(listener, $0, length))
                _ = try checked("listen", listen(listener, 1))
                _ = try checked("getsockname", getsockname(listener, $0, &length))
                _ = try checked("connect", connect(near, $0, length))
                return try checked("accept", accept(listener, nil, nil))
            }
        }
        close(listener)
        // A byte sent to a peer of this machine is there at once, but not within the same call.
        var nearFile = pair(near, near, "tcp", peer: far, reading: true)
        let feed = nearFile.feed
        nearFile.feed = {
            feed()
            while testbed_bytes_readable(near) < 4096 { usleep(100) }
        }
        return (nearFile, pair(far, far, "tcp's peer", peer: near, reading: true))
    }

    func counter(_ initial: UInt32 = 0, flags: Int32 = 0, name: String = "eventfd") throws -> File {
        let descriptor = try checked("eventfd", eventfd(initial, flags))
        var result = file(descriptor, name)
        result.feed = {
            var one: UInt64 = 1
            Glibc.write(descriptor, &one, 8)
        }
        result.drain = {
            var value: UInt64 = 0
            var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if Glibc.poll(&state, 1, 0) == 1 { Glibc.read(descriptor, &value, 8) }
        }
        return result
    }

    func timer() throws -> File {
        let descriptor = try checked("timerfd", timerfd_create(CLOCK_MONOTONIC, 0))
        var result = file(descriptor, "timerfd")
        result.feed = {
            var soon = itimerspec(
                it_interval: timespec(), it_value: timespec(tv_sec: 0, tv_nsec: 1))
            timerfd_settime(descriptor, 0, &soon, nil)
            var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            Glibc.poll(&state, 1, 1000)
        }
        return result
    }

    // MARK: What is in them

    /// Writes down the size and the contents of a file.
    func contents(of file: File) {
        var status = stat()
        fstat(file.descriptor, &status)
        let size = Int(status.st_size)
        let reader = Glibc.open("/proc/self/fd/\(file.descriptor)", O_RDONLY | O_CLOEXEC)
        let buffer = Buffer(max(size, 1))
        let got = Glibc.pread(reader, buffer.pointer, size, 0)
        close(reader)
        line("\(file.name) holds \(size) bytes, \(got < 0 ? "unread" : buffer.hash(got))")
    }

    /// What an eventfd was signalled. An event may be seen just before it is counted, so this
    /// waits a little for `expected` of them.
    func count(of file: File, expected: UInt64 = 1) {
        var total: UInt64 = 0
        // None may come where none is expected, but not for long.
        let deadline = Clock.now + (expected > 0 ? Double(Self.patienceSeconds) : 0.02)
        repeat {
            var state = pollfd(fd: file.descriptor, events: Int16(POLLIN), revents: 0)
            var value: UInt64 = 0
            guard Glibc.poll(&state, 1, 10) == 1 else { continue }
            if Glibc.read(file.descriptor, &value, 8) == 8 { total &+= value }
        } while total < expected && Clock.now < deadline
        line("\(file.name): \(total)")
    }
}

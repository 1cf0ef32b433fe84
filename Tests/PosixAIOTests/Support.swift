// What the tests of this module share: requests as a program makes them, files, and engines.

import CLibAIO
import CPosixAIO
import Glibc
import JobTable
import Synchronization
import TestSupport

@testable import Paths
@testable import PosixAIO

/// The engines that have a daemon, and auto, which gives O_DIRECT to the kernel's AIO.
enum TestEngine: String, Codable, Sendable, CaseIterable {
    case uring
    case threads
    case auto

    static let available: [TestEngine] =
        SandboxProbe.tryUring() == 0 ? [.uring, .threads, .auto] : [.threads, .auto]

    /// The first line of an exit test: this process's layer uses this engine. Whatever hangs ends
    /// with SIGALRM, which is a failure.
    func use(_ variables: (String, String)...) {
        boundedInTime()
        setenv("IOCTX_ENGINE", rawValue, 1)
        for (name, value) in variables { setenv("IOCTX_\(name)", value, 1) }
    }
}

/// A struct aiocb with a buffer of its own. Never freed.
final class Block {
    let pointer: UnsafeMutableRawPointer
    let buffer: UnsafeMutableRawPointer
    let count: Int

    init(_ descriptor: Int32, _ count: Int = 4096, at offset: Int64 = 0) {
        pointer = .allocate(byteCount: 168, alignment: 8)
        memset(pointer, 0, 168)
        self.count = count
        var memory: UnsafeMutableRawPointer?
        posix_memalign(&memory, 4096, max(count, 4096))
        buffer = memory!
        memset(buffer, 0, max(count, 4096))
        ref.it.descriptor = descriptor
        ref.it.buffer = UInt(bitPattern: buffer)
        ref.it.length = count
        ref.it.offset = offset
        ref.it.notification.kind = Int32(IOCTX_SIGEV_NONE)
    }

    var address: UInt { UInt(bitPattern: pointer) }
    var ref: BlockRef { BlockRef(address: address)! }

    func fill(_ byte: UInt8) { memset(buffer, Int32(byte), count) }

    func holds(_ byte: UInt8) -> Bool {
        let bytes = buffer.assumingMemoryBound(to: UInt8.self)
        return (0..<count).allSatisfy { bytes[$0] == byte }
    }

    func read() -> Int { PosixAIO.start(address, Int32(IOCTX_AIO_READ)) }
    func write() -> Int { PosixAIO.start(address, Int32(IOCTX_AIO_WRITE)) }
    func sync(_ operation: Int32 = O_SYNC) -> Int { PosixAIO.sync(operation, address) }
    func cancel() -> Int { PosixAIO.cancel(ref.it.descriptor, address) }
    var error: Int { PosixAIO.error(address) }
    var value: Int { PosixAIO.value(address) }

    /// Waits until it is done; what aio_return says.
    func finish() -> Int {
        while error == Int(EINPROGRESS) { _ = suspend([self]) }
        return value
    }
}

func suspend(_ blocks: [Block], milliseconds: Int = -1) -> Int {
    let pointers = blocks.map(\.address)
    var time = timespec(
        tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
    return pointers.withUnsafeBufferPointer { pointers in
        withAddress(of: &time) {
            PosixAIO.suspend(
                UInt(bitPattern: pointers.baseAddress), Int32(pointers.count),
                timeout: milliseconds < 0 ? 0 : UInt(bitPattern: $0))
        }
    }
}

/// lio_listio with LIO_READ or LIO_WRITE in each block.
func list(_ blocks: [Block], isAwaited: Bool, notification: Notification? = nil) -> Int {
    let pointers = blocks.map(\.address)
    var event = notification ?? .none
    return pointers.withUnsafeBufferPointer { pointers in
        withAddress(of: &event) {
            PosixAIO.list(
                isAwaited ? Int32(IOCTX_LIO_WAIT) : Int32(IOCTX_LIO_NOWAIT),
                UInt(bitPattern: pointers.baseAddress), Int32(pointers.count),
                event: notification == nil ? 0 : UInt(bitPattern: $0), individually: true)
        }
    }
}

/// aio_waitcomplete; the address of the block that it names.
func collect(milliseconds: Int) -> (result: Int, block: UInt) {
    var block: UInt = 1
    var time = timespec(
        tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
    let result = withAddress(of: &block) { block in
        withAddress(of: &time) {
            PosixAIO.waitComplete(UInt(bitPattern: block), timeout: UInt(bitPattern: $0))
        }
    }
    return (result, block)
}

/// An unnamed file of 64 KiB, of byte 0x5a; nothing of it in the page cache.
func coldFile(_ flags: Int32 = 0) -> Int32 {
    let name = "/var/tmp/posixaio-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let writer = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    let bytes = [UInt8](repeating: 0x5a, count: 65536)
    precondition(Glibc.write(writer, bytes, bytes.count) == bytes.count)
    fsync(writer)
    posix_fadvise(writer, 0, 0, POSIX_FADV_DONTNEED)
    close(writer)
    let descriptor = open(name, O_RDWR | O_CLOEXEC | flags)
    unlink(name)
    return descriptor
}

func makePipe() -> (reader: Int32, writer: Int32) {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    return (ends[0], ends[1])
}

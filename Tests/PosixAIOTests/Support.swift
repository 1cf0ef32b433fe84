// What the tests of this module share: requests as a program makes them.

import CLibAIO
import CPosixAIO
import Glibc
import JobTable
import Synchronization
import TestSupport

@testable import Paths
@testable import PosixAIO

/// A struct aiocb with a buffer of its own, never freed; its file stays open as long as it is used.
final class Block {
    let pointer: UnsafeMutableRawPointer
    let buffer: UnsafeMutableRawPointer
    let count: Int
    let file: Descriptor?

    init(_ file: Descriptor?, _ count: Int = 4096, at offset: Int64 = 0) {
        pointer = .allocate(byteCount: 168, alignment: 8)
        memset(pointer, 0, 168)
        self.count = count
        self.file = file
        var memory: UnsafeMutableRawPointer?
        posix_memalign(&memory, 4096, max(count, 4096))
        buffer = memory!
        memset(buffer, 0, max(count, 4096))
        ref.it.descriptor = file?.number ?? -1
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

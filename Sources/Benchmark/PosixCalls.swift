// The functions of POSIX AIO that a case calls, of the C library or of the layer.

import Glibc

struct PosixCalls {
    typealias OfBlock = @convention(c) (UInt) -> Int32

    let read: OfBlock
    let write: OfBlock
    let fsync: @convention(c) (Int32, UInt) -> Int32
    let error: OfBlock
    let value: @convention(c) (UInt) -> Int
    let suspend: @convention(c) (UInt, Int32, UInt) -> Int32
    let list: @convention(c) (Int32, UInt, Int32, UInt) -> Int32

    static let cLibrary = "libc.so.6"
    static let waitForList: Int32 = 0

    init(library path: String) throws {
        let library = try Library(path)
        read = try library.function("aio_read")
        write = try library.function("aio_write")
        fsync = try library.function("aio_fsync")
        error = try library.function("aio_error")
        value = try library.function("aio_return")
        suspend = try library.function("aio_suspend")
        list = try library.function("lio_listio")
    }
}

// The functions of POSIX AIO, of the C library or of the layer. Addresses are plain numbers here,
// because cases pass bad ones, too.

public struct PosixCalls {
    /// LIO_WAIT and LIO_NOWAIT.
    public static let wait: Int32 = 0
    public static let noWait: Int32 = 1

    /// Takes the address of a struct aiocb.
    public typealias OfBlock = @convention(c) (UInt) -> Int32

    public let read: OfBlock
    public let write: OfBlock
    public let fsync: @convention(c) (Int32, UInt) -> Int32
    public let error: OfBlock
    public let value: @convention(c) (UInt) -> Int
    public let suspend: @convention(c) (UInt, Int32, UInt) -> Int32
    public let cancel: @convention(c) (Int32, UInt) -> Int32
    public let list: @convention(c) (Int32, UInt, Int32, UInt) -> Int32
    public let initialize: @convention(c) (UInt) -> Void
    /// FreeBSD's; not in the C library.
    public let readv: OfBlock?
    public let writev: OfBlock?
    public let waitcomplete: (@convention(c) (UInt, UInt) -> Int)?

    /// `suffix` is "64" for the functions with 64-bit offsets. Throws Skip where the library has
    /// no POSIX AIO.
    public init(_ library: Library, suffix: String = "") throws {
        read = try library.function("aio_read" + suffix)
        write = try library.function("aio_write" + suffix)
        fsync = try library.function("aio_fsync" + suffix)
        error = try library.function("aio_error" + suffix)
        value = try library.function("aio_return" + suffix)
        suspend = try library.function("aio_suspend" + suffix)
        cancel = try library.function("aio_cancel" + suffix)
        list = try library.function("lio_listio" + suffix)
        initialize = try library.function("aio_init")
        readv = try? library.function("aio_readv", as: OfBlock.self)
        writev = try? library.function("aio_writev", as: OfBlock.self)
        waitcomplete = try? library.function(
            "aio_waitcomplete", as: (@convention(c) (UInt, UInt) -> Int).self)
    }
}

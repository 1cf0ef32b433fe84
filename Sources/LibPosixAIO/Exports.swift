// What exports.c calls for each name of POSIX AIO. No logic here.

import CPosixAIO
import PosixAIO

@c @implementation
public func ioctx_aio_start(_ block: UnsafeMutableRawPointer?, _ which: Int32) -> Int32 {
    Int32(truncatingIfNeeded: PosixAIO.start(UInt(bitPattern: block), which))
}

@c @implementation
public func ioctx_aio_fsync(_ operation: Int32, _ block: UnsafeMutableRawPointer?) -> Int32 {
    Int32(truncatingIfNeeded: PosixAIO.sync(operation, UInt(bitPattern: block)))
}

@c @implementation
public func ioctx_aio_error(_ block: UnsafeRawPointer?) -> Int32 {
    Int32(truncatingIfNeeded: PosixAIO.error(UInt(bitPattern: block)))
}

@c @implementation
public func ioctx_aio_return(_ block: UnsafeMutableRawPointer?) -> Int {
    PosixAIO.value(UInt(bitPattern: block))
}

@c @implementation
public func ioctx_aio_suspend(
    _ list: UnsafeRawPointer?, _ count: Int32, _ timeout: UnsafeRawPointer?
) -> Int32 {
    Int32(
        truncatingIfNeeded: PosixAIO.suspend(
            UInt(bitPattern: list), count, timeout: UInt(bitPattern: timeout)))
}

@c @implementation
public func ioctx_aio_cancel(_ descriptor: Int32, _ block: UnsafeMutableRawPointer?) -> Int32 {
    Int32(truncatingIfNeeded: PosixAIO.cancel(descriptor, UInt(bitPattern: block)))
}

@c @implementation
public func ioctx_aio_waitcomplete(
    _ block: UnsafeMutableRawPointer?, _ timeout: UnsafeRawPointer?
) -> Int {
    PosixAIO.waitComplete(UInt(bitPattern: block), timeout: UInt(bitPattern: timeout))
}

@c @implementation
public func ioctx_lio_listio(
    _ mode: Int32, _ list: UnsafeRawPointer?, _ count: Int32, _ event: UnsafeRawPointer?,
    _ individually: Int32
) -> Int32 {
    Int32(
        truncatingIfNeeded: PosixAIO.list(
            mode, UInt(bitPattern: list), count, event: UInt(bitPattern: event),
            individually: individually != 0))
}

/// The destructor of the library.
@c @implementation
public func ioctx_posix_rundown(_ frame: UInt) { PosixAIO.rundown(frame: frame) }

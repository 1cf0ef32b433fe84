// The names that libaio exports in one version; versioned.c has the others. No logic here.

public import CLibAIO
import LinuxAIO

@c @implementation
public func io_setup(_ maxevents: Int32, _ contextp: UnsafeMutablePointer<io_context_t?>?) -> Int32
{
    Int32(truncatingIfNeeded: LinuxAIO.setup(maxevents, UInt(bitPattern: contextp)))
}

@c @implementation
public func io_destroy(_ context: io_context_t?) -> Int32 {
    Int32(truncatingIfNeeded: LinuxAIO.destroy(UInt(bitPattern: context)))
}

@c @implementation
public func io_submit(
    _ context: io_context_t?, _ nr: Int,
    _ iocbpp: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>?
) -> Int32 {
    Int32(
        truncatingIfNeeded: LinuxAIO.submit(UInt(bitPattern: context), nr, UInt(bitPattern: iocbpp))
    )
}

/// The kernel never writes the result: the event arrives through the ring.
@c @implementation
public func ioctx_cancel(
    _ context: io_context_t?, _ iocb: UnsafeMutablePointer<iocb>?,
    _ result: UnsafeMutablePointer<io_event>?
) -> Int32 {
    Int32(truncatingIfNeeded: LinuxAIO.cancel(UInt(bitPattern: context), UInt(bitPattern: iocb)))
}

@c @implementation
public func ioctx_getevents(
    _ context: io_context_t?, _ min_nr: Int, _ nr: Int, _ events: UnsafeMutablePointer<io_event>?,
    _ timeout: UnsafeMutablePointer<timespec>?
) -> Int32 {
    Int32(
        truncatingIfNeeded: LinuxAIO.getEvents(
            UInt(bitPattern: context), min_nr, nr, UInt(bitPattern: events),
            timeout: UInt(bitPattern: timeout), sigmask: 0))
}

@c @implementation
public func io_pgetevents(
    _ context: io_context_t?, _ min_nr: Int, _ nr: Int, _ events: UnsafeMutablePointer<io_event>?,
    _ timeout: UnsafeMutablePointer<timespec>?, _ sigmask: UnsafeMutablePointer<sigset_t>?
) -> Int32 {
    Int32(
        truncatingIfNeeded: LinuxAIO.getEvents(
            UInt(bitPattern: context), min_nr, nr, UInt(bitPattern: events),
            timeout: UInt(bitPattern: timeout), sigmask: UInt(bitPattern: sigmask)))
}

@c @implementation
public func ioctx_pgetevents(
    _ context: io_context_t?, _ min_nr: Int, _ nr: Int, _ events: UnsafeMutablePointer<io_event>?,
    _ timeout: UnsafeMutablePointer<timespec>?, _ sigset: UnsafeRawPointer?
) -> Int32 {
    Int32(
        truncatingIfNeeded: LinuxAIO.getEvents(
            UInt(bitPattern: context), min_nr, nr, UInt(bitPattern: events),
            timeout: UInt(bitPattern: timeout), sigset: UInt(bitPattern: sigset)))
}

/// libaio's io_queue_init: clears the context, which io_setup wants to find 0.
@c @implementation
public func io_queue_init(
    _ maxevents: Int32, _ contextp: UnsafeMutablePointer<io_context_t?>?
) -> Int32 {
    if maxevents <= 0 { return -EINVAL }
    if let contextp = unsafe contextp { unsafe contextp.pointee = nil }
    return unsafe io_setup(maxevents, contextp)
}

@c @implementation
public func io_queue_release(_ context: io_context_t?) -> Int32 {
    unsafe io_destroy(context)
}

/// Pops one event at a time and calls the callback in its iocb's data, until none is left.
@c @implementation
public func io_queue_run(_ context: io_context_t?) -> Int32 {
    while true {
        var event = io_event()
        var timeout = timespec(tv_sec: 0, tv_nsec: 0)
        let result = unsafe ioctx_getevents(context, 0, 1, &event, &timeout)
        if result != 1 { return result }
        unsafe ioctx_run_callback(context, &event)
    }
}

/// The destructor of the library.
@c @implementation
public func ioctx_rundown() { LinuxAIO.rundown() }

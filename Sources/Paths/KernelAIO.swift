// The kernel's own AIO, by raw system calls.
//
// Their sixth argument, of which the kernel knows nothing, exempts them from the filter by which
// libioctx-seccomp.so catches the program's.

import JobTable
import CLibAIO

/// io_setup(2) and the others, each a value or a negated errno.
public enum KernelAIO {
    /// A call of at most five arguments.
    @inline(__always)
    private static func call(
        _ number: Int32, _ a: Int, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0, _ e: Int = 0
    ) -> Int {
        systemCall(number, a, b, c, d, e, Int(IOCTX_EXEMPT))
    }

    /// True when the kernel's AIO may be asked for without being killed; nil when nobody can find
    /// out now.
    static func isUsable() -> Bool? {
        if !mayBeTrapped { return true }
        let result = SandboxProbe.runInChild { KernelAIO.trySetup() }
        return result == SandboxProbe.childless ? nil : result == 0
    }

    private static func trySetup() -> Int {
        let context = setup(events: 1)
        if context < 0 && context > -4096 { return context }
        return destroy(UInt(bitPattern: context))
    }

    /// io_setup(2). The address of the kernel's ring, or a negated errno.
    public static func setup(events: UInt32) -> Int {
        var context: UInt = 0
        let result = withAddress(of: &context) {
            call(Int32(SYS_io_setup), Int(events), $0)
        }
        return result < 0 ? result : Int(bitPattern: context)
    }

    /// io_destroy(2).
    public static func destroy(_ context: UInt) -> Int {
        call(Int32(SYS_io_destroy), Int(bitPattern: context))
    }

    /// io_submit(2); `pointers` is the address of the array.
    @inline(__always)
    public static func submit(_ context: UInt, _ count: Int, _ pointers: UInt) -> Int {
        call(
            Int32(SYS_io_submit), Int(bitPattern: context), count, Int(bitPattern: pointers))
    }

    /// io_cancel(2).
    public static func cancel(_ context: UInt, _ iocb: UInt) -> Int {
        // The kernel reads the result's address and does not write there.
        var result = io_event()
        return withAddress(of: &result) {
            call(
                Int32(SYS_io_cancel), Int(bitPattern: context), Int(bitPattern: iocb), $0)
        }
    }

    /// True when a filter may trap io_pgetevents, whose sixth argument is taken.
    public static var mayBeTrapped: Bool { System.isFiltered }

    /// io_getevents(2), or io_pgetevents(2) with the address of a signal mask of eight bytes.
    public static func getEvents(
        _ context: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt, timeout: UInt,
        sigmask: UInt
    ) -> Int {
        if sigmask == 0 {
            return call(
                Int32(SYS_io_getevents), Int(bitPattern: context), minimum, maximum,
                Int(bitPattern: events), Int(bitPattern: timeout))
        }
        var argument = (sigmask, UInt(8))
        return withAddress(of: &argument) {
            systemCall(
                Int32(SYS_io_pgetevents), Int(bitPattern: context), minimum, maximum,
                Int(bitPattern: events), Int(bitPattern: timeout), $0)
        }
    }

    /// True when the kernel's AIO does a request up to `end` without blocking its submitter: see
    /// FileFacts.
    public static func suits(
        _ descriptor: Int32, isWrite: Bool, end: Int64, isSignalled: Bool
    ) -> Bool {
        var facts = FileFacts()
        return FileFacts.of(descriptor, &facts) == 0
            && facts.suitsKernelAIO(isWrite: isWrite, end: end, isSignalled: isSignalled)
    }
}

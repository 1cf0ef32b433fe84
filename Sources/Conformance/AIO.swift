// The six calls, on either side: raw system calls, or the functions of a libaio.
//
// Pointers are plain addresses here, because many cases are about bad ones.

import CLibAIO
import Glibc
import TestBed

final class AIO {
    enum Side: String {
        case kernel, library
    }

    private typealias Setup = @convention(c) (UInt32, UInt) -> Int32
    private typealias Destroy = @convention(c) (UInt) -> Int32
    private typealias Submit = @convention(c) (UInt, Int, UInt) -> Int32
    private typealias Cancel = @convention(c) (UInt, UInt, UInt) -> Int32
    private typealias GetEvents = @convention(c) (UInt, Int, Int, UInt, UInt) -> Int32
    private typealias PGetEvents = @convention(c) (UInt, Int, Int, UInt, UInt, UInt) -> Int32

    private struct Functions {
        let setup: Setup
        let destroy: Destroy
        let submit: Submit
        let cancel: Cancel
        let getevents: GetEvents
        let pgetevents: PGetEvents
    }

    let side: Side
    private let library: Library?
    private let functions: Functions?

    /// The kernel's own.
    init() {
        side = .kernel
        library = nil
        functions = nil
    }

    /// Those of the library at `path`, found as the dynamic linker finds it.
    init(library path: String) throws {
        let library = try Library(path)
        side = .library
        self.library = library
        functions = Functions(
            setup: try library.function("io_setup"),
            destroy: try library.function("io_destroy"),
            submit: try library.function("io_submit"),
            cancel: try library.function("io_cancel"),
            getevents: try library.function("io_getevents"),
            pgetevents: try library.function("io_pgetevents"))
    }

    /// A function that is no system call, in a version of its own if that is given.
    func function<F>(_ name: String, version: String? = nil, as type: F.Type) throws -> F {
        guard let library else { throw Skip("\(name) is no system call") }
        return try library.function(name, version: version, as: type)
    }

    func setup(_ count: UInt32, _ pointer: UInt) -> Int {
        if let functions { return Int(functions.setup(count, pointer)) }
        return call(SYS_io_setup, UInt(count), pointer)
    }

    func destroy(_ context: UInt) -> Int {
        if let functions { return Int(functions.destroy(context)) }
        return call(SYS_io_destroy, context)
    }

    func submit(_ context: UInt, _ count: Int, _ pointers: UInt) -> Int {
        if let functions { return Int(functions.submit(context, count, pointers)) }
        return call(SYS_io_submit, context, UInt(bitPattern: count), pointers)
    }

    func cancel(_ context: UInt, _ iocb: UInt, _ result: UInt) -> Int {
        if let functions { return Int(functions.cancel(context, iocb, result)) }
        return call(SYS_io_cancel, context, iocb, result)
    }

    func getevents(_ context: UInt, _ least: Int, _ most: Int, _ events: UInt, _ timeout: UInt)
        -> Int
    {
        if let functions { return Int(functions.getevents(context, least, most, events, timeout)) }
        return call(
            SYS_io_getevents, context, UInt(bitPattern: least), UInt(bitPattern: most), events,
            timeout)
    }

    /// `mask` is the address of a sigset_t; its size in the kernel is 8.
    func pgetevents(
        _ context: UInt, _ least: Int, _ most: Int, _ events: UInt, _ timeout: UInt, _ mask: UInt
    ) -> Int {
        if let functions {
            return Int(functions.pgetevents(context, least, most, events, timeout, mask))
        }
        var argument: (mask: UInt, size: UInt) = (mask, 8)
        return withUnsafePointer(to: &argument) {
            call(
                SYS_io_pgetevents, context, UInt(bitPattern: least), UInt(bitPattern: most), events,
                timeout, mask == 0 ? 0 : UInt(bitPattern: $0))
        }
    }

    private func call(
        _ number: Int32, _ a: UInt, _ b: UInt = 0, _ c: UInt = 0, _ d: UInt = 0, _ e: UInt = 0,
        _ f: UInt = 0
    ) -> Int {
        ioctx_syscall(
            Int(number), Int(bitPattern: a), Int(bitPattern: b), Int(bitPattern: c),
            Int(bitPattern: d), Int(bitPattern: e), Int(bitPattern: f))
    }
}

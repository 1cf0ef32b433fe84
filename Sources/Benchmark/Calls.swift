// The two sides: io_setup and its like of a libaio, or the system calls.

import CBenchmark
import Glibc
import TestBed

/// Addresses of the functions that a case calls, so that both sides cost the same to reach.
struct Calls {
    typealias Setup = @convention(c) (Int32, UnsafeMutablePointer<UInt>) -> Int32
    typealias Destroy = @convention(c) (UInt) -> Int32
    typealias Submit =
        @convention(c) (
            UInt, Int, UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
        ) -> Int32
    typealias GetEvents =
        @convention(c) (
            UInt, Int, Int, UnsafeMutablePointer<io_event>, UnsafeMutablePointer<timespec>?
        ) -> Int32

    let setup: Setup
    let destroy: Destroy
    let submit: Submit
    let getevents: GetEvents

    /// The system calls.
    init() {
        setup = { benchmark_raw_setup($0, $1) }
        destroy = { benchmark_raw_destroy($0) }
        submit = { benchmark_raw_submit($0, $1, $2) }
        getevents = { benchmark_raw_getevents($0, $1, $2, $3, $4) }
    }

    init(library path: String) throws {
        let library = try Library(path)
        setup = try library.function("io_setup")
        destroy = try library.function("io_destroy")
        submit = try library.function("io_submit")
        getevents = try library.function("io_getevents")
    }

    /// A context for `count` requests.
    func context(_ count: Int) throws -> UInt {
        var context: UInt = 0
        let result = setup(Int32(count), &context)
        if result == -ENOSYS { throw Skip("io_setup is missing here, or forbidden") }
        if result < 0 { throw Trouble("io_setup(\(count)): \(Trouble.words(result))") }
        return context
    }
}

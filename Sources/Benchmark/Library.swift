// A library that a side is measured with.

import CBenchmark
import CConformance
import Glibc
import TestBed

struct Library {
    private let path: String
    private let handle: UnsafeMutableRawPointer

    init(_ path: String) throws {
        // Its own functions before this program's, which has the layer in itself.
        guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | Int32(CONFORMANCE_DEEPBIND)) else {
            throw Trouble("\(path) cannot be loaded: \(String(cString: dlerror()))")
        }
        self.path = path
        self.handle = handle
    }

    /// A function of the library's own: the dynamic linker would also give one of those that it
    /// needs, and so the C library's POSIX AIO for that of a library which has none.
    func function<F>(_ name: String, _ type: F.Type = F.self) throws -> F {
        guard let symbol = dlsym(handle, name), benchmark_is_of(handle, symbol) != 0 else {
            throw Skip("\(path) has no \(name)")
        }
        return unsafeBitCast(symbol, to: type)
    }
}

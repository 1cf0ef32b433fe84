// A library that a case is run on: a libaio, or one with POSIX AIO.

import CTestBed
import Glibc

/// It stays loaded.
public struct Library {
    /// The C library, under the name that loads it.
    public static let ofC = "libc.so.6"

    /// "glibc 2.36" and the like.
    public static var versionOfC: String {
        var text = [CChar](repeating: 0, count: 64)
        confstr(Int32(_CS_GNU_LIBC_VERSION), &text, text.count)
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
    }

    private let path: String
    private let handle: UnsafeMutableRawPointer

    /// Loads it as the dynamic linker would: `path` may be a bare name. Throws Trouble.
    public init(_ path: String) throws {
        // Its own functions before this program's, which has the layer in itself.
        guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | Int32(TESTBED_DEEPBIND)) else {
            throw Trouble("the library cannot be loaded: \(String(cString: dlerror()))")
        }
        self.path = path
        self.handle = handle
    }

    /// A function of the library's own, in a version of its own if that is given. Throws Skip when
    /// it has none, even where one that it needs has: the C library's POSIX AIO would stand for
    /// that of every library.
    public func function<F>(
        _ name: String, version: String? = nil, as type: F.Type = F.self
    ) throws -> F {
        guard let symbol = testbed_symbol(handle, name, version) else {
            throw Skip("\(path) has no \(name)")
        }
        return unsafeBitCast(symbol, to: type)
    }
}

// Loop devices, which root may add.

import CTestBed
import Glibc

/// A block device over a file. It goes when nobody has it open any more.
public struct LoopDevice {
    /// Holds the device; the owner closes it.
    public let descriptor: Int32
    public let path: String

    /// Over an open file, with O_DIRECT if that has it. Throws Skip.
    public init(over file: Int32) throws {
        var name = [CChar](repeating: 0, count: 64)
        descriptor = testbed_loop(file, &name, name.count)
        try Skip.check("a loop device", descriptor)
        path = String(decoding: name.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
    }
}

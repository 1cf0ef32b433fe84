// Memory that requests read into and write from.

import Glibc

/// Aligned for O_DIRECT, with the one vector that a request of the lower layers names it by.
public final class Buffer {
    public let bytes: UnsafeMutableRawBufferPointer
    public let vector: UnsafeMutablePointer<iovec>

    public init(_ count: Int, filledWith value: UInt8 = 0) {
        bytes = .allocate(byteCount: count, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: value)
        vector = .allocate(capacity: 1)
        vector.initialize(to: iovec(iov_base: bytes.baseAddress, iov_len: count))
    }

    deinit {
        bytes.deallocate()
        vector.deallocate()
    }

    public func isFilled(with value: UInt8, _ count: Int? = nil) -> Bool {
        bytes[..<(count ?? bytes.count)].allSatisfy { $0 == value }
    }
}

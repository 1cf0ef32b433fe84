// A regular file as bytes in memory, and integers in them. Files are looked at that others made:
// no offset in them is believed.

import Glibc

/// Mapped for as long as this lives.
final class MappedFile {
    let bytes: UnsafeRawBufferPointer
    let mode: mode_t

    /// Nil for what is empty, no regular file, or cannot be read.
    init?(_ path: Path) {
        let descriptor = path.withCString { open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            status.st_size > 0,
            let memory = mmap(nil, Int(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0),
            memory != MAP_FAILED
        else { return nil }
        bytes = UnsafeRawBufferPointer(start: memory, count: Int(status.st_size))
        mode = status.st_mode
    }

    deinit {
        munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
    }
}

extension UnsafeRawBufferPointer {
    /// A little-endian integer of that type; 0 outside.
    func integer<T: FixedWidthInteger>(at offset: Int, _: T.Type) -> Int {
        guard offset >= 0, offset <= count - MemoryLayout<T>.size else { return 0 }
        return Int(
            truncatingIfNeeded: T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self)))
    }

    /// Nil where not all of it is inside, or it is empty.
    func part(from offset: Int, _ length: Int) -> UnsafeRawBufferPointer? {
        guard offset >= 0, length > 0, offset <= count, length <= count - offset else {
            return nil
        }
        return UnsafeRawBufferPointer(rebasing: self[offset..<offset + length])
    }

    /// The bytes from there to the next zero; none outside.
    func string(at offset: Int) -> UnsafeRawBufferPointer {
        let from = offset < 0 ? count : Swift.min(offset, count)
        return UnsafeRawBufferPointer(rebasing: self[from...].prefix { $0 != 0 })
    }
}

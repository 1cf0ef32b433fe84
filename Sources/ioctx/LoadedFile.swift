// A regular file as bytes in memory, and integers in them. Files are looked at that others made:
// no offset in them is believed.

import Glibc

/// Read as a whole, for as long as this lives: the pages of a mapping would go with those of a
/// file that somebody shortens.
final class LoadedFile {
    let bytes: UnsafeRawBufferPointer
    let mode: mode_t

    /// Nil for what is empty, no regular file, or cannot be read.
    init?(_ path: Path) {
        let descriptor = path.withCString { open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            status.st_size > 0, let memory = malloc(Int(status.st_size))
        else { return nil }
        var count = 0
        while count < status.st_size {
            let got = read(descriptor, memory + count, Int(status.st_size) - count)
            if got < 0 {
                free(memory)
                return nil
            }
            if got == 0 { break }
            count += got
        }
        bytes = UnsafeRawBufferPointer(start: memory, count: count)
        mode = status.st_mode
    }

    deinit { free(UnsafeMutableRawPointer(mutating: bytes.baseAddress)) }
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

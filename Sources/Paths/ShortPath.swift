// A path of a few parts, made on the stack: nothing may be allocated on the way of a request.

import CLibAIO
import JobTable

/// At most 63 bytes; what does not fit is left out, and such a path leads nowhere.
struct ShortPath {
    /// Ends with a zero.
    private var bytes = InlineArray<64, UInt8>(repeating: 0)
    private var count = 0

    init(_ text: StaticString) {
        append(text)
    }

    /// The link that tells what a descriptor of the calling thread leads to (proc_pid_fd(5)). It
    /// may have left the process's table, and the thread that /proc/self shows may have ended.
    init(ofDescriptor descriptor: Int32) {
        self.init("/proc/thread-self/fd/")
        append(UInt32(bitPattern: descriptor))
    }

    mutating func append(_ text: StaticString) {
        for index in 0..<text.utf8CodeUnitCount { append(unsafe text.utf8Start[index]) }
    }

    /// The number in decimal.
    mutating func append(_ number: UInt32) {
        if number >= 10 { append(number / 10) }
        append(UInt8(truncatingIfNeeded: 48 &+ number % 10))
    }

    private mutating func append(_ byte: UInt8) {
        if count >= bytes.count &- 1 { return }
        bytes[count] = byte
        count &+= 1
    }

    /// Where the link leads: the length of its text, of which at most `room` bytes are stored, or a
    /// negated errno.
    mutating func readLink(into target: Int, room: Int) -> Int {
        withAddress(of: &bytes) {
            systemCall(Int32(SYS_readlinkat), Int(AT_FDCWD), $0, target, room)
        }
    }

    /// The first bytes of the file, as many as `target` has room for: their number, or a negated
    /// errno.
    mutating func readFile(into target: Int, room: Int) -> Int {
        if !System.mayOpenFiles { return failure(EPERM) }
        let file = withAddress(of: &bytes) {
            systemCall(Int32(SYS_openat), Int(AT_FDCWD), $0, Int(O_RDONLY | O_CLOEXEC))
        }
        if file < 0 { return file }
        let result = systemCall(Int32(SYS_read), file, target, room)
        System.close(Int32(truncatingIfNeeded: file))
        return result
    }
}

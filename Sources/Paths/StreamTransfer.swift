// Reads and writes of files that may have no positions: pipes, sockets, terminals, files in /proc
// and the like. Where they may block, without waiting.

import CLibAIO
import JobTable

enum StreamTransfer {
    /// The bytes moved, 0 at end of file, -EAGAIN when the file is not ready, or another error.
    /// -EOPNOTSUPP for a write to a pipe that was opened by a path, which cannot be told not to
    /// wait: it is ready when there is room for a page, and waits when that is not enough.
    static func attempt(
        isWrite: Bool, _ descriptor: Int32, _ vectors: UInt, _ count: Int, _ offset: Int64,
        _ rwFlags: Int32
    ) -> Int {
        let flags = rwFlags | Int32(IOCTX_RWF_NOWAIT)
        let result = transfer(isWrite, descriptor, vectors, count, offset, flags)
        if result != failure(EOPNOTSUPP) { return result }
        // The file cannot be told not to wait, unless it never does.
        if System.fileFlags(descriptor) & Int(O_NONBLOCK) != 0 {
            return transfer(isWrite, descriptor, vectors, count, offset, rwFlags)
        }
        // It can be asked whether it would.
        if isWrite && isPipe(descriptor) { return result }
        let wanted = UInt32(isWrite ? POLLOUT : POLLIN)
        if System.readiness(of: descriptor, wanted) == 0 { return failure(EAGAIN) }
        return transfer(isWrite, descriptor, vectors, count, offset, rwFlags)
    }

    private static func isPipe(_ descriptor: Int32) -> Bool {
        var status = FileStatus()
        return status.look(at: descriptor) == 0 && status.type == FileType.pipe
    }

    /// Some of these files have positions and some do not; the kernel's AIO ignores the offset
    /// of those that do not.
    static func transfer(
        _ isWrite: Bool, _ descriptor: Int32, _ vectors: UInt, _ count: Int, _ offset: Int64,
        _ rwFlags: Int32
    ) -> Int {
        let result = System.transfer(
            isWrite: isWrite, descriptor, vectors, count, offset, rwFlags)
        if result == 0 && isWrite && offset == -1 {
            return sendNothing(descriptor, vectors, count, rwFlags) ?? result
        }
        if result != failure(ESPIPE) || offset == -1 { return result }
        return System.transfer(isWrite: isWrite, descriptor, vectors, count, -1, rwFlags)
    }

    /// A write of no bytes to a socket, which pwritev2 does not pass on: it sends an empty
    /// datagram, or nothing. nil for another file, and for a write that is not empty.
    private static func sendNothing(
        _ descriptor: Int32, _ vectors: UInt, _ count: Int, _ rwFlags: Int32
    ) -> Int? {
        for index in 0..<UInt(bitPattern: count) {
            let vector = Ref<Vector>(
                address: vectors &+ index &* UInt(MemoryLayout<Vector>.stride))
            if vector?.it.length != 0 { return nil }
        }
        let flags =
            (rwFlags & Int32(IOCTX_RWF_NOWAIT) != 0 ? Int(MSG_DONTWAIT) : 0)
            | (rwFlags & Int32(IOCTX_RWF_NOSIGNAL) != 0 ? Int(MSG_NOSIGNAL) : 0)
        let result = systemCall(Int32(SYS_sendto), Int(descriptor), 0, 0, flags, 0, 0)
        return result == failure(ENOTSOCK) ? nil : result
    }
}

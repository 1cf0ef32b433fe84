// Files of /proc and /sys, which are read whole.

import Glibc

enum SystemFile {
    /// All of a file; nil with errno set.
    static func contents(of path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &room, room.count)
            if count < 0 { return nil }
            if count == 0 { return bytes }
            bytes += room[..<count]
        }
    }

    static func text(of path: String) -> String? {
        contents(of: path).map { String(decoding: $0, as: UTF8.self) }
    }
}

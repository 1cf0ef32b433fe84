// What /proc says of another process: its mappings, and the files there that are read whole.

import Glibc

enum ProcessFile {
    /// All of a file of /proc; nil with errno set.
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
}

/// A line of /proc/PID/maps (proc_pid_maps(5)) that has a name.
struct Mapping {
    let start: UInt
    let isExecutable: Bool
    let name: String

    /// Those of a process, in the order of their addresses; nil with errno set.
    static func all(of pid: pid_t) -> [Mapping]? {
        guard let bytes = ProcessFile.contents(of: "/proc/\(pid)/maps") else { return nil }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", maxSplits: 5)
            guard fields.count == 6,
                let start = UInt(fields[0].prefix { $0 != "-" }, radix: 16)
            else { return nil }
            return Mapping(
                start: start, isExecutable: fields[1].contains("x"),
                name: String(fields[5].trimmingPrefix(while: { $0 == " " })))
        }
    }
}

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

    /// What it was started with; empty where that cannot be read.
    static func environment(of pid: pid_t) -> [String: String] {
        var result: [String: String] = [:]
        let entries = ProcessFile.contents(of: "/proc/\(pid)/environ") ?? []
        for entry in entries.split(separator: 0) {
            let pair = String(decoding: entry, as: UTF8.self).split(separator: "=", maxSplits: 1)
            if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
        }
        return result
    }

    /// Why a process cannot be looked at; `condition` is what its user needs beyond being that.
    static func unreadable(_ pid: pid_t, _ error: Int32, condition: String = "") -> Failure {
        if error == ENOENT || error == ESRCH {
            return Failure("there is no process \(pid): look for its number with pgrep")
        }
        return Failure(
            "cannot read the memory of process \(pid): \(Failure.describe(error)); run this as "
                + "root, or as the process's user\(condition)")
    }
}

/// A line of /proc/PID/maps (proc_pid_maps(5)) that has a name.
struct Mapping {
    let start: UInt
    let isExecutable: Bool
    let name: String

    /// Those of a process, in the order of their addresses.
    static func all(of pid: pid_t) throws(Failure) -> [Mapping] {
        guard let bytes = ProcessFile.contents(of: "/proc/\(pid)/maps") else {
            throw ProcessFile.unreadable(pid, errno)
        }
        if bytes.isEmpty {
            throw Failure(
                "process \(pid) has no memory: it has ended, or is one of the kernel's; "
                    + "look for its number with pgrep")
        }
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

// What /proc says of another process.

import Glibc

enum ProcessFile {
    /// What it was started with; empty where that cannot be read.
    static func environment(of pid: pid_t) -> [String: String] {
        var result: [String: String] = [:]
        let entries = SystemFile.contents(of: "/proc/\(pid)/environ") ?? []
        for entry in entries.split(separator: 0) {
            let pair = String(decoding: entry, as: UTF8.self).split(separator: "=", maxSplits: 1)
            if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
        }
        return result
    }

    static func absent(_ number: String) -> Failure {
        Failure("there is no process \(number): look for its number with pgrep")
    }

    /// Why a process cannot be looked at; `condition` is what its user needs beyond being that.
    static func unreadable(_ pid: pid_t, _ error: Int32, condition: String = "") -> Failure {
        if error == ENOENT || error == ESRCH {
            return absent("\(pid)")
        }
        return Failure(
            "cannot read the memory of process \(pid): \(Failure.describe(error)); run this as "
                + "root, or as the process's user\(condition)")
    }
}

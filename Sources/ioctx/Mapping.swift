// What a process has mapped, as /proc lists it.

import Glibc

/// A line of /proc/PID/maps (proc_pid_maps(5)) that has a name.
struct Mapping {
    let start: UInt
    let isExecutable: Bool
    let name: String

    /// Those of a process, in the order of their addresses.
    static func all(of pid: pid_t) throws(Failure) -> [Mapping] {
        guard let text = SystemFile.text(of: "/proc/\(pid)/maps") else {
            throw ProcessFile.unreadable(pid, errno)
        }
        if text.isEmpty {
            throw Failure(
                "process \(pid) has no memory: it has ended, or is one of the kernel's; "
                    + "look for its number with pgrep")
        }
        return text.split(separator: "\n").compactMap { line in
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

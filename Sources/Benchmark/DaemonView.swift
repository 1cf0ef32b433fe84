// What the layer's daemon holds, as the kernel shows it in /proc.

import Glibc
import TestBed

struct DaemonView {
    /// Files that it keeps for requests: in its ring's table, or in its own table of descriptors.
    private(set) var files = 0
    /// Files whose readiness it waits for.
    private(set) var polls = 0

    private static let name = "aiod/0"

    init() {
        for thread in Self.entries("/proc/self/task") {
            let folder = "/proc/self/task/\(thread)"
            if TextFile.lines("\(folder)/comm").first != Self.name { continue }
            for descriptor in Self.entries("\(folder)/fdinfo") {
                count(TextFile.lines("\(folder)/fdinfo/\(descriptor)"))
            }
        }
    }

    /// An io_uring lists its files by number and its polls after a heading, an epoll set its files
    /// as "tfd".
    private mutating func count(_ lines: [String]) {
        let slots = lines.count { line in
            line.first == " "
                && line.split(separator: ":").first.map {
                    $0.allSatisfy { $0 == " " || $0.isNumber }
                } == true
        }
        // A descriptor that is not a ring with files is a file itself.
        files += max(slots, 1)
        polls += lines.count { $0.hasPrefix("tfd:") }
        if let heading = lines.firstIndex(of: "PollList:") {
            polls += lines[heading...].count { $0.hasPrefix("  op=") }
        }
    }

    private static func entries(_ folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }
}

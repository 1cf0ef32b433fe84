// On what the numbers were taken.

import Glibc
import TestBed

public struct Machine: Encodable, Sendable {
    public let kernel: String
    public let processor: String
    public let processors: Int
    /// Of the test files.
    public let fileSystem: String

    public init(kernel: String, folder: String) {
        self.kernel = kernel
        processor =
            TextFile.lines("/proc/cpuinfo").first { $0.hasPrefix("model name") }
            .flatMap { $0.split(separator: ":", maxSplits: 1).last }
            .map { String($0.drop { $0 == " " }) } ?? "unknown processor"
        processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        // The mount whose point is the longest beginning of the folder's name; the last of equals.
        var best = (length: 0, type: "unknown file system")
        for line in TextFile.lines("/proc/self/mounts") {
            let words = line.split(separator: " ")
            guard words.count > 2 else { continue }
            let point = words[1] == "/" ? "" : words[1]
            if folder == point || folder.hasPrefix("\(point)/"), words[1].count >= best.length {
                best = (words[1].count, String(words[2]))
            }
        }
        fileSystem = best.type
    }
}

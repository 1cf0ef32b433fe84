// Files of /proc and the like, which have no size to ask for.

import Glibc

public enum TextFile {
    /// The lines of a file, without their ends; none of one that cannot be read.
    public static func lines(_ path: String) -> [String] {
        guard let file = fopen(path, "re") else { return [] }
        defer { fclose(file) }
        var lines: [String] = []
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { free(line) }
        while getline(&line, &room, file) > 0 {
            lines.append(String(String(cString: line!).prefix { $0 != "\n" }))
        }
        return lines
    }
}

// The patterns of --only, by the C library's fnmatch.

import Glibc

enum Pattern {
    static func matches(_ pattern: String, _ name: String) -> Bool {
        let isPlain = !pattern.contains { "*?[".contains($0) }
        return fnmatch(isPlain ? "*\(pattern)*" : pattern, name, 0) == 0
    }
}

// The patterns of case names, by the C library's fnmatch.

import Glibc

public enum Pattern {
    public static func matches(_ pattern: String, _ name: String) -> Bool {
        let isPlain = !pattern.contains { "*?[".contains($0) }
        return fnmatch(isPlain ? "*\(pattern)*" : pattern, name, 0) == 0
    }
}

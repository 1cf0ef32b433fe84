// Programs that an administrator has, such as those that make file systems.

import CTestBed
import Glibc

public enum SystemProgram {
    /// Runs one by its name until it ends, with nothing to read and nobody to hear it. Throws Skip
    /// where there is none, or it fails.
    public static func run(_ name: String, _ arguments: [String]) throws {
        for folder in ["/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
            let path = "\(folder)/\(name)"
            guard access(path, X_OK) == 0 else { continue }
            let words = ([path] + arguments).map { strdup($0) } + [nil]
            let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
            let child = testbed_spawn(path, words, -1, null)
            close(null)
            for word in words { free(word) }
            var status: Int32 = 0
            guard child >= 0, waitpid(child, &status, 0) == child, status == 0 else {
                throw Skip("\(name) \(arguments.joined(separator: " ")) fails")
            }
            return
        }
        throw Skip("needs \(name)")
    }
}

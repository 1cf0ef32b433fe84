// Numbers on the command line. Of a wrong one the parser says that it is invalid; these say what
// is valid.

import ArgumentParser
import Glibc

enum NumberArgument {
    @Sendable static func whole(_ text: String) throws -> Int {
        guard let number = Int(text) else { throw ValidationError("it must be a whole number") }
        return number
    }

    @Sendable static func seconds(_ text: String) throws -> Double {
        guard let number = Double(text) else {
            throw ValidationError("it must be a number of seconds, such as 0.4")
        }
        return number
    }

    @Sendable static func bytes(_ text: String) throws -> ByteCount {
        guard let count = ByteCount(text) else {
            throw ValidationError(
                "it must be a whole number of bytes, or one that ends in k, m, g or t")
        }
        return count
    }

    @Sendable static func process(_ text: String) throws -> pid_t {
        guard let number = pid_t(text) else {
            throw ValidationError("it must be the number of a process, as pgrep prints it")
        }
        return number
    }
}

// How the tool fails, and how it writes: one line that says what, where and what to do.

import FoundationEssentials
import Glibc

/// An error that ends the tool with a message and a status.
struct Failure: Error {
    let message: String
    let status: Int32

    init(_ message: String, status: Int32 = EXIT_FAILURE) {
        self.message = message
        self.status = status
    }

    /// The C library's words for an errno, positive or as the kernel returns it.
    static func describe(_ errno: Int32) -> String {
        String(cString: strerror(abs(errno)))
    }

    /// What the system refused, in its words, and what helps against it.
    static func system(_ what: String, _ errno: Int32) -> Failure {
        Failure("\(what): \(describe(errno))\(remedy(errno).map { "; \($0)" } ?? "")")
    }

    private static func remedy(_ errno: Int32) -> String? {
        switch errno {
        case ENOENT, ENOTDIR: "check the name"
        case EACCES, EPERM: "check its permissions and those of its folder"
        case EROFS: "its file system is read-only: choose another place"
        case ENOSPC: "free some space there, or choose another place"
        case EDQUOT: "free some of your quota there, or choose another place"
        case EFBIG: "raise the limit with 'ulimit -f', or choose another file system"
        case EIO: "the device reports an error: look at dmesg"
        case EINVAL: "it does not take requests of this kind"
        case EMFILE, ENFILE: "raise the limit with 'ulimit -n'"
        case EPIPE: "its reader has gone"
        case EBUSY, ETXTBSY: "it is in use: stop what uses it"
        case ENAMETOOLONG: "choose a shorter name"
        case ELOOP: "its links lead in a circle: name the file itself"
        default: nil
        }
    }

    /// Nothing can be done about a stderr that takes no bytes, so its result is dropped.
    static func report(_ line: String) {
        _ = Output.writeAll(line.onOneLine + "\n", to: STDERR_FILENO)
    }
}

extension String {
    /// With control characters, which names may have, as escapes that a reader sees and a terminal
    /// does not obey.
    var onOneLine: String {
        unicodeScalars.map { scalar in
            scalar.properties.generalCategory == .control
                ? scalar.escaped(asASCII: true) : String(scalar)
        }.joined()
    }
}

enum Output {
    static func json(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
    }

    /// Writes all of `text` to stdout: unlike print, it notices a full disk behind a redirection.
    static func write(_ text: String) throws(Failure) {
        if let error = writeAll(text, to: STDOUT_FILENO) {
            throw Failure(
                "cannot write the output: \(Failure.describe(error)); "
                    + "check where stdout is sent")
        }
    }

    /// The errno that ended it early; nil when all is written.
    static func writeAll(_ text: String, to descriptor: Int32) -> Int32? {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written >= 0 {
                rest = rest.dropFirst(written)
            } else if errno != EINTR {
                return errno
            }
        }
        return nil
    }
}

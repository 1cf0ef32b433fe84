// The command line as bytes. Swift repairs arguments that are not UTF-8, which would make a
// file name or a program's argument a different one.

import Glibc

enum RawArguments {
    /// The last `count` arguments, ended by nil as execve wants them.
    static func last(_ count: Int) -> [UnsafeMutablePointer<CChar>?] {
        let first = Int(CommandLine.argc) - count
        return (first..<Int(CommandLine.argc)).map { CommandLine.unsafeArgv[$0] } + [nil]
    }

    /// The bytes that the parser's `argument` came from.
    static func path(_ argument: String) -> Path {
        for index in 1..<Int(CommandLine.argc) {
            if let raw = CommandLine.unsafeArgv[index], String(cString: raw) == argument {
                return Path(cString: raw)
            }
        }
        return Path(argument)
    }
}

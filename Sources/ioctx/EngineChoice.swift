// The --engine option that the subcommands share, and the variable through which it works.

import ArgumentParser
import Glibc

enum EngineChoice: String, CaseIterable, ExpressibleByArgument {
    case auto, native, uring, threads, off

    static let variable = "IOCTX_ENGINE"

    /// The layer reads the variable at the first io_setup, in this process or after an exec.
    func select() {
        setenv(Self.variable, rawValue, 1)
    }
}

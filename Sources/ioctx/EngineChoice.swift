// The --engine option that the subcommands share, and the variable through which it works.

import ArgumentParser
import Glibc

/// What `ioctx run` may ask of the layer.
enum EngineChoice: String, CaseIterable, ExpressibleByArgument {
    case auto, native, uring, threads, off

    static let variable = "IOCTX_ENGINE"

    /// The layer reads the variable at the first io_setup, in this process or after an exec.
    func select() {
        setenv(Self.variable, rawValue, 1)
    }
}

/// The same for who needs an answer: `off` gives none.
enum ServingEngine: String, CaseIterable, ExpressibleByArgument {
    case auto, native, uring, threads

    func select() {
        setenv(EngineChoice.variable, rawValue, 1)
    }
}

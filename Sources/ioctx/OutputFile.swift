// A file of results beside stdout: opened before the work, so that a wrong name costs none of it.

import Glibc

final class OutputFile {
    private let path: Path
    private let descriptor: Int32
    private let isNew: Bool
    private var isWhole = false

    init(_ name: String) throws(Failure) {
        path = RawArguments.path(name)
        isNew = path.withCString { access($0, F_OK) } != 0
        descriptor = path.withCString { open($0, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644) }
        guard descriptor >= 0 else { throw Failure.system("cannot write '\(name)'", errno) }
    }

    deinit {
        close(descriptor)
        if !isWhole { discard() }
    }

    /// Makes this the whole contents.
    func commit(_ text: String) throws(Failure) {
        ftruncate(descriptor, 0)
        if let error = Output.writeAll(text, to: descriptor) {
            throw Failure.system("cannot write '\(path)'", error)
        }
        isWhole = true
    }

    /// Leaves no file where there was none.
    func discard() {
        if isNew { _ = path.withCString { unlink($0) } }
    }
}

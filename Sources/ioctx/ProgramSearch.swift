// Which file a command is, as execvp would find it, and why none is.

import Glibc

enum ProgramSearch {
    /// Finds the file that execvp would run: the first one on PATH that may be executed.
    static func find(_ name: Path) throws(Failure) -> Path {
        if name.bytes.isEmpty {
            throw Failure(
                "the name of the program is an empty string: give it",
                status: Run.ExitStatus.notFound)
        }
        let slash = UInt8(ascii: "/")
        if name.bytes.contains(slash) {
            if let error = obstacle(name) { throw cannotRun(name, error) }
            return name
        }
        // Without PATH, execvp looks in confstr(_CS_PATH), which is this in the GNU C library.
        let search = getenv("PATH").map { Path(cString: $0) } ?? Path("/bin:/usr/bin")
        var denied: Path?
        let folders = search.bytes.split(
            separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        for folder in folders {
            let candidate = Path(bytes: folder).appending(name)
            switch obstacle(candidate) {
            case nil: return candidate
            case EACCES: denied = denied ?? candidate
            default: continue
            }
        }
        if let denied { throw cannotRun(denied, EACCES) }
        throw Failure(
            "'\(name)' is not on PATH: check the name, or give the path of the program",
            status: Run.ExitStatus.notFound)
    }

    /// The errno that execve would give for this file, as far as its kind and mode decide it.
    private static func obstacle(_ path: Path) -> Int32? {
        var status = stat()
        return path.withCString { name in
            if stat(name, &status) != 0 { return errno }
            if status.st_mode & S_IFMT != S_IFREG { return EACCES }
            return faccessat(AT_FDCWD, name, X_OK, AT_EACCESS) == 0 ? nil : errno
        }
    }

    private static func cannotRun(_ path: Path, _ error: Int32) -> Failure {
        switch error {
        case ENOENT, ENOTDIR:
            return Failure(
                "'\(path)' does not exist: check the name of the command",
                status: Run.ExitStatus.notFound)
        case EACCES:
            return Failure(
                "'\(path)' is not an executable file: check its kind and mode, and that its "
                    + "file system is not mounted noexec",
                status: Run.ExitStatus.notExecutable)
        default:
            return Failure(
                "cannot run '\(path)': \(Failure.describe(error))",
                status: Run.ExitStatus.notExecutable)
        }
    }
}

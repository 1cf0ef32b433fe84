// Where this tool is, and the library beside it.

import Glibc

struct Installation {
    let tool: Path
    let library: Path

    /// With the library that is named, or the one of that name beside this tool.
    init(library named: String?, or standard: String = "libaio.so.1") throws(Failure) {
        guard let tool = Self.findTool() else {
            throw Failure("cannot find this tool without /proc: start it by its path")
        }
        let wanted = named ?? "\(tool.folder)../lib/\(standard)"
        guard let found = Path(wanted).resolved() else {
            throw Failure(
                "cannot find the library '\(wanted)': build it with Scripts/build, or name it "
                    + "with --library")
        }
        self.tool = tool
        library = found
    }

    /// The file of this tool; without /proc, the one that the shell found by its name.
    static func findTool() -> Path? {
        Path("/proc/self/exe").resolved()
            ?? RawArguments.name.flatMap { try? ProgramSearch.find($0).resolved() }
    }

    /// Where test files go, on a disk at best.
    static func testFolder(_ named: String?) throws(Failure) -> Path {
        let folder = named ?? getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
        guard let absolute = Path(folder).resolved(), access(folder, W_OK) == 0 else {
            throw Failure("cannot write in '\(folder)': name another folder with --dir")
        }
        return absolute
    }
}

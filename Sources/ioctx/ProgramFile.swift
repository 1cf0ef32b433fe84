// What must be known of a program before it is started: whether the loader will honour LD_PRELOAD,
// for the loader itself says nothing when it does not, and which libraries it will load.

import CLibAIO
import Glibc

/// Where `path` leads in the end: an ELF program, through any #! lines.
struct ProgramFile {
    /// Why a program cannot run on the layer.
    struct Refusal: Error {
        let reason: String
        /// Whether the kernel would run it.
        let isExecutable: Bool
        var isLibrary = false
    }

    /// The kernel's own limit on interpreters that are scripts themselves.
    private static let interpretersMax = 5

    /// Refuses what cannot take a preloaded library. What cannot be read (mode 0111) or is
    /// neither ELF nor a script is left to exec to judge. The file that is run in the end.
    @discardableResult
    static func check(_ path: Path) throws(Refusal) -> Path {
        var path = path
        for _ in 0...interpretersMax {
            guard let file = ProgramContents(path) else { return path }
            if let interpreter = file.scriptInterpreter {
                guard interpreter.withCString({ access($0, X_OK) }) == 0 else {
                    throw Refusal(
                        reason: "the interpreter '\(interpreter)' that the first line of "
                            + "'\(path)' names cannot be run: \(Failure.describe(errno))",
                        isExecutable: false)
                }
                path = interpreter
            } else {
                try file.checkELF()
                return path
            }
        }
        throw Refusal(
            reason: "'\(path)' is one script too many in a chain of #! interpreters",
            isExecutable: false)
    }

    /// True for a shared library, which is loaded and not run.
    static func isLibrary(_ path: Path) -> Bool {
        do {
            try check(path)
            return false
        } catch {
            return error.isLibrary
        }
    }

    /// The program and the libraries that its loader would give it, which the loader lists without
    /// running anything of the program's. The program alone where it will not, or is no loader of
    /// this system: a file may name any other file as its loader, its own author's for instance.
    static func libraries(of image: Path) -> [Path] {
        guard let contents = ProgramContents(image), let loader = try? contents.loaderName(),
            isSystemLoader(loader)
        else { return [image] }
        func quoted(_ path: Path) -> [UInt8] {
            [UInt8(ascii: "'")]
                + path.bytes.split(separator: UInt8(ascii: "'"), omittingEmptySubsequences: false)
                .joined(separator: Array("'\\''".utf8)) + [UInt8(ascii: "'")]
        }
        let resolved = image.resolved() ?? image
        let command = Path(
            bytes: Array("LD_PRELOAD= exec ".utf8) + quoted(loader) + Array(" --list ".utf8)
                + quoted(resolved) + Array(" 2>/dev/null".utf8))
        guard let output = command.withCString({ popen($0, "r") }) else { return [image] }
        var libraries = [image]
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        while getline(&line, &room, output) > 0, let text = line.map({ String(cString: $0) }) {
            // "NAME => PATH (ADDRESS)", or "PATH (ADDRESS)".
            if let path = text.split(separator: " ").first(where: { $0.contains("/") }) {
                libraries.append(Path(path.trimmingPrefix(while: \.isWhitespace).description))
            }
        }
        free(line)
        pclose(output)
        return libraries
    }
}

/// True for ld-linux or ld-musl in one of the folders that distributions put it into.
private func isSystemLoader(_ loader: Path) -> Bool {
    guard loader.lastComponent.bytes.starts(with: "ld-".utf8), let resolved = loader.resolved()
    else { return false }
    return ["/lib", "/usr/lib", "/nix/store/", "/gnu/store/"].contains { folder in
        resolved.bytes.starts(with: folder.utf8)
    }
}

/// What the file itself says.
private struct ProgramContents {
    private let path: Path
    private let file: LoadedFile

    init?(_ path: Path) {
        guard let file = LoadedFile(path) else { return nil }
        self.path = path
        self.file = file
    }

    var scriptInterpreter: Path? {
        guard file.bytes.starts(with: "#!".utf8) else { return nil }
        let blanks = Set(" \t".utf8)
        let line = file.bytes.dropFirst(2).prefix { $0 != UInt8(ascii: "\n") }
        let name = line.drop { blanks.contains($0) }.prefix { !blanks.contains($0) }
        return name.isEmpty ? nil : Path(bytes: name)
    }

    func checkELF() throws(ProgramFile.Refusal) {
        guard let reader = ELFReader(file) else { return }
        guard reader.is64Bit else {
            throw refusal("is a 32-bit program; the layer is a 64-bit library")
        }
        guard reader.isLittleEndian, reader.machine == ELFReader.machineHere else {
            throw refusal(
                "is built for another architecture (ELF machine \(reader.machine)); "
                    + "the layer is built for machine \(ELFReader.machineHere)")
        }
        if file.mode & (S_ISUID | S_ISGID) != 0 {
            let bit = file.mode & S_ISUID != 0 ? "setuid" : "setgid"
            throw refusal(
                "is \(bit), and the loader ignores preloaded libraries in such programs; "
                    + "run a copy of it without the \(bit) bit")
        }
        if hasCapabilities {
            throw refusal(
                "has file capabilities, and the loader ignores preloaded libraries in such "
                    + "programs; run a copy of it without them")
        }
        guard let loader = try loaderName() else {
            // The loader run as a program has no loader, and honours LD_PRELOAD all the same.
            if (path.resolved() ?? path).lastComponent.description.hasPrefix("ld-linux") { return }
            if reader.isLibrary() {
                throw ProgramFile.Refusal(
                    reason: "'\(path)' is a shared library, which programs load, and no program",
                    isExecutable: true, isLibrary: true)
            }
            throw refusal(
                "is statically linked, and no library can be preloaded into it; "
                    + "use a build that is linked with the shared C library")
        }
        if loader.lastComponent.description.hasPrefix("ld-musl") {
            throw refusal(
                "is linked with musl, and the layer needs the GNU C library; "
                    + "use a build for a glibc system")
        }
    }

    /// The loader that the program asks for.
    func loaderName() throws(ProgramFile.Refusal) -> Path? {
        guard let reader = ELFReader(file) else { return nil }
        guard let segments = reader.segments() else {
            throw ProgramFile.Refusal(
                reason: "'\(path)' has its program headers beyond its end; is it damaged?",
                isExecutable: false)
        }
        return segments.first { $0.type == ELFReader.namesLoader }.map {
            Path(bytes: $0.contents.string(at: 0))
        }
    }

    // Not through the C library, whose <sys/xattr.h> Swift does not import.
    private var hasCapabilities: Bool {
        path.withCString { path in
            "security.capability".withCString {
                ioctx_syscall(
                    Int(SYS_getxattr), Int(bitPattern: path), Int(bitPattern: $0), 0, 0, 0, 0) > 0
            }
        }
    }

    private func refusal(_ reason: String) -> ProgramFile.Refusal {
        ProgramFile.Refusal(reason: "'\(path)' \(reason)", isExecutable: true)
    }
}

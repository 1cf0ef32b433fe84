// What must be known of a program before it is started: whether the loader will honour LD_PRELOAD,
// for the loader itself says nothing when it does not, and which libraries it will load.

import CLibAIO
import Glibc

/// Where `path` leads in the end: an ELF program, through any #! lines.
struct ProgramFile {
    /// Why a program cannot run on the layer.
    struct Refusal: Error {
        let reason: String
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
            guard let file = FileHead(path) else { return path }
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
    /// running anything. The program alone where it will not.
    static func libraries(of image: Path) -> [Path] {
        guard let loader = (try? FileHead(image)?.loaderName()) ?? nil else { return [image] }
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

/// The first bytes of a file, and its mode.
private struct FileHead {
    private let path: Path
    private let mode: mode_t
    private let hasCapabilities: Bool
    private let bytes: [UInt8]

    /// Enough for the ELF header with the program headers of any linker, and for a #! line.
    private static let length = 4096

    init?(_ path: Path) {
        let descriptor = path.withCString { open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        var bytes = [UInt8](repeating: 0, count: Self.length)
        let count = pread(descriptor, &bytes, Self.length, 0)
        guard fstat(descriptor, &status) == 0, count >= 0 else { return nil }
        self.path = path
        self.bytes = Array(bytes.prefix(count))
        mode = status.st_mode
        // Not through the C library, whose <sys/xattr.h> Swift does not import.
        hasCapabilities = "security.capability".withCString {
            ioctx_syscall(
                Int(SYS_fgetxattr), Int(descriptor), Int(bitPattern: $0), 0, 0, 0, 0) > 0
        }
    }

    var scriptInterpreter: Path? {
        guard bytes.starts(with: "#!".utf8) else { return nil }
        let blanks = Set(" \t".utf8)
        let line = bytes.dropFirst(2).prefix { $0 != UInt8(ascii: "\n") }
        let name = line.drop { blanks.contains($0) }.prefix { !blanks.contains($0) }
        return name.isEmpty ? nil : Path(bytes: name)
    }

    func checkELF() throws(ProgramFile.Refusal) {
        guard bytes.starts(with: [0x7f] + Array("ELF".utf8)), bytes.count >= ELF.headerBytes else {
            return
        }
        guard bytes[ELF.classOffset] == ELF.class64 else {
            throw refusal("is a 32-bit program; the layer is a 64-bit library")
        }
        let machine = integer(at: ELF.machineOffset, UInt16.self)
        guard bytes[ELF.dataOffset] == ELF.littleEndian, machine == ELF.machineHere else {
            throw refusal(
                "is built for another architecture (ELF machine \(machine)); "
                    + "the layer is built for machine \(ELF.machineHere)")
        }
        if mode & (S_ISUID | S_ISGID) != 0 {
            let bit = mode & S_ISUID != 0 ? "setuid" : "setgid"
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
            if ObjectFile(path)?.isLibrary == true {
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

    /// The loader that the program asks for, from its PT_INTERP segment.
    func loaderName() throws(ProgramFile.Refusal) -> Path? {
        let start = Int(truncatingIfNeeded: integer(at: ELF.headersOffset, UInt64.self))
        let stride = Int(integer(at: ELF.headerStrideOffset, UInt16.self))
        let count = Int(integer(at: ELF.headerCountOffset, UInt16.self))
        for index in 0..<count {
            let header = start &+ index &* stride
            guard header >= 0, header <= bytes.count - ELF.programHeaderBytes else {
                throw refusal("has its program headers where no linker puts them; is it damaged?")
            }
            guard integer(at: header, UInt32.self) == ELF.interpreterSegment else { continue }
            let offset = Int(
                truncatingIfNeeded: integer(at: header + ELF.segmentOffset, UInt64.self))
            // The name is beyond the first page only in unusual files: then any loader will do.
            guard offset >= 0, offset < bytes.count else { return Path("") }
            return Path(bytes: bytes[offset...].prefix { $0 != 0 })
        }
        return nil
    }

    private func refusal(_ reason: String) -> ProgramFile.Refusal {
        ProgramFile.Refusal(reason: "'\(path)' \(reason)", isExecutable: true)
    }

    private func integer<T: FixedWidthInteger>(at offset: Int, _: T.Type) -> T {
        bytes.withUnsafeBytes {
            T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
    }
}

/// Offsets and values of the 64-bit ELF header and program header, from elf(5).
private enum ELF {
    static let headerBytes = 64
    static let classOffset = 4
    static let dataOffset = 5
    static let machineOffset = 18
    static let headersOffset = 32
    static let headerStrideOffset = 54
    static let headerCountOffset = 56
    static let programHeaderBytes = 56
    static let segmentOffset = 8

    static let class64: UInt8 = 2
    static let littleEndian: UInt8 = 1
    static let interpreterSegment: UInt32 = 3
    #if arch(x86_64)
        static let machineHere: UInt16 = 62
    #elseif arch(arm64)
        static let machineHere: UInt16 = 183
    #endif
}

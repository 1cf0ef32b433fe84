// `ioctx doctor`: how a program asks for AIO, whether the layer can serve or does serve it, and
// what to do. A program is looked at as a file, with the libraries that the loader would give it; a
// process with what it has mapped.

import ArgumentParser
import FoundationEssentials
import Glibc

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Tell how a program or process uses AIO, and whether the layer serves it.",
        discussion: """
            Looks for imports of libaio, of POSIX AIO and of syscall(), and for the
            numbers of the io_* calls in the code. It sees what compilers write, so a
            number that is computed, or a library that is loaded later, escapes it: then
            look at the running process. Nothing of the program is executed (the system's
            loader lists its libraries) and nothing is changed.

            Of a shared library it tells what programs make through it.

            Examples:
              ioctx doctor mariadbd
              ioctx doctor /usr/local/bin/server --json
              ioctx doctor $(pidof mariadbd)

            Exit status: 0 when the program can be served or makes no AIO calls, or the
            process is served; 1 when not; 64 for wrong options.
            """)

    @Flag(help: "Print one JSON object.")
    var json = false

    @Argument(
        help: ArgumentHelp("A program, or the number of a process.", valueName: "program|pid"))
    var subject: String

    func run() throws {
        let report: DoctorReport
        if let pid = pid_t(subject), access("/proc/\(pid)", F_OK) == 0 {
            report = try DoctorReport(process: pid)
            LayerVariables.report(as: "ioctx doctor", process: pid)
        } else {
            do {
                let path = RawArguments.path(subject)
                // A library need be neither executable nor on PATH.
                let program = try ProgramFile.isLibrary(path) ? path : ProgramSearch.find(path)
                report = DoctorReport(program: program)
                LayerVariables.report(as: "ioctx doctor")
            } catch {
                // A number that is no program's name is meant as a process's.
                if Int(subject) != nil, error.status == Run.ExitStatus.notFound {
                    throw ProcessFile.absent(subject)
                }
                throw Failure(error.message)
            }
        }
        if json {
            try Output.write(Output.json(report))
        } else {
            try Output.write(report.text)
        }
        if !report.isServed { throw ExitCode(EXIT_FAILURE) }
    }
}

/// By what a program must be met, least first.
enum InterceptionLevel: String, Encodable, Comparable {
    case none, libaio, syscall, instruction

    private var rank: Int {
        switch self {
        case .none: 0
        case .libaio: 1
        case .syscall: 2
        case .instruction: 3
        }
    }

    static func < (one: Self, other: Self) -> Bool { one.rank < other.rank }
}

struct DoctorReport: Encodable {
    struct Object: Encodable {
        let path: String
        let libaio: [String]
        let posixAio: [String]
        let importsSyscall: Bool
        let syscallNumbers: [String]
        let instructionNumbers: [String]
    }

    /// What is known of a running process alone.
    struct Process: Encodable {
        let pid: pid_t
        let library: String?
        let interceptsInstruction: Bool
        let engine: String?
        /// Rings that the kernel made; the layer takes some for direct I/O, too.
        let kernelRings: Int
    }

    let schema = 1
    let program: String
    var needs = InterceptionLevel.none
    /// Whether it could be served, or for a process, is.
    var isServed = true
    var verdict = ""
    var advice = ""
    var objects: [Object] = []
    var process: Process?

    /// A program by its file.
    init(program path: Path) {
        program = path.description
        do {
            let image = try ProgramFile.check(path)
            inspect(ProgramFile.libraries(of: image).map { ($0, ObjectFile($0)) })
            judgeProgram(runs: image, as: path)
        } catch {
            inspect([(path, ObjectFile(path))])
            if error.isLibrary {
                judgeLibrary()
                return
            }
            // What cannot be preloaded may not need it, if it runs at all.
            isServed =
                error.isExecutable && needs == .none
                && objects.allSatisfy { $0.posixAio.isEmpty }
            verdict = isServed ? "no AIO calls can be seen" : "cannot be served: \(error.reason)"
            advice = isServed ? "nothing needs doing" : "ioctx run refuses it for the same reason"
        }
    }

    /// A process by what it has mapped.
    init(process pid: pid_t) throws(Failure) {
        let mappings = try Mapping.all(of: pid)
        let image = Path("/proc/\(pid)/exe")
        // Its file may have been removed since, or be another's in our view of the file system.
        program = (image.resolved() ?? image).description
        var files: [File] = []
        var rings = 0
        for mapping in mappings {
            let name = mapping.name
            // The kernel's name for the mapping of a context.
            if name.description.hasPrefix("/[aio]") { rings += 1 }
            if mapping.isExecutable, name.bytes.first == UInt8(ascii: "/"),
                !files.contains(where: { $0.name.bytes == name.bytes })
            {
                files.append((name, mapping.object()))
            }
        }
        let layer = files.first { $0.object?.isLayer == true && !Self.isSeccomp($0) }
        inspect(files.filter { $0.name.bytes != layer?.name.bytes && !Self.isSeccomp($0) })
        let environment = ProcessFile.environment(of: pid)
        process = Process(
            pid: pid, library: layer?.name.description,
            interceptsInstruction: files.contains(where: Self.isSeccomp),
            engine: environment["IOCTX_ENGINE"], kernelRings: rings)
        let unread = files.first { $0.object == nil && Self.isNamed($0, Self.layers) }
        judgeProcess(unread: unread?.name)
    }

    private static func isSeccomp(_ file: File) -> Bool {
        isNamed(file, ["libioctx-seccomp.so"])
    }

    private static func isNamed(_ file: File, _ beginnings: [String]) -> Bool {
        let name = file.name.lastComponent.description
        return beginnings.contains { name.hasPrefix($0) }
    }

    // MARK: Looking

    /// What is looked at, and what was seen in it.
    private typealias File = (name: Path, object: ObjectFile?)

    /// What the layer's libraries are called, and others that they stand for.
    private static let layers = ["libaio.so", "libioctx", "libposixaio.so"]

    /// Libraries that bring AIO to others do not use it themselves.
    private static let providers = layers + ["libc.so", "ld-linux", "librt.so", "libpthread.so"]

    private mutating func inspect(_ files: [File]) {
        for file in files where !Self.isNamed(file, Self.providers) {
            guard let object = file.object, object.usesAIO || !object.posix.isEmpty else {
                continue
            }
            objects.append(
                Object(
                    path: file.name.description, libaio: object.libaio, posixAio: object.posix,
                    importsSyscall: object.importsSyscall, syscallNumbers: object.handedNumbers,
                    instructionNumbers: object.instructionNumbers))
            if !object.libaio.isEmpty { needs = max(needs, .libaio) }
            if !object.handedNumbers.isEmpty { needs = max(needs, .syscall) }
            if !object.instructionNumbers.isEmpty { needs = max(needs, .instruction) }
        }
    }

    // MARK: Judging

    private mutating func judgeProgram(runs image: Path, as path: Path) {
        let script = image.bytes == path.bytes ? "" : ", which \(image) runs,"
        switch needs {
        case .none where objects.isEmpty:
            verdict = "no AIO calls can be seen\(script.isEmpty ? "" : " in \(image)")"
            advice = "if it loads libraries later, look at the running process: ioctx doctor PID"
        case .none, .libaio, .syscall:
            verdict = "can be served"
            advice = "ioctx run -- \(path.lastComponent)"
        case .instruction:
            verdict = "can be served, by a seccomp filter"
            advice = "ioctx run --intercept seccomp -- \(path.lastComponent)"
        }
    }

    /// A library is served when the program that loads it is.
    private mutating func judgeLibrary() {
        let intercept = needs == .instruction ? "--intercept seccomp " : ""
        verdict =
            "a shared library, not a program; "
            + (objects.isEmpty ? "no AIO calls can be seen" : "its calls can be served")
        advice =
            objects.isEmpty
            ? "look at the program that loads it"
            : "ioctx run \(intercept)-- a program that loads it"
    }

    /// `unread` is what could not be looked at, and may be the layer.
    private mutating func judgeProcess(unread: Path?) {
        guard let process else { return }
        if objects.isEmpty {
            isServed = process.library != nil || process.kernelRings == 0
        } else {
            isServed =
                process.library != nil
                && (needs < .instruction || process.interceptsInstruction)
        }
        if isServed {
            verdict =
                objects.isEmpty && process.library == nil
                ? "makes no AIO calls that can be seen" : "is served by \(process.library ?? "")"
            advice = "nothing needs doing"
        } else if process.library != nil {
            verdict = "is served in part: its calls by the instruction go to the kernel"
            advice = "start it with: ioctx run --intercept seccomp"
        } else if let unread {
            verdict = "cannot be told: '\(unread)' may be the layer, and cannot be read"
            advice = "run this as root"
        } else {
            verdict = "is not served: its calls go to the kernel"
            advice =
                "start it with: ioctx run"
                + (needs == .instruction ? " --intercept seccomp" : "")
        }
    }

    // MARK: Writing

    var text: String {
        var rows: [(String, String)] = [("program", program)]
        if let process {
            rows.append(("process", "\(process.pid)"))
            rows.append(("library", process.library ?? "the layer is not loaded"))
            if let engine = process.engine { rows.append(("IOCTX_ENGINE", engine)) }
            rows.append(("kernel rings", "\(process.kernelRings)"))
        }
        for object in objects {
            rows.append(("in", object.path))
            add(&rows, "  libaio", object.libaio)
            add(&rows, "  POSIX AIO", object.posixAio)
            add(&rows, "  syscall()", object.syscallNumbers)
            add(&rows, "  instruction", object.instructionNumbers)
        }
        rows.append(("verdict", verdict))
        rows.append(("do", advice))
        let columns = Columns(.left(rows.map(\.0.count).max() ?? 0))
        return rows.map { name, value in columns.line([name, value.onOneLine]) }.joined()
    }

    private func add(_ rows: inout [(String, String)], _ name: String, _ list: [String]) {
        if !list.isEmpty { rows.append((name, list.joined(separator: ", "))) }
    }
}

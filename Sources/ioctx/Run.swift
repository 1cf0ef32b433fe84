// `ioctx run`: starts a program with the layer in front of the system's libaio.

import ArgumentParser
import Glibc

/// What of a program's raw system calls is caught.
enum InterceptChoice: String, CaseIterable, ExpressibleByArgument {
    case syscall, seccomp
}

struct Run: ParsableCommand {
    /// The convention of env, nice, stdbuf and timeout.
    enum ExitStatus {
        static let ownFailure: Int32 = 125
        static let notExecutable: Int32 = 126
        static let notFound: Int32 = 127
    }

    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a program with its Linux AIO calls served by the layer.",
        usage: "ioctx run [--engine <engine>] [--intercept <how>] [--] <command> [<arguments> ...]",
        discussion: """
            The program is unmodified: libioctx.so is put first in LD_PRELOAD, and the
            program takes the place of ioctx, so that signals and its exit status are its
            own. What is in LD_PRELOAD already stays there. Options after the command
            belong to the command.

            Served are calls of libaio, and the io_* system calls that go through the C
            library's syscall(). --intercept seccomp also serves those that the program
            makes by the instruction itself ('ioctx doctor' tells who does). A filter then
            has the kernel send SIGSYS for the six numbers, and a handler makes the call.
            Its limits:
              - A trapped call costs about 1 us more, every other system call some 10 ns.
              - The filter stays with all children. One that is static, or started with
                LD_PRELOAD cleared, is killed by its first io_* call.
              - It sets no_new_privs: setuid programs that are started run without.
              - SIGSYS is never really blocked or ignored. Programs that change its
                action or mask by the instruction too, as Go's runtime does, or that make
                io_* calls from a handler inside ppoll, pselect, sigsuspend or
                epoll_pwait with a mask that has SIGSYS, are killed by such a call.

            Examples:
              ioctx run -- fio --name=job --filename=data --size=1g --ioengine=libaio
              ioctx run --intercept seccomp -- ./program-with-its-own-system-calls
              ioctx run --engine threads qemu-img bench -i native -t none disk.qcow2
              IOCTX_LIBRARY=./libioctx.so ioctx run ./server --config server.conf

            Exit status: the command's; 125 when ioctx itself fails, or refuses a command
            that is static, setuid or of another architecture; 126 when the command cannot
            be executed; 127 when it cannot be found.
            """)

    @Option(
        help: ArgumentHelp(
            "Which way of doing I/O the layer may take; without it, IOCTX_ENGINE or the layer "
                + "itself decides."))
    var engine: EngineChoice?

    @Option(
        help: ArgumentHelp(
            "Which raw system calls are served: those through syscall(), or with seccomp all.",
            valueName: "how"))
    var intercept = InterceptChoice.syscall

    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("The program and its arguments.", valueName: "command"))
    var command: [String] = []

    func run() throws {
        var count = command.count
        if let first = command.first, first.hasPrefix("-") {
            switch first {
            case "--": count -= 1
            // The parser hands us everything from the first thing that it does not know.
            case "-h", "--help": throw CleanExit.helpRequest(self)
            case "--version": throw CleanExit.message(IOCtx.configuration.version)
            default: throw failure("unknown option '\(first)' (see 'ioctx run --help')")
            }
        }
        let arguments = RawArguments.last(count)
        guard let name = arguments[0] else {
            throw failure("no command to run: write 'ioctx run -- COMMAND ARGUMENTS'")
        }
        let library = try libraryPath()
        var libraries = [library]
        if intercept == .seccomp {
            libraries.insert(try seccompLibrary(beside: library), at: 0)
            if let refusal = SystemFacts.filterRefusal() {
                throw failure(
                    "--intercept seccomp cannot be had here: \(refusal); without it, calls through "
                        + "the C library's syscall() are served all the same")
            }
        }
        let program = try ProgramSearch.find(Path(cString: name))
        do {
            let image = try ProgramFile.check(program)
            if intercept == .syscall, let object = ObjectFile(image),
                !object.instructionNumbers.isEmpty
            {
                Failure.report(
                    "ioctx run: '\(program)' makes \(object.instructionNumbers.joined(separator: ", "))"
                        + " by the instruction, which goes to the kernel: add --intercept seccomp")
            }
        } catch {
            throw failure(
                error.reason,
                status: error.isExecutable ? ExitStatus.ownFailure : ExitStatus.notExecutable)
        }

        preload(libraries)
        engine?.select()
        LayerVariables.report(as: "ioctx run")
        // By name and not by the path found, so that whatever execvp does, happens: it also
        // hands scripts without #! to the shell.
        execvp(name, arguments)
        let error = errno
        throw failure(
            "cannot run '\(program)': \(Failure.describe(error))",
            status: error == ENOENT ? ExitStatus.notFound : ExitStatus.notExecutable)
    }

    private func failure(_ message: String, status: Int32 = ExitStatus.ownFailure) -> Failure {
        Failure(message, status: status)
    }

    /// The library beside this tool, ../lib/libioctx.so, or the one that IOCTX_LIBRARY names.
    private func libraryPath() throws(Failure) -> Path {
        let wanted: Path
        if let named = getenv("IOCTX_LIBRARY"), named.pointee != 0 {
            wanted = Path(cString: named)
        } else if let tool = Installation.findTool() {
            wanted = Path(bytes: tool.folder.bytes + Array("../lib/libioctx.so".utf8))
        } else {
            throw failure("cannot find libioctx.so without /proc: set IOCTX_LIBRARY to its path")
        }
        // An absolute name: the program, or its children, may change folder.
        guard let library = wanted.resolved() else {
            throw failure(
                "cannot find the library '\(wanted)': \(Failure.describe(errno)); "
                    + "build it with Scripts/build, or set IOCTX_LIBRARY to its path")
        }
        guard library.withCString({ access($0, R_OK) }) == 0 else {
            throw failure("cannot read the library '\(library)': \(Failure.describe(errno))")
        }
        // The loader ignores what it cannot load, and the program would run without the layer.
        guard ProgramFile.isLibrary(library), ObjectFile(library)?.isLayer == true else {
            throw failure(
                "'\(library)' is no library of the layer's: set IOCTX_LIBRARY to the path of "
                    + "libioctx.so, which Scripts/build makes")
        }
        // ld.so(8): entries are separated by spaces or colons, and $ begins a token.
        guard Set(library.bytes).isDisjoint(with: " :$".utf8) else {
            throw failure(
                "LD_PRELOAD cannot name '\(library)', which has a space, colon or dollar sign: "
                    + "set IOCTX_LIBRARY to a copy elsewhere")
        }
        return library
    }

    /// It comes first in LD_PRELOAD: its syscall() stands in front of the other's.
    private func seccompLibrary(beside library: Path) throws(Failure) -> Path {
        let seccomp = library.folder.appending(Path("libioctx-seccomp.so"))
        guard seccomp.withCString({ access($0, R_OK) }) == 0 else {
            throw failure(
                "cannot read '\(seccomp)', which --intercept seccomp needs beside libioctx.so: "
                    + "\(Failure.describe(errno)); build it with Scripts/build")
        }
        return seccomp
    }

    /// Puts the libraries first in LD_PRELOAD and keeps what is there.
    private func preload(_ libraries: [Path]) {
        let ours = libraries.map { $0.bytes[...] }
        let before = getenv("LD_PRELOAD").map { Path(cString: $0).bytes } ?? []
        let others = before.split { " :".utf8.contains($0) }.filter { !ours.contains($0) }
        let list = Path(bytes: Array((ours + others).joined(separator: ":".utf8)))
        _ = list.withCString { setenv("LD_PRELOAD", $0, 1) }
    }
}

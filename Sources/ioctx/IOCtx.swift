// The root of the tool: names the subcommands and turns every failure into one line on stderr.

import ArgumentParser
import Glibc

@main
struct IOCtx: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ioctx",
        abstract: "Run programs on the user-space Linux native AIO layer, and look at it.",
        discussion: """
            Examples:
              ioctx probe
              ioctx doctor mariadbd
              ioctx run -- fio --name=job --filename=data --size=1g --ioengine=libaio
              ioctx cp --depth 64 --verify image.raw /mnt/backup/
              ioctx bench 'cached/*'

            'ioctx help SUBCOMMAND' has the options and more examples.
            """,
        version: "0.1.0",
        subcommands: [
            Run.self, Doctor.self, Probe.self, Copy.self, Verify.self, LimitsCommand.self,
            Bench.self,
        ])

    static func main() {
        do {
            try StandardDescriptors.reserve()
            try refuseUnknownHelp()
            var command = try parseAsRoot(RawArguments.text)
            try command.run()
        } catch {
            end(error)
        }
    }

    private static let names = configuration.subcommands.compactMap {
        $0.configuration.commandName
    }

    /// The parser answers for the help of what it does not know with the help of everything.
    private static func refuseUnknownHelp() throws(Failure) {
        let words = RawArguments.text.prefix(2)
        guard words.first == "help", let name = words.last, !name.hasPrefix("-") else { return }
        if name != "help" && !names.contains(name) {
            throw Failure(unknown(name), status: ExitCode.validationFailure.rawValue)
        }
    }

    private static func unknown(_ name: String) -> String {
        "there is no subcommand '\(name)', only \(names.joined(separator: ", "))"
    }

    /// Help and version are written to stdout; everything else is one line and a status.
    private static func end(_ error: any Error) -> Never {
        let typed = RawArguments.text.first { !$0.hasPrefix("-") }
        let name = typed.flatMap { names.contains($0) ? "ioctx \($0)" : nil } ?? "ioctx"
        if let failure = error as? Failure {
            Failure.report("\(name): \(failure.message)")
            Glibc.exit(failure.status)
        }
        if let status = error as? ExitCode {
            Glibc.exit(status.rawValue)
        }
        // A wrapper's own failures must be told from the program's, so `run` has a status of
        // its own for them, as stdbuf, env and timeout do.
        let ownFailure = name == "ioctx run" ? Run.ExitStatus.ownFailure : nil
        if exitCode(for: error).isSuccess {
            do {
                try Output.write(fullMessage(for: error) + "\n")
                Glibc.exit(EXIT_SUCCESS)
            } catch {
                Failure.report("\(name): \(error.message)")
                Glibc.exit(ownFailure ?? error.status)
            }
        }
        let lines = message(for: error).split(whereSeparator: \.isNewline)
        var text = lines.map { $0.trimmingPrefix(while: \.isWhitespace) }.joined(separator: " ")
        if name == "ioctx", let typed, typed != "help" { text = unknown(typed) }
        Failure.report("\(name): \(text) (see '\(name) --help')")
        Glibc.exit(ownFailure ?? exitCode(for: error).rawValue)
    }
}

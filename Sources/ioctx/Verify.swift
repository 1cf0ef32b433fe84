// `ioctx verify`: runs the compatibility suite, in which the kernel's AIO and the layer must agree.

import ArgumentParser
import Conformance
import FoundationEssentials
import Glibc
import TestBed

enum AgainstChoice: String, CaseIterable, ExpressibleByArgument {
    case kernel, none
}

enum FaceChoice: String, CaseIterable, ExpressibleByArgument {
    case linux, posix
}

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Compare the layer with the kernel's own AIO, call by call.",
        discussion: """
            Each case makes the same calls twice, on the kernel's AIO by system calls and
            on libaio.so.1 beside this tool, each in a process of its own; every result
            must agree. Where the machine has no kernel AIO, answers recorded from a
            kernel are the reference. Some cases need root, which also lets them mount
            file systems.

            With --engine more than once, each case runs once on the kernel and then with
            each engine, which takes less time than a run for each; the results say which.

            Examples:
              ioctx verify
              ioctx verify --engine uring --engine threads --only 'poll/*'
              ioctx verify --library /usr/lib/ioctx/libaio.so.1 --junit report.xml
              ioctx verify --list
              ioctx verify --face posix

            With --face posix, the cases of POSIX AIO run on the C library's own and on
            libposixaio.so.1 beside this tool; what only FreeBSD has, or the C library
            leaves undefined, is compared with what the standard says.

            The last line is 'N passed, N failed, N skipped'. Exit status: 0 when nothing
            failed, 1 when something did, 77 when all cases were skipped,
            64 for wrong options.
            """)

    static let allSkipped: Int32 = 77

    @Option(help: "What to compare with: kernel, or none for the recorded answers alone.")
    var against = AgainstChoice.kernel

    @Option(help: "Which interface to compare: linux, or posix for <aio.h>.")
    var face = FaceChoice.linux

    @Option(help: ArgumentHelp("Only cases like this: a part of the name, or a shell pattern."))
    var only: String?

    @Option(help: "Which way of doing I/O the layer may take. More than once: each of them.")
    var engine: [ServingEngine] = []

    @Option(help: ArgumentHelp("The library to prove.", valueName: "path"))
    var library: String?

    @Option(help: ArgumentHelp("Where test files go; on a disk, best.", valueName: "folder"))
    var dir: String?

    @Option(
        help: "How many cases run at the same time. (default: 2)", transform: NumberArgument.whole)
    var jobs = 2

    @Option(help: ArgumentHelp("Write the results as JUnit XML, too.", valueName: "file"))
    var junit: String?

    @Flag(help: "List the cases, and the documented differences among them.")
    var list = false

    @Flag(help: "Print one JSON object.")
    var json = false

    @Flag(help: ArgumentHelp("Print the kernel's answers, for the reference.", visibility: .hidden))
    var record = false

    @Option(help: .hidden)
    var childCase: String?

    @Option(help: .hidden)
    var childSide: String?

    func validate() throws {
        guard jobs > 0 else { throw ValidationError("--jobs must be at least 1") }
        guard face == .linux || against == .kernel && !record else {
            throw ValidationError("the C library's answers are not recorded: leave --against out")
        }
    }

    func run() throws {
        if let childCase, let childSide, let dir {
            ChildTask(
                name: childCase, side: childSide, folder: dir, engine: engine.first?.rawValue
            ).run()
        }
        let cases = Catalog.matching(only, of: face == .linux ? Catalog.all : Catalog.posix)
        guard !cases.isEmpty else {
            throw Failure(
                "no case is like '\(only ?? "")': see 'ioctx verify --face \(face) --list'")
        }
        if list { return try Output.write(json ? listing(cases) : table(cases)) }

        var runner = try makeRunner()
        if record {
            try Output.write("# recorded on Linux \(SystemFacts.gather().kernel.release)\n")
            var failed: (any Error)?
            runner.record(cases) { _, text in
                do { try Output.write(text) } catch { failed = error }
            }
            if let failed { throw failed }
            return
        }
        if face == .linux && against == .kernel && !Runner.kernelHasAIO {
            Failure.report("ioctx verify: no kernel AIO here, comparing with recorded answers")
            runner.usesRecorded = true
        }
        try report(cases, runner)
    }

    private func makeRunner() throws -> Runner {
        let installation = try Installation(
            library: library, or: face == .linux ? "libaio.so.1" : "libposixaio.so.1")
        do {
            // Where it cannot be loaded, each case would be skipped.
            _ = try Library(installation.library.description)
        } catch let trouble as Trouble {
            throw Failure("\(trouble); build it with Scripts/build, or name another with --library")
        }
        let folder = try Installation.testFolder(dir)
        return Runner(
            tool: installation.tool.description, library: installation.library.description,
            engines: try engines(), folder: folder.description, jobs: jobs,
            usesRecorded: against == .none
        ) { task in
            var arguments = [
                "verify", "--child-case", task.name, "--child-side", task.side, "--dir",
                task.folder,
            ]
            if let engine = task.engine { arguments += ["--engine", engine] }
            return arguments
        }
    }

    /// Each that is named, once; without any, the one that the layer would take by itself.
    private func engines() throws(Failure) -> [String] {
        var engines: [String] = []
        for one in engine where !engines.contains(one.rawValue) { engines.append(one.rawValue) }
        if !engines.isEmpty { return engines }
        let choice = getenv(EngineChoice.variable).flatMap {
            EngineChoice(rawValue: String(cString: $0))
        }
        guard choice != .off else {
            throw Failure(
                "\(EngineChoice.variable)=off lets the layer refuse every call: unset it, or "
                    + "name another with --engine")
        }
        return [(choice ?? .auto).rawValue]
    }

    // MARK: Running

    private func report(_ cases: [Case], _ runner: Runner) throws {
        var results = VerifyResults(
            reference: runner.usesRecorded
                ? RecordedReference.description
                : face == .linux
                    ? "Linux \(SystemFacts.gather().kernel.release)"
                    : Library.versionOfC,
            library: runner.library, engines: runner.engines)
        if runner.usesRecorded && !json {
            try Output.write("against answers \(RecordedReference.description)\n")
        }
        let junit = try junit.map { try OutputFile($0) }
        var failed: (any Error)?
        runner.run(cases) { outcome in
            results.add(outcome)
            if json { return }
            do { try Output.write(results.lines(of: outcome)) } catch { failed = error }
        }
        if let failed { throw failed }
        try junit?.commit(results.junit)
        try Output.write(json ? results.json() : results.summary + "\n")
        if results.failed > 0 { throw ExitCode(EXIT_FAILURE) }
        if results.passed == 0 { throw ExitCode(Self.allSkipped) }
    }

    // MARK: Listing

    private func table(_ cases: [Case]) -> String {
        cases.map { one in
            var text = one.name + "\n"
            if let difference = one.difference {
                text += "     differs: \(difference.reason)\n"
                for (kernel, layer) in difference.words {
                    text += "     kernel: \(kernel)\n     layer:  \(layer)\n"
                }
            }
            return text
        }.joined() + "\(cases.count) cases\n"
    }

    private struct ListedCase: Encodable {
        struct Line: Encodable {
            let kernel: String
            let layer: String
        }

        let name: String
        let reference: String
        let differs: String?
        let lines: [Line]?
    }

    private func listing(_ cases: [Case]) throws -> String {
        try Output.json(
            cases.map { one in
                ListedCase(
                    name: one.name, reference: one.reference.rawValue,
                    differs: one.difference?.reason,
                    lines: one.difference?.words.map { .init(kernel: $0.kernel, layer: $0.layer) })
            })
    }
}

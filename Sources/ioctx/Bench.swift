// `ioctx bench`: measures the layer beside the kernel's AIO.

import ArgumentParser
import Benchmark
import FoundationEssentials
import Glibc
import TestBed

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure the layer beside the kernel's AIO and the C library's POSIX AIO.",
        discussion: """
            Each case does the same work on the other side and on the layer by turns,
            each side in a process of its own, after a warm-up. The ratio is the median of
            the ratios of the rounds, layer to other side, with the least and the greatest
            of them. The other side is the system's libaio on the kernel; where there is
            none, the system calls. For the cases posix/*, it is the POSIX AIO of the C
            library. The layer is the drop-in library beside this tool, and for posix/*
            libposixaio.so.

            A library of --against or --library stands for that side in all cases; cases
            whose functions it lacks are skipped. libioctx.so has all functions.

            Examples:
              ioctx bench
              ioctx bench 'cached/*' cold/random --rounds 11
              ioctx bench --against /opt/old/libioctx.so --html page.html --json all.json
              ioctx bench --file /dev/nvme0n1 'direct/disk-*'
              ioctx bench --slow-disk 100 --size 512m 'cold/*' 'direct/*disk*'

            The file of --file is only read from. With --slow-disk the cases about a disk
            meet one that does any number of transfers at once, each in so long a time (and
            what it takes to wake somebody up). Some cases need root, and so does that.
            Exit status: 0 when every case was measured or skipped, 1 when one failed,
            64 for wrong options.
            """)

    @Argument(help: ArgumentHelp("Cases: parts of names, or shell patterns.", valueName: "cases"))
    var patterns: [String] = []

    @Option(help: ArgumentHelp("What to compare with: kernel, or a library.", valueName: "path"))
    var against = "kernel"

    @Option(help: ArgumentHelp("The library to measure.", valueName: "path"))
    var library: String?

    @Option(help: ArgumentHelp("A file or disk to read from.", valueName: "file"))
    var file: String?

    @Option(help: ArgumentHelp("Where test files go; on a disk, best.", valueName: "folder"))
    var dir: String?

    @Option(
        help: "Size of the test file: 1g, where a case is about the disk.",
        transform: NumberArgument.bytes)
    var size: ByteCount?

    @Option(
        help: ArgumentHelp(
            "Test files on a disk in memory, microseconds of each transfer.", valueName: "us"),
        transform: NumberArgument.whole)
    var slowDisk: Int?

    @Option(
        help: "Pairs of measurements of each case. (default: 7)", transform: NumberArgument.whole)
    var rounds = 7

    @Option(
        help: "Seconds of one measurement. (default: 0.4)", transform: NumberArgument.seconds)
    var seconds = 0.4

    @Option(help: ArgumentHelp("Write the results as JSON, too.", valueName: "file"))
    var json: String?

    @Option(help: ArgumentHelp("Write a page with plots, too.", valueName: "file"))
    var html: String?

    @Flag(help: "List the cases.")
    var list = false

    @Option(help: .hidden)
    var child: String?

    func validate() throws {
        guard (1...1000).contains(rounds) else {
            throw ValidationError("--rounds must be 1 to 1000, not \(rounds).")
        }
        guard (0.01...60).contains(seconds) else {
            throw ValidationError("--seconds must be 0.01 to 60, not \(seconds).")
        }
        if let slowDisk {
            guard (1...1_000_000).contains(slowDisk) else {
                throw ValidationError("--slow-disk must be 1 to 1000000 us, not \(slowDisk).")
            }
            guard file == nil else {
                throw ValidationError("--slow-disk is where test files go: leave out --file.")
            }
        }
        guard size.map({ $0.bytes >= Self.sizeMin }) != false else {
            throw ValidationError("--size must be 1m at least.")
        }
    }

    func run() throws {
        if let child { try ChildTask(json: child).run() }
        for pattern in patterns where Catalog.matching([pattern]).isEmpty {
            throw Failure("no case is like '\(pattern)': see 'ioctx bench --list'")
        }
        let cases = Catalog.matching(patterns)
        if list { return try Output.write(cases.map { $0.name + "\n" }.joined()) }

        let outputs = try [json, html].map { try $0.map { try OutputFile($0) } }
        let installation = try Installation(library: library)
        let posix = try Installation(library: library, or: "libposixaio.so.1")
        let folder = try Installation.testFolder(dir)
        let other = try otherLibrary()
        let scratch = try makeScratch(folder)
        defer { scratch.remove() }
        let interruption = Interruption("ioctx bench") {
            scratch.remove()
            for output in outputs { output?.discard() }
        }
        let progress = Progress(
            "", total: Self.progressParts, unit: .parts, isShown: Progress.terminalCanShowIt,
            interruption: interruption)
        let plan = Plan(
            tool: installation.tool.description,
            libaio: Plan.Sides(
                layer: installation.library.description, other: other ?? Plan.systemLibrary),
            posix: Plan.Sides(layer: posix.library.description, other: other),
            rounds: rounds, seconds: seconds)
        let runner = Runner(plan, scratch) { name, share in
            progress.label = name
            progress.step(Int(share * Double(Self.progressParts)))
        } isInterrupted: {
            interruption.pending() != nil
        }
        let kernel = SystemFacts.gather().kernel.release
        var results = RunResults(
            machine: Machine(kernel: kernel, folder: scratch.folder),
            other: other ?? defaultOther(kernel), layer: installation.library.description,
            file: file ?? slowDisk.map { "a disk of \($0) us" } ?? folder.description,
            rounds: rounds, seconds: seconds)
        try Output.write(BenchTable.head)
        try runner.run(cases) { result in
            progress.clear()
            results.add(result)
            try Output.write(BenchTable.lines(of: result))
        }
        progress.clear()
        try Output.write(BenchTable.details(of: results.cases))
        try outputs[0]?.commit(try Output.json(results))
        try outputs[1]?.commit(Page(results).html)
        if results.cases.contains(where: { $0.status == .failed }) { throw ExitCode(EXIT_FAILURE) }
    }

    private func makeScratch(_ folder: Path) throws -> Scratch {
        var absolute: Path?
        if let file {
            absolute = Path(file).resolved()
            guard let absolute, absolute.withCString({ access($0, R_OK) }) == 0 else {
                throw Failure.system("cannot read '\(file)' of --file", errno)
            }
        }
        do {
            return try Scratch(
                in: folder.description, file: absolute?.description, fileBytes: size?.bytes,
                slowDiskUs: slowDisk)
        } catch let trouble as Trouble {
            throw Failure(trouble.description)
        }
    }

    /// Some cases read blocks of 128 KiB.
    private static let sizeMin = 1 << 20

    /// The bar's steps: more than it is wide.
    private static let progressParts = 1000

    /// What is compared with unless a library is named, in words.
    private func defaultOther(_ kernel: String) -> String {
        "Linux \(kernel) by \(Plan.systemLibrary ?? "system calls"), "
            + "POSIX AIO by \(Library.versionOfC)"
    }

    /// The library of --against; nil where the kernel and the C library are meant.
    private func otherLibrary() throws -> String? {
        if against == "kernel" { return nil }
        guard let path = Path(against).resolved() else {
            throw Failure("cannot find the library '\(against)' of --against: check its name")
        }
        return path.description
    }
}

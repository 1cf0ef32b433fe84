// `ioctx probe`: what this system offers to the layer, and what the layer would make of it.

import ArgumentParser
import FoundationEssentials

struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Show what the kernel and its limits allow, and which engine auto would take.",
        discussion: """
            Nothing is changed. What a seccomp filter might kill is tried in a child.

            Examples:
              ioctx probe
              ioctx probe --json | jq .engine
              docker run --rm -v $PWD/dist:/ioctx debian /ioctx/bin/ioctx probe

            The keys of --json are stable; "schema" counts up when one changes its meaning.
            A limit of null is unlimited; any other null could not be read.
            """)

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        let facts = SystemFacts.gather()
        guard json else {
            return try Output.write(ProbeTable(facts).text)
        }
        try Output.write(Output.json(facts))
    }
}

/// The facts for a reader: marks, names and values in columns.
private struct ProbeTable {
    private enum Mark: String {
        case good = "ok"
        case warning = "warn"
        case none = ""
    }

    private static let valueWidth = 60
    private var rows: [(mark: Mark, name: String, value: String)] = []

    init(_ facts: SystemFacts) {
        add(.none, "kernel", "Linux \(facts.kernel.release) on \(facts.kernel.machine)")
        addEngines(facts.engine)
        addUring(facts.ioUring)
        addKernelAIO(facts.kernelAio)
        let seccomp = facts.seccomp
        switch seccomp.mode {
        case .disabled: add(.good, "seccomp", "no filter")
        case .strict: add(.warning, "seccomp", "strict mode")
        case .filter: add(.warning, "seccomp", "filters active: \(seccomp.filters.text)")
        case .unknown: add(.warning, "seccomp", "unknown: /proc/self/status cannot be read")
        }
        add(.none, "RLIMIT_NOFILE", facts.limits.nofile.text)
        add(.none, "RLIMIT_MEMLOCK", facts.limits.memlock.text)
        add(.none, "RLIMIT_NPROC", facts.limits.nproc.text)
        add(.none, "page size", "\(facts.pageSizeBytes)")
        add(.none, "possible CPUs", "\(facts.cpusPossible)")
    }

    var text: String {
        let columns = Columns(.left(4), .left(rows.map(\.name.count).max() ?? 0))
        return rows.map { columns.line([$0.mark.rawValue, $0.name, $0.value]) }.joined()
    }

    private mutating func add(_ mark: Mark, _ name: String, _ value: String) {
        rows.append((mark, name, value))
    }

    private mutating func addEngines(_ engine: SystemFacts.EngineFacts) {
        add(
            .none, "engine",
            "auto takes \(engine.auto)"
                + (engine.auto == "inline" ? ": io_submit itself does what would block" : ""))
        if let requested = engine.requested.value {
            let isKnown = EngineChoice(rawValue: requested) != nil
            add(
                isKnown ? .none : .warning, "  IOCTX_ENGINE",
                "is set to '\(requested)', "
                    + (isKnown ? "which comes before auto" : "which the layer reads as auto"))
        }
        for (name, candidate) in [("uring", engine.uring), ("threads", engine.threads)] {
            let value: String
            if !candidate.serves {
                value = "would not serve: \(candidate.reason)"
            } else if engine.auto == name {
                value = "serves"
            } else {
                value = "would serve: choose it by --engine \(name) or IOCTX_ENGINE=\(name)"
            }
            add(candidate.serves ? .good : .warning, "  \(name)", value)
        }
    }

    private mutating func addUring(_ uring: SystemFacts.Uring) {
        let mark: Mark = uring.available ? .good : .warning
        add(mark, "io_uring", uring.available ? "can be set up" : "io_uring_setup \(uring.failure)")
        let disabled = uring.disabled
        add(
            disabled.value ?? 0 == 0 ? .none : .warning, "  kernel.io_uring_disabled",
            disabled.value == nil ? "not there" : disabled.text)
        guard uring.available else { return }
        add(
            uring.singleIssuerDeferTaskrun ? .good : .warning,
            "  SINGLE_ISSUER|DEFER_TASKRUN",
            uring.singleIssuerDeferTaskrun ? "yes" : "no (Linux 6.1)")
        addOperations(uring)
        var lines = [""]
        for feature in uring.features {
            if lines[lines.count - 1].count + feature.count > Self.valueWidth { lines.append("") }
            lines[lines.count - 1] += (lines[lines.count - 1].isEmpty ? "" : " ") + feature
        }
        for (index, line) in lines.enumerated() {
            add(.none, index == 0 ? "  features" : "", line)
        }
    }

    private mutating func addOperations(_ uring: SystemFacts.Uring) {
        guard uring.registerErrno == 0 else {
            let failure = Failure.describe(uring.registerErrno)
            return add(.warning, "  operations", "unknown: io_uring_register fails: \(failure)")
        }
        add(
            uring.msgRingSendFd ? .good : .warning, "  MSG_RING, SEND_FD",
            uring.msgRingSendFd ? "yes" : "no (Linux 6.0)")
        let missing = uring.operations.filter { !$0.value }.keys.sorted()
        add(
            missing.isEmpty ? .good : .warning, "  operations",
            missing.isEmpty
                ? "all that the layer uses, FUTEX_WAIT (Linux 6.7) included"
                : "missing: \(missing.joined(separator: ", "))")
    }

    /// The layer does not need it, so its absence is no warning: it is what the layer is for.
    private mutating func addKernelAIO(_ aio: SystemFacts.KernelAio) {
        add(.none, "kernel AIO", aio.available ? "works" : "io_setup \(aio.failure)")
        add(.none, "  fs.aio-nr", aio.aioNr.text)
        add(.none, "  fs.aio-max-nr", aio.aioMaxNr.text)
    }
}

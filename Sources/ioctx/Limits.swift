// `ioctx limits`: the limits of the job table, under the names that FreeBSD gave them, and for a
// running process what it has counted.

import ArgumentParser
import CLibAIO
import FoundationEssentials
import Glibc
import JobTable

struct LimitsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Show the limits of the layer, what sets them, and what a process has counted.",
        discussion: """
            They hold for libaio's functions and for POSIX AIO together. A program reads
            them at its first request; the values shown are those that it would find with
            the environment of this command.

            With the number of a process that runs on the layer: its own limits, how near
            it is and was to them, and its requests by face and path. It is not stopped.
            This takes root, or the process's user where kernel.yama.ptrace_scope is 0.
            In a sandbox that forbids memfd_create, the counters cannot be found.

            Examples:
              ioctx limits
              IOCTX_MAX_AIO_PROCS=64 ioctx limits --json | jq .limits.max_aio_procs
              ioctx limits --contexts $(pidof mariadbd)
              ioctx limits $(pidof mariadbd) --json | jq '.requests.linux.in_flight'

            The keys of --json are stable; "schema" counts up when one changes its meaning.
            Exit status: 0; 1 when the process cannot be read or is not on the layer;
            64 for wrong options.
            """)

    @Flag(help: "Print one JSON object.")
    var json = false

    @Flag(help: "List the contexts of the process, too.")
    var contexts = false

    @Argument(
        help: ArgumentHelp("The number of a process.", valueName: "pid"),
        transform: NumberArgument.process)
    var pid: pid_t?

    func validate() throws {
        if contexts && pid == nil {
            throw ValidationError("--contexts needs the number of a process")
        }
    }

    func run() throws {
        let report: LimitsReport
        if let pid {
            report = LimitsReport(of: try ProcessCounters(of: pid), withContexts: contexts)
            LayerVariables.report(as: "ioctx limits", process: pid)
        } else {
            report = LimitsReport(Limits.fromEnvironment())
            LayerVariables.report(as: "ioctx limits")
        }
        try Output.write(json ? Output.json(report) : report.text)
    }
}

// `ioctx limits`: the limits of the job table, under the names that FreeBSD gave them.

import ArgumentParser
import FoundationEssentials
import JobTable

struct LimitsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Show the limits of the layer, what sets them, and what they are here.",
        discussion: """
            They hold for libaio's functions and for POSIX AIO together. A program reads
            them at its first request; the values shown are those that it would find with
            the environment of this command.

            Examples:
              ioctx limits
              IOCTX_MAX_AIO_PROCS=64 ioctx limits --json | jq '.limits.max_aio_procs.value'

            The keys of --json are stable; "schema" counts up when one changes its meaning.
            """)

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Limit: Encodable {
        let value: UInt32
        let standard: UInt32
        let variable: String
        let meaning: String

        private enum CodingKeys: String, CodingKey {
            case value, variable, meaning
            case standard = "default"
        }
    }

    private struct Listing: Encodable {
        let schema = 1
        let limits: [String: Limit]

        private enum CodingKeys: String, CodingKey { case schema, limits }
    }

    func run() throws {
        let limits = Self.limits
        if json {
            return try Output.write(
                Output.json(
                    Listing(limits: Dictionary(uniqueKeysWithValues: limits.map { ($0.0, $0.1) }))))
        }
        let width = limits.map(\.name.count).max() ?? 0
        func padded(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(width - text.count, 0) + 2)
        }
        try Output.write(
            limits.map { name, limit in
                padded(name, width) + padded("\(limit.value)", 8)
                    + "\(limit.variable) (default \(limit.standard))\n"
                    + padded("", width) + "\(limit.meaning)\n"
            }.joined())
    }

    private static var limits: [(name: String, limit: Limit)] {
        let standard = Limits()
        let here = Limits.fromEnvironment()
        func row(
            _ name: String, _ variable: String, _ value: (Limits) -> UInt32, _ meaning: String
        ) -> (name: String, limit: Limit) {
            (
                name,
                Limit(
                    value: value(here), standard: value(standard), variable: variable,
                    meaning: meaning)
            )
        }
        return [
            row(
                "max_aio_procs", "IOCTX_MAX_AIO_PROCS", { $0.maxAioProcs },
                "most workers of the threads engine; its manager comes on top"),
            row(
                "target_aio_procs", "IOCTX_TARGET_AIO_PROCS", { $0.targetAioProcs },
                "idle workers that stay for aiod_lifetime; those beyond stay for aiod_timeout"),
            row(
                "max_aio_queue_per_proc", "IOCTX_MAX_AIO_QUEUE_PER_PROC",
                { $0.maxAioQueuePerProc },
                "most requests of the process that are deferred at once; more are EAGAIN"),
            row(
                "max_buf_aio", "IOCTX_MAX_BUF_AIO", { $0.maxBufAio },
                "most direct requests of POSIX AIO in the kernel's AIO; more go to a daemon"),
            row(
                "aiod_lifetime", "IOCTX_AIOD_LIFETIME", { $0.aiodLifetimeMs },
                "milliseconds that an idle daemon stays"),
            row(
                "aiod_timeout", "IOCTX_AIOD_TIMEOUT", { $0.aiodTimeoutMs },
                "milliseconds that an idle worker beyond target_aio_procs stays"),
            row(
                "aio_max_nr", "IOCTX_AIO_MAX_NR", { $0.aioMaxNr },
                "events of all io_setup together; without the variable, that of fs.aio-max-nr"),
        ]
    }
}

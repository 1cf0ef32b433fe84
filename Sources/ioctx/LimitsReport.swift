// What `ioctx limits` prints: the limits, and of a process its gauges, requests and contexts. The
// names of the stored properties are the keys of --json.

import CLibAIO
import JobTable

struct LimitsReport: Encodable {
    struct Limit: Encodable {
        let value: UInt32
        let standard: UInt32
        let variable: String
        let meaning: String

        enum CodingKeys: String, CodingKey {
            case value, variable, meaning
            case standard = "default"
        }
    }

    struct Process: Encodable {
        let pid: Int32
        let name: String
    }

    struct Gauge: Encodable {
        let now: UInt64
        let most: UInt64
        /// The limit that it is held to, if any.
        let limit: String?
        let meaning: String
    }

    struct Requests: Encodable {
        let submitted: UInt64
        let completed: UInt64
        let inFlight: UInt64
        let inline: UInt64
        let readiness: UInt64
        let daemon: UInt64
        /// POSIX AIO only.
        let native: UInt64?
        /// Linux AIO only; not among the submitted.
        let adopted: UInt64?
        let cancelled: UInt64
        let eagain: UInt64?
    }

    struct Faces: Encodable {
        let linux: Requests
        let posix: Requests
    }

    struct Context: Encodable {
        let address: String
        let events: UInt32
        /// Whose the ring is: ours, or the kernel's.
        let ring: String
        let requests: Requests
        let unreaped: Known<UInt32>
    }

    let schema = 1
    private(set) var process: Process?
    let limits: [String: Limit]
    private(set) var gauges: [String: Gauge]?
    private(set) var requests: Faces?
    private(set) var contexts: [Context]?

    init(_ limits: Limits) {
        self.limits = Dictionary(
            uniqueKeysWithValues: Self.rows.map { ($0.name, Self.limit($0, limits)) })
    }

    init(of counters: ProcessCounters, withContexts: Bool) {
        let block = counters.block
        self.init(Limits(block))
        process = Process(pid: counters.pid, name: counters.name)
        gauges = Dictionary(
            uniqueKeysWithValues: Self.gaugeRows.map { row in
                let gauge = row.gauge(block)
                return (
                    row.name,
                    Gauge(now: gauge.now, most: gauge.most, limit: row.limit, meaning: row.meaning)
                )
            })
        requests = Faces(
            linux: Requests(block.gone, eagain: block.linux_eagain), posix: Requests(posix: block))
        if withContexts { contexts = counters.contexts.map(Context.init) }
    }
}

extension Limits {
    /// Those that a process has found.
    fileprivate init(_ block: ioctx_counters) {
        self.init()
        maxAioProcs = block.max_aio_procs
        targetAioProcs = block.target_aio_procs
        maxAioQueuePerProc = block.max_aio_queue_per_proc
        maxBufAio = block.max_buf_aio
        aiodLifetimeMs = block.aiod_lifetime
        aiodTimeoutMs = block.aiod_timeout
        aioMaxNr = block.aio_max_nr
    }
}

extension LimitsReport.Requests {
    init(_ counts: ioctx_linux_counts, eagain: UInt64?) {
        // Sums that wrap around: a process may have written over its counters.
        submitted = counts.inlined &+ counts.readiness &+ counts.daemon
        completed = counts.inlined &+ counts.finished
        inFlight = submitted - min(completed, submitted)
        inline = counts.inlined
        readiness = counts.readiness
        daemon = counts.daemon
        native = nil
        adopted = counts.adopted
        cancelled = counts.cancelled
        self.eagain = eagain
    }

    init(posix block: ioctx_counters) {
        submitted =
            block.posix_inlined &+ block.posix_readiness &+ block.posix_daemon
            &+ block.posix_native
        completed = block.posix_inlined &+ block.posix_finished
        inFlight = submitted - min(completed, submitted)
        inline = block.posix_inlined
        readiness = block.posix_readiness
        daemon = block.posix_daemon
        native = block.posix_native
        adopted = nil
        cancelled = block.posix_cancelled
        eagain = block.posix_eagain
    }
}

extension LimitsReport.Context {
    fileprivate init(_ context: ProcessCounters.Context) {
        address = "0x" + String(context.counts.address, radix: 16)
        events = context.counts.events
        let isAdopted = Int(context.counts.state) & IOCTX_CONTEXT_ADOPTED != 0
        ring = isAdopted ? "kernel" : "layer"
        requests = LimitsReport.Requests(context.counts.counts, eagain: nil)
        unreaped = Known(context.unreaped)
    }
}

// MARK: - Names and meanings

extension LimitsReport {
    private struct Row: Sendable {
        let name: String
        let variable: String
        let value: @Sendable (Limits) -> UInt32
        let meaning: String
    }

    private static func limit(_ row: Row, _ limits: Limits) -> Limit {
        Limit(
            value: row.value(limits), standard: row.value(Limits()), variable: row.variable,
            meaning: row.meaning)
    }

    private static let rows = [
        Row(
            name: "max_aio_procs", variable: "IOCTX_MAX_AIO_PROCS", value: \.maxAioProcs,
            meaning:
                "most workers of a pool of threads, and threads of io_uring for requests that hang"),
        Row(
            name: "target_aio_procs", variable: "IOCTX_TARGET_AIO_PROCS", value: \.targetAioProcs,
            meaning: "idle workers that stay for aiod_lifetime; those beyond stay for aiod_timeout"),
        Row(
            name: "max_aio_queue_per_proc", variable: "IOCTX_MAX_AIO_QUEUE_PER_PROC",
            value: \.jobsMax,
            meaning: "most requests of the process that are deferred at once; more are EAGAIN"),
        Row(
            name: "max_buf_aio", variable: "IOCTX_MAX_BUF_AIO", value: \.maxBufAio,
            meaning: "most direct requests that share the kernel's AIO; more go to a daemon"),
        Row(
            name: "aiod_lifetime", variable: "IOCTX_AIOD_LIFETIME", value: \.aiodLifetimeMs,
            meaning: "milliseconds that an idle daemon stays"),
        Row(
            name: "aiod_timeout", variable: "IOCTX_AIOD_TIMEOUT", value: \.aiodTimeoutMs,
            meaning: "milliseconds that an idle worker beyond target_aio_procs stays"),
        Row(
            name: "aio_max_nr", variable: "IOCTX_AIO_MAX_NR", value: \.aioMaxNr,
            meaning: "events of all io_setup together; without the variable, that of fs.aio-max-nr"),
    ]

    /// What sets them.
    static var variables: [String] { rows.map(\.variable) }

    private struct GaugeRow: Sendable {
        let name: String
        let gauge: @Sendable (ioctx_counters) -> ioctx_gauge
        let limit: String?
        let meaning: String
    }

    private static let gaugeRows = [
        GaugeRow(
            name: "num_aio_procs", gauge: \.num_aio_procs, limit: "max_aio_procs",
            meaning: "workers of pools of threads"),
        GaugeRow(
            name: "num_queue_count", gauge: \.num_queue_count, limit: "max_aio_queue_per_proc",
            meaning: "deferred requests in the job table"),
        GaugeRow(
            name: "num_buf_aio", gauge: \.num_buf_aio, limit: "max_buf_aio",
            meaning: "requests that share the kernel's AIO: direct ones, and a lone fsync"),
        GaugeRow(
            name: "aio_nr", gauge: \.aio_nr, limit: "aio_max_nr",
            meaning: "events that io_setup has granted"),
        GaugeRow(
            name: "contexts", gauge: \.contexts, limit: nil,
            meaning: "contexts between io_setup and io_destroy"),
        GaugeRow(
            name: "daemons", gauge: \.daemons, limit: nil,
            meaning: "threads of the layer, workers included"),
    ]

    private struct CountRow: Sendable {
        let name: String
        let count: @Sendable (Requests) -> UInt64?
        let meaning: String
    }

    private static let countRows = [
        CountRow(name: "submitted", count: \.submitted, meaning: "accepted: the next four"),
        CountRow(name: "  inline", count: \.inline, meaning: "done by the thread that asked"),
        CountRow(
            name: "  readiness", count: \.readiness,
            meaning: "left to wait for a pipe, socket, terminal or POLL"),
        CountRow(
            name: "  daemon", count: \.daemon,
            meaning: "left to a daemon; of libaio also to the kernel's AIO"),
        CountRow(name: "  native", count: \.native, meaning: "left to the kernel's AIO"),
        CountRow(name: "completed", count: \.completed, meaning: "of the submitted"),
        CountRow(name: "in_flight", count: \.inFlight, meaning: "of the submitted"),
        CountRow(
            name: "cancelled", count: \.cancelled,
            meaning: "of the completed: by a cancelling call or io_destroy"),
        CountRow(
            name: "adopted", count: \.adopted,
            meaning: "besides: taken by the kernel, on its own rings"),
        CountRow(
            name: "eagain", count: \.eagain, meaning: "io_submit calls, or requests, refused so"),
    ]
}

// MARK: - Writing

extension LimitsReport {
    var text: String {
        let columns = Columns(.left(Self.rows.map(\.name.count).max() ?? 0), .left(8))
        var text = process.map { "process \($0.pid), \($0.name.onOneLine)\n\n" } ?? ""
        for row in Self.rows {
            guard let limit = limits[row.name] else { continue }
            text += columns.line([
                row.name, "\(limit.value)", "\(limit.variable) (default \(limit.standard))",
            ])
            text += columns.line(["", limit.meaning])
        }
        if let gauges { text += "\n" + Self.text(of: gauges) }
        if let requests { text += "\n" + Self.text(of: requests) }
        if let contexts { text += "\n" + Self.text(of: contexts) }
        return text
    }

    private static let numbers = Columns(
        .left(gaugeRows.map(\.name.count).max() ?? 0), .right(10), .right(10))

    private static func text(of gauges: [String: Gauge]) -> String {
        numbers.line(["", "now", "at most"])
            + gaugeRows.map { row in
                guard let gauge = gauges[row.name] else { return "" }
                let limit = row.limit.map { " (\($0))" } ?? ""
                return numbers.line([
                    row.name, "\(gauge.now)", "\(gauge.most)", row.meaning + limit,
                ])
            }.joined()
    }

    private static func text(of faces: Faces) -> String {
        func number(_ value: UInt64?) -> String { value.map { "\($0)" } ?? "-" }
        return numbers.line(["requests", "linux", "posix"])
            + countRows.map { row in
                numbers.line([
                    row.name, number(row.count(faces.linux)), number(row.count(faces.posix)),
                    row.meaning,
                ])
            }.joined()
    }

    private static func text(of contexts: [Context]) -> String {
        let columns = Columns(
            .left(14), .right(9), .right(9), .right(9), .right(9), .right(9), .right(9))
        return columns.line([
            "context", "ring", "events", "submitted", "in_flight", "adopted", "unreaped",
        ])
            + contexts.map { context in
                let requests = context.requests
                return columns.line([
                    context.address, context.ring, "\(context.events)", "\(requests.submitted)",
                    "\(requests.inFlight)", "\(requests.adopted ?? 0)", context.unreaped.text,
                ])
            }.joined()
    }
}

// Runs cases, each side of each in a process of its own, the layer's once with each engine.

import CTestBed
import CLibAIO
import Glibc
import TestBed

/// What came of one case with one engine, on both sides.
public struct Outcome: Sendable {
    public enum Verdict: Sendable, Equatable {
        case passed
        case failed(why: String?)
        case skipped(reason: String)
    }

    public let name: String
    public let engine: String
    public let verdict: Verdict
    public let seconds: Double
    /// The lines that only one side has.
    public let reference: [String]
    public let layer: [String]
}

public struct Runner: Sendable {
    /// Paths: what is started for each side, what is proved, and where test files go.
    public var tool: String
    public var library: String
    public var folder: String
    /// Values of the layer's IOCTX_ENGINE; the cases run with each.
    public var engines: [String]
    /// How many cases run at the same time.
    public var jobs: Int
    /// Whether the kernel's answers are the recorded ones.
    public var usesRecorded: Bool
    /// How the hidden mode of the tool is spelt.
    var childArguments: @Sendable (ChildTask) -> [String]

    static let referenceRuns = 3

    public init(
        tool: String, library: String, engines: [String], folder: String, jobs: Int,
        usesRecorded: Bool, childArguments: @escaping @Sendable (ChildTask) -> [String]
    ) {
        self.tool = tool
        self.library = library
        self.engines = engines
        self.folder = folder
        self.jobs = jobs
        self.usesRecorded = usesRecorded
        self.childArguments = childArguments
    }

    /// Whether this process could use the kernel's AIO. Asked in a child, which a seccomp filter
    /// may kill for it.
    public static var kernelHasAIO: Bool {
        ioctx_run_in_child(
            { _ in
                var context: UInt = 0
                let result = ioctx_syscall(
                    Int(SYS_io_setup), 1,
                    Int(
                        bitPattern: withUnsafeMutablePointer(to: &context) {
                            UInt(bitPattern: $0)
                        }), 0, 0, 0, 0)
                _ = ioctx_syscall(
                    Int(SYS_exit_group), result == -Int(ENOSYS) ? 1 : 0, 0, 0, 0, 0, 0)
            }, nil) == 0
    }

    /// Calls `report` with each outcome in the order of the cases and engines, as soon as all of
    /// its case are known.
    public func run(_ cases: [Case], report: (Outcome) -> Void) {
        let board = Board(count: cases.count)
        var workers: [Worker] = []
        let shared = cases.indices.filter { !cases[$0].runsAlone }
        for _ in 0..<max(min(jobs, shared.count), 1) {
            workers.append(
                Worker {
                    while let next = board.takeNext(limit: shared.count) {
                        board.put(shared[next], judge(cases[shared[next]]))
                    }
                })
        }
        var next = 0
        while next < cases.count {
            if cases[next].runsAlone {
                // Shared cases may still be at work behind it: those that are alone come last.
                for worker in workers { while !worker.join(seconds: 60) {} }
                board.put(next, judge(cases[next]))
            }
            for outcome in board.wait(next) { report(outcome) }
            next += 1
        }
        for worker in workers { while !worker.join(seconds: 60) {} }
    }

    /// The transcripts of the kernel, for the reference file.
    public func record(_ cases: [Case], report: (String, String) -> Void) {
        for one in cases {
            report(one.name, Reference.format(one.name, runReference(of: one)))
        }
    }

    private func runReference(of one: Case) -> TranscriptRead {
        let side =
            switch one.reference {
            case .kernel: "kernel"
            case .library: "libaio.so.1"
            case .glibc, .standard: "glibc"
            }
        return transcript(one, side: side, engine: nil)
    }

    // MARK: One case

    /// One outcome for each engine.
    func judge(_ one: Case) -> [Outcome] {
        var runs = ReferenceRuns(
            limit: usesRecorded ? 1 : Self.referenceRuns,
            isLive: !usesRecorded && one.reference != .standard
        ) {
            reference(for: one)
        }
        return engines.map { engine in
            let start = Clock.now
            let layer = transcript(one, side: library, engine: engine)
            let judgement = Judgement.of(one, layer, engine: engine, &runs)
            return Outcome(
                name: one.name, engine: engine, verdict: judgement.verdict,
                seconds: Clock.now - start, reference: judgement.reference, layer: judgement.layer)
        }
    }

    /// What the layer must agree with.
    private func reference(for one: Case) -> TranscriptRead? {
        if one.reference == .standard {
            return TranscriptRead(lines: one.stated, skip: nil, ended: true)
        }
        if usesRecorded {
            guard var recorded = Reference.recorded[one.name] else { return nil }
            if let reason = recorded.skip { recorded.skip = "not recorded: \(reason)" }
            return recorded
        }
        let result = runReference(of: one)
        // No libaio on this machine is no reason to skip: its answers were recorded.
        if one.reference == .library, result.skip?.hasSuffix("No such file or directory") == true {
            return Reference.recorded[one.name]
        }
        return result
    }

    // MARK: One side

    func transcript(_ one: Case, side: String, engine: String?) -> TranscriptRead {
        var template = Array("\(folder)/ioctx-verify-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            return TranscriptRead(lines: [], skip: "no folder in \(folder)", ended: false)
        }
        let home = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        chmod(home, 0o777)
        defer { Folder.remove(home) }
        var ends: [Int32] = [0, 0]
        guard testbed_pipe(&ends, O_CLOEXEC) == 0 else {
            return TranscriptRead(lines: [], skip: "no pipe", ended: false)
        }
        defer { close(ends[0]) }
        let task = ChildTask(name: one.name, side: side, folder: home, engine: engine)
        let child = spawn(childArguments(task), output: ends[1])
        close(ends[1])
        guard child > 0 else {
            return TranscriptRead(lines: [], skip: "cannot run \(tool)", ended: false)
        }
        var reader = TranscriptRead(lines: [], skip: nil, ended: false)
        reader.read(from: ends[0], of: child, limitSeconds: one.limitSeconds)
        return reader
    }

    private func spawn(_ arguments: [String], output: Int32) -> Int32 {
        let words = ([tool] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        return testbed_spawn(tool, words, -1, output)
    }
}

/// What came out of one side of a case.
struct TranscriptRead: Sendable {
    var lines: [String]
    var skip: String?
    /// Whether the case's function returned.
    var ended: Bool
    /// The numbers of the RAM disks that the case has added.
    private var zrams: [String] = []

    init(lines: [String], skip: String?, ended: Bool) {
        self.lines = lines
        self.skip = skip
        self.ended = ended
    }

    mutating func read(from descriptor: Int32, of child: Int32, limitSeconds: Int) {
        let deadline = Clock.now + Double(limitSeconds)
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        var status: Int32 = 0
        var reaped = false
        // The pipe alone does not tell the end: a grandchild may hold it.
        while Clock.now < deadline {
            var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&state, 1, reaped ? 0 : 20)
            if ready == 1 {
                let got = Glibc.read(descriptor, &chunk, chunk.count)
                if got > 0 {
                    bytes += chunk.prefix(got)
                    continue
                }
                if reaped { break }
                usleep(500)
            } else if reaped {
                break
            }
            reaped = reaped || waitpid(child, &status, WNOHANG) == child
        }
        kill(-child, SIGKILL)
        if !reaped { waitpid(child, &status, 0) }
        parse(bytes)
        for zram in zrams { ZRAM(number: zram).remove() }
        if !reaped {
            lines.append("no end within \(limitSeconds) s")
        } else if status & 0x7f != 0 {
            let name = testbed_signal_name(status & 0x7f).map { String(cString: $0) }
            lines.append("died of \(name ?? "signal \(status & 0x7f)")")
        } else if !ended && skip == nil {
            lines.append("ended with \(status >> 8 & 0xff)")
        }
    }

    private mutating func parse(_ bytes: [UInt8]) {
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let text = String(decoding: line.dropFirst(2), as: UTF8.self)
            switch line.first {
            case UInt8(ascii: "L"): lines.append(text)
            case UInt8(ascii: "S"): skip = text
            case UInt8(ascii: "E"): ended = true
            case UInt8(ascii: "Z"): zrams.append(text)
            default: break
            }
        }
    }
}

/// Where the workers leave outcomes for whoever reports them.
private final class Board: @unchecked Sendable {
    private var mutex = pthread_mutex_t()
    private var changed = pthread_cond_t()
    private var outcomes: [[Outcome]?]
    private var next = 0

    init(count: Int) {
        outcomes = Array(repeating: nil, count: count)
        pthread_mutex_init(&mutex, nil)
        pthread_cond_init(&changed, nil)
    }

    func takeNext(limit: Int) -> Int? {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        if next >= limit { return nil }
        next += 1
        return next - 1
    }

    func put(_ index: Int, _ outcome: [Outcome]) {
        pthread_mutex_lock(&mutex)
        outcomes[index] = outcome
        pthread_cond_broadcast(&changed)
        pthread_mutex_unlock(&mutex)
    }

    func wait(_ index: Int) -> [Outcome] {
        pthread_mutex_lock(&mutex)
        defer { pthread_mutex_unlock(&mutex) }
        while true {
            if let outcome = outcomes[index] { return outcome }
            pthread_cond_wait(&changed, &mutex)
        }
    }
}

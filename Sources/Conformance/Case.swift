// What a case of the suite is: a name and a short function, plus what the runner must know of it.
//
// A case makes calls through its Scene, which writes each of them down with its result. The same
// function runs once against the kernel's AIO and once against the layer, and what was written down
// must agree, line by line. So a case states no expectations: the kernel does.

public struct Case: Sendable {
    /// What the layer is compared with.
    public enum Reference: String, Sendable {
        /// The system calls.
        case kernel
        /// The system's libaio, for what is not a system call: io_queue_* and the old versions.
        case library
        /// The C library's POSIX AIO.
        case glibc
        /// POSIX, or FreeBSD's manual, where the C library has no answer of its own: the case
        /// states what stands there.
        case standard
    }

    public let name: String
    public private(set) var reference = Reference.kernel
    public private(set) var difference: Difference?
    public private(set) var environment: [String: String] = [:]
    public private(set) var limitSeconds = 10
    /// It uses up what others need, such as fs.aio-max-nr, or measures time closely.
    private(set) var runsAlone = false

    /// What stands there, line by line, where the reference is `standard`.
    private(set) var stated: [String] = []

    let body: @Sendable (Scene) throws -> Void

    init(_ name: String, _ body: @escaping @Sendable (Scene) throws -> Void) {
        self.name = name
        self.body = body
    }

    private func with(_ change: (inout Case) -> Void) -> Case {
        var copy = self
        change(&copy)
        return copy
    }

    var alone: Case { with { $0.runsAlone = true } }

    /// Bad pointers that only IOCTX_STRICT=1 answers as the kernel does.
    var strict: Case { with { $0.environment["IOCTX_STRICT"] = "1" } }

    /// What the transcript must be, where the C library gives none.
    func stands(_ lines: String...) -> Case {
        with {
            $0.reference = .standard
            $0.stated = lines
        }
    }

    /// A case of POSIX AIO.
    init(posix name: String, _ body: @escaping @Sendable (PosixScene) throws -> Void) {
        self.init(name) { try body(try PosixScene($0)) }
        reference = .glibc
    }

    var ofLibrary: Case { with { $0.reference = .library } }

    /// The same without IOCTX_STRICT=1, where the layer trusts the pointers that it is given.
    func lenient(_ outcome: Difference?) -> Case {
        var copy = Case("lenient/\(name)", body)
        copy.runsAlone = runsAlone
        copy.limitSeconds = limitSeconds
        copy.environment["IOCTX_STRICT"] = "0"
        copy.difference = outcome
        return copy
    }

    var isStrict: Bool { environment["IOCTX_STRICT"] == "1" }

    func limit(seconds: Int) -> Case { with { $0.limitSeconds = seconds } }

    func set(_ variable: String, _ value: String) -> Case {
        with { $0.environment[variable] = value }
    }

    func differs(_ reason: String, _ lines: (kernel: String, layer: String)...) -> Case {
        with { $0.difference = Difference(reason: reason, layer: .lines(lines)) }
    }
}

/// A documented difference: exactly this, and nothing else, reads otherwise on the layer.
public struct Difference: Sendable {
    public enum Layer: Sendable {
        /// These lines of the kernel's read otherwise; one may be several of the layer's.
        case lines([(kernel: String, layer: String)])
        /// All of it reads otherwise.
        case transcript([String])
        /// It begins as the kernel's and ends with this line.
        case endsWith(String)
    }

    public let reason: String
    public let layer: Layer

    /// Whether `got` is what is documented where the kernel gave `transcript`. Where the kernel
    /// does not answer as documented, nothing is.
    func allows(_ got: [String], where transcript: [String]) -> Bool {
        switch layer {
        case .lines(let lines):
            var expected = transcript
            for (kernel, layer) in lines {
                if !transcript.contains(kernel) { return false }
                expected = expected.flatMap {
                    $0 == kernel ? layer.split(separator: "\n").map(String.init) : [$0]
                }
            }
            return got == expected
        case .transcript(let lines):
            return got == lines && transcript != lines
        case .endsWith(let line):
            return got.last == line && transcript.starts(with: got.dropLast())
                && transcript.count >= got.count
        }
    }

    /// What a table of differences says of the two sides.
    public var words: [(kernel: String, layer: String)] {
        switch layer {
        case .lines(let lines): lines
        case .transcript(let lines): [("otherwise", lines.joined(separator: "; "))]
        case .endsWith(let line): [("an answer", line)]
        }
    }
}

// The outcomes of `ioctx verify`, as lines, JSON and JUnit XML.

import Conformance
import FoundationEssentials
import Glibc
import TestBed

struct VerifyResults: Encodable {
    struct Result: Encodable {
        let name: String
        /// Where there are several.
        let engine: String?
        let status: String
        let reason: String?
        let seconds: Double
        let kernel: [String]
        let layer: [String]
    }

    let schema = 1
    let reference: String
    let library: String
    /// Comma by comma where there are several.
    let engine: String
    private let engines: [String]
    private(set) var passed = 0
    private(set) var failed = 0
    private(set) var skipped = 0
    private(set) var cases: [Result] = []

    private enum CodingKeys: String, CodingKey {
        case schema, reference, library, engine, passed, failed, skipped, cases
    }

    init(reference: String, library: String, engines: [String]) {
        self.reference = reference
        self.library = library
        self.engines = engines
        engine = engines.joined(separator: ",")
    }

    var summary: String { "\(passed) passed, \(failed) failed, \(skipped) skipped" }

    mutating func add(_ outcome: Outcome) {
        let status: (name: String, reason: String?)
        switch outcome.verdict {
        case .passed:
            passed += 1
            status = ("passed", nil)
        case .failed(let why):
            failed += 1
            status = ("failed", why)
        case .skipped(let reason):
            skipped += 1
            status = ("skipped", reason)
        }
        cases.append(
            Result(
                name: outcome.name, engine: engines.count > 1 ? outcome.engine : nil,
                status: status.name, reason: status.reason,
                seconds: outcome.seconds, kernel: outcome.reference, layer: outcome.layer))
    }

    func lines(of outcome: Outcome) -> String {
        let name = outcome.name + (engines.count > 1 ? " (\(outcome.engine))" : "")
        switch outcome.verdict {
        case .passed: return "ok   \(name)\n"
        case .skipped(let reason): return "skip \(name): \(reason)\n"
        case .failed(let why):
            var text = "FAIL \(name)" + (why.map { ": \($0)" } ?? "") + "\n"
            for line in outcome.reference { text += "     kernel: \(line)\n" }
            for line in outcome.layer { text += "     layer:  \(line)\n" }
            return text
        }
    }

    func json() throws -> String {
        try Output.json(self)
    }

    /// As JUnit XML.
    var junit: String {
        var text = """
            <?xml version="1.0" encoding="UTF-8"?>
            <testsuite name="ioctx verify" tests="\(cases.count)" failures="\(failed)" \
            skipped="\(skipped)">

            """
        for one in cases {
            let name = XML.escaped(one.name)
            let group = one.engine.map { " classname=\"\($0)\"" } ?? ""
            text += "  <testcase name=\"\(name)\"\(group) time=\"\(one.seconds)\">"
            let reason = XML.escaped(one.reason ?? "")
            if one.status == "skipped" { text += "<skipped message=\"\(reason)\"/>" }
            if one.status == "failed" {
                let lines = one.kernel.map { "kernel: \($0)" } + one.layer.map { "layer: \($0)" }
                text += "<failure message=\"\(reason)\">"
                text += XML.escaped(lines.joined(separator: "\n")) + "</failure>"
            }
            text += "</testcase>\n"
        }
        return text + "</testsuite>\n"
    }
}

// Values of the layer's variables that it does not take as they stand. The layer itself says
// nothing of them: it is in somebody else's process.

import Glibc

enum LayerVariables {
    /// Tells on stderr what is wrong in this environment, or in that of a process.
    static func report(as who: String, process pid: pid_t? = nil) {
        let environment = pid.map(ProcessFile.environment)
        let owner = pid.map { "process \($0): " } ?? ""
        let remarks = remarks { name in
            environment.map { $0[name] } ?? getenv(name).map { String(cString: $0) }
        }
        for remark in remarks { Failure.report("\(who): \(owner)\(remark)") }
    }

    /// One line for each such value; `value` looks a variable up.
    static func remarks(_ value: (String) -> String?) -> [String] {
        let numbers = LimitsReport.variables.compactMap { name in
            value(name).flatMap { remark(name, number: $0) }
        }
        let engines = EngineChoice.allCases.map(\.rawValue)
        return numbers
            + [(EngineChoice.variable, engines), ("IOCTX_WRITES", ["inline", "async"])]
            .compactMap { name, words in
                guard let text = value(name), !text.isEmpty, !words.contains(text) else {
                    return nil
                }
                return "\(name) is '\(text)', and counts as \(words[0]): "
                    + "give one of \(words.joined(separator: ", "))"
            }
    }

    private static func remark(_ name: String, number text: String) -> String? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        if digits.count == text.count { return nil }
        let meaning = digits.isEmpty ? "counts as unset" : "counts as \(digits)"
        return "\(name) is '\(text)', and \(meaning): give a whole number"
    }
}

// The recorded answers of a kernel, for machines that have no kernel AIO to compare with.
//
// The text is a heading per case, `== NAME` or `== NAME skip REASON`, and its transcript. Made by
// `ioctx verify --record`; lines that begin with # are about the recording.

import CConformance

enum Reference {
    static let recorded: [String: TranscriptRead] = {
        var result: [String: TranscriptRead] = [:]
        var current: String?
        for line in String(cString: conformance_reference()).split(separator: "\n") {
            if line.hasPrefix("== ") {
                let words = line.dropFirst(3).split(separator: " ", maxSplits: 2)
                let name = String(words[0])
                result[name] = TranscriptRead(
                    lines: [], skip: words.count > 2 ? String(words[2]) : nil, ended: true)
                current = name
            } else if line.first != "#", let current {
                result[current]?.lines.append(String(line))
            }
        }
        return result
    }()

    static func format(_ name: String, _ transcript: TranscriptRead) -> String {
        if let skip = transcript.skip { return "== \(name) skip \(skip)\n" }
        return (["== \(name)"] + transcript.lines).map { $0 + "\n" }.joined()
    }
}

public enum RecordedReference {
    /// What the recording says of itself: its first line, without the mark.
    public static var description: String {
        let first = String(cString: conformance_reference()).prefix { $0 != "\n" }
        return String(first.drop { $0 == "#" || $0 == " " })
    }
}

// What a case's two transcripts come to.
//
// Where the kernel's answers race, any that it gives is right: before a difference counts, the
// reference is run again, and the layer passes when it agrees with one of those runs.

/// The reference's transcripts of one case, each made when it is first asked for: every engine is
/// compared with the same ones.
struct ReferenceRuns {
    /// How often it may be run.
    let limit: Int
    /// Whether it runs here and now: what it can do, the layer must be able to.
    let isLive: Bool
    private let make: () -> TranscriptRead?
    private var made: [TranscriptRead?] = []

    init(limit: Int, isLive: Bool = true, _ make: @escaping () -> TranscriptRead?) {
        self.limit = limit
        self.isLive = isLive
        self.make = make
    }

    /// That of a run, counted from 0; nil where there is no reference.
    mutating func transcript(_ run: Int) -> TranscriptRead? {
        while made.count <= run { made.append(make()) }
        return made[run]
    }
}

/// A verdict, with the lines that only one side has.
struct Judgement {
    var verdict: Outcome.Verdict
    var reference: [String] = []
    var layer: [String] = []

    /// Of what the layer wrote down, with an engine.
    static func of(
        _ one: Case, _ layer: TranscriptRead, engine: String, _ runs: inout ReferenceRuns
    ) -> Judgement {
        if let reason = layer.skip {
            let isExcused = !runs.isLive || runs.transcript(0)?.skip != nil
            return Judgement(
                verdict: isExcused
                    ? .skipped(reason: reason)
                    : .failed(why: "skipped on the layer alone: \(reason)"))
        }
        var judgement: Judgement?
        for run in 0..<runs.limit {
            guard let reference = runs.transcript(run) else {
                return Judgement(verdict: .skipped(reason: "nothing was recorded for it"))
            }
            if let reason = reference.skip {
                return Judgement(verdict: .skipped(reason: reason))
            }
            if let why = failure(of: reference) {
                return Judgement(verdict: .failed(why: why), reference: reference.lines)
            }
            if agrees(layer.lines, with: reference.lines, one.difference, engine) {
                return Judgement(verdict: .passed)
            }
            judgement = judgement ?? difference(of: layer.lines, from: reference.lines, one)
        }
        return judgement ?? Judgement(verdict: .failed(why: nil))
    }

    /// Why a reference proves nothing, even if the layer does the same.
    private static func failure(of reference: TranscriptRead) -> String? {
        let last = reference.lines.last ?? ""
        if !reference.ended && last.hasPrefix("no end within") {
            return "the reference did not end"
        }
        return last.hasPrefix("died of ") ? "the case died on the reference" : nil
    }

    private static func agrees(
        _ layer: [String], with reference: [String], _ difference: Difference?, _ engine: String
    ) -> Bool {
        guard let difference else { return layer == reference }
        return difference.allows(layer, where: reference)
            || layer == reference && isOnTheKernelsRing(reference, engine)
    }

    /// With these engines a context that begins with POLL, or with O_DIRECT, has the kernel's own
    /// ring, on which nothing differs. No case with a documented difference begins with O_DIRECT.
    private static func isOnTheKernelsRing(_ transcript: [String], _ engine: String) -> Bool {
        guard engine == "auto" || engine == "native" else { return false }
        return transcript.first { $0.hasPrefix("io_submit(") }?.contains("{POLL ") == true
    }

    private static func difference(
        of layer: [String], from reference: [String], _ one: Case
    ) -> Judgement {
        let why = one.difference == nil ? nil : "the documented difference does not hold"
        var judgement = Judgement(verdict: .failed(why: why))
        for change in layer.difference(from: reference) {
            switch change {
            case .remove(_, let line, _): judgement.reference.append(line)
            case .insert(_, let line, _): judgement.layer.append(line)
            }
        }
        return judgement
    }
}

// Proves when a case passes: the reference is run again before a difference counts, once for all
// engines, and a documented difference must hold exactly.

import Testing

@testable import Conformance

@Suite struct JudgementTests {
    private let plain = Case("plain") { _ in }
    private let different = Case("different") { _ in }
        .differs("for a reason", ("event: 65", "event: 1"))

    private func ran(_ lines: String...) -> TranscriptRead {
        TranscriptRead(lines: lines, skip: nil, ended: true)
    }

    private func skipped(_ reason: String) -> TranscriptRead {
        TranscriptRead(lines: [], skip: reason, ended: false)
    }

    /// The reference answers these in turn.
    private func runs(_ answers: TranscriptRead?...) -> ReferenceRuns {
        var next = answers.makeIterator()
        return ReferenceRuns(limit: answers.count) { next.next() ?? nil }
    }

    private func judge(
        _ one: Case, _ layer: TranscriptRead, engine: String = "uring", _ runs: ReferenceRuns
    ) -> Judgement {
        var runs = runs
        return Judgement.of(one, layer, engine: engine, &runs)
    }

    /// Else a machine without the kernel's AIO proves less than it says.
    @Test func allCasesAreRecorded() {
        let missing = Catalog.all.filter {
            $0.reference == .kernel && Reference.recorded[$0.name] == nil
        }
        #expect(missing.map(\.name).isEmpty)
    }

    @Test func agreementWithAnyRunPasses() {
        #expect(judge(plain, ran("a"), runs(ran("a"))).verdict == .passed)
        #expect(judge(plain, ran("b"), runs(ran("a"), ran("b"))).verdict == .passed)
        #expect(judge(plain, ran("c"), runs(ran("a"), ran("b"))).verdict == .failed(why: nil))
    }

    @Test func aFailureShowsTheFirstRun() {
        let judgement = judge(plain, ran("a", "x"), runs(ran("a", "b"), ran("a", "c")))
        #expect(judgement.reference == ["b"])
        #expect(judgement.layer == ["x"])
    }

    @Test func theReferenceRunsNoOftenerThanNeeded() {
        var count = 0
        var runs = ReferenceRuns(limit: 3) {
            count += 1
            return self.ran("run \(count)")
        }
        #expect(Judgement.of(plain, ran("run 1"), engine: "uring", &runs).verdict == .passed)
        #expect(count == 1)
        #expect(Judgement.of(plain, ran("run 2"), engine: "threads", &runs).verdict == .passed)
        #expect(count == 2)
        #expect(Judgement.of(plain, ran("run 1"), engine: "auto", &runs).verdict == .passed)
        #expect(Judgement.of(plain, ran("none"), engine: "auto", &runs).verdict != .passed)
        #expect(count == 3)
    }

    @Test func whatCannotRunIsSkipped() {
        #expect(
            judge(plain, skipped("needs root"), runs(skipped("no root here"))).verdict
                == .skipped(reason: "needs root"))
        var recorded = ReferenceRuns(limit: 1, isLive: false) { self.ran("a") }
        #expect(
            Judgement.of(plain, skipped("needs root"), engine: "uring", &recorded).verdict
                == .skipped(reason: "needs root"))
        #expect(
            judge(plain, ran("a"), self.runs(skipped("no disk"))).verdict
                == .skipped(reason: "no disk"))
        #expect(
            judge(plain, ran("a"), self.runs(nil)).verdict
                == .skipped(reason: "nothing was recorded for it"))
    }

    /// A layer that runs out of descriptors would pass, else.
    @Test func whatTheReferenceCanDoIsNotSkipped() {
        #expect(
            judge(plain, skipped("open: -EMFILE"), runs(ran("a"))).verdict
                == .failed(why: "skipped on the layer alone: open: -EMFILE"))
    }

    @Test func aReferenceThatHangsFails() {
        let hung = TranscriptRead(lines: ["no end within 10 s"], skip: nil, ended: false)
        #expect(
            judge(plain, hung, runs(hung)).verdict == .failed(why: "the reference did not end"))
    }

    @Test func aReferenceThatDiesFails() {
        let dead = TranscriptRead(
            lines: ["io_setup(8) = 0", "died of ILL"], skip: nil, ended: false)
        #expect(
            judge(plain, dead, runs(dead)).verdict
                == .failed(why: "the case died on the reference"))
    }

    @Test func aDocumentedDifferenceMustHold() {
        let kernel = ran("io_submit(ctx, 1, {PREAD pipe 1}) = 1", "event: 65")
        let layer = ran("io_submit(ctx, 1, {PREAD pipe 1}) = 1", "event: 1")
        #expect(judge(different, layer, runs(kernel)).verdict == .passed)
        for engine in ["uring", "auto"] {
            #expect(
                judge(different, kernel, engine: engine, runs(kernel)).verdict
                    == .failed(why: "the documented difference does not hold"))
        }
    }

    @Test(arguments: [("auto", true), ("native", true), ("uring", false), ("threads", false)])
    func itMayVanishOnTheKernelsRing(_ engine: String, _ mayVanish: Bool) {
        let kernel = ran("io_submit(ctx, 1, {POLL pipe 0x1}) = 1", "event: 65")
        #expect(
            (judge(different, kernel, engine: engine, runs(kernel)).verdict == .passed)
                == mayVanish)
        let later = ran(
            "io_submit(ctx, 1, {PREAD file 1@0}) = 1", "io_submit(ctx, 1, {POLL pipe 0x1}) = 1",
            "event: 65")
        #expect(judge(different, later, engine: engine, runs(later)).verdict != .passed)
    }
}

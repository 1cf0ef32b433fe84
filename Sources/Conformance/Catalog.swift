// All cases, in the order in which they run.

import TestBed

public enum Catalog {
    /// Those that must run alone come last, so that the others need not wait for them.
    public static let all: [Case] = {
        let own: [Case] = [
            SetupCases.all, SubmitCases.all, OrderCases.all, MatrixCases.all,
            SizingCases.all, CompletionCases.all, RingCases.all, WaitCases.all,
            PollCases.all, DestroyCases.all, ProcessCases.all, FileCases.all, RaceCases.all,
            PointerCases.all,
            LibraryCases.all,
        ].flatMap { $0 }
        let lenient = own.filter(\.isStrict).map { $0.lenient(Lenient.difference(of: $0.name)) }
        let cases = own + lenient
        precondition(Set(cases.map(\.name)).count == cases.count, "two cases have one name")
        return cases.filter { !$0.runsAlone } + cases.filter(\.runsAlone)
    }()

    /// The cases of POSIX AIO.
    public static let posix: [Case] = {
        let cases = [
            PosixFileCases.all, PosixCallCases.all, PosixWaitCases.all, PosixNotifyCases.all,
            PosixListCases.all, PosixProcessCases.all, PosixFreeBSDCases.all,
        ].flatMap { $0 }
        precondition(Set(cases.map(\.name)).count == cases.count, "two cases have one name")
        return cases.filter { !$0.runsAlone } + cases.filter(\.runsAlone)
    }()

    /// Those of `cases` whose name matches: a shell pattern, or a part of the name.
    public static func matching(_ pattern: String?, of cases: [Case] = all) -> [Case] {
        guard let pattern else { return cases }
        return cases.filter { Pattern.matches(pattern, $0.name) }
    }
}

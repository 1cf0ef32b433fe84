// The states of a job and the edges between them.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

/// The edges that ARCHITECTURE.md and the head of JobState.swift document, and no others.
private let legalEdges: [(from: JobState, to: JobState)] = [
    (.free, .preparing),
    (.preparing, .queued), (.preparing, .free),
    (.queued, .running), (.queued, .cancelled),
    (.cancelled, .finished),
    (.running, .queued), (.running, .waiting), (.running, .finished),
    (.waiting, .running), (.waiting, .finished),
    (.finished, .free),
]

private func isLegal(_ from: JobState, _ to: JobState) -> Bool {
    legalEdges.contains { $0.from == from && $0.to == to }
}

@Suite struct JobStateTests {
    @Test("Every pair of states is an edge exactly when it is documented")
    func everyPairOfStates() {
        #expect(JobState.allCases.count == 7)
        for from in JobState.allCases {
            for to in JobState.allCases {
                #expect(from.allows(to) == isLegal(from, to), "\(from) to \(to)")
            }
        }
    }

    @Test("Zeroed memory is a free job") func zeroIsFree() {
        #expect(JobState(rawValue: 0) == .free)
        #expect(makeTable().allocate()?.state == .preparing)
    }

    @Test("A transition happens from its first state and from no other")
    func transitionsOnlyFromTheirState() {
        let job = makeTable().allocate()!
        for edge in legalEdges {
            for actual in JobState.allCases {
                job.it.state.store(actual.rawValue, ordering: .relaxed)
                let changed = job.transition(from: edge.from, to: edge.to)
                #expect(changed == (actual == edge.from), "\(edge) in \(actual)")
                #expect(job.state == (changed ? edge.to : actual), "\(edge) in \(actual)")
            }
        }
    }

    #if DEBUG
        @Test("An illegal transition stops a debug build") func illegalTransitionAsserts() async {
            await #expect(processExitsWith: .failure) {
                boundedInTime()
                let job = makeTable().allocate()!
                job.it.state.store(JobState.finished.rawValue, ordering: .relaxed)
                _ = job.transition(from: .finished, to: .finished)
            }
        }
    #endif

    /// The cancel protocol in one line: a daemon must win the job before it runs it.
    @Test("Of many threads that run or cancel a queued job, exactly one wins")
    func exactlyOneWinner() {
        let table = makeTable()
        let jobs = (0..<2000).map { _ in table.allocateQueued() }
        let runners = WinCounts(jobs.count)
        let cancellers = WinCounts(jobs.count)
        concurrently(6) { thread in
            for (index, job) in jobs.enumerated() {
                let target: JobState = thread % 2 == 0 ? .running : .cancelled
                if job.transition(from: .queued, to: target) {
                    (thread % 2 == 0 ? runners : cancellers).add(index)
                }
            }
        }
        for (index, job) in jobs.enumerated() {
            let ran = runners[index]
            let wasCancelled = cancellers[index]
            #expect(ran + wasCancelled == 1, "job \(index)")
            #expect(job.state == (ran == 1 ? .running : .cancelled), "job \(index)")
        }
    }
}

/// Counters that threads add to.
final class WinCounts: @unchecked Sendable {
    private let counts: UnsafeMutablePointer<Atomic<Int>>

    init(_ count: Int) {
        counts = .allocate(capacity: count)
        for index in 0..<count { (counts + index).initialize(to: Atomic(0)) }
    }

    func add(_ index: Int) { counts[index].add(1, ordering: .relaxed) }

    subscript(index: Int) -> Int { counts[index].load(ordering: .relaxed) }
}

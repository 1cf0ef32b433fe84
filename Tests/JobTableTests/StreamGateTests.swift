// The order of deferred requests on pipes and sockets: one file, one direction, one at a time.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

private struct SharedGate: ~Copyable {
    let gate: StreamGate
}

private func makeGate() -> Ref<SharedGate> {
    let record = Memory.record(SharedGate.self)!
    record.pointer.initialize(to: SharedGate(gate: StreamGate()!))
    return record
}

extension Ref where Pointee == SharedGate {
    fileprivate func enter(
        _ table: Ref<JobTable>, inode: UInt64 = 7, isWrite: Bool = false, device: UInt64 = 1,
        exclusively bytes: Range<Int64>? = nil
    ) -> JobRef {
        let job = table.allocateQueued()
        job.it.operation = isWrite ? .write : .read
        job.it.isStream = bytes == nil
        job.it.isExclusive = bytes != nil
        job.it.offset = bytes?.lowerBound ?? 0
        job.it.length = bytes?.count ?? 0
        job.it.device = device
        job.it.inode = inode
        it.gate.enter(table, job)
        return job
    }

    fileprivate func isOccupied(
        _ table: Ref<JobTable>, inode: UInt64 = 7, isWrite: Bool = false, device: UInt64 = 1
    ) -> Bool {
        it.gate.isOccupied(table, device: device, inode: inode, isWrite: isWrite)
    }
}

extension Ref where Pointee == SharedGate {
    fileprivate func mayStart(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        it.gate.mayStart(table, job)
    }

    fileprivate func leave(_ table: Ref<JobTable>, _ job: JobRef) -> JobRef? {
        it.gate.leave(table, job)
    }

    fileprivate func unpark(_ job: JobRef) -> Bool { it.gate.unpark(job) }

    fileprivate var hasExclusiveWrites: Bool { it.gate.hasExclusiveWrites }

    /// False when a write that is one at a time overlaps those bytes.
    fileprivate func isFree(
        _ table: Ref<JobTable>, _ bytes: Range<Int64>, inode: UInt64 = 7
    ) -> Bool {
        it.gate.awaitWrites(
            table, device: 1, inode: inode, start: bytes.lowerBound, end: bytes.upperBound,
            mayWait: false)
    }

    fileprivate func isVacant(
        _ table: Ref<JobTable>, isWrite: Bool, mayWait: Bool = false
    ) -> Bool {
        it.gate.awaitVacancy(
            table, device: 1, inode: 7, isWrite: isWrite, isStream: true, mayWait: mayWait)
    }

    fileprivate func isItsTurn(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        it.gate.awaitTurn(table, of: job, mayWait: false)
    }
}

private func isParked(_ job: JobRef) -> Bool { job.it.isParked }

@Suite struct StreamGateTests {
    @Test(
        "Only the first job of a file and direction may start; each one that leaves starts the next"
    )
    func oneAtATime() {
        let table = makeTable()
        let gate = makeGate()
        let jobs = (0..<4).map { _ in gate.enter(table) }
        #expect(gate.mayStart(table, jobs[0]))
        // The daemon has come to the second and third, not yet to the fourth.
        #expect(!gate.mayStart(table, jobs[1]))
        #expect(!gate.mayStart(table, jobs[2]))
        #expect(gate.leave(table, jobs[0]) == jobs[1])
        #expect(!isParked(jobs[1]) && isParked(jobs[2]))
        #expect(gate.mayStart(table, jobs[1]))
        #expect(gate.leave(table, jobs[1]) == jobs[2])
        #expect(gate.leave(table, jobs[2]) == nil, "the fourth will find itself first")
        #expect(gate.mayStart(table, jobs[3]))
        #expect(gate.isOccupied(table))
        #expect(gate.leave(table, jobs[3]) == nil)
        #expect(!gate.isOccupied(table))
        #expect(gate.leave(table, jobs[3]) == nil, "twice is harmless")
    }

    /// The buckets are 1,024, so the first two share one.
    @Test("The other direction, another file and another device are not waited for")
    func independentFiles() {
        let table = makeTable()
        let gate = makeGate()
        let first = gate.enter(table, inode: 7)
        #expect(gate.isOccupied(table, inode: 7))
        #expect(!gate.isOccupied(table, inode: 7 + 512))
        #expect(!gate.isOccupied(table, inode: 7, isWrite: true))
        #expect(!gate.isOccupied(table, inode: 7, device: 2))
        let others = [
            gate.enter(table, inode: 7 + 512), gate.enter(table, inode: 7, isWrite: true),
            gate.enter(table, inode: 7, device: 2),
        ]
        for other in others { #expect(gate.mayStart(table, other)) }
        let second = gate.enter(table, inode: 7)
        #expect(!gate.mayStart(table, second))
        for other in others { #expect(gate.leave(table, other) == nil) }
        #expect(isParked(second), "none of them was the one it waits for")
        #expect(gate.leave(table, first) == second)
    }

    @Test("A file without an identity is not ordered") func anonymousFiles() {
        let table = makeTable()
        let gate = makeGate()
        let jobs = (0..<2).map { _ in gate.enter(table, inode: 0, device: 0) }
        for job in jobs { #expect(gate.mayStart(table, job)) }
        #expect(!gate.isOccupied(table, inode: 0, device: 0))
    }

    @Test("A parked job that is cancelled is given back once, and the next is still started")
    func cancelledWhileParked() {
        let table = makeTable()
        let gate = makeGate()
        let jobs = (0..<3).map { _ in gate.enter(table) }
        #expect(gate.mayStart(table, jobs[0]))
        #expect(!gate.unpark(jobs[1]), "its daemon has not come to it")
        #expect(!gate.mayStart(table, jobs[1]))
        #expect(!gate.mayStart(table, jobs[2]))
        #expect(gate.unpark(jobs[1]))
        #expect(!gate.unpark(jobs[1]))
        #expect(gate.leave(table, jobs[1]) == nil, "the first is not done")
        #expect(isParked(jobs[2]))
        #expect(gate.leave(table, jobs[0]) == jobs[2])
    }

    @Test(
        "Whoever would overtake a write that is one at a time is told, by bytes, file and direction"
    )
    func overtaking() {
        let table = makeTable()
        let gate = makeGate()
        let stream = gate.enter(table, isWrite: true)
        #expect(!gate.hasExclusiveWrites && gate.isFree(table, 0..<100))
        let write = gate.enter(table, isWrite: true, exclusively: 10..<20)
        #expect(gate.hasExclusiveWrites)
        #expect(
            gate.isFree(table, 0..<10) && gate.isFree(table, 20..<30)
                && gate.isFree(table, 10..<20, inode: 8))
        #expect(!gate.isFree(table, 0..<11) && !gate.isFree(table, 19..<30))
        #expect(!gate.isVacant(table, isWrite: true) && gate.isVacant(table, isWrite: false))
        #expect(gate.isItsTurn(table, stream))
        #expect(!gate.isItsTurn(table, write))
        #expect(gate.leave(table, stream) == nil)
        #expect(gate.isItsTurn(table, write))
        #expect(gate.leave(table, write) == nil)
        #expect(
            !gate.hasExclusiveWrites && gate.isFree(table, 0..<100)
                && gate.isVacant(table, isWrite: true))
    }

    @Test("Who waits for the writes before it goes on when the last of them has left")
    func awaitingVacancy() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            let jobs = (0..<100).map { _ in gate.enter(table, isWrite: true) }
            let left = WinCounts(1)
            concurrently(2) { thread in
                if thread == 0 {
                    for job in jobs {
                        left.add(0)
                        _ = gate.leave(table, job)
                    }
                } else {
                    #expect(gate.isVacant(table, isWrite: true, mayWait: true))
                    #expect(left[0] == jobs.count)
                }
            }
        }
    }

    /// As daemons do it: a job that may not start is left to whoever leaves before it.
    @Test("Under load every job starts once, alone on its file, and in order") func stress() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            let running = WinCounts(4)
            let started = WinCounts(4)
            let mistakes = WinCounts(1)
            let done = WinCounts(1)
            let perThread = 1000
            func run(_ first: JobRef) {
                var next: JobRef? = first
                while let job = next {
                    let file = Int(job.it.inode)
                    running.add(file)
                    if running[file] != started[file] + 1 { mistakes.add(0) }
                    started.add(file)
                    done.add(0)
                    next = gate.leave(table, job)
                    if let next, !gate.mayStart(table, next) { mistakes.add(0) }
                    table.finishAndFree(job)
                }
            }
            concurrently(3) { thread in
                for round in 0..<perThread {
                    let job = gate.enter(table, inode: UInt64(round % 3 + 1))
                    if gate.mayStart(table, job) { run(job) }
                }
            }
            #expect(mistakes[0] == 0)
            #expect(done[0] == 3 * perThread, "a job was lost, or ran twice")
            #expect(table.jobsInUse == 0)
        }
    }
}

// The order of aio_fsync: after the earlier requests on its file, and waiting for no others.

import CLibAIO
import Testing

@testable import JobTable

private struct SharedGate: ~Copyable {
    var gate: SyncGate
}

extension Ref where Pointee == SharedGate {
    fileprivate static func make() -> Self {
        let record = Memory.record(SharedGate.self)!
        record.pointer.initialize(to: SharedGate(gate: SyncGate()))
        return record
    }

    fileprivate func enter(
        _ table: Ref<JobTable>, _ operation: JobOperation, inode: UInt64 = 7, device: UInt64 = 1
    ) -> JobRef {
        let job = table.allocateQueued()
        job.it.face = .posix
        job.it.operation = operation
        job.it.device = device
        job.it.inode = inode
        it.gate.enter(table, job)
        return job
    }

    fileprivate func mayStart(_ table: Ref<JobTable>, _ job: JobRef) -> Bool {
        it.gate.mayStart(table, job)
    }

    /// The indexes of the jobs that may start now.
    fileprivate func leave(_ table: Ref<JobTable>, _ job: JobRef) -> Set<UInt32> {
        var released: Set<UInt32> = []
        var next = it.gate.leave(table, job)
        while let job = next {
            released.insert(job.number)
            next = job.it.queueNext == Job.none ? nil : table.job(at: job.it.queueNext)
        }
        return released
    }

    fileprivate func unpark(_ job: JobRef) -> Bool { it.gate.unpark(job) }

    fileprivate func isOccupied(_ table: Ref<JobTable>) -> Bool {
        it.gate.isOccupied(table, device: 1, inode: 7)
    }
}

@Suite struct SyncGateTests {
    @Test("An fsync that no daemon can do is told of the requests before it, and of those alone")
    func occupied() {
        let table = makeTable()
        let gate = Ref<SharedGate>.make()
        let others = [
            gate.enter(table, .fsync), gate.enter(table, .write, inode: 8),
            gate.enter(table, .write, device: 2),
        ]
        #expect(!gate.isOccupied(table))
        let write = gate.enter(table, .write)
        #expect(gate.isOccupied(table))
        #expect(gate.leave(table, write).isEmpty)
        #expect(!gate.isOccupied(table))
        for other in others { #expect(gate.leave(table, other).isEmpty) }
    }

    @Test("An fsync starts when the last earlier read or write of its file is done")
    func waitsForEarlier() {
        let table = makeTable()
        let gate = Ref<SharedGate>.make()
        let write = gate.enter(table, .write)
        let read = gate.enter(table, .read)
        let first = gate.enter(table, .fsync)
        let later = gate.enter(table, .write)
        let second = gate.enter(table, .fdatasync)
        #expect(gate.mayStart(table, write) && gate.mayStart(table, read))
        #expect(!gate.mayStart(table, first) && !gate.mayStart(table, second))
        #expect(gate.leave(table, write) == [])
        #expect(gate.leave(table, read) == [first.number])
        #expect(gate.mayStart(table, first))
        // The second waits for the write, not for the first.
        #expect(gate.leave(table, later) == [second.number])
        #expect(gate.leave(table, first) == [] && gate.leave(table, second) == [])
    }

    @Test("It waits for nothing on another file or device, and for no later request")
    func independentFiles() {
        let table = makeTable()
        let gate = Ref<SharedGate>.make()
        _ = gate.enter(table, .write, inode: 8)
        _ = gate.enter(table, .write, device: 2)
        let sync = gate.enter(table, .fsync)
        _ = gate.enter(table, .write)
        #expect(gate.mayStart(table, sync))
    }

    @Test("All that wait for one request are given back together")
    func severalAtOnce() {
        let table = makeTable()
        let gate = Ref<SharedGate>.make()
        let write = gate.enter(table, .write)
        let syncs = (0..<3).map { _ in gate.enter(table, .fsync) }
        for sync in syncs { #expect(!gate.mayStart(table, sync)) }
        #expect(gate.leave(table, write) == Set(syncs.map(\.number)))
    }

    @Test("One that was cancelled while it was parked is taken out once")
    func cancelled() {
        let table = makeTable()
        let gate = Ref<SharedGate>.make()
        let write = gate.enter(table, .write)
        let sync = gate.enter(table, .fsync)
        #expect(!gate.unpark(sync), "it is not parked yet")
        #expect(!gate.mayStart(table, sync))
        #expect(gate.unpark(sync) && !gate.unpark(sync))
        #expect(gate.leave(table, write) == [])
    }
}

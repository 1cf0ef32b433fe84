// Kernel order: a write waits for the deferred reads that it overlaps, and for no others.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

private struct SharedGate: ~Copyable {
    var gate = OrderGate()
    let hasLeft = Atomic<Bool>(false)
}

private func makeGate() -> Ref<SharedGate> {
    let record = Memory.record(SharedGate.self)!
    record.pointer.initialize(to: SharedGate())
    return record
}

extension Ref where Pointee == SharedGate {
    fileprivate func enterRead(
        _ table: Ref<JobTable>, offset: Int64, length: Int, device: UInt64 = 1, inode: UInt64 = 7
    ) -> JobRef {
        let job = table.allocate()!
        job.it.device = device
        job.it.inode = inode
        job.it.offset = offset
        job.it.length = length
        it.gate.enter(table, job)
        return job
    }

    /// True unless the writer may not wait and would have to.
    @discardableResult
    fileprivate func awaitReads(
        _ table: Ref<JobTable>, offset: Int64, length: Int, device: UInt64 = 1, inode: UInt64 = 7,
        mayWait: Bool = true
    ) -> Bool {
        it.gate.awaitReads(
            table, device: device, inode: inode, start: offset, end: offset + Int64(length),
            mayWait: mayWait)
    }

    fileprivate var count: UInt32 { it.gate.count.load(ordering: .acquiring) }
}

@Suite struct OrderGateTests {
    /// Fails by its bound in time when a writer waits for a read that is none of its business.
    @Test("Writers elsewhere do not wait: other bytes, other file, other device")
    func disjointWritersPass() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            let read = gate.enterRead(table, offset: 1000, length: 100)
            for (offset, length) in [(0, 1000), (1100, 50), (0, 0), (5000, 1), (1000, 0)] {
                gate.awaitReads(
                    table, offset: Int64(offset), length: length, device: 1, inode: 7)
            }
            gate.awaitReads(
                table, offset: 1000, length: 100, device: 1, inode: 8)
            gate.awaitReads(
                table, offset: 1000, length: 100, device: 2, inode: 7)
            #expect(gate.count == 1)
            // A signal handler cannot wait for what it interrupted.
            #expect(!gate.awaitReads(table, offset: 1099, length: 1, mayWait: false))
            #expect(gate.awaitReads(table, offset: 1100, length: 1, mayWait: false))
            gate.it.gate.leave(table, read)
            #expect(gate.count == 0)
            gate.awaitReads(
                table, offset: 1000, length: 100, device: 1, inode: 7)
            // A job that never entered leaves without harm.
            gate.it.gate.leave(table, read)
            #expect(gate.count == 0)
        }
    }

    @Test(
        "A writer that overlaps by as little as one byte waits until the read has left",
        arguments: [(0, 1001), (1099, 1), (1050, 10), (0, 10_000), (1000, 100)])
    func overlappingWriterWaits(offset: Int, length: Int) async {
        await #expect(processExitsWith: .success) {
            [offset = offset as Int, length = length as Int] in
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            let read = gate.enterRead(table, offset: 1000, length: 100)
            var sawRead = false
            concurrently(2) { thread in
                if thread == 0 {
                    gate.awaitReads(
                        table, offset: Int64(offset), length: length, device: 1, inode: 7)
                    sawRead = !gate.it.hasLeft.load(ordering: .acquiring)
                    return
                }
                // Time for a writer that does not wait to be caught at it.
                usleep(30_000)
                gate.it.hasLeft.store(true, ordering: .releasing)
                gate.it.gate.leave(table, read)
            }
            #expect(!sawRead)
        }
    }

    @Test("A read is compared by the range that it had when it entered")
    func rangeIsThatOfEntry() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            let read = gate.enterRead(table, offset: 1000, length: 100)
            var sawRead = false
            concurrently(2) { thread in
                if thread == 0 {
                    gate.awaitReads(
                        table, offset: 1000, length: 10, device: 1, inode: 7)
                    sawRead = !gate.it.hasLeft.load(ordering: .acquiring)
                    return
                }
                // The daemon has transferred half of it: its first bytes are still in flight.
                read.it.offset = 1050
                read.it.length = 50
                usleep(30_000)
                gate.it.hasLeft.store(true, ordering: .releasing)
                gate.it.gate.leave(table, read)
            }
            #expect(!sawRead)
        }
    }

    @Test("Reads leave in any order, and the list stays whole") func leaveInAnyOrder() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]] {
                let reads = (0..<3).map {
                    gate.enterRead(table, offset: Int64($0 * 100), length: 100)
                }
                for (position, index) in order.enumerated() {
                    gate.it.gate.leave(table, reads[index])
                    #expect(gate.count == UInt32(2 - position))
                    gate.awaitReads(
                        table, offset: Int64(index * 100), length: 100, device: 1, inode: 7)
                }
                for read in reads { table.free(read, from: .preparing) }
            }
        }
    }

    /// Fails by its bound in time when a writer misses the wake-up of the last read.
    @Test("Readers and writers on the same bytes all get through") func stress() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let table = makeTable()
            let gate = makeGate()
            concurrently(4) { thread in
                for round in 0..<1500 {
                    let offset = Int64(round % 10 * 50)
                    if thread < 2 {
                        let read = gate.enterRead(table, offset: offset, length: 100)
                        gate.it.gate.leave(table, read)
                        table.free(read, from: .preparing)
                    } else {
                        gate.awaitReads(
                            table, offset: offset, length: 100, device: 1, inode: 7)
                    }
                }
            }
            #expect(gate.count == 0)
            #expect(table.jobsInUse == 0)
        }
    }
}

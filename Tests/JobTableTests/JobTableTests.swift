// Jobs: handing them out, naming them, limiting them, and their vectors.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

@Suite struct JobTableTests {
    // MARK: Allocation and names

    /// Atomic.add ends the process where the sum does not fit.
    @Test("A job may be used more often than its generation can count") func generationWraps() {
        let table = makeTable()
        let first = table.allocate()!
        first.it.generation.store(.max, ordering: .relaxed)
        let name = first.name
        table.free(first, from: .preparing)
        let second = table.allocate()!
        #expect(second == first && second.name != name)
        #expect(table.job(named: name) == nil)
    }

    @Test("A job carries over nothing that a request may leave unset") func allocationResets() {
        let table = makeTable()
        let first = table.allocate()!
        first.it.isBuffered = true
        first.it.isStream = true
        first.it.isExclusive = true
        first.it.mustStartDisk = true
        first.it.wasSeen = true
        first.it.isGated = true
        first.it.isParked = true
        first.it.cancelRequested.store(true, ordering: .relaxed)
        first.it.sleepers.store(1, ordering: .relaxed)
        first.it.subject.store(4096, ordering: .relaxed)
        first.it.isPublished.store(true, ordering: .relaxed)
        first.it.face = .posix
        first.it.priority = 3
        first.it.rwFlags = 8
        first.it.ioPriority = 3
        first.it.pollEvents = 1
        first.it.heldFile = 7
        first.it.heldEventfd = 9
        _ = table.reserveVectors(first, count: 9)
        first.it.vectorFirst = 2
        first.it.progress = 100
        first.it.length = 5
        first.it.offset = 77
        table.free(first, from: .preparing)
        let second = table.allocate()!
        #expect(second == first)
        #expect(second.state == .preparing)
        #expect(!second.it.isBuffered && !second.it.isStream)
        #expect(!second.it.isExclusive && !second.it.mustStartDisk && !second.it.wasSeen)
        #expect(!second.it.isGated && !second.it.isParked)
        let isPublished = second.it.isPublished.load(ordering: .relaxed)
        let sleepers = second.it.sleepers.load(ordering: .relaxed)
        let subject = second.it.subject.load(ordering: .relaxed)
        #expect(!isPublished && sleepers == 0 && subject == 0)
        #expect(second.it.face == .linux && second.it.priority == 0)
        let wasCancelled = second.it.cancelRequested.load(ordering: .relaxed)
        #expect(!wasCancelled)
        #expect(second.it.rwFlags == 0 && second.it.ioPriority == 0 && second.it.pollEvents == 0)
        #expect(second.it.heldFile == Job.none && second.it.heldEventfd == Job.none)
        #expect(second.it.vectorBlock == Job.none && second.it.vectorCount == 0)
        #expect(second.it.vectorFirst == 0 && second.it.progress == 0)
        #expect(second.it.length == 0 && second.it.offset == 0)
        #expect(second.it.queueNext == Job.none)
    }

    @Test("A name finds its job while it lives, and nothing afterwards") func staleNames() {
        let table = makeTable()
        let first = table.allocate()!
        let firstName = first.name
        #expect(table.job(named: firstName) == first)
        table.free(first, from: .preparing)
        #expect(table.job(named: firstName) == nil)
        let second = table.allocate()!
        #expect(second == first, "the slot is reused")
        #expect(table.job(named: firstName) == nil)
        #expect(table.job(named: second.name) == second)
        // An index beyond what was ever opened is no memory to look at.
        #expect(table.job(named: UInt64(UInt32.max)) == nil)
        #expect(table.job(named: UInt64.max) == nil)
    }

    @Test("Jobs are distinct and counted") func distinctAndCounted() {
        let table = makeTable()
        let jobs = (0..<1000).map { _ in table.allocate()! }
        #expect(Set(jobs.map(\.number)).count == 1000)
        #expect(Set(jobs.map(\.address)).count == 1000)
        #expect(table.jobsInUse == 1000)
        for job in jobs {
            #expect(table.job(at: job.it.index) == job)
            table.free(job, from: .preparing)
        }
        #expect(table.jobsInUse == 0)
    }

    @Test("forEachJob sees every job that is in use") func forEachJobSeesAll() {
        let table = makeTable()
        let jobs = (0..<500).map { _ in table.allocate()! }
        var seen = Set<UInt32>()
        table.forEachJob { if $0.state == .preparing { seen.insert($0.it.index) } }
        #expect(seen == Set(jobs.map(\.number)))
    }

    @Test(
        "max_aio_queue_per_proc is exact: one more is refused, and freeing one makes room",
        arguments: [1, 100, 500])
    func limit(jobs limit: Int) async {
        await #expect(processExitsWith: .success) { [limit = limit as Int] in
            boundedInTime()
            setenv("IOCTX_MAX_AIO_QUEUE_PER_PROC", "\(limit)", 1)
            let table = makeTable()
            let jobs = (0..<limit).compactMap { _ in table.allocate() }
            #expect(jobs.count == limit)
            #expect(table.allocate() == nil)
            #expect(table.jobsInUse == UInt32(limit))
            table.free(jobs[limit / 2], from: .preparing)
            #expect(table.allocate() == jobs[limit / 2])
            #expect(table.allocate() == nil)
        }
    }

    /// Fails when a job is handed out twice, or a count is lost.
    @Test("Threads that allocate and free never share a job") func concurrentAllocation() {
        let table = makeTable()
        let errors = WinCounts(1)
        concurrently(4) { thread in
            var mine: [JobRef] = []
            for round in 0..<3000 {
                let job = table.allocate()!
                job.it.userData = UInt64(thread) << 32 | UInt64(round)
                job.it.userObject = job.name
                _ = table.reserveVectors(job, count: round % 5)
                mine.append(job)
                if mine.count < 20 { continue }
                let oldest = mine.removeFirst()
                if oldest.it.userData != UInt64(thread) << 32 | UInt64(round - 19)
                    || oldest.it.userObject != oldest.name || oldest.state != .preparing
                {
                    errors.add(0)
                }
                table.free(oldest, from: .preparing)
            }
            for job in mine { table.free(job, from: .preparing) }
        }
        #expect(errors[0] == 0)
        #expect(table.jobsInUse == 0)
    }

    /// forEachJob and job(named:) are daemons', allocate() is the submitters'.
    @Test("To look at jobs while others open new ones harms neither") func lookWhileGrowing() {
        let table = makeTable()
        let known = (0..<3).map { _ in table.allocate()! }
        let found = WinCounts(2)
        concurrently(2) { thread in
            if thread == 0 {
                for _ in 0..<2000 { _ = table.allocate() }
                return
            }
            for _ in 0..<50 {
                var count = 0
                table.forEachJob { if $0.state == .preparing { count += 1 } }
                if count >= known.count { found.add(0) }
                if known.allSatisfy({ table.job(named: $0.name) == $0 }) { found.add(1) }
            }
        }
        #expect(found[0] == 50 && found[1] == 50)
        #expect(table.jobsInUse == 2003)
    }

    // MARK: Vectors

    @Test("Up to two vectors lie in the job, more in a block", arguments: [0, 1, 2, 3, 8, 1024])
    func vectorsAreKept(count: Int) {
        let table = makeTable()
        let job = table.allocate()!
        let other = table.allocate()!
        let address = table.reserveVectors(job, count: count)
        let otherAddress = table.reserveVectors(other, count: count)
        let inJob = job.address..<job.address + UInt(MemoryLayout<Job>.size)
        #expect(inJob.contains(address) == (count <= Job.inlineVectors))
        #expect(address == table.vectorsAddress(job))
        let distance = address > otherAddress ? address - otherAddress : otherAddress - address
        #expect(distance >= UInt(count * MemoryLayout<Vector>.stride))
        for (base, seed) in [(address, 1), (otherAddress, 1_000_000)] {
            for index in 0..<count {
                Ref<Vector>(address: base + UInt(index * 16))!.it = Vector(
                    base: UInt(seed + index), length: index)
            }
        }
        for index in 0..<count {
            let vector = Ref<Vector>(address: address + UInt(index * 16))!.it
            #expect(vector.base == UInt(1 + index) && vector.length == index)
        }
    }

    @Test("A block is reused after its job") func blocksAreReused() {
        let table = makeTable()
        let first = table.allocate()!
        let address = table.reserveVectors(first, count: 10)
        table.free(first, from: .preparing)
        let second = table.allocate()!
        #expect(table.reserveVectors(second, count: 1024) == address)
    }

    @Test("A block that is borrowed is nobody else's until it is returned") func borrowedBlocks() {
        let table = makeTable()
        let borrowed = table.borrowVectorBlock()
        let job = table.allocate()!
        #expect(table.reserveVectors(job, count: 10) != table.blockAddress(borrowed))
        table.returnVectorBlock(borrowed)
        #expect(table.borrowVectorBlock() == borrowed)
    }

    @Test("When all blocks are taken the answer is 0, until one is given back")
    func blocksRunOut() {
        let table = makeTable()
        let jobs = (0..<JobTable.vectorBlocksMax).map { _ in table.allocate()! }
        let addresses = jobs.map { table.reserveVectors($0, count: 3) }
        #expect(!addresses.contains(0))
        #expect(Set(addresses).count == addresses.count)
        let unlucky = table.allocate()!
        #expect(table.reserveVectors(unlucky, count: 3) == 0)
        table.free(unlucky, from: .preparing)
        let inline = table.allocate()!
        #expect(table.reserveVectors(inline, count: 2) != 0)
        table.free(jobs[17], from: .preparing)
        let lucky = table.allocate()!
        #expect(table.reserveVectors(lucky, count: 3) == addresses[17])
    }

    struct Advance: Sendable, CustomTestStringConvertible {
        var lengths: [Int]
        var steps: [Int]
        var offset: Int64 = 4096
        /// What is left, as (distance of the base from its start, length).
        var left: [(moved: UInt, length: Int)]

        var testDescription: String { "\(lengths) by \(steps) at \(offset)" }
    }

    @Test(
        "advance() moves offset, length, progress and vectors by exactly what was transferred",
        arguments: [
            Advance(lengths: [10], steps: [], left: [(0, 10)]),
            Advance(lengths: [10], steps: [4], left: [(4, 6)]),
            Advance(lengths: [10], steps: [4, 5], left: [(9, 1)]),
            Advance(lengths: [10], steps: [10], left: []),
            Advance(lengths: [10, 20], steps: [10], left: [(0, 20)]),
            Advance(lengths: [10, 20], steps: [11], left: [(1, 19)]),
            Advance(lengths: [10, 20, 30], steps: [5, 10, 20], left: [(5, 25)]),
            Advance(lengths: [10, 20, 30, 40], steps: [60], left: [(0, 40)]),
            Advance(lengths: [10, 0, 0, 40], steps: [15], left: [(5, 35)]),
            Advance(lengths: [0, 10], steps: [3], left: [(3, 7)]),
            Advance(lengths: [1, 1, 1, 1, 1], steps: [1, 1, 1], left: [(0, 1), (0, 1)]),
            Advance(lengths: [10, 20], steps: [15], offset: -1, left: [(5, 15)]),
            Advance(lengths: [10, 20, 30], steps: [60], offset: -1, left: []),
        ])
    func advance(over example: Advance) {
        let table = makeTable()
        let job = table.allocate()!
        let count = example.lengths.count
        let address = table.reserveVectors(job, count: count)
        for (index, length) in example.lengths.enumerated() {
            Ref<Vector>(address: address + UInt(index * 16))!.it = Vector(
                base: UInt((index + 1) * 0x10000), length: length)
        }
        let total = example.lengths.reduce(0, +)
        let done = example.steps.reduce(0, +)
        job.it.length = total
        job.it.offset = example.offset
        for step in example.steps { table.advance(job, by: step) }
        #expect(job.it.progress == done)
        #expect(job.it.length == total - done)
        #expect(job.it.offset == (example.offset < 0 ? -1 : example.offset + Int64(done)))
        let first = Int(job.it.vectorFirst)
        #expect(count - first == example.left.count)
        for (position, left) in example.left.enumerated() {
            let vector = Ref<Vector>(
                address: table.vectorsAddress(job) + UInt(position * 16))!.it
            #expect(vector.base == UInt((first + position + 1) * 0x10000) + left.moved)
            #expect(vector.length == left.length)
        }
    }
}

// The run queue: by priority, first in, first out, from several submitters to one daemon.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

/// A queue that threads reach through one address, as a station's is.
private struct SharedQueue: ~Copyable {
    var queue = RunQueue()
}

private func makeQueue() -> Ref<SharedQueue> {
    let record = Memory.record(SharedQueue.self)!
    record.pointer.initialize(to: SharedQueue())
    return record
}

extension Ref where Pointee == SharedQueue {
    fileprivate var count: UInt32 { it.queue.count.load(ordering: .acquiring) }
}

@Suite struct RunQueueTests {
    @Test("Jobs come out in the order in which they went in, one by one and all at once")
    func firstInFirstOut() {
        let table = makeTable()
        let queue = makeQueue()
        #expect(queue.it.queue.takeFirst(table) == nil)
        #expect(queue.it.queue.takeAll(table) == nil)
        let jobs = (0..<6).map { _ in table.allocateQueued() }
        queue.it.queue.append(table, first: jobs[0], last: jobs[0], count: 1)
        chain(jobs[1...3])
        queue.it.queue.append(table, first: jobs[1], last: jobs[3], count: 3)
        #expect(queue.count == 4)
        #expect(queue.it.queue.takeFirst(table) == jobs[0])
        #expect(queue.it.queue.takeFirst(table) == jobs[1])
        #expect(queue.count == 2)
        // A chain's last link may be left over from an earlier life.
        jobs[5].it.queueNext = jobs[0].it.index
        chain(jobs[4...5])
        queue.it.queue.append(table, first: jobs[4], last: jobs[5], count: 2)
        var taken: [JobRef] = []
        var next = queue.it.queue.takeAll(table)
        while let job = next {
            taken.append(job)
            next = job.it.queueNext == Job.none ? nil : table.job(at: job.it.queueNext)
        }
        #expect(taken == Array(jobs[2...5]))
        #expect(queue.count == 0)
        #expect(queue.it.queue.takeFirst(table) == nil)
        queue.it.queue.append(table, first: jobs[0], last: jobs[0], count: 1)
        #expect(queue.it.queue.takeFirst(table) == jobs[0], "empty and used again")
    }

    @Test("Of the jobs that are wanted the first come out; the others keep their order")
    func takingSome() {
        let table = makeTable()
        let queue = makeQueue()
        let jobs = (0..<6).map { _ in table.allocateQueued() }
        chain(jobs[0...5])
        queue.it.queue.append(table, first: jobs[0], last: jobs[5], count: 6)
        func take(_ most: UInt32, _ wanted: Set<Int>) -> [JobRef] {
            var taken: [JobRef] = []
            var next = queue.it.queue.take(most, table) {
                wanted.contains(jobs.firstIndex(of: $0)!)
            }
            while let job = next {
                taken.append(job)
                next = table.successor(of: job)
            }
            return taken
        }
        #expect(take(9, []) == [])
        #expect(take(1, [3, 5]) == [jobs[3]])
        #expect(take(9, [0, 2, 5]) == [jobs[0], jobs[2], jobs[5]])
        #expect(queue.count == 2)
        queue.it.queue.append(table, first: jobs[5], last: jobs[5], count: 1)
        queue.it.queue.putBack(table, jobs[0])
        for expected in [0, 1, 4, 5] { #expect(queue.it.queue.takeFirst(table) == jobs[expected]) }
        queue.it.queue.putBack(table, jobs[2])
        queue.it.queue.append(table, first: jobs[3], last: jobs[3], count: 1)
        #expect(take(9, [2, 3]) == [jobs[2], jobs[3]])
        #expect(queue.count == 0 && queue.it.queue.takeFirst(table) == nil)
    }

    @Test("A look at the queue is in its order, ends when told, and changes nothing")
    func looking() {
        let table = makeTable()
        let queue = makeQueue()
        queue.it.queue.forEach(table) { _ in
            Issue.record("there is no job")
            return true
        }
        let jobs = (0..<4).map { _ in table.allocateQueued() }
        chain(jobs[0...3])
        queue.it.queue.append(table, first: jobs[0], last: jobs[3], count: 4)
        for wanted in [1, 3, 9] {
            var seen: [JobRef] = []
            queue.it.queue.forEach(table) {
                seen.append($0)
                return seen.count < wanted
            }
            #expect(seen == Array(jobs[0..<min(wanted, 4)]))
        }
        #expect(queue.count == 4)
        #expect(queue.it.queue.takeFirst(table) == jobs[0])
    }

    /// Fails when a job is lost, comes twice, or overtakes an earlier one of its submitter.
    @Test("Several submitters and a daemon: nothing is lost, nothing overtakes")
    func severalProducers() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let producers = 3
            let perProducer = 4000
            let table = makeTable()
            let queue = makeQueue()
            var nextExpected = Array(repeating: 0, count: producers)
            var disorder = 0
            concurrently(producers + 1) { thread in
                if thread < producers {
                    produce(table, queue, producer: thread, count: perProducer)
                    return
                }
                var received = 0
                while received < producers * perProducer {
                    var next =
                        received % 2 == 0
                        ? queue.it.queue.takeAll(table)
                        : queue.it.queue.takeFirst(table).map(cutLoose)
                    if next == nil { sched_yield() }
                    while let job = next {
                        next =
                            job.it.queueNext == Job.none ? nil : table.job(at: job.it.queueNext)
                        let producer = Int(job.it.userData >> 32)
                        let number = Int(job.it.userData & 0xffff_ffff)
                        if number != nextExpected[producer] { disorder += 1 }
                        nextExpected[producer] = number + 1
                        received += 1
                        table.finishAndFree(job)
                    }
                }
            }
            #expect(disorder == 0)
            #expect(nextExpected == Array(repeating: perProducer, count: producers))
            #expect(queue.count == 0)
            #expect(table.jobsInUse == 0)
        }
    }

    @Test("Jobs come in the order of their priority, and among equals in that of their hand-over")
    func priorities() {
        let table = makeTable()
        let queue = makeQueue()
        let jobs = [0, 20, 5, 0, 5, 20, 1].map { (priority: UInt8) in
            let job = table.allocateQueued()
            job.it.priority = priority
            queue.it.queue.append(table, first: job, last: job, count: 1)
            return job
        }
        for expected in [0, 3, 6, 2, 4, 1, 5] {
            #expect(queue.it.queue.takeFirst(table) == jobs[expected])
        }
        #expect(queue.it.queue.takeFirst(table) == nil)
    }
}

/// takeFirst() leaves the link to the former successor.
private func cutLoose(_ job: JobRef) -> JobRef {
    job.it.queueNext = Job.none
    return job
}

private func chain(_ jobs: ArraySlice<JobRef>) {
    for (job, next) in zip(jobs, jobs.dropFirst()) { job.it.queueNext = next.it.index }
}

private func produce(
    _ table: Ref<JobTable>, _ queue: Ref<SharedQueue>, producer: Int, count: Int
) {
    var sent = 0
    while sent < count {
        let size = min(1 + sent % 7, count - sent)
        let jobs = (0..<size).map { position in
            let job = table.allocateQueued()
            job.it.userData = UInt64(producer) << 32 | UInt64(sent + position)
            return job
        }
        chain(jobs[...])
        queue.it.queue.append(table, first: jobs[0], last: jobs[size - 1], count: UInt32(size))
        sent += size
    }
}

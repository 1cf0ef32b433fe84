// What the tests of this module share: engines of their own, and an outbox that takes the place of
// a face.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import TestSupport

@testable import Paths

extension TestEngine {
    /// Of one with a daemon: what auto takes is chosen elsewhere.
    var choice: Engine { self == .uring ? .uring : .threads }
}

func makeEngine(_ choice: Engine) -> Ref<EngineRecord> {
    let root = Memory.record(ProcessRoot.self)!
    let table = JobTable.createLocked(in: root)!
    table.it.linuxHooks = FaceHooks(
        publish: { Outbox.publish($0) }, wake: { Outbox.wake($0) })
    return EngineRecord.createLocked(in: root, table: table, choice: choice)!
}

/// Where jobs deliver their results: `userData` says at which place.
struct Outbox: ~Copyable {
    static let places = 1024
    let published: Atomic<UInt32>
    let announced: Atomic<UInt32>
    var results: InlineArray<1024, Int64>
    var deliveries: InlineArray<1024, UInt32>

    static func make() -> Ref<Outbox> { Memory.record(Outbox.self)! }

    static func publish(_ address: UInt) {
        guard let job = JobRef(address: address), let outbox = Ref<Outbox>(address: job.it.owner)
        else { return }
        outbox.it.results[Int(job.it.userData)] = job.it.result
        outbox.it.deliveries[Int(job.it.userData)] += 1
        outbox.it.published.add(1, ordering: .acquiringAndReleasing)
    }

    static func wake(_ address: UInt) {
        guard let outbox = Ref<Outbox>(address: address) else { return }
        outbox.it.announced.add(1, ordering: .acquiringAndReleasing)
        outbox.it.announced.wake()
    }
}

extension Ref where Pointee == Outbox {
    /// Waits for so many jobs altogether; without a bound of its own.
    func await(_ count: UInt32) {
        while true {
            let seen = it.announced.load(ordering: .acquiring)
            if seen >= count { return }
            _ = it.announced.wait(while: seen, until: .max)
        }
    }

    var count: UInt32 { it.published.load(ordering: .acquiring) }

    /// The only result at that place; nil when there was none, or more than one.
    func result(at place: Int) -> Int64? {
        it.deliveries[place] == 1 ? it.results[place] : nil
    }
}

extension Ref where Pointee == EngineRecord {
    /// Starts a request that a face would have made. A deferred one is handed over, and delivers
    /// to that place of the outbox.
    func run(_ request: Request, to outbox: Ref<Outbox>, at place: Int) -> Started {
        var request = request
        var batch = Batch()
        let started: Started
        switch start(&request, &batch) {
        case .completed(let result): started = .completed(result)
        case .refused(let result): started = .refused(result)
        case .deferred(let job):
            job.it.owner = outbox.address
            job.it.userData = UInt64(place)
            // After the hand-over the job is the daemon's.
            started = .deferred(job.name)
        }
        handOver(&batch)
        return started
    }
}

enum Started: Equatable {
    case completed(Int)
    case refused(Int)
    case deferred(UInt64)

    var isDeferred: Bool { if case .deferred = self { true } else { false } }
}

extension Buffer {
    func request(_ operation: JobOperation, _ descriptor: Int32, offset: Int64 = 0) -> Request {
        var request = Request(operation: operation, descriptor: descriptor)
        request.vectors = UInt(bitPattern: vector)
        request.vectorCount = 1
        request.length = bytes.count
        request.offset = offset
        return request
    }
}

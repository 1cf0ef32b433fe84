// An eventfd that is signalled later, whatever becomes of its number in the program's table.
//
// A daemon gets the eventfd at once, and the job that signals it when the time has come.

import CLibAIO
import JobTable
import Synchronization

/// The right to signal one eventfd once; with a daemon, which stays until it is used or given up.
public struct EventfdHold {
    private let station: Ref<Station>
    private let job: JobRef

    /// nil when no daemon can have it.
    public init?(_ engine: Ref<EngineRecord>, _ descriptor: Int32) {
        guard let station = engine.acquireStation() else { return nil }
        guard let job = engine.it.table.allocate() else {
            station.release()
            return nil
        }
        var request = Request(operation: .notify, descriptor: -1)
        request.resfd = descriptor
        var batch = Batch()
        batch.station = station
        // Ours, until `signal`; the batch gives up its own when it is handed over.
        station.it.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
        job.it.operation = .notify
        job.it.pollEvents = 1
        job.it.resfd = descriptor
        if case .deferred(let carrier) = engine.postpone(&request, &batch, FileFacts(), done: 0) {
            job.it.heldEventfd = carrier.it.heldEventfd
            station.it.files.addReference(job.it.heldEventfd)
        }
        engine.handOver(&batch)
        self.station = station
        self.job = job
        let index = job.it.heldEventfd
        if index != Job.none && station.it.files.isReady(index) { return }
        // It never got there: the job must not reach a daemon that does not have it.
        if index != Job.none && station.it.files.dropReference(index) {
            station.it.files.recycle(index)
        }
        engine.it.table.free(job, from: .preparing)
        station.release()
        return nil
    }

    /// Adds one to the eventfd and gives it up. Once, or `giveUp`.
    public func signal() { send() }

    /// Gives the eventfd up. Once, or `signal`.
    func giveUp() {
        job.it.pollEvents = 0
        send()
    }

    private func send() {
        _ = job.transition(from: .preparing, to: .queued)
        station.it.queue.append(station.it.table, first: job, last: job, count: 1)
        station.kick()
        station.release()
    }
}

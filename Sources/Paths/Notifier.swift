// Waking a thread that must sleep in ppoll.
//
// io_pgetevents changes the signal mask and sleeps in one step. No futex call does that; ppoll
// does, but it wakes for descriptors only. So such a sleeper has an eventfd, and whoever
// publishes its event lets the daemon, which holds the eventfd, signal it: a daemon has no
// business in the program's descriptor table, and another thread of the program cannot trust
// the number.

import CLibAIO
public import JobTable
import Synchronization

/// An eventfd for one sleeper, in the program's table, and two jobs that a daemon holds ready for
/// it.
public struct Notifier {
    /// In the program's table, for ppoll.
    public let descriptor: Int32
    let engine: Ref<EngineRecord>
    let station: Ref<Station>
    /// Signals the eventfd; nil once used.
    var signalJob: JobRef?
    /// Lets the daemon give the eventfd up.
    let releaseJob: JobRef

    /// Nil when no daemon can be had.
    public init?(_ engine: Ref<EngineRecord>) {
        guard let station = engine.acquireStation() else { return nil }
        let made = systemCall(Int32(SYS_eventfd2), 0, Int(O_CLOEXEC | O_NONBLOCK))
        let descriptor =
            made < 0 ? -1 : System.awayFromStandardStreams(Int32(truncatingIfNeeded: made))
        var batch = Batch()
        batch.station = station
        var request = Request(operation: .notify, descriptor: -1)
        request.resfd = descriptor
        guard made >= 0, let carrier = engine.notifyJob(request, &batch),
            let signalJob = engine.it.table.allocate()
        else {
            engine.handOver(&batch)
            if made >= 0 { System.close(descriptor) }
            return nil
        }
        guard let releaseJob = engine.it.table.allocate() else {
            engine.it.table.free(signalJob, from: .preparing)
            engine.handOver(&batch)
            System.close(descriptor)
            return nil
        }
        for job in 0..<2 {
            let job = job == 0 ? signalJob : releaseJob
            job.it.operation = .notify
            job.it.heldEventfd = carrier.it.heldEventfd
            station.it.files.addReference(carrier.it.heldEventfd)
        }
        signalJob.it.pollEvents = 1
        signalJob.it.resfd = descriptor
        self.engine = engine
        self.station = station
        self.descriptor = descriptor
        self.signalJob = signalJob
        self.releaseJob = releaseJob
        // The carrier takes the eventfd to the daemon; the batch's hold on the station ends there,
        // ours stays until `finish`.
        station.it.users.wrappingAdd(1, ordering: .sequentiallyConsistent)
        engine.handOver(&batch)
        if !station.it.files.isReady(releaseJob.it.heldEventfd) {
            // It never got there: the jobs must not reach a daemon that does not have it.
            for job in 0..<2 {
                let job = job == 0 ? signalJob : releaseJob
                if station.it.files.dropReference(job.it.heldEventfd) {
                    station.it.files.recycle(job.it.heldEventfd)
                }
                job.it.heldEventfd = Job.none
                engine.it.table.free(job, from: .preparing)
            }
            System.close(descriptor)
            station.release()
            return nil
        }
    }

    /// Makes the eventfd readable. Once; called under the lock that guards the sleeper.
    public mutating func signal() {
        guard let job = signalJob else { return }
        signalJob = nil
        send(job)
    }

    /// The sleeper is awake and will not look at the descriptor again.
    public mutating func finish() {
        if let job = signalJob {
            _ = station.it.files.dropReference(job.it.heldEventfd)
            job.it.heldEventfd = Job.none
            engine.it.table.free(job, from: .preparing)
            signalJob = nil
        }
        send(releaseJob)
        System.close(descriptor)
        station.release()
    }

    private func send(_ job: JobRef) {
        _ = job.transition(from: .preparing, to: .queued)
        station.it.queue.append(engine.it.table, first: job, last: job, count: 1)
        station.kick()
    }
}

extension Ref where Pointee == EngineRecord {
    /// A job that does nothing but carry the request's eventfd to the daemon.
    fileprivate func notifyJob(_ request: Request, _ batch: inout Batch) -> JobRef? {
        var request = request
        guard case .deferred(let job) = postpone(&request, &batch, FileFacts(), done: 0) else {
            return nil
        }
        return job
    }
}

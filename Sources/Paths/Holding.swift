// Holding a job's files: finding what a station holds already, claiming a place for what it does
// not, and giving back what a job that is not made has taken.
//
// A batch remembers what it held last, for most of its jobs are on one file and one eventfd.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == EngineRecord {
    /// Holds the file and the eventfd of a job. False when one of them cannot be.
    func holdFiles(
        of job: JobRef, _ request: Request, _ batch: inout Batch, _ facts: FileFacts,
        forWaiters: Bool
    ) -> Bool {
        if request.operation != .notify {
            job.it.heldFile = hold(
                &batch, request.descriptor, facts, as: Batch.file,
                mayShare: !request.operation.isSync, forWaiters: forWaiters)
            if job.it.heldFile == Job.none { return false }
        }
        if request.resfd >= 0 {
            var eventfdFacts = FileFacts()
            if FileFacts.of(request.resfd, &eventfdFacts) < 0 { return false }
            job.it.heldEventfd = hold(
                &batch, request.resfd, eventfdFacts, as: Batch.eventfd, mayShare: true)
            if job.it.heldEventfd == Job.none { return false }
        }
        return true
    }

    /// The index under which the daemon will find the file, with a reference for the job; `none`
    /// when it cannot be held. `use` is its place in `lastHeld`. It may share what an equal
    /// description holds, but an fsync reports the errors that its own description has not reported
    /// yet.
    private func hold(
        _ batch: inout Batch, _ descriptor: Int32, _ facts: FileFacts, as use: Int,
        mayShare: Bool, forWaiters: Bool = false
    ) -> UInt32 {
        guard let station = batch.station else { return Job.none }
        if descriptor == batch.lastHeld[use].descriptor {
            station.it.files.addReference(batch.lastHeld[use].index)
            return batch.lastHeld[use].index
        }
        let index = claim(station, &batch, descriptor, facts, mayShare, forWaiters)
        if index != Job.none {
            batch.lastHeld[use] = Batch.Held(descriptor: descriptor, index: index)
        }
        return index
    }

    private func claim(
        _ station: Ref<Station>, _ batch: inout Batch, _ descriptor: Int32, _ facts: FileFacts,
        _ mayShare: Bool, _ forWaiters: Bool
    ) -> UInt32 {
        if mayShare && (facts.isRegular || facts.isBlock),
            let index = station.it.files.shareRecent(
                device: facts.device, inode: facts.inode, flags: facts.flags,
                descriptor: descriptor, forWorkers: station.it.kind == .pool,
                forWaiters: forWaiters)
        {
            return index
        }
        if station.it.kind == .pool, let index = station.heldAlready(descriptor) {
            return index
        }
        // The program may have lowered the limit since, and what is sent without room is lost.
        let usedMax = station.it.kind == .pool ? Station.filesMax(.pool) : .max
        let claim = station.it.files.claim(
            device: mayShare && facts.isShareable ? facts.device : 0,
            inode: mayShare && facts.isShareable ? facts.inode : 0, flags: facts.flags,
            number: descriptor, usedMax: usedMax)
        switch claim {
        case .full: return Job.none
        case .shared(let index):
            // It may still be on its way.
            batch.needsManager = true
            return index
        case .new(let index):
            if station.it.kind == .uring {
                if station.it.uring.parking.fillSlot(index, file: descriptor) < 0 {
                    _ = station.it.files.dropReference(index)
                    station.it.files.recycle(index)
                    return Job.none
                }
                station.it.files.announce(index)
            }
            batch.newFiles &+= 1
            return index
        }
    }

    /// Takes back a job that could not be completed. Jobs of others may share the files that it
    /// holds by now and have taken them to the daemon, so it goes there itself, to let go of them.
    func discard(_ batch: inout Batch, _ job: JobRef) {
        if job.it.heldFile == Job.none && job.it.heldEventfd == Job.none {
            return it.table.free(job, from: .preparing)
        }
        job.it.operation = .notify
        job.it.face = .linux
        job.it.pollEvents = 0
        job.it.resfd = -1
        job.it.isStream = false
        batch.needsManager = true
        batch.isExclusive = false
        batch.isForWaiters = false
        _ = job.transition(from: .preparing, to: .queued)
        append(&batch, job)
    }
}

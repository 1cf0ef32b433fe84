// The end of a daemon whose rings are of no use any more: a filter that came late refuses the
// calls.
//
// What is with the kernel goes on until the work ring is gone, and nothing may be told of it
// before: buffers would still be written to. The daemon's thread has a hold on the ring, so another
// thread waits for its end and then ends the requests.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// The rings are of no use any more. What is with them and on its way to them fails, and nobody
    /// else comes here: later requests go to another engine. But the kernel may still be at it. So
    /// another thread waits until the work ring is gone, for which this one must be, and then
    /// tells.
    func giveUp() {
        it.engine.giveUpUring(self)
        it.uring.parking.emptyAllSlots()
        leaveRings()
        while unsafe ioctx_thread_start(
            { argument in
                Ref<Station>(address: UInt(bitPattern: argument))?.endGivenUp()
                return nil
            }, UnsafeMutableRawPointer(pointer), Int(IOCTX_DAEMON_STACK_BYTES)) != 0
        {
            System.sleep(nanoseconds: 1_000_000_000)
        }
    }

    /// The life of the thread that ends what a daemon had which has given up.
    private func endGivenUp() {
        becomeDaemon(named: "aiod/0")
        defer { endDaemon() }
        // The thread before this one has a hold on the ring, too.
        while System.readiness(of: it.uring.tombstone, UInt32(POLLIN)) == 0 {
            System.sleep(nanoseconds: 1_000_000)
        }
        // A parked job retains the station until those before it are done, a sleeper that is woken
        // by an eventfd until it is awake.
        repeat {
            failAll()
            announcePublished()
            System.sleep(nanoseconds: 1_000_000)
        } while it.users.load(ordering: .sequentiallyConsistent) != 0
            || it.queue.count.load(ordering: .sequentiallyConsistent) != 0
            || it.coldReads.count.load(ordering: .sequentiallyConsistent) != 0
        it.state.store(Station.dead, ordering: .releasing)
    }

    private func failAll() {
        failAll(it.coldReads.takeAll(it.table))
        failAll(it.queue.takeAll(it.table))
        it.table.forEachJob { job in
            let state = job.state
            if (state == .running || state == .waiting)
                && job.it.station.load(ordering: .relaxed) == address
            {
                fail(job, from: state, result: totalResult(job, last: failure(EIO)))
            }
        }
    }

    private func failAll(_ first: JobRef?) {
        var next = first
        while let job = next {
            next = it.table.successor(of: job)
            if job.it.operation != .notify && !mayStart(job) { continue }
            if !job.transition(from: .queued, to: .running) {
                fail(job, from: .cancelled, result: job.cancelledResult)
            } else if job.it.operation == .notify {
                fail(job, from: .running, result: 0)
            }
        }
    }

    /// The eventfd was in the ring: it is signalled by its number in the program's table, if that
    /// still leads to one.
    private func fail(_ job: JobRef, from state: JobState, result: Int) {
        let isSignalled = job.it.operation != .notify || job.it.pollEvents != 0
        let number = job.it.resfd
        publish(job, from: state, result: result)
        if isSignalled && number >= 0 { signalInProgram(number, count: 1) }
    }

    /// Adds to an eventfd by its number in the program's table, if that leads to one.
    func signalInProgram(_ number: Int32, count: UInt64) {
        let process = systemCall(
            Int32(IOCTX_SYS_pidfd_open), systemCall(Int32(SYS_getpid)), 0)
        if process < 0 { return }
        defer { System.close(Int32(truncatingIfNeeded: process)) }
        let made = systemCall(Int32(IOCTX_SYS_pidfd_getfd), process, Int(number), 0)
        if made < 0 { return }
        let file = Int32(truncatingIfNeeded: made)
        if AnonymousFile.name(of: file) == .eventfd { Eventfd.signal(file, count: count) }
        System.close(file)
    }
}

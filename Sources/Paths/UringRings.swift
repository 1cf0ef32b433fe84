// The rings of the daemon on io_uring: how they are opened and closed.
//
// The parking ring is opened in the program's table, before the daemon leaves that, and outlives
// it; the work ring in the daemon's own. Once the daemon has both, it reaches them by handles that
// are registered with its thread.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    func openRings() -> Int {
        let reusable = it.uring.parking.exists && isWayIn(it.uring.parking.descriptor)
        if !reusable {
            it.uring.parking.forsake()
            let result = it.uring.parking.open(
                entryCount: UringDaemon.submissionEntries,
                completionCount: UringDaemon.submissionEntries &* 2,
                flags: 0)
            if result < 0 { return result }
            let supported = it.uring.parking.checkOperations()
            if supported < 0 {
                it.uring.parking.close()
                return supported
            }
            let slots = it.uring.parking.registerEmptySlots(it.files.capacity)
            if slots < 0 {
                it.uring.parking.close()
                return slots
            }
            rememberWayIn(it.uring.parking.descriptor)
        }
        var result = it.uring.parking.registerWithThread()
        if result < 0 { return result }
        result = leaveDescriptorTable()
        if result < 0 { return result }
        result = it.uring.work.open(
            entryCount: UringDaemon.submissionEntries,
            completionCount: UringDaemon.completionEntries,
            flags: UInt32(URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN)
                | UInt32(URING_SETUP_SUBMIT_ALL))
        if result < 0 { return result }
        result = it.uring.work.registerWithThread()
        if result < 0 { return result }
        result = it.uring.work.startThread()
        if result < 0 { return result }
        it.uring.doorbellArmed = false
        it.uring.running = 0
        it.uring.ioPriority = 0
        it.uring.publishedHead = Job.none
        it.uring.signalsDue = false
        it.uring.signalsRunning = 0
        it.uring.signalsOverdue = 0
        it.uring.looksLeft = 0
        forgetThreads()
        result = it.uring.work.registerEmptySlots(it.files.capacity &+ 1)
        return result < 0 ? result : setTombstone()
    }

    private func setTombstone() -> Int {
        var ends = (Int32(-1), Int32(-1))
        var result = withAddress(of: &ends) {
            systemCall(Int32(SYS_pipe2), $0, Int(O_CLOEXEC))
        }
        if result < 0 { return result }
        it.uring.tombstone = ends.0
        result = it.uring.work.fillSlot(it.files.capacity, file: ends.1)
        System.close(ends.1)
        return min(result, 0)
    }

    /// After a failed start. The parking ring stays, if there is one, for the next attempt.
    func abandonRings() {
        it.uring.work.close()
        it.uring.parking.forgetThread()
    }

    func leaveRings() {
        giveUpAbandoned()
        it.uring.work.close()
        it.uring.parking.forgetThread()
    }
}

// The eventfds that the daemon on io_uring signals: written to on the work ring, one write at a
// time for each, before sleepers are woken.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    func signal(_ index: UInt32) {
        it.files[index].it.signals &+= 1
        it.uring.signalsDue = true
    }

    /// Starts a write to each eventfd with events to announce.
    func signalEventfds() {
        it.uring.signalsDue = false
        var index = it.uring.publishedHead
        while index != Job.none {
            let job = it.table.job(at: index)
            index = job.it.queueNext
            let eventfd = job.it.heldEventfd
            if eventfd == Job.none { continue }
            let file = it.files[eventfd]
            if file.it.signals > 0 && file.it.announced == 0 {
                it.files.addReference(eventfd)
                it.uring.signalsRunning &+= 1
                writeSignals(eventfd)
            }
        }
    }

    /// The kernel may come back to the write later: it hands one to a blocking eventfd to a thread
    /// of its own. The file is held meanwhile, and `announced` belongs to the kernel.
    private func writeSignals(_ index: UInt32) {
        let file = it.files[index]
        file.it.announced = file.it.signals
        file.it.signals = 0
        if it.uring.threads.areRefused { return askForNumber(index) }
        let entry = workEntry()
        entry.it.opcode = UInt8(URING_OP_WRITE)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        entry.it.fd = Int32(bitPattern: index)
        entry.it.address = UInt64(UInt(bitPattern: withAddress(of: &file.it.announced) { $0 }))
        entry.it.length = 8
        entry.it.user_data = UringDaemon.signalData | UInt64(index)
    }

    /// A write to an eventfd is over. The kernel drops one to a blocking eventfd where it can make
    /// no thread for it (a limit on threads or processes): then the daemon asks for a number to
    /// write to by itself.
    func signalled(_ index: UInt32, _ result: Int) {
        if result == 8 { return endSignal(index) }
        // It tried for some 50 ms.
        if result == failure(ECANCELED) { it.uring.threads.areRefused = true }
        askForNumber(index)
    }

    private func askForNumber(_ index: UInt32) {
        let entry = workEntry()
        entry.it.opcode = UInt8(URING_OP_FIXED_FD_INSTALL)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        entry.it.fd = Int32(bitPattern: index)
        entry.it.user_data = UringDaemon.installData | UInt64(index)
    }

    /// Signals an eventfd by its number in the daemon's table, or, where the kernel gives none
    /// (before Linux 6.8), by the one in the program's. A full one cannot be counted further.
    func signalOneself(_ index: UInt32, _ installed: Int) {
        let file = it.files[index]
        if installed < 0 {
            signalInProgram(file.it.descriptor, count: file.it.announced)
        } else {
            let number = Int32(truncatingIfNeeded: installed)
            // One at a time, for which there is room by what poll(2) tells (eventfd(2)).
            var left = file.it.announced
            while left > 0 && System.readiness(of: number, UInt32(POLLOUT)) == Int(POLLOUT) {
                Eventfd.signal(number, count: 1)
                left &-= 1
            }
            System.close(number)
        }
        endSignal(index)
    }

    /// What has come meanwhile is written next.
    private func endSignal(_ index: UInt32) {
        let file = it.files[index]
        file.it.announced = 0
        if file.it.signals > 0 { return writeSignals(index) }
        it.uring.signalsRunning &-= 1
        it.uring.signalsOverdue = min(it.uring.signalsOverdue, it.uring.signalsRunning)
        dropHeld(index)
    }

    /// Sleepers are woken after the eventfds are signalled. Requests that end meanwhile are
    /// published, and signalled in the next turn.
    func awaitSignals() {
        let deadlineNs = System.monotonicNs() &+ UringDaemon.signalPatienceNs
        while it.uring.signalsRunning > it.uring.signalsOverdue {
            let entered = it.uring.work.enter(
                minComplete: 1, timeoutNs: UringDaemon.signalPatienceNs)
            takeCompletions()
            if entered == failure(ETIME) || System.monotonicNs() >= deadlineNs {
                it.uring.signalsOverdue = it.uring.signalsRunning
            }
        }
    }
}

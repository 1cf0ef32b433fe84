// The threads that the kernel makes for the work ring, which do what would block the daemon: reads
// of files that cannot say "not now", fsyncs, writes that make a file longer.
//
// A ring has few of them, four for each processor, and with more such reads are slower. But a file
// system may hang, and with it as many threads as it has requests: requests for other files would
// wait for it. So for each thread that hangs there may be one more.

import CLibAIO
import JobTable
import Synchronization

/// The daemon's own, all of it.
struct UringThreads: ~Copyable {
    /// Jobs on files that the work ring has, each of which may take a thread.
    var jobs: UInt32 = 0
    /// How many threads the kernel makes at most by itself, and now; `unknown` where it does not
    /// say.
    var usualMax = UringThreads.unknown
    var currentMax = UringThreads.unknown
    /// When the daemon looked last for those that hang, on the monotonic clock; 0 while there are
    /// threads for all jobs.
    var lookedAtNs: UInt64 = 0

    /// The kernel could not make one for a write to an eventfd.
    var areRefused = false

    static let unknown = UInt32.max
    /// A job that was there one look ago hangs.
    static let lookIntervalNs: UInt64 = 50_000_000

    var areTaken: Bool { jobs >= usualMax }
}

extension Ref where Pointee == Station {
    /// When the work ring is new.
    func forgetThreads() {
        it.uring.threads = UringThreads()
        let known = it.uring.work.setThreadsMax(0)
        if known <= 0 { return }
        it.uring.threads.usualMax = UInt32(clamping: known)
        it.uring.threads.currentMax = it.uring.threads.usualMax
    }

    /// In each round of the daemon: sees to it that hanging jobs leave threads for the others.
    func tendThreads() {
        if !it.uring.threads.areTaken {
            it.uring.threads.lookedAtNs = 0
            return setThreadsMax(it.uring.threads.usualMax)
        }
        let now = System.monotonicNs()
        if now &- it.uring.threads.lookedAtNs < UringThreads.lookIntervalNs { return }
        it.uring.threads.lookedAtNs = now
        let more = min(countHanging(), it.table.it.limits.maxAioProcs)
        setThreadsMax(it.uring.threads.usualMax &+ more)
    }

    /// The jobs on files that were there at the last look.
    private func countHanging() -> UInt32 {
        var count: UInt32 = 0
        it.table.forEachJob { job in
            if job.state != .running || job.it.station.load(ordering: .relaxed) != address {
                return
            }
            if job.it.wasSeen { count &+= 1 }
            job.it.wasSeen = true
        }
        return count
    }

    private func setThreadsMax(_ count: UInt32) {
        let before = it.uring.threads.currentMax
        if count == before || it.uring.work.setThreadsMax(count) < 0 { return }
        it.uring.threads.currentMax = count
        // What has waited for a thread until now waits on: the next request that needs one has it
        // made.
        if count > before { askForThread(UringDaemon.ignoredData) }
    }
}

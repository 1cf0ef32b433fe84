// Cold reads that were handed over untried, and the disk's start for them.
//
// Starting the disk takes the caller of io_submit several microseconds, now and then a hundred, so
// reads of a cold file go to the daemon as they are if the program calls io_getevents as a rule.
// When it does, it starts the disk for those that the daemon has not taken yet. That is asked of
// the program's own descriptor, which may lead elsewhere by now: then another file is read ahead,
// in vain.
//
// Signals are blocked while the queue's lock is held: a handler may leave io_getevents by longjmp,
// or wait in it for a read of another thread. Where a seccomp filter is active, which may kill for
// these calls, the daemon starts the disk.

import CLibAIO
import JobTable

/// How much a caller of io_getevents starts, several microseconds for each.
enum EarlyStart {
    /// Whoever sleeps next has the time.
    case beforeSleep
    /// Whoever has found events gets them a little later.
    case inPassing

    var countMax: Int { self == .beforeSleep ? 32 : 8 }
    var bytesMax: Int { self == .beforeSleep ? 1 << 20 : 64 << 10 }
}

extension Ref where Pointee == Station {
    /// Starts the disk for the first reads in the queue, and with `mustWake` wakes the daemon.
    @inline(never)
    func startReads(_ amount: EarlyStart, mustWake: Bool) {
        if System.isFiltered {
            if mustWake { ringDoorbell() }
            return
        }
        var reads = InlineArray<32, ColdRead>(repeating: ColdRead())
        var count = 0
        withSignalsBlocked {
            var bytes = 0
            it.queue.forEach(it.table) { job in
                if !job.it.mustStartDisk { return true }
                bytes &+= job.it.length
                if bytes > amount.bytesMax { return false }
                job.it.mustStartDisk = false
                reads[count] = ColdRead(
                    descriptor: job.it.descriptor, offset: job.it.offset, length: job.it.length)
                count &+= 1
                return count < min(amount.countMax, reads.count)
            }
        }
        // The daemon takes longer to wake than the disk to start.
        if count > 0 { reads[0].start() }
        if mustWake { ringDoorbell() }
        for index in 1..<max(count, 1) { reads[index].start() }
    }
}

private struct ColdRead {
    var descriptor: Int32 = -1
    var offset: Int64 = 0
    var length = 0

    func start() {
        _ = systemCall(Int32(SYS_readahead), Int(descriptor), Int(offset), length)
    }
}

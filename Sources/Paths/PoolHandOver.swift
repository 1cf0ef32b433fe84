// Handing jobs over to a pool, and waking its threads.
//
// Files are sent before their jobs are queued, in one order for everybody (FileChannel.swift).
// Jobs that need the manager go to the station's queue; the others go to the workers' queue
// directly, and the manager is called only where more workers are wanted than are idle.

import CLibAIO
import JobTable
import Synchronization

extension Ref where Pointee == Station {
    /// Sends the files of a chain of jobs and queues the jobs. 0, or a negated errno with nothing
    /// handed over. The caller holds none of our locks.
    func handOverToPool(_ batch: borrowing Batch, first: JobRef, last: JobRef) -> Int {
        let count = batch.count
        if batch.needsManager {
            return retryWhileBehind {
                tryHandOver(&it.pool.forManager, first: first, last: last) {
                    it.queue.append(it.table, first: first, last: last, count: count)
                }
            }
        }
        // The workers need not be told by the manager.
        let (device, inode) = (first.it.device, first.it.inode)
        it.running.wrappingAdd(count, ordering: .sequentiallyConsistent)
        if batch.newFiles == 0 {
            it.pool.work.append(it.table, first: first, last: last, count: count)
        } else {
            let result = retryWhileBehind {
                tryHandOver(&it.pool.forWorkers, first: first, last: last) {
                    it.pool.work.append(it.table, first: first, last: last, count: count)
                }
            }
            if result < 0 {
                it.running.wrappingSubtract(count, ordering: .sequentiallyConsistent)
                return result
            }
        }
        // A worker looks at the queue after it has taken its job out of the gate: one that is seen
        // in the gate now will find these.
        if batch.isExclusive {
            rememberSubmitter()
            let isBehind = it.engine.it.streams.isBehind(
                it.table, first, station: address, device: device, inode: inode)
            if isBehind || takeOffer() { return 0 }
        }
        // Before the idle ones are counted: a job that is not queued any longer has its worker,
        // which is not among them.
        let queued = it.pool.work.count.load(ordering: .sequentiallyConsistent)
        // What is done one at a time, one worker does.
        let idle = wakeWorkers(batch.isExclusive ? 1 : count)
        // Those may be on their way to what others have queued.
        let wanted = batch.isExclusive ? min(queued, queued &- min(queued, count) &+ 1) : queued
        if idle < wanted
            && it.pool.workers.load(ordering: .sequentiallyConsistent)
                < it.table.it.limits.maxAioProcs
        {
            kickPool()
        }
        return 0
    }

    /// Wakes at most so many idle workers. How many there were, some of which may have been woken
    /// before.
    func wakeWorkers(_ most: UInt32) -> UInt32 {
        it.pool.workSignal.wrappingAdd(1, ordering: .sequentiallyConsistent)
        let idle = it.pool.idleWorkers.load(ordering: .sequentiallyConsistent)
        if idle > 0 { it.pool.workSignal.wake(Int32(clamping: most)) }
        return idle
    }

    /// The index under which the daemons hold the very file of a descriptor already, with a
    /// reference; nil when they do not, or it cannot be told.
    func heldAlready(_ descriptor: Int32) -> UInt32? {
        if it.pool.comparableThread == 0 { return nil }
        guard let index = it.files.recent(descriptor) else { return nil }
        let thread = System.threadIdentifier()
        let isSame = it.files.share(index) { number in
            // KCMP_FILE (0): equal when both numbers lead to one open file description.
            systemCall(
                Int32(SYS_kcmp), Int(thread), Int(it.pool.comparableThread), 0, Int(descriptor),
                Int(number)) == 0
        }
        return isSame ? index : nil
    }

    /// Too many files of this user in flight, or a full buffer: the manager empties both channels,
    /// for which it needs the lock that `attempt` takes. For 0.1 s, after which the submitter does
    /// the requests itself; the first 2 ms, in which a manager that is awake has come to it,
    /// without a pause that would be felt.
    private func retryWhileBehind(_ attempt: () -> Int) -> Int {
        var result = 0
        for round in 0..<300 {
            result = attempt()
            if result != failure(ETOOMANYREFS) && result != failure(EAGAIN) { break }
            kickPool()
            System.sleep(nanoseconds: round < 100 ? 20_000 : 500_000)
        }
        return result
    }

    /// Sends the files of a chain of jobs that are not with the daemons yet, and then queues the
    /// jobs, in one order for everybody. 0, or a negated errno with nothing done.
    private func tryHandOver(
        _ channel: inout FileChannel, first: JobRef, last: JobRef, enqueue: () -> Void
    ) -> Int {
        channel.sendLock.lock()
        defer { channel.sendLock.unlock() }
        var message = RightsMessage()
        var files = 0
        var job: JobRef? = first
        while let current = job {
            addFile(current.it.heldFile, &message, &files, channel)
            addFile(current.it.heldEventfd, &message, &files, channel)
            job = current == last ? nil : it.table.job(at: current.it.queueNext)
        }
        if files == 0 {
            // Whoever is woken does not take the lock for a message without files: jobs first.
            enqueue()
            _ = sendMessage(&message, 0, to: &channel)
            return 0
        }
        let result = sendMessage(&message, files, to: &channel)
        if result < 0 { return result }
        for position in 1...UInt32(files) {
            it.files.announce(
                channel.slot(position, capacity: it.files.capacity).it,
                isForWorkers: channel.isForWorkers)
        }
        channel.sent(files, capacity: it.files.capacity)
        enqueue()
        return 0
    }

    /// Adds a file to the message unless the daemons have it, or it is in the message.
    private func addFile(
        _ index: UInt32, _ message: inout RightsMessage, _ files: inout Int,
        _ channel: borrowing FileChannel
    ) {
        // A batch has no more files than a message: see Batch.isFull. It must not end the process
        // if it had: the job would end with -EBADF.
        if index == Job.none || it.files[index].it.isReady || files == message.files.count {
            return
        }
        let capacity = it.files.capacity
        for position in 0..<UInt32(files)
        where channel.slot(position &+ 1, capacity: capacity).it == index {
            return
        }
        message.files[files] = it.files[index].it.number
        // The entry before them is for their number.
        channel.slot(UInt32(files) &+ 1, capacity: capacity).it = index
        files &+= 1
    }

    /// Makes the manager look around. One attempt: when the socket is full, the manager has
    /// something to wake up for. A daemon with a descriptor table of its own, of another station,
    /// reaches nothing here; the manager looks by itself now and then.
    func kickPool() {
        let station = CurrentThread().station
        let isInProgramsTable =
            station == 0 || Ref<Station>(address: station)?.it.kind == .native
        if station == address {
            ringManager()
        } else if isInProgramsTable && isWayIn(it.pool.sender) {
            var message = RightsMessage()
            _ = sendMessage(&message, 0, to: &it.pool.forManager)
        }
    }

    func ringManager() {
        var one: UInt64 = 1
        _ = withAddress(of: &one) {
            systemCall(Int32(SYS_write), Int(it.pool.managerBell), $0, 8)
        }
    }
}

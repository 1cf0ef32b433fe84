// The daemon path without io_uring: a bounded pool of threads.
//
// All daemons of a pool share one descriptor table that is private to them. Files get there by
// SCM_RIGHTS over a pair of datagram sockets, one end in the program's table and one in the
// private one; the messages have no bytes, so nothing would land in a stranger's stream. The
// first daemon, the manager, receives files, waits for readiness (epoll, no thread per request)
// and starts workers; workers call preadv2, pwritev2 and fsync.
//
// The two sockets find each other by names that the kernel makes up (unix(7), autobind), because
// the manager leaves the program's descriptor table before it opens anything.

import CLibAIO
import JobTable
import Synchronization

/// One way of files into the private table: a socket there, and what is on its way to it.
struct FileChannel: ~Copyable {
    /// Workers receive from it, and the manager as well; from the other the manager alone.
    let isForWorkers: Bool
    /// Serialises hand-overs: messages and `awaited` are in the same order, and whoever sees a
    /// message finds its jobs queued.
    let sendLock = FutexLock()
    /// Held files that are on their way: for each message their number, with the mark, and then
    /// their indexes; a circular buffer of twice `files.capacity`. (sendLock)
    var awaited: UInt = 0
    var awaitedFirst: UInt32 = 0
    var awaitedCount: UInt32 = 0
    /// In the private table; written by the manager before the station is ready.
    var receiver: Int32 = -1
    var receiverName = sockaddr_un()
    var receiverNameBytes: UInt32 = 0

    init(isForWorkers: Bool) { self.isForWorkers = isForWorkers }

    /// Marks an entry of `awaited` that is a number of files.
    private static let messageMark: UInt32 = 1 << 31

    /// The `position`-th entry after those that are awaited already.
    func slot(_ position: UInt32, capacity: UInt32) -> Ref<UInt32> {
        let slot = (awaitedFirst &+ awaitedCount &+ position) % (capacity &* 2)
        return unsafe Ref<UInt32>(address: awaited &+ UInt(slot) &* 4).unsafelyUnwrapped
    }

    /// A message with `files` files has been sent, whose indexes are in the slots from 1 on.
    mutating func sent(_ files: Int, capacity: UInt32) {
        slot(0, capacity: capacity).it = Self.messageMark | UInt32(files)
        awaitedCount &+= UInt32(files) &+ 1
    }

    /// How many files the next message brings.
    mutating func takeCount(capacity: UInt32) -> Int {
        Int((take(capacity: capacity) ?? 0) & ~Self.messageMark)
    }

    /// Takes the first awaited entry.
    mutating func take(capacity: UInt32) -> UInt32? {
        if awaitedCount == 0 { return nil }
        let slot = awaitedFirst
        awaitedFirst = (slot &+ 1) % (capacity &* 2)
        awaitedCount &-= 1
        return Ref<UInt32>(address: awaited &+ UInt(slot) &* 4)?.it
    }
}

struct PoolDaemons: ~Copyable {
    static let filesPerMessage = 64

    /// The program's end, in the program's table. It reaches both channels.
    var sender: Int32 = -1
    var senderName = sockaddr_un()
    var senderNameBytes: UInt32 = 0
    /// Files whose jobs the manager must see, and messages that wake it.
    var forManager = FileChannel(isForWorkers: false)
    /// Files of jobs that go to the workers directly; whoever wants one of them receives them.
    var forWorkers = FileChannel(isForWorkers: true)
    /// Serialises receiving from `forWorkers`.
    let receiveLock = FutexLock()

    /// In the private table; written by the manager before the station is ready.
    var epoll: Int32 = -1
    /// An eventfd with which daemons wake the manager.
    var managerBell: Int32 = -1

    /// The manager's thread identifier, by which kcmp(2) reaches the private table; 0 where it
    /// must not be asked.
    var comparableThread: Int32 = 0

    /// Jobs for the workers.
    var work = RunQueue()
    let workers = Atomic<UInt32>(0)
    let idleWorkers = Atomic<UInt32>(0)
    let workSignal = Atomic<UInt32>(0)
    let lingering = Lingering()
    /// Jobs taken from the queue and not yet announced.
    let running = Atomic<UInt32>(0)

    static func main(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
        guard let station = Ref<Station>(address: UInt(bitPattern: argument)) else { return nil }
        station.becomeDaemon(named: "aiod/0")
        defer { station.endDaemon() }
        let result = station.openReceiver()
        station.started(result)
        if result < 0 { return nil }
        while !station.manage() {}
        return nil
    }

    static func workerMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
        guard let station = Ref<Station>(address: UInt(bitPattern: argument)) else { return nil }
        station.becomeDaemon(named: "aiod/w")
        station.work()
        station.endDaemon()
        return nil
    }
}

// MARK: - The two sockets

extension Ref where Pointee == Station {
    /// In the starting thread, in the program's table: makes the sender and gives it a name.
    func openSender() -> Int {
        if it.pool.forManager.awaited == 0 || it.pool.forWorkers.awaited == 0 {
            let bytes = Int(it.files.capacity) &* 8
            it.pool.forManager.awaited = Memory.map(
                bytes: bytes, protection: PROT_READ | PROT_WRITE)
            it.pool.forWorkers.awaited = Memory.map(
                bytes: bytes, protection: PROT_READ | PROT_WRITE)
            if it.pool.forManager.awaited == 0 || it.pool.forWorkers.awaited == 0 {
                return failure(ENOMEM)
            }
        }
        if isGate(it.pool.sender) {
            // Still connected to the manager before this one, it would refuse the next.
            var nobody = sockaddr_un()
            return connect(it.pool.sender, &nobody, UInt32(MemoryLayout<sa_family_t>.size))
        }
        let made = bindSocket(&it.pool.senderName, &it.pool.senderNameBytes)
        if made < 0 { return made }
        it.pool.sender = System.awayFromStandardStreams(Int32(truncatingIfNeeded: made))
        rememberGate(it.pool.sender)
        return 0
    }

    func closeSender() {
        if isGate(it.pool.sender) { System.close(it.pool.sender) }
        it.pool.sender = -1
    }

    /// In the starting thread, once the manager has its socket.
    func connectSender() -> Int {
        connect(
            it.pool.sender, &it.pool.forManager.receiverName,
            it.pool.forManager.receiverNameBytes)
    }

    /// In the manager, in its private table.
    fileprivate func openReceiver() -> Int {
        var result = leaveDescriptorTable()
        if result < 0 { return result }
        // What was abandoned to an earlier manager went with its table: here the numbers mean nothing.
        while let index = it.files.takeAbandoned() { it.files.recycle(index) }
        result = open(&it.pool.forManager)
        if result < 0 { return result }
        result = open(&it.pool.forWorkers)
        if result < 0 { return result }
        result = systemCall(Int32(SYS_epoll_create1), Int(O_CLOEXEC))
        if result < 0 { return result }
        it.pool.epoll = Int32(truncatingIfNeeded: result)
        result = systemCall(Int32(SYS_eventfd2), 0, Int(O_CLOEXEC | O_NONBLOCK))
        if result < 0 { return result }
        it.pool.managerBell = Int32(truncatingIfNeeded: result)
        it.pool.comparableThread = UringProbe.mayCompareFiles() ? System.threadIdentifier() : 0
        result = watch(
            it.pool.forManager.receiver, UInt32(EPOLLIN.rawValue), data: .max, isNew: true)
        if result < 0 { return result }
        return watch(it.pool.managerBell, UInt32(EPOLLIN.rawValue), data: .max &- 1, isNew: true)
    }

    /// In the manager: the private end of a channel, which takes messages from the sender alone.
    private func open(_ channel: inout FileChannel) -> Int {
        let made = bindSocket(&channel.receiverName, &channel.receiverNameBytes)
        if made < 0 { return made }
        channel.receiver = Int32(truncatingIfNeeded: made)
        let result = connect(channel.receiver, &it.pool.senderName, it.pool.senderNameBytes)
        if result < 0 { return result }
        // What strangers sent to its name before must not be taken for a hand-over.
        while receiveMessage(from: &channel, discard: true) >= 0 {}
        channel.awaitedFirst = 0
        channel.awaitedCount = 0
        return 0
    }

    private func bindSocket(_ name: inout sockaddr_un, _ nameBytes: inout UInt32) -> Int {
        let made = systemCall(
            Int32(SYS_socket), Int(AF_UNIX),
            Int(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        if made < 0 { return made }
        name = sockaddr_un()
        name.sun_family = UInt16(AF_UNIX)
        var result = withAddress(of: &name) {
            systemCall(Int32(SYS_bind), made, $0, MemoryLayout<sa_family_t>.size)
        }
        if result >= 0 {
            nameBytes = UInt32(MemoryLayout<sockaddr_un>.size)
            result = withAddress(of: &name) { nameAddress in
                withAddress(of: &nameBytes) {
                    systemCall(Int32(SYS_getsockname), made, nameAddress, $0)
                }
            }
        }
        if result < 0 {
            System.close(Int32(truncatingIfNeeded: made))
            return result
        }
        return made
    }

    private func connect(_ socket: Int32, _ name: inout sockaddr_un, _ nameBytes: UInt32) -> Int {
        withAddress(of: &name) {
            systemCall(Int32(SYS_connect), Int(socket), $0, Int(nameBytes))
        }
    }
}

// MARK: - Hand-over

/// struct msghdr, with addresses as numbers. Zero vectors: the messages carry no bytes.
private struct MessageHeader {
    var name = 0
    var nameBytes = 0
    var vectors = 0
    var vectorCount = 0
    var control = 0
    var controlBytes = 0
    var flags = 0
}

/// A control message with room for `PoolDaemons.filesPerMessage` descriptors.
private struct RightsMessage {
    var length: Int = 0
    var level: Int32 = Int32(SOL_SOCKET)
    var type: Int32 = Int32(SCM_RIGHTS)
    var files = (
        (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0)),
        (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0)),
        (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0)),
        (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0))
    )

    static let headerBytes = 16

    subscript(index: Int) -> Int32 {
        mutating get {
            withAddress(of: &files) {
                Ref<Int32>(address: UInt(bitPattern: $0) &+ UInt(index &* 4))?.it ?? -1
            }
        }
        set {
            withAddress(of: &files) {
                Ref<Int32>(address: UInt(bitPattern: $0) &+ UInt(index &* 4))?.it = newValue
            }
        }
    }
}

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
        it.pool.running.add(count, ordering: .sequentiallyConsistent)
        if batch.newFiles == 0 {
            it.pool.work.append(it.table, first: first, last: last, count: count)
        } else {
            let result = retryWhileBehind {
                tryHandOver(&it.pool.forWorkers, first: first, last: last) {
                    it.pool.work.append(it.table, first: first, last: last, count: count)
                }
            }
            if result < 0 {
                it.pool.running.subtract(count, ordering: .sequentiallyConsistent)
                return result
            }
        }
        // A worker looks at the queue after it has taken its job out of the gate: one that is seen in
        // the gate now will find these.
        if batch.isExclusive {
            rememberSubmitter()
            let isBehind = it.engine.it.streams.isBehind(
                it.table, first, station: address, device: device, inode: inode)
            if isBehind || takeOffer() { return 0 }
        }
        // Before the idle ones are counted: a job that is not queued any longer has its worker, which is
        // not among them.
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

    /// Wakes at most so many idle workers. How many there were, some of which may have been woken before.
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
    /// for which it needs the lock that `attempt` takes.
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
        if index == Job.none || it.files[index].it.isReady { return }
        let capacity = it.files.capacity
        for position in 0..<UInt32(files)
        where channel.slot(position &+ 1, capacity: capacity).it == index {
            return
        }
        message[files] = it.files[index].it.number
        // The entry before them is for their number.
        channel.slot(UInt32(files) &+ 1, capacity: capacity).it = index
        files &+= 1
    }

    /// Sends `files` descriptors, or none to wake the manager. 0 or a negated errno.
    private func sendMessage(
        _ message: inout RightsMessage, _ files: Int, to channel: inout FileChannel
    ) -> Int {
        message.length = RightsMessage.headerBytes &+ files &* 4
        let nameBytes = Int(channel.receiverNameBytes)
        let name = withAddress(of: &channel.receiverName) { $0 }
        return withAddress(of: &message) { controlAddress in
            var header = MessageHeader()
            header.name = name
            header.nameBytes = nameBytes
            if files > 0 {
                header.control = controlAddress
                header.controlBytes = (RightsMessage.headerBytes &+ files &* 4 &+ 7) & ~7
            }
            return withAddress(of: &header) {
                systemCall(
                    Int32(SYS_sendmsg), Int(it.pool.sender), $0,
                    Int(MSG_DONTWAIT | MSG_NOSIGNAL))
            }
        }
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
        } else if isInProgramsTable && isGate(it.pool.sender) {
            var message = RightsMessage()
            _ = sendMessage(&message, 0, to: &it.pool.forManager)
        }
    }

    fileprivate func ringManager() {
        var one: UInt64 = 1
        _ = withAddress(of: &one) {
            systemCall(Int32(SYS_write), Int(it.pool.managerBell), $0, 8)
        }
    }
}

// MARK: - The manager

extension Ref where Pointee == Station {
    /// One turn of the manager. True when it has left.
    fileprivate func manage() -> Bool {
        // Nobody can reach a lost station, so it looks by itself; with jobs under way it does not
        // sleep too long, for it may be lost without knowing.
        let lost = it.isLost.load(ordering: .sequentiallyConsistent)
        let busy = it.pool.running.load(ordering: .acquiring) != 0
        let lifetimeMs = Int(it.table.it.limits.aiodLifetimeMs)
        let ready = waitForEvents(lost ? 50 : (busy ? min(lifetimeMs, 1000) : lifetimeMs))
        repeat { takePoolQueue() } while it.queue.count.load(ordering: .acquiring) != 0
        while let index = it.files.takeAbandoned() {
            giveUpNumber(index)
            it.files.recycle(index)
        }
        if it.cancellations.exchange(0, ordering: .sequentiallyConsistent) != 0 {
            cancelWaiting()
        }
        if ready != 0 || it.pool.running.load(ordering: .acquiring) != 0
            || it.pool.workers.load(ordering: .acquiring) != 0
        {
            return false
        }
        return tryToLeave {
            System.close(it.pool.epoll)
            System.close(it.pool.forManager.receiver)
            System.close(it.pool.forWorkers.receiver)
            System.close(it.pool.managerBell)
        }
    }

    /// Receives files and serves what became ready. The number of events.
    private func waitForEvents(_ timeoutMs: Int) -> Int {
        var events = InlineArray<32, ioctx_epoll_event>(repeating: ioctx_epoll_event())
        let count = withAddress(of: &events) {
            systemCall(
                Int32(SYS_epoll_pwait), Int(it.pool.epoll), $0, 32, timeoutMs, 0, 8)
        }
        for position in 0..<max(count, 0) {
            let data = events[position].data
            // Messages are taken with the queue, below.
            if data == .max { continue }
            if data == .max &- 1 {
                var value: UInt64 = 0
                _ = withAddress(of: &value) {
                    systemCall(Int32(SYS_read), Int(it.pool.managerBell), $0, 8)
                }
            } else {
                serveReady(data)
            }
        }
        return max(count, 0)
    }

    /// Takes one message; its files go to the indexes that await them, in order. Negative when
    /// there is none.
    private func receiveMessage(from channel: inout FileChannel, discard: Bool = false) -> Int {
        var message = RightsMessage()
        var isTruncated = false
        let result = withAddress(of: &message) { controlAddress in
            var header = MessageHeader()
            header.control = controlAddress
            header.controlBytes = RightsMessage.headerBytes &+ PoolDaemons.filesPerMessage &* 4
            let received = withAddress(of: &header) {
                systemCall(
                    Int32(SYS_recvmsg), Int(channel.receiver), $0,
                    Int(MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
            }
            isTruncated = header.flags & Int(MSG_CTRUNC) != 0
            return received < 0 ? received : header.controlBytes
        }
        // A message without files only wakes, unless the table had no room for any of them.
        if result < RightsMessage.headerBytes && !isTruncated { return result }
        let files =
            result < RightsMessage.headerBytes
            ? 0 : (message.length &- RightsMessage.headerBytes) / 4
        // The sender holds this lock until its jobs are queued, so they are there after it.
        if discard {
            for position in 0..<files { System.close(message[position]) }
            return result
        }
        channel.sendLock.lock()
        let sent = channel.takeCount(capacity: it.files.capacity)
        for position in 0..<sent {
            guard let index = channel.take(capacity: it.files.capacity) else { break }
            // What did not arrive is no file: its jobs end with -EBADF.
            it.files.arrive(index, number: position < files ? message[position] : -1)
        }
        channel.sendLock.unlock()
        return result
    }

    /// Receives what was sent for jobs that went to the workers directly: all of it, or until the
    /// files of `job` are there.
    private func receiveForWorkers(until job: JobRef? = nil) {
        it.pool.receiveLock.lock()
        while job.map(hasItsFiles) != true && receiveMessage(from: &it.pool.forWorkers) >= 0 {}
        it.pool.receiveLock.unlock()
    }

    private func hasItsFiles(_ job: JobRef) -> Bool {
        it.files.hasArrived(job.it.heldFile) && it.files.hasArrived(job.it.heldEventfd)
    }

    private func takePoolQueue() {
        var next = it.queue.takeAll(it.table)
        // Jobs are queued after their files were sent: those of all that were taken are there now.
        while receiveMessage(from: &it.pool.forManager) >= 0 {}
        // A file that is shared may have come on the other way.
        receiveForWorkers()
        while let job = next {
            next = job.it.queueNext == Job.none ? nil : it.table.job(at: job.it.queueNext)
            it.pool.running.add(1, ordering: .acquiringAndReleasing)
            if job.it.operation == .notify {
                _ = job.transition(from: .queued, to: .running)
                if job.it.pollEvents != 0 { signalEventfd(job.it.heldEventfd) }
                settle(job, from: .running, result: 0)
            } else if !mayStart(job) {
                // Parked; it is not running.
                it.pool.running.subtract(1, ordering: .acquiringAndReleasing)
            } else if job.awaitsReadiness {
                if job.transition(from: .queued, to: .running) {
                    waitForReadiness(job)
                } else {
                    settle(job, from: .cancelled, result: job.cancelledResult)
                }
            } else {
                it.pool.work.append(it.table, first: job, last: job, count: 1)
            }
        }
        // Those that submitters queued directly may be waiting for more workers, too.
        let forWorkers = it.pool.work.count.load(ordering: .sequentiallyConsistent)
        if forWorkers > 0 { callWorkers(forWorkers) }
    }

    private func callWorkers(_ jobs: UInt32) {
        let idle = wakeWorkers(jobs)
        var missing = jobs > idle ? jobs &- idle : 0
        while missing > 0,
            it.pool.workers.load(ordering: .acquiring) < it.table.it.limits.maxAioProcs
        {
            missing &-= 1
            it.pool.workers.add(1, ordering: .acquiringAndReleasing)
            let error = unsafe ioctx_thread_start(
                { unsafe PoolDaemons.workerMain($0) }, UnsafeMutableRawPointer(pointer),
                Int(IOCTX_DAEMON_STACK_BYTES))
            if error != 0 {
                it.pool.workers.subtract(1, ordering: .acquiringAndReleasing)
                // With no worker at all the manager does the work itself.
                if it.pool.workers.load(ordering: .acquiring) == 0 { workOffAll() }
                return
            }
        }
    }

    // MARK: Readiness

    /// A stream job that could not be served goes to its file's list; the file is watched.
    private func waitForReadiness(_ job: JobRef) {
        let file = it.files[job.it.heldFile]
        _ = job.transition(from: .running, to: .waiting)
        job.it.queueNext = Job.none
        if file.it.waitingHead == Job.none {
            file.it.waitingHead = job.it.index
        } else {
            var last = it.table.job(at: file.it.waitingHead)
            while last.it.queueNext != Job.none { last = it.table.job(at: last.it.queueNext) }
            last.it.queueNext = job.it.index
        }
        watchFile(job.it.heldFile)
    }

    /// (Re)arms the watch of a held file for what its waiting jobs need.
    private func watchFile(_ index: UInt32) {
        let file = it.files[index]
        var events: UInt32 = 0
        var next = file.it.waitingHead
        while next != Job.none {
            let job = it.table.job(at: next)
            events |= wantedEvents(job)
            next = job.it.queueNext
        }
        if events == 0 { return }
        let result = watch(
            file.it.number, events | EPOLLONESHOT.rawValue, data: index,
            isNew: !file.it.isWatched)
        file.it.isWatched = result >= 0
        if result >= 0 { return }
        // A file that epoll does not take (EPERM) cannot be waited for: it holds a worker. Whatever
        // else stands against it, a limit or the lack of memory, ends the requests.
        next = file.it.waitingHead
        file.it.waitingHead = Job.none
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.queueNext
            _ = job.transition(from: .waiting, to: .running)
            if result != failure(EPERM) {
                settle(job, from: .running, result: totalResult(job, last: result))
                continue
            }
            _ = job.transition(from: .running, to: .queued)
            it.pool.work.append(it.table, first: job, last: job, count: 1)
            callWorkers(1)
        }
    }

    private func wantedEvents(_ job: JobRef) -> UInt32 {
        switch job.it.operation {
        case .poll: return job.it.pollEvents
        case .write: return EPOLLOUT.rawValue
        default: return EPOLLIN.rawValue
        }
    }

    private func watch(_ number: Int32, _ events: UInt32, data: UInt32, isNew: Bool) -> Int {
        var event = ioctx_epoll_event()
        event.events = events
        event.data = data
        return withAddress(of: &event) {
            systemCall(
                Int32(SYS_epoll_ctl), Int(it.pool.epoll),
                Int(isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD), Int(number), $0)
        }
    }

    /// The file is ready for something: tries its waiting jobs in their order.
    private func serveReady(_ index: UInt32) {
        let file = it.files[index]
        var next = file.it.waitingHead
        if next == Job.none { return }
        file.it.waitingHead = Job.none
        var keptLast = Job.none
        // The jobs hold the file; this keeps it while the last of them finishes.
        it.files.addReference(index)
        while next != Job.none {
            let job = it.table.job(at: next)
            next = job.it.queueNext
            _ = job.transition(from: .waiting, to: .running)
            if attempt(job) { continue }
            _ = job.transition(from: .running, to: .waiting)
            job.it.queueNext = Job.none
            if keptLast == Job.none {
                file.it.waitingHead = job.it.index
            } else {
                it.table.job(at: keptLast).it.queueNext = job.it.index
            }
            keptLast = job.it.index
        }
        watchFile(index)
        dropHeld(index)
    }

    /// Tries a job in state running without blocking. True when it is done.
    private func attempt(_ job: JobRef) -> Bool {
        if job.it.cancelRequested.load(ordering: .acquiring) {
            settle(
                job, from: .running,
                result: totalResult(job, last: job.cancelledResult))
            return true
        }
        if !it.files.hasArrived(job.it.heldFile) {
            settle(job, from: .running, result: failure(EBADF))
            return true
        }
        let number = it.files[job.it.heldFile].it.number
        if job.it.operation == .poll {
            let ready = System.readiness(of: number, job.it.pollEvents)
            if ready == 0 { return false }
            settle(job, from: .running, result: ready)
            return true
        }
        let isWrite = job.it.operation == .write
        while true {
            var result = StreamTransfer.attempt(
                isWrite: isWrite, number, it.table.vectorsAddress(job),
                Int(job.it.vectorCount &- job.it.vectorFirst), job.it.offset, job.it.rwFlags)
            if result == failure(EAGAIN) { return false }
            if isWrite && result > 0 && result < job.it.length {
                it.table.advance(job, by: result)
                continue
            }
            result = totalResult(job, last: result)
            settle(job, from: .running, result: result)
            return true
        }
    }

    private func cancelWaiting() {
        it.table.forEachJob { job in
            if job.state == .waiting && job.it.station.load(ordering: .relaxed) == address
                && job.it.cancelRequested.load(ordering: .acquiring)
                && job.it.heldFile != Job.none
            {
                serveReady(job.it.heldFile)
            }
        }
    }

    // MARK: - Workers

    /// A worker's life: work, wait, and leave when nothing came for a while.
    fileprivate func work() {
        it.table.it.counters.it.numAioProcs.raise()
        while true {
            while workOff() && linger() {}
            forgetWorker()
            let limits = it.table.it.limits
            let isBeyondTarget =
                it.pool.workers.load(ordering: .relaxed) > limits.targetAioProcs
            let lifetimeMs = isBeyondTarget ? limits.aiodTimeoutMs : limits.aiodLifetimeMs
            let seen = it.pool.workSignal.load(ordering: .sequentiallyConsistent)
            it.pool.idleWorkers.add(1, ordering: .sequentiallyConsistent)
            var result = 0
            if it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0 {
                result = it.pool.workSignal.wait(
                    while: seen,
                    until: System.monotonicNs() &+ UInt64(lifetimeMs) &* 1_000_000)
            }
            it.pool.idleWorkers.subtract(1, ordering: .sequentiallyConsistent)
            if result == failure(ETIMEDOUT)
                && it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0
            {
                break
            }
        }
        // A job may come while this worker is on its way out and counted as there. As long as it
        // looks for one, the station may not end.
        it.pool.running.add(1, ordering: .sequentiallyConsistent)
        it.table.it.counters.it.numAioProcs.lower()
        it.pool.workers.subtract(1, ordering: .sequentiallyConsistent)
        if it.pool.work.count.load(ordering: .sequentiallyConsistent) != 0 { workOffAll() }
        it.pool.running.subtract(1, ordering: .sequentiallyConsistent)
    }

    /// Somebody has counted on this worker, which has got `job` to do: what need not come after that is
    /// another worker's.
    private func passOn(besides job: JobRef) {
        if it.pool.work.count.load(ordering: .sequentiallyConsistent) == 0 { return }
        var isForOthers = false
        it.pool.work.forEach(it.table) {
            isForOthers =
                !job.it.isExclusive || !$0.it.isExclusive || $0.it.inode != job.it.inode
                || $0.it.device != job.it.device
            return !isForOthers
        }
        if isForOthers && wakeWorkers(1) == 0 { ringManager() }
    }

    private func workOffAll() {
        while workOff() && !takeOffer() {}
    }

    /// Does the jobs of the queue until it is empty. True when it has made an offer by then.
    private func workOff() -> Bool {
        var hasOffered = false
        while let job = it.pool.work.takeFirst(it.table) {
            if hasOffered && !takeOffer() { passOn(besides: job) }
            hasOffered = false
            if !hasItsFiles(job) {
                // A file that is still in the socket cannot be shared by requests to come.
                receiveForWorkers(until: job.it.isExclusive ? nil : job)
            }
            if job.it.isExclusive && !mayStart(job) {
                // Parked; whoever does the one before it will look for it.
                it.pool.running.subtract(1, ordering: .acquiringAndReleasing)
                continue
            }
            if !job.transition(from: .queued, to: .running) {
                settle(job, from: .cancelled, result: job.cancelledResult)
            } else if job.it.isExclusive {
                rememberWorker()
                performAdjacent(job)
                hasOffered = true
            } else {
                settle(job, from: .running, result: perform(job))
            }
        }
        return hasOffered
    }

    /// Does a job in state running that is the first of its file, and with it the writes that follow
    /// it there and in the queue. Makes an offer before the last of them wakes anybody.
    private func performAdjacent(_ first: JobRef) {
        var writes = AdjacentWrites(it.table, first)
        while let next = it.pool.work.takeFirst(
            it.table,
            if: {
                writes.mayAppend($0)
                    && it.engine.it.streams.follows(it.table, $0, writes.last)
            })
        {
            if !hasItsFiles(next) { receiveForWorkers() }
            if !next.transition(from: .queued, to: .running) {
                settle(next, from: .cancelled, result: next.cancelledResult)
                break
            }
            writes.append(it.table, next)
        }
        let written =
            writes.count > 1 ? writes.write(to: it.files[first.it.heldFile].it.number) : 0
        var end = 0
        for index in 0..<writes.count {
            let job = writes[index]
            end &+= job.it.length
            // What was not written whole is tried on its own, and has its own error.
            settle(
                job, from: .running, result: end <= written ? job.it.length : perform(job),
                offers: index == writes.count &- 1)
        }
    }

    /// Runs a job on a file; blocks as long as the file does.
    private func perform(_ job: JobRef) -> Int {
        // A number that is still the program's means another file here.
        if !it.files.hasArrived(job.it.heldFile) { return failure(EBADF) }
        let number = it.files[job.it.heldFile].it.number
        switch job.it.operation {
        case .fsync: return systemCall(Int32(SYS_fsync), Int(number))
        case .fdatasync: return systemCall(Int32(SYS_fdatasync), Int(number))
        default: break
        }
        if job.it.ioPriority != 0 {
            _ = systemCall(Int32(SYS_ioprio_set), 1, 0, Int(job.it.ioPriority))
        }
        var result: Int
        repeat {
            result = StreamTransfer.transfer(
                job.it.operation == .write, number, it.table.vectorsAddress(job),
                Int(job.it.vectorCount &- job.it.vectorFirst), job.it.offset, job.it.rwFlags)
        } while result == failure(EINTR)
        if job.it.ioPriority != 0 { _ = systemCall(Int32(SYS_ioprio_set), 1, 0, 0) }
        return totalResult(job, last: result)
    }

    // MARK: Finishing

    private func settle(
        _ job: JobRef, from state: JobState, result: Int, offers: Bool = false
    ) {
        let eventfd = job.it.operation == .notify ? Job.none : job.it.heldEventfd
        finish(job, from: state, result: result)
        if eventfd != Job.none { signalEventfd(eventfd) }
        if offers { offer() }
        announce(job)
        it.pool.running.subtract(1, ordering: .acquiringAndReleasing)
    }

    private func signalEventfd(_ index: UInt32) {
        // Until it has arrived, the number is one of the program's.
        if !it.files[index].it.isMoved { return }
        var one: UInt64 = 1
        _ = withAddress(of: &one) {
            systemCall(Int32(SYS_write), Int(it.files[index].it.number), $0, 8)
        }
    }

    /// Closes a held file's number in the private table.
    func giveUpNumber(_ index: UInt32) {
        let file = it.files[index]
        if !file.it.isMoved { return }
        if file.it.isWatched {
            // A file must leave the epoll set before its number is closed: the description may
            // live on in the program, and the set would keep reporting it.
            var event = ioctx_epoll_event()
            _ = withAddress(of: &event) {
                systemCall(
                    Int32(SYS_epoll_ctl), Int(it.pool.epoll), Int(EPOLL_CTL_DEL),
                    Int(file.it.number), $0)
            }
            file.it.isWatched = false
        }
        if file.it.number >= 0 { System.close(file.it.number) }
    }
}

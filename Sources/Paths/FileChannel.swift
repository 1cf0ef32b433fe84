// The way of files into the private descriptor table of a pool: messages over datagram sockets.
//
// A message carries up to 64 descriptors and no bytes, so nothing would land in a stranger's
// stream. It says nothing of what its files are for: `awaited` has their indexes, in the order
// of the messages. `sendLock` keeps that order, and the jobs are queued under it as well; so
// whoever finds a message finds the indexes of its files, and after it their jobs. A message
// without files only wakes. What was announced and did not arrive is no file: its index gets the
// number -1.

import CLibAIO
import JobTable

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

// MARK: - Messages

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
struct RightsMessage {
    var length: Int = 0
    var level: Int32 = Int32(SOL_SOCKET)
    var type: Int32 = Int32(SCM_RIGHTS)
    var files = InlineArray<64, Int32>(repeating: 0)

    static let headerBytes = 16
}

extension Ref where Pointee == Station {
    /// Sends `files` descriptors, or none to wake the manager. 0 or a negated errno.
    func sendMessage(
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

    /// Takes one message; its files go to the indexes that await them, in order. Negative when
    /// there is none.
    func receiveMessage(from channel: inout FileChannel, discard: Bool = false) -> Int {
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
        if discard {
            for position in 0..<files { System.close(message.files[position]) }
            return result
        }
        // The sender holds this lock until its jobs are queued, so they are there after it.
        channel.sendLock.lock()
        let sent = channel.takeCount(capacity: it.files.capacity)
        for position in 0..<sent {
            guard let index = channel.take(capacity: it.files.capacity) else { break }
            // What did not arrive is no file: its jobs end with -EBADF.
            it.files.arrive(index, number: position < files ? message.files[position] : -1)
        }
        channel.sendLock.unlock()
        return result
    }

    /// Receives what was sent for jobs that went to the workers directly: all of it, or until the
    /// files of `job` are there.
    func receiveForWorkers(until job: JobRef? = nil) {
        it.pool.receiveLock.lock()
        while job.map(hasItsFiles) != true && receiveMessage(from: &it.pool.forWorkers) >= 0 {}
        it.pool.receiveLock.unlock()
    }

    func hasItsFiles(_ job: JobRef) -> Bool {
        it.files.hasArrived(job.it.heldFile) && it.files.hasArrived(job.it.heldEventfd)
    }
}

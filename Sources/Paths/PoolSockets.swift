// The sockets of a pool: one in the program's table, and one for each channel in the private
// one.
//
// They find each other by names that the kernel makes up (unix(7), autobind), because the
// manager leaves the program's descriptor table before it opens anything. Each is connected to
// its peer, so that it takes no message from strangers; the sender to the manager's socket
// alone, for it names the receiver in each message. The sender outlives its manager, for
// somebody may just be sending; the next start replaces it.

import CLibAIO
import JobTable

extension Ref where Pointee == Station {
    /// In the starting thread, in the program's table: makes the sender and gives it a name.
    func openSender() -> Int {
        if !haveAwaited(&it.pool.forManager) || !haveAwaited(&it.pool.forWorkers) {
            return failure(ENOMEM)
        }
        // That of the manager before this one: its name may be one of another network namespace.
        closeSender()
        let made = bindSocket(&it.pool.senderName, &it.pool.senderNameBytes)
        if made < 0 { return made }
        it.pool.sender = System.awayFromStandardStreams(Int32(truncatingIfNeeded: made))
        rememberWayIn(it.pool.sender)
        return 0
    }

    private func haveAwaited(_ channel: inout FileChannel) -> Bool {
        if channel.awaited == 0 {
            channel.awaited = Memory.map(
                bytes: Int(it.files.capacity) &* 8, protection: PROT_READ | PROT_WRITE)
        }
        return channel.awaited != 0
    }

    func closeSender() {
        if isWayIn(it.pool.sender) { System.close(it.pool.sender) }
        it.pool.sender = -1
    }

    /// In the starting thread, once the manager has its socket.
    func connectSender() -> Int {
        connect(
            it.pool.sender, &it.pool.forManager.receiverName,
            it.pool.forManager.receiverNameBytes)
    }

    /// In the manager, in its private table.
    func openReceiver() -> Int {
        var result = leaveDescriptorTable()
        if result < 0 { return result }
        // What was abandoned to an earlier manager went with its table: here the numbers mean
        // nothing.
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
        it.pool.comparableThread = SandboxProbe.mayCompareFiles() ? System.threadIdentifier() : 0
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
        // What strangers sent to its name before must not be taken for a hand-over. Any other end
        // than that there is nothing is a filter's: nothing would ever come.
        var received: Int
        repeat {
            received = receiveMessage(from: &channel, discard: true)
        } while received >= 0
        if received != failure(EAGAIN) { return received }
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

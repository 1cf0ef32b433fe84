// The daemon path without io_uring: a bounded pool of threads.
//
// All daemons of a pool share one descriptor table that is private to them. Files get there by
// SCM_RIGHTS, from a datagram socket in the program's table to two in the private one
// (PoolSockets.swift, FileChannel.swift). Submitters send them and queue jobs
// (PoolHandOver.swift). The first daemon, the manager, receives files, waits for readiness
// (epoll, no thread per request) and starts workers (PoolManager.swift); workers call preadv2,
// pwritev2 and fsync (PoolWorkers.swift).

import CLibAIO
import JobTable
import Synchronization

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

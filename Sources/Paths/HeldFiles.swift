// Files held for jobs that a daemon will run.
//
// The program may close a descriptor the moment io_submit returns, so a job holds the file, never
// its number. A held file is an index; what is behind it depends on the station: a slot in the
// daemon's table of registered files (uring), or a number in the daemons' private descriptor
// table (threads). It is given up before the last of its jobs' events is published, so that no
// flock outlives its I/O and a pipe's end of file is not kept back.
//
// A file that is held already is shared by later requests on the same (device, inode, file flags):
// positional I/O on either description is the same I/O. By those of the same descriptor, so many
// times that a description which the program has closed meanwhile is not held for ever by requests
// on its successor; and by all under pressure, when half of the indexes are taken. RLIMIT_NOFILE
// bounds the indexes, so this is what lets thousands of requests be in flight. Files without an
// inode of their own (eventfds, epoll sets, most devices) have identity 0 here, and are shared only
// where kcmp(2) tells that the very description is held (PoolHandOver.swift).

import CLibAIO
import JobTable
import Synchronization

struct HeldFile: ~Copyable {
    var references: UInt32  // (h) 0: free
    var next: UInt32  // (h) free list, or that of the abandoned
    /// The file is on its way to the daemon, which has it when it comes to the job.
    var isReady: Bool  // (h)
    /// threads: it was sent to where the workers look, and the manager as well.
    var isForWorkers: Bool  // (h)
    /// The daemon has it: in the work ring (uring), in the private table (threads).
    var isMoved: Bool  // (h) to write
    /// threads: the program's number until the hand-over, then the number in the private table.
    var number: Int32  // (h) once handed over; constant from its arrival on
    /// threads: jobs that wait for the file's readiness, linked by queueNext. Manager only.
    var waitingHead: UInt32
    /// threads: the file is in the manager's epoll set. Manager only.
    var isWatched: Bool
    /// Of these events each change is reported, not only the first; 0: the watch is one-shot.
    /// Manager only.
    var changesWatched: UInt32
    var device: UInt64  // (h)
    var inode: UInt64  // (h)
    var flags: Int  // (h) to write; constant while there is a reference
    /// The descriptor in the program's table that it was claimed by.
    var descriptor: Int32  // (h)
    /// By how many requests on that descriptor it may still be shared.
    var sharesLeft: UInt32  // (h)
    /// Events to signal with the next write, when the file is an eventfd. Daemon only.
    var signals: UInt64
    /// The count that is being written; 0 while none is. Daemon only, and the kernel's.
    var announced: UInt64
}

struct HeldFiles: ~Copyable {
    private let lock = FutexLock()  // (h)
    private var files: Reserve<HeldFile>
    private var freeHead: UInt32 = Job.none  // (h)
    private var abandonedHead: UInt32 = Job.none  // (h)
    /// Set with it, for a look without the lock.
    let hasAbandoned = Atomic<Bool>(false)
    private var used: UInt32 = 0  // (h)
    let capacity: UInt32
    /// The index that was claimed last for each descriptor, by its lowest bits.
    private var recent = InlineArray<256, UInt32>(repeating: Job.none)  // (h)

    private static let sharesMax: UInt32 = 64

    init?(capacity wanted: UInt32) {
        guard let reserve = Reserve<HeldFile>(capacity: wanted) else { return nil }
        files = reserve
        capacity = wanted
    }

    subscript(index: UInt32) -> Ref<HeldFile> { files[index] }

    /// What claim() found: a new index for the file, an existing one, or none.
    enum Claim {
        case new(UInt32)
        case shared(UInt32)
        case full
    }

    /// The index under which that descriptor's file is held already, with a reference, unless it is
    /// none or it was shared often. With `forWorkers` the workers must find it, with `forWaiters`
    /// it must not have left the parking ring.
    mutating func shareRecent(
        device: UInt64, inode: UInt64, flags: Int, descriptor: Int32, forWorkers: Bool,
        forWaiters: Bool
    ) -> UInt32? {
        lock.lock()
        defer { lock.unlock() }
        guard inode != 0, let index = recentLocked(descriptor) else { return nil }
        let file = files[index]
        if file.it.sharesLeft == 0
            || !isEqualLocked(file, device: device, inode: inode, flags: flags)
            || forWorkers && (file.it.isMoved ? file.it.number < 0 : !file.it.isForWorkers)
            || forWaiters && file.it.isMoved
        {
            return nil
        }
        file.it.sharesLeft &-= 1
        file.it.references &+= 1
        return index
    }

    /// The index that was claimed last for that descriptor; it may be free by now, or another's.
    mutating func recent(_ descriptor: Int32) -> UInt32? {
        lock.lock()
        defer { lock.unlock() }
        return recentLocked(descriptor)
    }

    private func recentLocked(_ descriptor: Int32) -> UInt32? {
        let index = recent[Int(descriptor & 255)]
        return index != Job.none && files[index].it.descriptor == descriptor ? index : nil
    }

    /// Claims an index for the file with that identity, with one reference, unless `usedMax` of
    /// them are used. `number` is its descriptor in the program's table.
    mutating func claim(
        device: UInt64, inode: UInt64, flags: Int, number: Int32, usedMax: UInt32 = .max
    ) -> Claim {
        lock.lock()
        defer { lock.unlock() }
        if inode != 0, used >= capacity / 2,
            let index = equalFileLocked(device: device, inode: inode, flags: flags)
        {
            files[index].it.references &+= 1
            return .shared(index)
        }
        if used >= min(capacity, usedMax) || (freeHead == Job.none && !growLocked()) {
            return .full
        }
        let index = freeHead
        freeHead = files[index].it.next
        used &+= 1
        files[index].it.references = 1
        files[index].it.isReady = false
        files[index].it.isForWorkers = false
        files[index].it.isMoved = false
        files[index].it.number = number
        files[index].it.waitingHead = Job.none
        files[index].it.isWatched = false
        files[index].it.changesWatched = 0
        files[index].it.device = device
        files[index].it.inode = inode
        files[index].it.flags = flags
        files[index].it.descriptor = number
        files[index].it.sharesLeft = Self.sharesMax
        files[index].it.signals = 0
        files[index].it.announced = 0
        recent[Int(number & 255)] = index
        return .new(index)
    }

    /// The claimed file has been handed over: others may share it from now on.
    mutating func announce(_ index: UInt32, isForWorkers: Bool = false) {
        lock.lock()
        files[index].it.isReady = true
        files[index].it.isForWorkers = isForWorkers
        lock.unlock()
    }

    /// True once the file is on its way to the daemon, or there.
    mutating func isReady(_ index: UInt32) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return files[index].it.isReady
    }

    /// The daemon takes the file out of the parking ring. False when it has it.
    mutating func move(_ index: UInt32) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        if files[index].it.isMoved { return false }
        files[index].it.isMoved = true
        return true
    }

    /// The daemons have the file under that number of their private table.
    mutating func arrive(_ index: UInt32, number: Int32) {
        lock.lock()
        files[index].it.number = number
        files[index].it.isMoved = true
        lock.unlock()
    }

    /// True when the daemons have the file, or there is none.
    mutating func hasArrived(_ index: UInt32) -> Bool {
        if index == Job.none { return true }
        lock.lock()
        defer { lock.unlock() }
        return files[index].it.isMoved
    }

    /// Adds a reference to a file that has arrived in a private table if `isSame`, asked about its
    /// number there, says that it is the one that is wanted. The number cannot be closed meanwhile:
    /// that takes the last reference. Requests on its descriptor may share it as often as at first,
    /// for the description is known to be theirs.
    mutating func share(_ index: UInt32, _ isSame: (Int32) -> Bool) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        if index >= files.opened { return false }
        let file = files[index]
        if file.it.references == 0 || !file.it.isReady || !file.it.isMoved
            || !isSame(file.it.number)
        {
            return false
        }
        file.it.references &+= 1
        file.it.sharesLeft = Self.sharesMax
        return true
    }

    mutating func addReference(_ index: UInt32) {
        lock.lock()
        files[index].it.references &+= 1
        lock.unlock()
    }

    /// Drops a reference. True when it was the last: the caller must now give up what is behind
    /// the index and then call `recycle`. Until then nobody else gets the index.
    mutating func dropReference(_ index: UInt32) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return dropReferenceLocked(index)
    }

    private func dropReferenceLocked(_ index: UInt32) -> Bool {
        files[index].it.references &-= 1
        if files[index].it.references > 0 { return false }
        files[index].it.isReady = false
        return true
    }

    /// What became of a reference that a visitor of the parking ring wanted to drop.
    enum Drop {
        /// Others have some.
        case shared
        /// It was the last: as for `dropReference`.
        case last
        /// It would be the last, and only the daemon can give the file up: nothing was dropped.
        case daemons
    }

    mutating func dropReferenceAsVisitor(_ index: UInt32) -> Drop {
        lock.lock()
        defer { lock.unlock() }
        if files[index].it.references == 1 && files[index].it.isMoved { return .daemons }
        return dropReferenceLocked(index) ? .last : .shared
    }

    /// Leaves it to the daemon to give up what is behind an index without references.
    mutating func abandon(_ index: UInt32) {
        lock.lock()
        files[index].it.next = abandonedHead
        abandonedHead = index
        // Sequentially consistent: pairs with a daemon's look after it has said that it sleeps.
        hasAbandoned.store(true, ordering: .sequentiallyConsistent)
        lock.unlock()
    }

    mutating func takeAbandoned() -> UInt32? {
        if !hasAbandoned.load(ordering: .relaxed) { return nil }
        lock.lock()
        defer { lock.unlock() }
        if abandonedHead == Job.none { return nil }
        let index = abandonedHead
        abandonedHead = files[index].it.next
        if abandonedHead == Job.none { hasAbandoned.store(false, ordering: .relaxed) }
        return index
    }

    mutating func recycle(_ index: UInt32) {
        lock.lock()
        files[index].it.next = freeHead
        freeHead = index
        used &-= 1
        lock.unlock()
    }

    private func equalFileLocked(device: UInt64, inode: UInt64, flags: Int) -> UInt32? {
        for index in 0..<files.opened {
            if isEqualLocked(files[index], device: device, inode: inode, flags: flags) {
                return index
            }
        }
        return nil
    }

    private func isEqualLocked(
        _ file: Ref<HeldFile>, device: UInt64, inode: UInt64, flags: Int
    ) -> Bool {
        file.it.references > 0 && file.it.isReady && file.it.inode == inode
            && file.it.device == device && file.it.flags == flags
    }

    private mutating func growLocked() -> Bool {
        files.grow(freeHead: &freeHead) { file, _, next in
            file.it.waitingHead = Job.none
            file.it.next = next
        }
    }
}

// Indexes for held files: claiming, sharing under pressure, giving back.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import Paths

/// The table where threads reach it, as in a station.
private struct Shared: ~Copyable {
    var files: HeldFiles
}

private func makeFiles(_ capacity: UInt32) -> Ref<Shared> {
    let record = Memory.record(Shared.self)!
    record.pointer.initialize(to: Shared(files: HeldFiles(capacity: capacity)!))
    return record
}

private enum Claimed: Equatable {
    case new(UInt32)
    case shared(UInt32)
    case full

    var index: UInt32? {
        switch self {
        case .new(let index), .shared(let index): index
        case .full: nil
        }
    }
}

extension Ref where Pointee == Shared {
    fileprivate func claim(inode: UInt64, device: UInt64 = 1, flags: Int = 2) -> Claimed {
        switch it.files.claim(device: device, inode: inode, flags: flags, number: 5) {
        case .new(let index): .new(index)
        case .shared(let index): .shared(index)
        case .full: .full
        }
    }

    /// A claim that must be new, announced.
    fileprivate func hold(inode: UInt64, isForWorkers: Bool = false) -> UInt32 {
        guard case .new(let index) = claim(inode: inode) else { return .max }
        it.files.announce(index, isForWorkers: isForWorkers)
        return index
    }

    fileprivate func shareRecent(
        device: UInt64 = 1, inode: UInt64 = 7, flags: Int = 2, descriptor: Int32 = 5,
        forWorkers: Bool = false, forWaiters: Bool = false
    ) -> UInt32? {
        it.files.shareRecent(
            device: device, inode: inode, flags: flags, descriptor: descriptor,
            forWorkers: forWorkers, forWaiters: forWaiters)
    }

    fileprivate func giveUp(_ index: UInt32) {
        if dropReference(index) { it.files.recycle(index) }
    }

    fileprivate func dropReference(_ index: UInt32) -> Bool { it.files.dropReference(index) }

    fileprivate func share(_ index: UInt32, isSame: Bool) -> Bool {
        it.files.share(index) { _ in isSame }
    }

    fileprivate func references(_ index: UInt32) -> UInt32 { it.files[index].it.references }
}

@Suite struct HeldFilesTests {
    @Test("Indexes are distinct, below the capacity, and then there are none")
    func capacity() {
        for capacity: UInt32 in [1, 4, 700, 1500] {
            let files = makeFiles(capacity)
            let indexes = (0..<capacity).compactMap { files.claim(inode: UInt64($0) + 1).index }
            #expect(Set(indexes).count == Int(capacity))
            #expect(indexes.allSatisfy { $0 < capacity })
            #expect(files.claim(inode: 99_999) == .full)
            files.giveUp(indexes[Int(capacity) / 2])
            #expect(files.claim(inode: 99_999) == .new(indexes[Int(capacity) / 2]))
            #expect(files.claim(inode: 99_998) == .full)
        }
    }

    @Test("Without pressure every claim is the file's own") func notSharedWithoutPressure() {
        let files = makeFiles(10)
        for _ in 0..<5 { #expect(files.hold(inode: 7) != .max) }
    }

    @Test("Under pressure the same file is shared, and no other") func sharedUnderPressure() {
        let files = makeFiles(10)
        let held = files.hold(inode: 7)
        for inode: UInt64 in 100..<104 { _ = files.hold(inode: inode) }
        #expect(files.claim(inode: 7) == .shared(held))
        #expect(files.references(held) == 2)
        // Any difference makes another file of it.
        for other in [
            files.claim(inode: 8), files.claim(inode: 7, device: 2),
            files.claim(inode: 7, flags: 3),
        ] {
            guard case .new = other else {
                Issue.record("\(other) should be new")
                continue
            }
        }
        #expect(files.claim(inode: 7) == .shared(held), "also when nearly full")
        #expect(files.claim(inode: 200).index != nil && files.claim(inode: 201).index != nil)
        #expect(files.claim(inode: 202) == .full)
        #expect(files.claim(inode: 7) == .shared(held), "and when full")
    }

    @Test("Requests on one descriptor share the file it was held by, and no other")
    func sharedByDescriptor() {
        let files = makeFiles(100)
        #expect(files.shareRecent() == nil, "nothing is held")
        let held = files.hold(inode: 7)
        #expect(files.shareRecent() == held)
        #expect(files.references(held) == 2)
        #expect(files.shareRecent(device: 2) == nil)
        #expect(files.shareRecent(inode: 8) == nil)
        #expect(files.shareRecent(flags: 3) == nil)
        for other: Int32 in [4, 5 + 64, 5 + 256, 5 - 256, -59, -1, .max] {
            #expect(files.shareRecent(descriptor: other) == nil)
        }
        #expect(files.shareRecent(inode: 0) == nil)
        #expect(files.shareRecent(forWorkers: true) == nil)
        files.it.files.arrive(held, number: 3)
        #expect(files.shareRecent(forWorkers: true) == held)
        for _ in 0..<3 { files.giveUp(held) }
        #expect(files.shareRecent() == nil, "it was given up")
        let sent = files.hold(inode: 7, isForWorkers: true)
        #expect(files.shareRecent(forWorkers: true) == sent, "they will find it")
        for _ in 0..<2 { files.giveUp(sent) }
        _ = files.hold(inode: 7)
        #expect(files.shareRecent(forWorkers: true) == nil, "that one is the manager's")
    }

    @Test("Whoever waits for reads of a file shares it until the daemon has moved it")
    func leftToWaiters() {
        let files = makeFiles(100)
        let held = files.hold(inode: 7)
        #expect(files.shareRecent(forWaiters: true) == held)
        for isFirst in [true, false] {
            let isMoved = files.it.files.move(held)
            #expect(isMoved == isFirst)
        }
        #expect(files.shareRecent(forWaiters: true) == nil)
        #expect(files.shareRecent() == held)
    }

    @Test("Of a file that the daemon has moved, a visitor does not drop the last reference")
    func visitors() {
        let files = makeFiles(100)
        let parked = files.hold(inode: 7)
        files.it.files.addReference(parked)
        for wanted in [HeldFiles.Drop.shared, .last] {
            let dropped = files.it.files.dropReferenceAsVisitor(parked)
            #expect(dropped == wanted)
        }
        let moved = files.hold(inode: 8)
        files.it.files.addReference(moved)
        _ = files.it.files.move(moved)
        for wanted in [HeldFiles.Drop.shared, .daemons, .daemons] {
            let dropped = files.it.files.dropReferenceAsVisitor(moved)
            #expect(dropped == wanted)
        }
        files.giveUp(moved)
        #expect(files.shareRecent(inode: 8) == nil)
    }

    @Test("What did not arrive is not shared by the workers' requests") func failedArrival() {
        let files = makeFiles(100)
        let held = files.hold(inode: 7, isForWorkers: true)
        files.it.files.arrive(held, number: -1)
        #expect(files.shareRecent(forWorkers: true) == nil)
        #expect(files.shareRecent() == held, "on io_uring the number is the program's")
    }

    @Test("An abandoned index is nobody's until it is taken and recycled") func abandoned() {
        let files = makeFiles(2)
        let held = [files.hold(inode: 7), files.hold(inode: 8)]
        for index in held where files.dropReference(index) { files.it.files.abandon(index) }
        #expect(files.claim(inode: 9) == .full)
        #expect(files.it.files.takeAbandoned() == held[1])
        #expect(files.it.files.takeAbandoned() == held[0])
        #expect(files.it.files.takeAbandoned() == nil)
        files.it.files.recycle(held[0])
        #expect(files.claim(inode: 9) == .new(held[0]))
    }

    /// Else requests on a descriptor's next file, which is the same one opened again, would hold
    /// the closed description for ever, and a lock with it.
    @Test("A held file is shared so many times and then makes way for a new one")
    func sharesEnd() {
        let files = makeFiles(100)
        let held = files.hold(inode: 7)
        var shares = 0
        while files.shareRecent() != nil && shares < 1000 { shares += 1 }
        #expect(shares == 64)
        let next = files.hold(inode: 7)
        #expect(next != held)
        #expect(files.shareRecent() == next)
    }

    /// All eventfds have one inode between them.
    @Test("Files without an inode of their own are never shared") func anonymousFiles() {
        let files = makeFiles(8)
        var indexes = Set<UInt32>()
        for _ in 0..<8 {
            guard case .new(let index) = files.claim(inode: 0, device: 0) else {
                Issue.record("an anonymous file was shared, or refused")
                return
            }
            files.it.files.announce(index)
            indexes.insert(index)
        }
        #expect(indexes.count == 8)
        #expect(files.claim(inode: 0, device: 0) == .full)
    }

    /// Until it is announced, the daemon may come to the sharer's job before it has the file.
    @Test("A file that is not announced yet is not shared") func unannounced() {
        let files = makeFiles(4)
        guard case .new(let first) = files.claim(inode: 7), case .new = files.claim(inode: 8)
        else {
            Issue.record("full")
            return
        }
        guard case .new = files.claim(inode: 7) else {
            Issue.record("shared before it was announced")
            return
        }
        files.it.files.announce(first)
        #expect(files.claim(inode: 7) == .shared(first))
    }

    @Test("The last reference says so, once; then nobody shares the file or gets its index")
    func lastReference() {
        let files = makeFiles(4)
        let held = files.hold(inode: 7)
        let other = files.hold(inode: 8)
        files.it.files.addReference(held)
        #expect(files.claim(inode: 7) == .shared(held))
        #expect(!files.dropReference(held))
        #expect(!files.dropReference(held))
        #expect(files.dropReference(held))
        // Its descriptor is being closed now.
        guard case .new(let second) = files.claim(inode: 7) else {
            Issue.record("shared a file that is being given up")
            return
        }
        #expect(second != held && second != other)
        files.it.files.recycle(held)
        #expect(files.claim(inode: 9) == .new(held))
    }

    @Test("A file is shared by its index only while it is there, and is the one that is meant")
    func sharedByIndex() {
        let files = makeFiles(8)
        #expect(!files.share(0, isSame: true), "nothing was ever held")
        guard case .new(let index) = files.claim(inode: 7) else {
            Issue.record("no place for a file")
            return
        }
        #expect(!files.share(index, isSame: true), "it is not announced")
        files.it.files.announce(index)
        #expect(!files.share(index, isSame: true), "it has not arrived")
        files.it.files.arrive(index, number: 33)
        var asked: Int32 = 0
        let wasShared = files.it.files.share(index) {
            asked = $0
            return false
        }
        #expect(!wasShared)
        #expect(asked == 33, "asked about the number in the private table")
        #expect(files.references(index) == 1)
        #expect(files.share(index, isSame: true) && files.references(index) == 2)
        #expect(!files.share(.max, isSame: true))
        #expect(!files.dropReference(index))
        #expect(files.dropReference(index))
        #expect(!files.share(index, isSame: true), "it is being given up")
        files.it.files.recycle(index)
        #expect(!files.share(index, isSame: true))
    }

    @Test("A new claim starts with nothing of the index's last file") func claimResets() {
        let files = makeFiles(4)
        let index = files.hold(inode: 7)
        files.it.files[index].it.isMoved = true
        files.it.files[index].it.isWatched = true
        files.it.files[index].it.signals = 4
        files.it.files[index].it.waitingHead = 3
        files.giveUp(index)
        #expect(files.claim(inode: 8) == .new(index))
        let isMoved = files.it.files[index].it.isMoved
        let isReady = files.it.files[index].it.isReady
        let isWatched = files.it.files[index].it.isWatched
        #expect(!isMoved && !isReady && !isWatched)
        let signals = files.it.files[index].it.signals
        let waitingHead = files.it.files[index].it.waitingHead
        let number = files.it.files[index].it.number
        #expect(signals == 0 && waitingHead == Job.none && number == 5)
        #expect(files.references(index) == 1)
    }

    /// Fails when two threads own one index, or an index is lost.
    @Test("Threads that claim, share and give up never mix up indexes") func stress() {
        let capacity: UInt32 = 16
        let files = makeFiles(capacity)
        let owners = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: Int(capacity))
        for index in 0..<Int(capacity) { (owners + index).initialize(to: Atomic(0)) }
        let mistakes = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: 1)
        mistakes.initialize(to: Atomic(0))
        concurrently(4) { thread in
            for round in 0..<4000 {
                let inode = UInt64(round % 6 + 1)
                switch files.claim(inode: inode) {
                case .new(let index):
                    // Nobody has it: the claim before was recycled after its owner was erased.
                    if owners[Int(index)].exchange(Int(inode), ordering: .acquiringAndReleasing)
                        != 0
                    {
                        mistakes.pointee.add(1, ordering: .relaxed)
                    }
                    files.it.files.announce(index)
                    drop(index)
                case .shared(let index):
                    if owners[Int(index)].load(ordering: .acquiring) != Int(inode) {
                        mistakes.pointee.add(1, ordering: .relaxed)
                    }
                    drop(index)
                case .full:
                    sched_yield()
                }
            }
        }
        func drop(_ index: UInt32) {
            if !files.it.files.dropReference(index) { return }
            owners[Int(index)].store(0, ordering: .releasing)
            files.it.files.recycle(index)
        }
        let count = mistakes.pointee.load(ordering: .relaxed)
        #expect(count == 0)
        let left = (0..<capacity).compactMap { files.claim(inode: UInt64($0) + 100).index }
        #expect(Set(left).count == Int(capacity), "every index is free again")
    }
}

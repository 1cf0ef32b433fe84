// Reserved memory that is opened piece by piece.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

private struct Record {
    var number: UInt64
    var filler: (UInt64, UInt64, UInt64)
}

private let recordsPerStep: UInt32 = 65_536 / 32

@Suite struct ReserveTests {
    @Test("A reserve opens step by step up to its capacity; what is open is zeroed, and stays")
    func growth() {
        let capacity = recordsPerStep * 2 + 10
        guard var reserve = Reserve<Record>(capacity: capacity) else {
            Issue.record("no address space")
            return
        }
        let reserved = reserve.capacity
        #expect(reserved == capacity)
        var openedBefore: UInt32 = 0
        for opened in [recordsPerStep, recordsPerStep * 2, capacity] {
            let before = reserve.opened
            let grew = reserve.grow()
            let after = reserve.opened
            #expect(before == openedBefore && grew && after == opened)
            for index in openedBefore..<opened {
                #expect(reserve[index].it.number == 0)
                reserve[index].it.number = UInt64(index) + 1
            }
            openedBefore = opened
        }
        let grew = reserve.grow()
        let opened = reserve.opened
        #expect(!grew && opened == capacity)
        for index in 0..<capacity {
            let kept = reserve[index].it.number == UInt64(index) + 1
            if !kept { Issue.record("record \(index) was lost") }
        }
    }

    @Test("A reserve smaller than a step opens whole") func small() {
        guard var reserve = Reserve<Record>(capacity: 3) else {
            Issue.record("no address space")
            return
        }
        let first = reserve.grow()
        let opened = reserve.opened
        let second = reserve.grow()
        #expect(first && opened == 3 && !second)
    }

    /// A second step comes when the first is used up, or with some of it left on the list.
    @Test(
        "New records go before what is left on the free list, in order, each linked to the next",
        arguments: [Job.none, 5])
    func freeList(left: UInt32) {
        let capacity = recordsPerStep + 10
        guard var reserve = Reserve<Record>(capacity: capacity) else {
            Issue.record("no address space")
            return
        }
        var freeHead = Job.none
        var linked: [UInt32] = []
        func grow() -> Bool {
            reserve.grow(freeHead: &freeHead) { record, index, next in
                record.it.number = UInt64(next)
                linked.append(index)
            }
        }
        for (first, opened, next) in [
            (0, recordsPerStep, Job.none), (recordsPerStep, capacity, left),
        ] {
            linked = []
            let grew = grow()
            #expect(grew && freeHead == first)
            #expect(linked == (first..<opened).reversed())
            for index in first..<opened {
                let expected = index == opened - 1 ? next : index + 1
                let found = reserve[index].it.number
                if found != UInt64(expected) { Issue.record("\(index) leads to \(found)") }
            }
            freeHead = left
        }
        let grew = grow()
        #expect(!grew && freeHead == left && linked.count == 10, "at capacity nothing changes")
    }

    @Test("Records that are not opened cannot be touched") func closedMemoryFaults() async {
        await #expect(processExitsWith: .failure) {
            boundedInTime()
            let reserve = Reserve<Record>(capacity: 1000)!
            reserve[0].it.number = 1
        }
    }

    /// RLIMIT_AS is what `ulimit -v` sets.
    @Test("Where address space is limited a reserve takes a part of it, or what is left")
    func limitedAddressSpace() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let recordBytes = MemoryLayout<Record>.stride
            limitAddressSpace(moreBytes: 100 << 20)
            let wanted = UInt32((1 << 30) / recordBytes)
            guard var reserve = Reserve<Record>(capacity: wanted) else {
                Issue.record("refused altogether")
                return
            }
            let capacity = reserve.capacity
            let most = Memory.reserveBytesMax
            let bytes = Int(capacity) * recordBytes
            #expect(bytes <= most && bytes > min(most / 2, 16 << 20))
            let grew = reserve.grow()
            #expect(grew)
            limitAddressSpace(moreBytes: 0)
            if Reserve<Record>(capacity: wanted) != nil { Issue.record("out of nowhere") }
        }
    }
}

/// Leaves the process room for so many bytes more than it has mapped now.
private func limitAddressSpace(moreBytes: Int) {
    var buffer = [UInt8](repeating: 0, count: 64)
    let descriptor = open("/proc/self/statm", O_RDONLY)
    let count = read(descriptor, &buffer, 63)
    close(descriptor)
    var pages = 0
    for character in buffer[..<count] {
        if character < 48 { break }
        pages = pages * 10 + Int(character - 48)
    }
    var limit = rlimit(
        rlim_cur: rlim_t(pages * Memory.pageBytes + moreBytes), rlim_max: rlim_t.max)
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
}

@Suite struct MemoryTests {
    @Test(
        "Sizes are rounded up to whole pages",
        arguments: [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192)])
    func rounding(bytes: Int, rounded: Int) {
        #expect(Memory.roundUpToPage(bytes) == rounded)
    }

    @Test("NULL and the kernel's half are outside user space, the rest is not")
    func userSpace() {
        for address: UInt in [0, 0x7fff_ffff_f000, 0x8000_0000_0000, UInt.max, 1 << 63] {
            #expect(Memory.isOutsideUserSpace(address))
        }
        for address: UInt in [1, 4096, 0x7fff_ffff_efff] {
            #expect(!Memory.isOutsideUserSpace(address))
        }
    }
    /// Nothing but the order of the two threads in time joins what they do to the one address: a
    /// race, if ThreadSanitizer takes the second mapping for the first.
    @Test("Memory that is mapped where other memory was has nothing to do with it")
    func addressesUsedAgain() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let unmapped = Atomic<UInt>(0)
            concurrently(2) { thread in
                if thread == 1 {
                    while unmapped.load(ordering: .relaxed) == 0 { usleep(100) }
                }
                let address = Memory.map(bytes: 4096, protection: PROT_READ | PROT_WRITE)
                if thread == 1 { #expect(address == unmapped.load(ordering: .relaxed)) }
                #expect(Ref<UInt64>(address: address)!.it == 0)
                Ref<UInt64>(address: address)!.it = 1
                Memory.unmap(address, bytes: 4096)
                if thread == 0 { unmapped.store(address, ordering: .relaxed) }
            }
        }
    }
}

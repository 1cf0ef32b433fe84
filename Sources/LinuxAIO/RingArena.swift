// Memory of the aio_rings: shared pages that the library sees at one address and the program at
// another, so that nothing a program does to its view (munmap, mprotect, scribbling) can crash
// the library.
//
// Rings come from extents of shared anonymous memory, so there is no descriptor and no file size
// limit involved; the program's view is a second mapping of the same pages (mremap with an old
// length of 0). Larger rings have an extent of their own. Where such a mapping cannot be had
// (gVisor, Valgrind), a ring is a file in memory that is mapped twice and closed.

import CLibAIO
import JobTable

/// A ring's pages in the library's view.
struct RingPages {
    var address: UInt
    var bytes: Int
    /// The extent's index, or `Job.none` for an extent of its own.
    var extent: UInt32
}

struct Extent: ~Copyable {
    static let pages = 512
    static var bytes: Int { pages * Memory.pageBytes }

    var address: UInt
    var usedPages: Int
    /// One bit a page; set while used.
    var bitmap: InlineArray<8, UInt64>
}

struct RingArena: ~Copyable {
    private var extents: Reserve<Extent>
    private var count: UInt32 = 0
    /// Extents below this one are full.
    private var firstWithRoom: UInt32 = 0

    init?() {
        guard let reserve = Reserve<Extent>(capacity: 65_536) else { return nil }
        extents = reserve
    }

    /// Pages for a ring and the address of the program's view of them; nil without memory. The
    /// caller holds the face's lock.
    mutating func allocateViews(bytes: Int) -> (pages: RingPages, view: UInt)? {
        guard let pages = allocate(bytes: bytes) else { return nil }
        let view = systemCall(
            Int32(SYS_mremap), Int(bitPattern: pages.address), 0, bytes,
            Int(IOCTX_MREMAP_MAYMOVE))
        if view > 0 { return (pages, UInt(bitPattern: view)) }
        free(pages)
        return view == failure(EINVAL) ? Self.mapFile(bytes: bytes) : nil
    }

    private static func mapFile(bytes: Int) -> (pages: RingPages, view: UInt)? {
        let file = Memory.file(named: "ring", bytes: bytes)
        if file < 0 { return nil }
        defer { System.close(file) }
        let ours = Memory.map(
            bytes: bytes, protection: PROT_READ | PROT_WRITE, shared: true, file: file)
        if ours == 0 { return nil }
        let theirs = Memory.map(
            bytes: bytes, protection: PROT_READ | PROT_WRITE, shared: true, file: file)
        if theirs == 0 {
            Memory.unmap(ours, bytes: bytes)
            return nil
        }
        return (RingPages(address: ours, bytes: bytes, extent: Job.none), theirs)
    }

    /// Pages for a ring of `bytes` (whole pages), zeroed or with an earlier ring's events in
    /// them; nil without memory. The caller holds the face's lock.
    mutating func allocate(bytes: Int) -> RingPages? {
        let pages = bytes / Memory.pageBytes
        if pages > Extent.pages / 4 {
            let address = Memory.map(
                bytes: bytes, protection: PROT_READ | PROT_WRITE, shared: true)
            return address == 0
                ? nil : RingPages(address: address, bytes: bytes, extent: Job.none)
        }
        for index in firstWithRoom..<max(count, firstWithRoom) {
            if let page = claim(pages, in: extents[index]) {
                return RingPages(
                    address: extents[index].it.address
                        &+ UInt(bitPattern: page &* Memory.pageBytes),
                    bytes: bytes, extent: index)
            }
            if index == firstWithRoom && extents[index].it.usedPages == Extent.pages {
                firstWithRoom &+= 1
            }
        }
        return addExtent() ? allocate(bytes: bytes) : nil
    }

    mutating func free(_ ring: RingPages) {
        if ring.extent == Job.none {
            Memory.unmap(ring.address, bytes: ring.bytes)
            return
        }
        let extent = extents[ring.extent]
        let first = Int(ring.address &- extent.it.address) / Memory.pageBytes
        let pages = ring.bytes / Memory.pageBytes
        for page in first..<first &+ pages {
            extent.it.bitmap[page / 64] &= ~(1 << UInt64(page % 64))
        }
        extent.it.usedPages &-= pages
        firstWithRoom = min(firstWithRoom, ring.extent)
        // A small ring's pages stay, for the next one; a large one's go back.
        if pages > 8 {
            _ = systemCall(
                Int32(SYS_madvise), Int(bitPattern: ring.address), ring.bytes, Int(MADV_REMOVE))
        }
    }

    private mutating func addExtent() -> Bool {
        if count == extents.opened && !extents.grow() { return false }
        let address = Memory.map(
            bytes: Extent.bytes, protection: PROT_READ | PROT_WRITE, shared: true)
        if address == 0 { return false }
        extents[count].it.address = address
        count &+= 1
        return true
    }

    /// The first of `pages` free neighbouring pages, now used; nil when there are none.
    private func claim(_ pages: Int, in extent: Ref<Extent>) -> Int? {
        if Extent.pages &- extent.it.usedPages < pages { return nil }
        var run = 0
        for page in 0..<Extent.pages {
            let used = extent.it.bitmap[page / 64] >> UInt64(page % 64) & 1 != 0
            run = used ? 0 : run &+ 1
            if run == pages {
                let first = page &- pages &+ 1
                for claimed in first...page {
                    extent.it.bitmap[claimed / 64] |= 1 << UInt64(claimed % 64)
                }
                extent.it.usedPages &+= pages
                return first
            }
        }
        return nil
    }
}

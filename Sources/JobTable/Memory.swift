// The few types through which the layer touches raw memory.
//
// Invariant: memory behind a `Ref` is mapped for the life of the process (or of the forked
// child's view of it: see ProcessRoot), so a stale Ref reads a reused record, never a hole. Arrays
// of records are given back with their owners, which, once they are in a record themselves, never
// end: what ends is an owner that could not be made whole.

import CLibAIO
import Synchronization

/// One record of ours in mapped memory.
@safe
public struct Ref<Pointee: ~Copyable> {
    /// Never freed: see the head of the file.
    public let pointer: UnsafeMutablePointer<Pointee>

    /// A record that is mapped for good.
    @inline(__always)
    public init(_ pointer: UnsafeMutablePointer<Pointee>) {
        unsafe self.pointer = unsafe pointer
    }

    /// The record at an address that was taken from `address` before; nil for 0.
    @inline(__always)
    public init?(address: UInt) {
        guard let pointer = unsafe UnsafeMutablePointer<Pointee>(bitPattern: address) else {
            return nil
        }
        unsafe self.pointer = unsafe pointer
    }

    /// Never 0.
    @inline(__always)
    public var address: UInt { unsafe UInt(bitPattern: pointer) }

    /// The record itself, in place.
    @inline(__always)
    public var it: Pointee {
        @inline(__always) unsafeAddress { unsafe UnsafePointer(pointer) }
        @inline(__always) nonmutating unsafeMutableAddress { unsafe pointer }
    }
}

/// Mapping and unmapping, and what can be told of an address without following it.
public enum Memory {
    /// The one page size that the layer knows (README.md, "Where it works").
    public static let pageBytes = 4096

    /// The least number of bytes in whole pages that holds so many.
    @inline(__always)
    public static func roundUpToPage(_ bytes: Int) -> Int {
        (bytes &+ pageBytes &- 1) & ~(pageBytes &- 1)
    }

    /// Private zeroed memory, or a file's pages, that a forked child does not get: `inChild` says
    /// so, an advice of madvise(2). 0 when there is none to be had.
    public static func map(
        bytes: Int, protection: Int32, shared: Bool = false, file: Int32 = -1,
        inChild: Int32 = Int32(MADV_DONTFORK)
    ) -> UInt {
        let flags =
            (shared ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE) | (file < 0 ? MAP_ANONYMOUS : 0)
        let address = ioctx_map(bytes, protection, flags, file)
        if address < 0 && address > -4096 {
            if address == failure(EAGAIN) { countsAsLocked.store(true, ordering: .relaxed) }
            return 0
        }
        _ = systemCall(Int32(SYS_madvise), address, bytes, Int(inChild))
        return UInt(bitPattern: address)
    }

    /// As much address space as one reserve may take: a thirty-second part where it is limited, for
    /// the program has its own plans with it. With mlockall(MCL_FUTURE) it counts as locked.
    static var reserveBytesMax: Int {
        let space = System.softLimit(RLIMIT_AS) ?? .max
        let locked =
            countsAsLocked.load(ordering: .relaxed)
            ? System.softLimit(__RLIMIT_MEMLOCK) ?? .max : .max
        return Int(clamping: min(space, locked) / 32)
    }

    /// The kernel has refused a mapping because too much would be locked (mmap(2), EAGAIN).
    private static let countsAsLocked = Atomic<Bool>(false)

    /// Gives up a mapping that nobody refers to any more. Never fails for one that `map` made.
    public static func unmap(_ address: UInt, bytes: Int) {
        _ = ioctx_unmap(address, bytes)
    }

    /// A file in memory of `bytes` zeros, for the caller to map and close. A negated errno where it
    /// is not to be had.
    public static func file(named name: StaticString, bytes: Int) -> Int32 {
        // A file beyond the limit would end the process with SIGXFSZ.
        if System.softLimit(RLIMIT_FSIZE) ?? 0 < UInt64(bytes) { return -EFBIG }
        let isForbidden = System.filterForbids {
            let made = Memory.createFile("")
            return made < 0 ? made : systemCall(Int32(SYS_ftruncate), made, Memory.pageBytes)
        }
        if isForbidden { return -EPERM }
        let made = createFile(name)
        let file = Int32(truncatingIfNeeded: made)
        if made < 0 { return file }
        let sized = systemCall(Int32(SYS_ftruncate), made, bytes)
        if sized >= 0 { return file }
        System.close(file)
        return Int32(truncatingIfNeeded: sized)
    }

    private static func createFile(_ name: StaticString) -> Int {
        func create(_ flags: Int32) -> Int {
            unsafe systemCall(
                Int32(SYS_memfd_create), Int(bitPattern: name.utf8Start), Int(flags))
        }
        let made = create(Int32(IOCTX_MFD_CLOEXEC | IOCTX_MFD_NOEXEC_SEAL))
        // Linux before 6.3 does not know the seal; those after it may insist on it.
        return made == failure(EINVAL) ? create(Int32(IOCTX_MFD_CLOEXEC)) : made
    }

    /// A single zeroed record; nil when memory is exhausted. With `unique` a forked child never has
    /// one of its own at the same address, for it has zeros there.
    public static func record<T: ~Copyable>(
        _ type: T.Type, unique: Bool = false
    ) -> Ref<T>? {
        Ref(
            address: map(
                bytes: roundUpToPage(MemoryLayout<T>.size), protection: PROT_READ | PROT_WRITE,
                inChild: unique ? Int32(IOCTX_MADV_WIPEONFORK) : Int32(MADV_DONTFORK)))
    }

    /// True for an address that no user-space buffer can have: NULL, or the kernel's half.
    @inline(__always)
    public static func isOutsideUserSpace(_ address: UInt) -> Bool {
        // 0 becomes the greatest of all.
        address &- 1 >= userSpaceEnd &- 1
    }

    /// True for the kernel's half alone: for a buffer of no bytes NULL will do.
    @inline(__always)
    public static func isKernelHalf(_ address: UInt) -> Bool { address >= userSpaceEnd }

    /// True for a buffer that reaches into the kernel's half (access_ok).
    @inline(__always)
    public static func isOutsideUserSpace(_ address: UInt, bytes: Int) -> Bool {
        address > userSpaceEnd || UInt(bitPattern: bytes) > userSpaceEnd &- address
    }

    private static let userSpaceEnd: UInt = 0x7fff_ffff_f000
}

extension Ref: Equatable where Pointee: ~Copyable {
    /// The same record.
    @inline(__always)
    public static func == (left: Ref, right: Ref) -> Bool { left.address == right.address }
}

/// A fixed number of records in memory of their own, all zero at first.
@safe
public struct Records<Element: ~Copyable>: ~Copyable {
    private let base: UnsafeMutablePointer<Element>
    private let bytes: Int

    /// nil when memory is exhausted.
    public init?(count: Int) {
        bytes = Memory.roundUpToPage(count &* MemoryLayout<Element>.stride)
        let address = Memory.map(bytes: bytes, protection: PROT_READ | PROT_WRITE)
        guard let pointer = unsafe UnsafeMutablePointer<Element>(bitPattern: address) else {
            return nil
        }
        unsafe base = unsafe pointer
    }

    deinit { unsafe Memory.unmap(UInt(bitPattern: base), bytes: bytes) }

    /// `index` is not checked.
    @inline(__always)
    public subscript(index: Int) -> Ref<Element> {
        unsafe Ref(base + index)
    }
}

/// An array of records in address space reserved at once and opened piece by piece: a writable
/// reserve would be committed whole under mlockall.
///
/// Zeroed memory is a valid record. Opening is done under the owner's lock; a record below
/// `opened` may be touched by anybody.
@safe
public struct Reserve<Element: ~Copyable>: ~Copyable {
    private let base: UnsafeMutablePointer<Element>
    /// Records that there can ever be.
    public let capacity: UInt32
    /// Elements that may be touched; grows under the owner's lock.
    private let openedCount = Atomic<UInt32>(0)

    private static var elementsPerStep: UInt32 {
        UInt32(truncatingIfNeeded: Swift.max(1, 65_536 / MemoryLayout<Element>.stride))
    }

    /// Reserves room for `capacity` elements, or for fewer where address space is limited or short;
    /// nil when there is not even room for one step.
    public init?(capacity wanted: UInt32) {
        var count = wanted
        while true {
            let room = Memory.reserveBytesMax / MemoryLayout<Element>.stride
            count = Swift.min(count, Swift.max(UInt32(clamping: room), Self.elementsPerStep))
            let bytes = Memory.roundUpToPage(Int(count) &* MemoryLayout<Element>.stride)
            let address = Memory.map(bytes: bytes, protection: PROT_NONE)
            if let pointer = unsafe UnsafeMutablePointer<Element>(bitPattern: address) {
                unsafe base = unsafe pointer
                capacity = count
                return
            }
            if count <= Self.elementsPerStep { return nil }
            count /= 2
        }
    }

    deinit {
        unsafe Memory.unmap(
            UInt(bitPattern: base),
            bytes: Memory.roundUpToPage(Int(capacity) &* MemoryLayout<Element>.stride))
    }

    /// A record that has been opened: `index` is not checked.
    @inline(__always)
    public subscript(index: UInt32) -> Ref<Element> {
        unsafe Ref(base + Int(index))
    }

    /// How many records there are so far.
    @inline(__always)
    public var opened: UInt32 {
        // Acquire pairs with the release in grow().
        openedCount.load(ordering: .acquiring)
    }

    /// Opens the next step. False at capacity or when the kernel refuses.
    public mutating func grow() -> Bool {
        if opened >= capacity { return false }
        let next = Swift.min(opened &+ Self.elementsPerStep, capacity)
        // Whole pages from the start: protecting an opened page again changes nothing.
        let bytes = Memory.roundUpToPage(Int(next) &* MemoryLayout<Element>.stride)
        let result = unsafe systemCall(
            Int32(SYS_mprotect), Int(bitPattern: base), bytes, Int(PROT_READ | PROT_WRITE))
        if result < 0 { return false }
        openedCount.store(next, ordering: .releasing)
        return true
    }

    /// The same for an owner that keeps its free elements on a list, from `freeHead` on: `link` is
    /// told of each new one, its index and the index of the next; the first becomes the head.
    public mutating func grow(
        freeHead: inout UInt32, link: (Ref<Element>, _ index: UInt32, _ next: UInt32) -> Void
    ) -> Bool {
        let first = opened
        if !grow() { return false }
        var index = opened
        while index > first {
            index &-= 1
            link(self[index], index, freeHead)
            freeHead = index
        }
        return true
    }
}

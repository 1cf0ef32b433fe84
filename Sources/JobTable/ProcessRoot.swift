// The one place from which everything of the layer in this process is reached.
//
// The root is a page that the kernel wipes in a forked child (MADV_WIPEONFORK), however the fork
// was made: the child finds no table, no contexts and free locks, and may start afresh. All that
// the root points to is mapped MADV_DONTFORK, so the child does not even have the memory, or is
// wiped as well. vfork and CLONE_VM children share both.
//
// Nothing exists before the first io_setup or aio_read of the process.

import CLibAIO
public import Synchronization

/// The page that a forked child finds empty.
public struct ProcessRoot: ~Copyable {
    /// Serialises the creation of those below.
    public let creationLock: FutexLock
    /// Addresses of the job table, the paths' engine and the faces; 0 until created.
    /// Written under the creation lock, read by anybody.
    let jobTable: Atomic<UInt>
    public let engine: Atomic<UInt>
    public let linuxFace: Atomic<UInt>
    public let posixFace: Atomic<UInt>
}

/// The address of the root page; 0 before the first call that needs one. Survives fork: the page
/// is the child's own, and empty.
private let rootPage = Atomic<UInt>(0)

extension ProcessRoot {
    /// The root, or nil when no call has needed one yet.
    @inline(__always)
    public static var current: Ref<ProcessRoot>? {
        // Acquire pairs with the release in create().
        Ref(address: rootPage.load(ordering: .acquiring))
    }

    /// The root, made if necessary; nil without memory.
    public static func create() -> Ref<ProcessRoot>? {
        if let root = current { return root }
        let address = systemCall(
            Int32(SYS_mmap), 0, Memory.pageBytes, Int(PROT_READ | PROT_WRITE),
            Int(MAP_PRIVATE | MAP_ANONYMOUS), -1, 0)
        if address < 0 && address > -4096 { return nil }
        let advice = systemCall(
            Int32(SYS_madvise), address, Memory.pageBytes, Int(IOCTX_MADV_WIPEONFORK))
        if advice < 0 {
            // Without it a child would use its parent's daemons: better no service at all.
            Memory.unmap(UInt(bitPattern: address), bytes: Memory.pageBytes)
            return nil
        }
        let (won, winner) = rootPage.compareExchange(
            expected: 0, desired: UInt(bitPattern: address), ordering: .acquiringAndReleasing)
        if won { return Ref(address: UInt(bitPattern: address)) }
        Memory.unmap(UInt(bitPattern: address), bytes: Memory.pageBytes)
        return Ref(address: winner)
    }
}

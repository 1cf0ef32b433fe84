// What was learnt of a descriptor's file by its last requests, so that the next need not look.
//
// A hint may be stale, because the program may have closed the descriptor and reused its number:
// then a request may be slow, or fail with an error that the file never gives to its own kind, upon
// which the file is looked at and the request done again. It is never answered wrongly.

import JobTable
import Synchronization

/// The kind that each of the lower descriptors had last time.
enum FileHints {
    static let count = 4096
    /// So many tries in vain make a file cold: each of them starts the disk, which takes its time.
    static let missesMax: UInt32 = 16
    /// So many slow reads in a row make a file slow. One may have lost the processor meanwhile.
    static let slowReadsMax: UInt32 = 2
    /// A plain read of so many bytes that takes longer than this was not served from memory, which
    /// copies a page in less than a microsecond; the quickest disks take ten times that.
    static func slowReadNs(length: Int) -> UInt64 { 20_000 &+ UInt64(clamping: length) }
    /// One in so many reads of a slow or cold file is tried inline again, twice as many after each
    /// try that was in vain: interval 0 to the last.
    static let firstInterval: UInt32 = 4
    static let intervalMax: UInt32 = 6

    // A hint: the kind in the lowest four bits; the interval of a slow or cold file in the next;
    // above them a count, of such a file's reads since the last try, or of another's misses.
    fileprivate static let kindMask: UInt32 = 0xf
    fileprivate static let countUnit: UInt32 = 1 << 8

    fileprivate static func interval(_ hint: UInt32) -> UInt32 { hint >> 4 & 0xf }
    fileprivate static func counted(_ hint: UInt32) -> UInt32 { hint / countUnit }
    fileprivate static func hint(_ kind: FileKind, interval: UInt32) -> UInt32 {
        kind.rawValue | interval << 4
    }
}

extension Ref where Pointee == EngineRecord {
    @inline(__always)
    private func hintSlot(_ descriptor: Int32) -> Ref<Atomic<UInt32>>? {
        if descriptor < 0 || Int(descriptor) >= FileHints.count { return nil }
        return it.hints[Int(descriptor)]
    }

    @inline(__always)
    func hint(_ descriptor: Int32) -> FileKind {
        guard let slot = hintSlot(descriptor) else { return .unknown }
        return FileKind(rawValue: slot.it.load(ordering: .relaxed) & FileHints.kindMask) ?? .unknown
    }

    /// True for a descriptor that led to a file last time whose requests all end by themselves.
    public func isFileByHint(_ descriptor: Int32) -> Bool {
        let hint = hint(descriptor)
        return hint != .unknown && hint != .eventfd
    }

    /// Drops a hint that has turned out to be about another file.
    func forgetHint(_ descriptor: Int32, unless kind: FileKind) {
        let hinted = hint(descriptor)
        let isBuffered = kind == .cached
        if hinted == .unknown || isBuffered || hinted == kind { return }
        setHint(descriptor, .unknown)
    }

    func setHint(_ descriptor: Int32, _ kind: FileKind) {
        hintSlot(descriptor)?.it.store(kind.rawValue, ordering: .relaxed)
    }

    /// After a read that was served from memory. A slow or cold file becomes one of that kind again
    /// only after several such reads.
    func hintQuick(_ descriptor: Int32, _ kind: FileKind) {
        guard let slot = hintSlot(descriptor) else { return }
        let hinted = hint(descriptor)
        let interval = FileHints.interval(slot.it.load(ordering: .relaxed))
        if (hinted == .slow || hinted == .cold) && interval > 0 {
            slot.it.store(
                FileHints.hint(hinted, interval: interval &- min(interval, 2)), ordering: .relaxed)
        } else {
            setHint(descriptor, kind)
        }
    }

    /// Reads go to a daemon from now on, for a longer time than before if they did.
    func hintSlow(_ descriptor: Int32, _ kind: FileKind = .slow) {
        guard let slot = hintSlot(descriptor) else { return }
        let interval = FileHints.interval(slot.it.load(ordering: .relaxed))
        let isAgain = hint(descriptor) == kind
        slot.it.store(
            FileHints.hint(
                kind, interval: isAgain ? min(interval &+ 1, FileHints.intervalMax) : 0),
            ordering: .relaxed)
    }

    /// After a read that was not served from memory: with RWF_NOWAIT in vain (`cached`), or a plain
    /// one that was slow (`quick`).
    func hintMiss(_ descriptor: Int32, _ kind: FileKind) {
        guard let slot = hintSlot(descriptor) else { return }
        let misses = FileHints.counted(slot.it.load(ordering: .relaxed)) &+ 1
        let becomes = kind == .quick ? FileKind.slow : FileKind.cold
        let missesMax = kind == .quick ? FileHints.slowReadsMax : FileHints.missesMax
        if hint(descriptor) == becomes || misses >= missesMax {
            hintSlow(descriptor, becomes)
        } else {
            slot.it.store(kind.rawValue | misses &* FileHints.countUnit, ordering: .relaxed)
        }
    }

    /// Counts a request on a slow or cold file; true when it is time to try one inline.
    func isTimeToRetry(_ descriptor: Int32) -> Bool {
        guard let slot = hintSlot(descriptor) else { return true }
        let value = slot.it.wrappingAdd(FileHints.countUnit, ordering: .relaxed).newValue
        return FileHints.counted(value) >= FileHints.firstInterval << FileHints.interval(value)
    }
}

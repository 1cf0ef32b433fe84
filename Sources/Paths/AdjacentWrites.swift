// Writes that are done one at a time on their file, each at the end of the one before: one call
// writes them.
//
// A direct write that makes its file longer waits for the disk, so many small ones take as long as
// many large ones. Each job keeps its own result and its own event.

import CLibAIO
import JobTable

struct AdjacentWrites {
    private static let bytesMax = 1 << 20

    private var jobs = InlineArray<16, UInt>(repeating: 0)
    private var vectors = InlineArray<16, Vector>(repeating: Vector(base: 0, length: 0))
    private(set) var count = 0
    private(set) var last: JobRef
    private let offset: Int64
    private var bytes = 0
    /// The first is of a kind that may have others after it.
    private let mayGrow: Bool

    init(_ table: Ref<JobTable>, _ first: JobRef) {
        last = first
        offset = first.it.offset
        mayGrow = Self.isPlain(first)
        append(table, first)
    }

    /// No array of vectors, no flags of the program's, nothing done of it; a file, for each write
    /// to a device may be a record.
    private static func isPlain(_ job: JobRef) -> Bool {
        job.it.operation == .write && job.it.vectorCount == 1
            && job.it.rwFlags & ~Int32(IOCTX_RWF_NOAPPEND) == 0
            && job.it.ioPriority == 0 && job.it.progress == 0 && !job.it.blocksWhenReady
    }

    /// True for a write that begins where the last one ends; the caller sees to the file.
    func mayAppend(_ job: JobRef) -> Bool {
        mayGrow && count < jobs.count && job.it.isExclusive && Self.isPlain(job)
            && job.it.offset == offset &+ Int64(bytes)
            && bytes &+ job.it.length <= Self.bytesMax
    }

    mutating func append(_ table: Ref<JobTable>, _ job: JobRef) {
        if count >= jobs.count { return }
        jobs[count] = job.address
        if let vector = Ref<Vector>(address: table.vectorsAddress(job)) {
            vectors[count] = vector.it
        }
        count &+= 1
        bytes &+= job.it.length
        last = job
    }

    subscript(index: Int) -> JobRef {
        index < count ? JobRef(address: jobs[index]) ?? last : last
    }

    /// Writes them all: the bytes that were written, from the first on, or a negated errno.
    mutating func write(to number: Int32) -> Int {
        let (count, offset, flags) = (count, offset, last.it.rwFlags)
        return withAddress(of: &vectors) {
            System.transfer(
                isWrite: true, number, UInt(bitPattern: $0), count, offset, flags)
        }
    }
}

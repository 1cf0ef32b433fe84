// Bindings to io_uring: one ring, its two queues, and the system calls on it.
//
// Invariant: only a daemon of ours ever submits to a ring what may wait, or waits on one. Such
// requests of a thread of the program would interrupt that thread's other system calls (EINTR in
// epoll_wait) and be tied to its life. A ring that such threads have entered stays mapped: its end
// would interrupt them, too.

import CLibAIO
import JobTable
import Synchronization

struct Ring: ~Copyable {
    /// In the descriptor table in which the ring was made.
    private(set) var descriptor: Int32 = -1
    /// The calling daemon's own handle on the ring, which outlives the descriptor; -1 for none.
    private var registered: Int32 = -1
    private var mapping: UInt = 0
    private var mappingBytes = 0
    private var entries: UInt = 0
    private var entriesBytes = 0
    private var offsets = uring_params()
    private var submissionTail: UInt32 = 0
    /// Entries prepared and not yet consumed by the kernel.
    private(set) var pending: UInt32 = 0
    /// The kernel lets nobody enter the ring: a seccomp filter came after it was made.
    private(set) var isDenied = false

    var exists: Bool { mapping != 0 }

    /// Makes the ring. 0 or a negated errno; on failure nothing is left behind.
    mutating func open(entryCount: UInt32, completionCount: UInt32, flags: UInt32) -> Int {
        offsets = uring_params()
        offsets.flags = flags | UInt32(URING_SETUP_CQSIZE) | UInt32(URING_SETUP_CLAMP)
        offsets.cq_entries = completionCount
        let result = withAddress(of: &offsets) {
            systemCall(Int32(IOCTX_SYS_io_uring_setup), Int(entryCount), $0)
        }
        if result < 0 { return result }
        descriptor = System.awayFromStandardStreams(Int32(truncatingIfNeeded: result))
        registered = -1
        let mapped = mapQueues()
        if mapped < 0 { close() }
        return mapped
    }

    private mutating func mapQueues() -> Int {
        if offsets.features & UInt32(URING_FEATURE_SINGLE_MMAP) == 0 { return failure(ENOSYS) }
        let submissionBytes = Int(offsets.sq.array) &+ Int(offsets.sq_entries) &* 4
        let completionBytes =
            Int(offsets.cq.cqes) &+ Int(offsets.cq_entries) &* MemoryLayout<uring_cqe>.stride
        mappingBytes = Swift.max(submissionBytes, completionBytes)
        entriesBytes = Int(offsets.sq_entries) &* MemoryLayout<uring_sqe>.stride
        mapping = map(mappingBytes, offset: Int(URING_OFFSET_SQ_RING))
        entries = map(entriesBytes, offset: Int(URING_OFFSET_SQES))
        if mapping == 0 || entries == 0 { return failure(ENOMEM) }
        // Entries are always used in order, so the indirection array never changes.
        for index in 0..<offsets.sq_entries {
            let slot = mapping &+ UInt(offsets.sq.array) &+ UInt(index) &* 4
            Ref<UInt32>(address: slot)?.it = index
        }
        submissionTail = 0
        pending = 0
        isDenied = false
        return 0
    }

    private func map(_ bytes: Int, offset: Int) -> UInt {
        let address = systemCall(
            Int32(SYS_mmap), 0, bytes, Int(PROT_READ | PROT_WRITE),
            Int(MAP_SHARED | MAP_POPULATE), Int(descriptor), offset)
        if address < 0 && address > -4096 { return 0 }
        _ = systemCall(Int32(SYS_madvise), address, bytes, Int(MADV_DONTFORK))
        return UInt(bitPattern: address)
    }

    /// Gives up the mappings, but not the descriptor. A thread's own handle ends with the thread.
    mutating func unmap() {
        registered = -1
        if mapping != 0 { Memory.unmap(mapping, bytes: mappingBytes) }
        if entries != 0 { Memory.unmap(entries, bytes: entriesBytes) }
        mapping = 0
        entries = 0
    }

    /// Gives up a ring whose descriptor is gone, and which threads of the program may have entered.
    mutating func forsake() {
        mapping = 0
        entries = 0
        descriptor = -1
    }

    /// The thread that registered itself ends; its handle goes with it.
    mutating func forgetThread() { registered = -1 }

    mutating func close() {
        unmap()
        if descriptor >= 0 { System.close(descriptor) }
        descriptor = -1
    }

    /// Gives the calling thread a handle on the ring that does not depend on the descriptor.
    mutating func registerWithThread() -> Int {
        var update = uring_resource_update(
            offset: UInt32.max, resv: 0, data: UInt64(UInt32(bitPattern: descriptor)))
        let result = withAddress(of: &update) {
            systemCall(
                Int32(IOCTX_SYS_io_uring_register), Int(descriptor),
                Int(URING_REGISTER_RING_FDS), $0, 1)
        }
        if result != 1 { return result < 0 ? result : failure(EINVAL) }
        registered = Int32(bitPattern: update.offset)
        return 0
    }

    /// Makes a table of `count` empty slots for held files.
    func registerEmptySlots(_ count: UInt32) -> Int {
        var argument = uring_resource_register(
            nr: count, flags: UInt32(URING_RESOURCE_REGISTER_SPARSE), resv2: 0, data: 0, tags: 0)
        return withAddress(of: &argument) {
            systemCall(
                Int32(IOCTX_SYS_io_uring_register), Int(descriptor), Int(URING_REGISTER_FILES2),
                $0, MemoryLayout<uring_resource_register>.size)
        }
    }

    /// Puts a file of the calling thread's descriptor table into a slot, or none for -1. Any
    /// thread may call it on a ring without SINGLE_ISSUER. 1 or a negated errno.
    func fillSlot(_ slot: UInt32, file: Int32) -> Int {
        updateSlot(slot, file: file, ring: descriptor, flag: 0)
    }

    /// Empties a slot; for the daemon, which has its own handle on the ring.
    func emptySlot(_ slot: UInt32) {
        _ = updateSlot(
            slot, file: -1, ring: registered, flag: Int(bitPattern: UInt(URING_REGISTER_BY_HANDLE)))
    }

    /// Gives up all slots, for good; for the daemon.
    func emptyAllSlots() {
        _ = systemCall(
            Int32(IOCTX_SYS_io_uring_register), Int(registered),
            Int(URING_UNREGISTER_FILES) | Int(bitPattern: UInt(URING_REGISTER_BY_HANDLE)), 0, 0)
    }

    private func updateSlot(_ slot: UInt32, file: Int32, ring: Int32, flag: Int) -> Int {
        var descriptorArgument = file
        return withAddress(of: &descriptorArgument) { fileAddress in
            var update = uring_files_update(
                offset: slot, resv: 0, fds: UInt64(UInt(bitPattern: fileAddress)))
            return withAddress(of: &update) {
                systemCall(
                    Int32(IOCTX_SYS_io_uring_register), Int(ring),
                    Int(URING_REGISTER_FILES_UPDATE) | flag, $0, 1)
            }
        }
    }

    /// 0 when the kernel has every operation that the daemon needs, of which FUTEX_WAIT is the
    /// newest (Linux 6.7); else a negated errno, -EINVAL for a kernel that is too old.
    func checkOperations() -> Int {
        var probe = uring_probe()
        let result = withAddress(of: &probe) {
            systemCall(
                Int32(IOCTX_SYS_io_uring_register), Int(descriptor), Int(URING_REGISTER_PROBE),
                $0, 64)
        }
        if result < 0 { return result }
        return Int(probe.last_op) >= Int(URING_OP_FUTEX_WAIT) ? 0 : failure(EINVAL)
    }

    /// Has the kernel make the first of the threads that do for the ring what would block. It stays
    /// as long as the caller's thread. 0, or a negated errno: without that thread the kernel would
    /// cancel such requests (io_uring/io-wq.c, io_wq_enqueue).
    mutating func startThread() -> Int {
        guard let entry = nextEntry() else { return failure(EAGAIN) }
        Self.describeNothing(entry)
        while true {
            let entered = enter(minComplete: 1)
            if let completion = nextCompletion() {
                return completion.result == -ECANCELED
                    ? failure(EAGAIN) : Int(completion.result)
            }
            if entered < 0 && entered != failure(EINTR) { return entered }
        }
    }

    /// A request that does nothing, in such a thread.
    static func describeNothing(_ entry: Ref<uring_sqe>) {
        entry.it.opcode = UInt8(URING_OP_NOP)
        entry.it.flags = UInt8(URING_SQE_ASYNC)
    }

    /// How many of those threads there may be for requests on files; for the daemon. 0 leaves it as
    /// it is. The number before, or a negated errno (io_uring_register(2)).
    func setThreadsMax(_ count: UInt32) -> Int {
        var counts = (files: count, others: UInt32(0))
        let result = withAddress(of: &counts) {
            systemCall(
                Int32(IOCTX_SYS_io_uring_register), Int(registered),
                Int(URING_REGISTER_IOWQ_MAX_WORKERS)
                    | Int(bitPattern: UInt(URING_REGISTER_BY_HANDLE)), $0, 2)
        }
        return result < 0 ? result : Int(counts.files)
    }

    // MARK: Submission

    /// What the kernel has consumed.
    private var submissionHead: UInt32 {
        // Acquire pairs with the kernel's release of consumed entries.
        Ref<Atomic<UInt32>>(address: mapping &+ UInt(offsets.sq.head))?.it
            .load(ordering: .acquiring) ?? submissionTail
    }

    /// The next submission entry, zeroed; nil when the queue is full and must be entered first.
    mutating func nextEntry() -> Ref<uring_sqe>? {
        guard let tail = Ref<Atomic<UInt32>>(address: mapping &+ UInt(offsets.sq.tail)),
            submissionTail &- submissionHead < offsets.sq_entries
        else { return nil }
        let index = submissionTail & (offsets.sq_entries &- 1)
        let entry = Ref<uring_sqe>(
            address: entries &+ UInt(index) &* UInt(MemoryLayout<uring_sqe>.stride))
        entry?.it = uring_sqe()
        submissionTail &+= 1
        pending &+= 1
        // The kernel reads the queue only when it is entered, by this very thread.
        tail.it.store(submissionTail, ordering: .releasing)
        return entry
    }

    /// Submits what is pending from a thread of the program, by the descriptor: requests that do
    /// not wait, and so none that ends later. How many there were; none is pending afterwards.
    mutating func enterAsVisitor() -> UInt32 {
        var submitted: UInt32 = 0
        while pending > 0 {
            let result = systemCall(
                Int32(IOCTX_SYS_io_uring_enter), Int(descriptor), Int(pending), 0, 0, 0, 0)
            let consumed = pending &- (submissionTail &- submissionHead)
            // The descriptor leads nowhere, or elsewhere.
            if consumed == 0 && result != failure(EINTR) { break }
            submitted &+= consumed
            pending &-= consumed
        }
        submissionTail &-= pending
        pending = 0
        return submitted
    }

    /// Submits what is pending and waits for `minComplete` completions or the time-out.
    /// The number of entries consumed, or a negated errno: see `isDenied`.
    mutating func enter(minComplete: UInt32, timeoutNs: UInt64 = .max) -> Int {
        var flags = Int(URING_ENTER_GETEVENTS)
        let handle = registered >= 0 ? registered : descriptor
        if registered >= 0 { flags |= Int(URING_ENTER_REGISTERED_RING) }
        let result: Int
        if timeoutNs == .max {
            result = systemCall(
                Int32(IOCTX_SYS_io_uring_enter), Int(handle), Int(pending), Int(minComplete),
                flags, 0, 0)
        } else {
            var time = timespec(nanoseconds: timeoutNs)
            flags |= Int(URING_ENTER_EXT_ARG)
            let submitted = pending
            result = withAddress(of: &time) { timeAddress in
                var argument = uring_wait_argument(
                    sigmask: 0, sigmask_size: 0, min_wait_us: 0,
                    timespec: UInt64(UInt(bitPattern: timeAddress)))
                return withAddress(of: &argument) {
                    systemCall(
                        Int32(IOCTX_SYS_io_uring_enter), Int(handle), Int(submitted),
                        Int(minComplete), flags, $0, MemoryLayout<uring_wait_argument>.size)
                }
            }
        }
        let consumed = submissionHead
        if result == failure(EPERM) || result == failure(EACCES) || result == failure(ENOSYS) {
            isDenied = true
            // There must be room for entries that are never looked at.
            submissionTail = consumed
        }
        pending = submissionTail &- consumed
        return result
    }

    // MARK: Completion

    /// Takes the oldest completion, or nil.
    mutating func nextCompletion() -> uring_cqe? {
        guard
            let head = Ref<Atomic<UInt32>>(address: mapping &+ UInt(offsets.cq.head)),
            let tail = Ref<Atomic<UInt32>>(address: mapping &+ UInt(offsets.cq.tail))
        else { return nil }
        let position = head.it.load(ordering: .relaxed)
        // Acquire pairs with the kernel's release of the completion it wrote.
        if position == tail.it.load(ordering: .acquiring) { return nil }
        let index = position & (offsets.cq_entries &- 1)
        let completion = Ref<uring_cqe>(
            address: mapping &+ UInt(offsets.cq.cqes)
                &+ UInt(index) &* UInt(MemoryLayout<uring_cqe>.stride))?.it
        // Release pairs with the kernel's acquire before it reuses the slot.
        head.it.store(position &+ 1, ordering: .releasing)
        return completion
    }
}

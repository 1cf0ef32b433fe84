// Making requests: aio_read, aio_write, their vectored forms, aio_fsync and lio_listio.
//
// A request that is wrong in itself is refused by the call, and the block has the errno too. What
// is wrong with its file is found out with the file, and is the request's own error: POSIX leaves
// the choice, and the C library tells it there.

import CLibAIO
import CPosixAIO
import JobTable
import Paths
import Synchronization

extension Ref where Pointee == PosixFace {
    /// One aio_read or the like. 0 or a negated errno.
    func start(_ block: BlockRef, _ operation: Transfer) -> Int {
        let length = block.it.length
        let refusal = refusal(of: block, length: length)
        if refusal < 0 { return refuse(block, refusal) }
        it.done.remove(block)
        var vector = Vector(base: block.it.buffer, length: length)
        return withAddress(of: &vector) { vectorAddress in
            var request = operation.request(
                of: block, length: length, vector: UInt(bitPattern: vectorAddress))
            // The usual case takes no lock, so a handler may interrupt it.
            if !operation.isVectored && !block.it.notification.needsThread(ofList: false),
                let result = it.engine.transferAtOnce(&request)
            {
                complete(
                    block, result, notification(of: block, list: nil), list: nil, isInline: true)
                wakeSleepers()
                return 0
            }
            return withSignalsBlocked {
                var batch = Batch()
                let result =
                    operation.isVectored
                    ? startVectored(block, &request, list: nil, &batch)
                    : start(block, &request, list: nil, &batch)
                handOver(&batch)
                wakeSleepers()
                return result
            }
        }
    }

    /// aio_fsync. 0 or a negated errno.
    func startSync(_ block: BlockRef, _ operation: JobOperation) -> Int {
        if System.fileFlags(block.it.descriptor) < 0 { return refuse(block, failure(EBADF)) }
        // All else in the block is of no account (POSIX.1-2017, aio_fsync).
        let refusal = block.it.notification.refusal
        if refusal < 0 { return refuse(block, refusal) }
        it.done.remove(block)
        return withSignalsBlocked {
            var batch = Batch()
            var request = Request(operation: operation, descriptor: block.it.descriptor)
            request.face = .posix
            request.resfd = block.it.notification.eventfd
            let result = start(block, &request, list: nil, &batch)
            handOver(&batch)
            wakeSleepers()
            return result
        }
    }

    /// Starts what has been checked, with signals blocked. 0 or a negated errno.
    private func start(
        _ block: BlockRef, _ request: inout Request, list: ListRef?, _ batch: inout Batch
    ) -> Int {
        var notification = notification(of: block, list: list)
        let needsThread = notification.needsThread(ofList: false)
        request.resfd = notification.eventfd
        if needsThread && !expectThread(for: &notification) {
            return refuse(block, failure(EAGAIN))
        }
        switch it.engine.startSlowly(&request, &batch) {
        case .completed(let result):
            complete(block, result, notification, list: list, isInline: true)
        case .refused(let result) where result != failure(EAGAIN):
            complete(block, result, notification, list: list, isInline: true)
        case .refused(let result):
            if needsThread { unexpectThread(for: notification) }
            return refuse(block, result)
        case .deferred(let job):
            let isForKernel = it.engine.isForKernel(job)
            countDeferred(job, isForKernel)
            list?.it.references.wrappingAdd(1, ordering: .relaxed)
            job.it.owner = list?.address ?? 0
            job.it.userData = UInt64(notification.hasAttributes ? notification.attributes : 0)
            block.it.job.store(job.name, ordering: .relaxed)
            block.it.result.store(
                isForKernel ? PosixFace.withKernel(job.it.submitter) : -1,
                ordering: .relaxed)
            block.it.error.store(EINPROGRESS, ordering: .relaxed)
            // Nobody need wait for it, or for what it waits for.
            let none = Int32(IOCTX_SIGEV_NONE)
            let isTold =
                notification.kind != none || list?.it.notification.kind ?? none != none
            if isTold { batch.isUrgent = true }
            // Last, for cancellers look for jobs with a subject and end them, and the block may be
            // gone then: release pairs with their acquire.
            job.it.subject.store(block.address, ordering: .releasing)
            // Sequentially consistent: pairs with waitComplete(), which counts itself and then
            // looks for requests that are with the kernel.
            if isTold || it.collectors.load(ordering: .sequentiallyConsistent) != 0 {
                it.engine.ensureKernelReaper()
            }
        }
        return 0
    }

    private func countDeferred(_ job: JobRef, _ isForKernel: Bool) {
        if isForKernel {
            it.counters.it.posix.native.add()
        } else if job.awaitsReadiness {
            it.counters.it.posix.readiness.add()
        } else {
            it.counters.it.posix.daemon.add()
        }
    }

    /// The vectors are copied before anything is transferred: the array may lie in a buffer that
    /// it describes.
    private func startVectored(
        _ block: BlockRef, _ request: inout Request, list: ListRef?, _ batch: inout Batch
    ) -> Int {
        let count = block.it.length
        if count <= 0 || count > Job.vectorsMax { return refuse(block, failure(EINVAL)) }
        if Memory.isOutsideUserSpace(block.it.buffer) { return refuse(block, failure(EFAULT)) }
        let copy = it.table.borrowVectorBlock()
        if copy == Job.none { return refuse(block, failure(EAGAIN)) }
        defer { it.table.returnVectorBlock(copy) }
        request.vectors = it.table.blockAddress(copy)
        request.vectorCount = count
        request.length = 0
        for index in 0..<UInt(bitPattern: count) {
            let step = index &* UInt(MemoryLayout<Vector>.stride)
            guard let from = Ref<Vector>(address: block.it.buffer &+ step) else { break }
            let vector = from.it
            let (sum, overflow) = request.length.addingReportingOverflow(vector.length)
            if vector.length < 0 || overflow { return refuse(block, failure(EINVAL)) }
            Ref<Vector>(address: request.vectors &+ step)?.it = vector
            request.length = sum
        }
        request.length = min(request.length, System.transferBytesMax)
        return start(block, &request, list: list, &batch)
    }

    private func handOver(_ batch: inout Batch) {
        // Whoever sleeps later nudges the daemon first: one that will look within a millisecond by
        // itself is not woken.
        it.engine.handOver(&batch) { looksSoon in
            !looksSoon || it.collectors.load(ordering: .sequentiallyConsistent) != 0
        }
    }

    // MARK: Checks

    /// What is wrong with the request whatever its file: a negated errno, or 0.
    private func refusal(of block: BlockRef, length: Int) -> Int {
        if block.it.offset < 0 || length < 0 { return failure(EINVAL) }
        if block.it.priority < 0 || block.it.priority > Int32(IOCTX_AIO_PRIO_DELTA_MAX) {
            return failure(EINVAL)
        }
        return block.it.notification.refusal
    }

    private func refuse(_ block: BlockRef, _ result: Int) -> Int {
        if result == failure(EAGAIN) { it.counters.it.posix.eagain.add() }
        block.it.result.store(-1, ordering: .relaxed)
        block.it.error.store(Int32(truncatingIfNeeded: -result), ordering: .releasing)
        return result
    }

    // MARK: lio_listio

    /// Starts the requests of a list. `blocks` is the address of `count` pointers, of which those
    /// to nothing are passed over. How many were refused.
    func start(_ blocks: UInt, _ count: Int, list: ListRef) -> (refused: Int, reason: Int) {
        withSignalsBlocked {
            var batch = Batch()
            var priority: Int32 = 0
            var refused = 0
            var reason = 0
            for index in 0..<UInt(bitPattern: count) {
                guard let block = block(at: index, of: blocks) else { continue }
                // The jobs of a batch have one priority.
                if block.it.priority != priority {
                    handOver(&batch)
                    priority = block.it.priority
                }
                let result = start(block, list: list, &batch)
                if result < 0 {
                    refused &+= 1
                    if reason != failure(EAGAIN) { reason = result }
                }
            }
            handOver(&batch)
            wakeSleepers()
            return (refused, reason)
        }
    }

    /// A request of a list; nil for one that is to be passed over.
    private func block(at index: UInt, of blocks: UInt) -> BlockRef? {
        guard let pointer = Ref<UInt>(address: blocks &+ index &* 8),
            let block = BlockRef(address: pointer.it),
            block.it.opcode != Int32(IOCTX_LIO_NOP)
        else { return nil }
        return block
    }

    /// Makes none of the requests of a list, each of which says why.
    func refuse(_ blocks: UInt, _ count: Int, _ reason: Int) -> Int {
        for index in 0..<UInt(bitPattern: count) {
            if let block = block(at: index, of: blocks) { _ = refuse(block, reason) }
        }
        return reason
    }

    private func start(_ block: BlockRef, list: ListRef, _ batch: inout Batch) -> Int {
        guard let operation = Transfer(listOpcode: block.it.opcode) else {
            return refuse(block, failure(EINVAL))
        }
        let length = block.it.length
        let refusal = refusal(of: block, length: length)
        if refusal < 0 { return refuse(block, refusal) }
        it.done.remove(block)
        it.engine.keepOrder(&batch, before: block.it.descriptor)
        var vector = Vector(base: block.it.buffer, length: length)
        return withAddress(of: &vector) {
            var request = operation.request(
                of: block, length: length, vector: UInt(bitPattern: $0))
            if !block.it.notification.needsThread(ofList: false),
                let result = it.engine.transferAtOnce(&request)
            {
                complete(
                    block, result, notification(of: block, list: list), list: list,
                    isInline: true)
                return 0
            }
            return start(block, &request, list: list, &batch)
        }
    }
}

extension Ref where Pointee == EngineRecord {
    /// The same for a request of one vector.
    @inline(__always)
    fileprivate func transferAtOnce(_ request: inout Request) -> Int? {
        if request.length == 0 || request.bufferError != 0 { return nil }
        // A write beyond the limit would bring SIGXFSZ: it is looked at first.
        if request.operation == .write && System.softLimit(RLIMIT_FSIZE) != UInt64.max {
            return nil
        }
        return transferAtOnce(
            isWrite: request.operation == .write, request.descriptor, request.vectors,
            request.length, request.offset, attempted: &request.attempted)
    }
}

/// Which of the calls that transfer bytes a request came by.
struct Transfer {
    let isWrite: Bool
    let isVectored: Bool

    /// `which` is one of the IOCTX_AIO_* values.
    init(_ which: Int32) {
        isWrite = which == Int32(IOCTX_AIO_WRITE) || which == Int32(IOCTX_AIO_WRITEV)
        isVectored = which == Int32(IOCTX_AIO_READV) || which == Int32(IOCTX_AIO_WRITEV)
    }

    /// nil for an opcode that lio_listio does not know.
    init?(listOpcode: Int32) {
        if listOpcode != Int32(IOCTX_LIO_READ) && listOpcode != Int32(IOCTX_LIO_WRITE) {
            return nil
        }
        isWrite = listOpcode == Int32(IOCTX_LIO_WRITE)
        isVectored = false
    }

    /// The request of a block, which is read here and not again; its length has been read before,
    /// once for all: another thread of the program may change it. `vector` is the address of a
    /// vector on the caller's stack.
    @inline(__always)
    func request(of block: BlockRef, length: Int, vector: UInt) -> Request {
        var request = Request(
            operation: isWrite ? .write : .read, descriptor: block.it.descriptor)
        request.face = .posix
        request.priority = UInt8(truncatingIfNeeded: block.it.priority)
        request.offset = block.it.offset
        request.length = length
        if length > System.transferBytesMax {
            request.length = System.transferBytesMax
            // fs/read_write.c, vfs_read and vfs_write: before it is cut.
            if Memory.isOutsideUserSpace(block.it.buffer, bytes: length) {
                request.bufferError = failure(EFAULT)
            }
        }
        request.vectors = vector
        request.vectorCount = 1
        request.resfd = block.it.notification.eventfd
        return request
    }
}

// The kernel's checks of one request, in the kernel's order (fs/aio.c, __io_submit_one), and the
// request that the paths are given.
//
// The first thing that is wrong is the answer. What is wrong with the priority or the buffers is
// only noted in the request: the file comes before them, and the paths look at that
// (FileChecks.swift).

import CLibAIO
import JobTable
import Paths

extension Ref where Pointee == LinuxFace {
    /// Checks one request as fs/aio.c, __io_submit_one does, and starts it. `vector` is the
    /// address of a vector on the caller's stack.
    @inline(__always)
    func start(
        _ iocb: iocb, _ address: UInt, _ vector: UInt, _ batch: inout Batch, attempted: Int?
    ) -> Outcome {
        var request: Request
        switch Int(iocb.aio_lio_opcode) {
        case Int(IOCB_CMD_PREAD), Int(IOCB_CMD_PWRITE):
            request = Request(
                operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_PREAD) ? .read : .write,
                descriptor: iocb.aio_fildes)
            describeBuffer(iocb, vector, &request)
            request.attempted = attempted
        case Int(IOCB_CMD_PREADV), Int(IOCB_CMD_PWRITEV):
            return startVectors(iocb, address, &batch)
        case Int(IOCB_CMD_FSYNC), Int(IOCB_CMD_FDSYNC):
            request = Request(
                operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_FSYNC) ? .fsync : .fdatasync,
                descriptor: iocb.aio_fildes)
            if iocb.aio_buf != 0 || iocb.aio_offset != 0 || iocb.aio_nbytes != 0
                || iocb.aio_rw_flags != 0
            {
                return refuseInvalid(iocb, address)
            }
        case Int(IOCB_CMD_POLL):
            request = Request(operation: .poll, descriptor: iocb.aio_fildes)
            if iocb.aio_buf > 0xffff || iocb.aio_offset != 0 || iocb.aio_nbytes != 0
                || iocb.aio_rw_flags != 0
            {
                return refuseInvalid(iocb, address)
            }
            request.pollEvents = UInt32(iocb.aio_buf) | UInt32(POLLERR | POLLHUP)
        default:
            return refuseInvalid(iocb, address)
        }
        return start(&request, iocb, address, &batch)
    }

    @inline(__always)
    private func start(
        _ request: inout Request, _ iocb: iocb, _ address: UInt, _ batch: inout Batch
    ) -> Outcome {
        if iocb.aio_flags & UInt32(IOCB_FLAG_RESFD) != 0 { request.resfd = iocb.aio_resfd }
        if iocb.aio_key != 0 || it.memory.isStrict {
            // The kernel finds the file before it stores the key.
            if System.openFlags(iocb.aio_fildes) < 0 { return .refused(failure(EBADF)) }
            if !storeKey(iocb, address) { return .refused(failure(EFAULT)) }
        }
        return it.engine.start(&request, &batch)
    }

    /// A request with an array of vectors. They are copied before anything is transferred: the
    /// array may lie in a buffer that it describes.
    @inline(never)
    private func startVectors(_ iocb: iocb, _ address: UInt, _ batch: inout Batch) -> Outcome {
        let onStack = 64
        // The kernel counts vectors in 32 bits.
        let count = Int(UInt32(truncatingIfNeeded: iocb.aio_nbytes))
        if count <= onStack {
            return withRoom(for: Vector.self, onStack) {
                startVectors(iocb, address, $0, count, &batch)
            }
        }
        if count > Job.vectorsMax { return startVectors(iocb, address, 0, count, &batch) }
        let block = it.table.borrowVectorBlock()
        if block == Job.none { return .refused(failure(EAGAIN)) }
        defer { it.table.returnVectorBlock(block) }
        return startVectors(iocb, address, it.table.blockAddress(block), count, &batch)
    }

    private func startVectors(
        _ iocb: iocb, _ address: UInt, _ copy: UInt, _ count: Int, _ batch: inout Batch
    ) -> Outcome {
        var request = Request(
            operation: Int(iocb.aio_lio_opcode) == Int(IOCB_CMD_PREADV) ? .read : .write,
            descriptor: iocb.aio_fildes)
        describeTransfer(iocb, &request)
        request.vectors = copy
        request.bufferError =
            count > Job.vectorsMax
            ? failure(EINVAL)
            : copyVectors(
                UInt(truncatingIfNeeded: iocb.aio_buf), to: copy, count, &request.length)
        request.vectorCount = request.bufferError == 0 ? count : 0
        return start(&request, iocb, address, &batch)
    }

    /// -EBADF comes before everything that is wrong with the request's own fields.
    @inline(never)
    private func refuseInvalid(_ iocb: iocb, _ address: UInt) -> Outcome {
        if System.openFlags(iocb.aio_fildes) < 0 { return .refused(failure(EBADF)) }
        return .refused(storeKey(iocb, address) ? failure(EINVAL) : failure(EFAULT))
    }

    /// The kernel stores its key in the request; a program's own value never survives. A request
    /// that has it already is left alone: it may be in read-only memory. False for -EFAULT.
    @inline(__always)
    private func storeKey(_ iocb: iocb, _ address: UInt) -> Bool {
        if iocb.aio_key == 0 && !it.memory.isStrict { return true }
        return it.memory.write(UInt32(0), at: address &+ UInt(IOCTX_AIO_KEY_OFFSET))
    }

    @inline(never)
    func checkEventfd(_ iocb: iocb, _ gathered: inout Gathered) -> Int {
        if iocb.aio_resfd >= 0 && maySignal(iocb.aio_resfd, &gathered) { return 0 }
        // The kernel finds the file first.
        return System.openFlags(iocb.aio_fildes) < 0
            ? failure(EBADF) : it.engine.checkEventfd(iocb.aio_resfd)
    }

    // MARK: Buffers

    @inline(__always)
    private func describeBuffer(_ iocb: iocb, _ vector: UInt, _ request: inout Request) {
        let length = min(Int(truncatingIfNeeded: iocb.aio_nbytes), System.transferBytesMax)
        Ref<Vector>(address: vector)?.it = Vector(
            base: UInt(truncatingIfNeeded: iocb.aio_buf), length: length)
        request.vectors = vector
        request.vectorCount = 1
        request.length = length
        describeTransfer(iocb, &request)
        if Memory.isOutsideUserSpace(UInt(truncatingIfNeeded: iocb.aio_buf), bytes: length) {
            request.bufferError = failure(EFAULT)
        }
    }

    /// Copies an array of vectors, checks first their lengths and then their places, and adds them
    /// up (lib/iov_iter.c, import_iovec). 0 or a negated errno.
    private func copyVectors(
        _ vectors: UInt, to copy: UInt, _ count: Int, _ length: inout Int
    ) -> Int {
        for index in 0..<count {
            let step = UInt(bitPattern: index &* MemoryLayout<Vector>.stride)
            var vector = Vector(base: 0, length: 0)
            if !it.memory.read(at: vectors &+ step, into: &vector) { return failure(EFAULT) }
            if vector.length < 0 { return failure(EINVAL) }
            // A single vector is cut before its range is checked, several are checked whole.
            if count == 1 { vector.length = min(vector.length, System.transferBytesMax) }
            Ref<Vector>(address: copy &+ step)?.it = vector
        }
        for index in 0..<count {
            let step = UInt(bitPattern: index &* MemoryLayout<Vector>.stride)
            guard let vector = Ref<Vector>(address: copy &+ step)?.it else { break }
            if Memory.isOutsideUserSpace(vector.base, bytes: vector.length) {
                return failure(EFAULT)
            }
            length = min(length &+ vector.length, System.transferBytesMax)
        }
        return 0
    }

    @inline(__always)
    private func describeTransfer(_ iocb: iocb, _ request: inout Request) {
        request.offset = iocb.aio_offset
        request.rwFlags = iocb.aio_rw_flags
        if iocb.aio_flags & UInt32(IOCB_FLAG_IOPRIO) != 0 {
            request.ioPriority = UInt16(bitPattern: iocb.aio_reqprio)
            request.priorityError = IOPriority.refusal(of: request.ioPriority)
        }
    }
}

/// block/ioprio.c, ioprio_check_cap.
private enum IOPriority {
    static func refusal(of priority: UInt16) -> Int {
        switch priority >> 13 {
        case 0: return priority & 7 == 0 ? 0 : failure(EINVAL)
        case 1: return CurrentThread.mayBeRealTime ? 0 : failure(EPERM)
        case 2, 3: return 0
        default: return failure(EINVAL)
        }
    }
}

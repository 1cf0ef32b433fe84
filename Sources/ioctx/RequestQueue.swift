// The layer as `ioctx cp` uses it: one context, and one request at a time for each slot.

import CLibAIO
import Glibc
import LibAIO

final class RequestQueue {
    enum Operation {
        case read, write, fsync

        fileprivate var code: Int {
            switch self {
            case .read: Int(IOCB_CMD_PREAD)
            case .write: Int(IOCB_CMD_PWRITE)
            case .fsync: Int(IOCB_CMD_FSYNC)
            }
        }
    }

    struct Completion {
        let slot: Int
        /// Bytes, or a negated errno.
        let result: Int
    }

    private(set) var inFlight = 0
    /// Held here, because the requests use them until io_destroy has returned.
    let buffers: BlockBuffers

    private let depth: Int
    private var context: io_context_t?
    private let requests: UnsafeMutablePointer<iocb>
    private let events: UnsafeMutablePointer<io_event>
    /// Prepared and not yet taken by io_submit.
    private var prepared: [UnsafeMutablePointer<iocb>?] = []
    /// Refused by io_submit; they end like the others, with the refusal as their result.
    private var refused: [Completion] = []

    /// How long a wait may last before the caller is asked whether to go on.
    private static let waitNs = 100_000_000

    init(depth: Int, buffers: BlockBuffers) throws(Failure) {
        let result = io_setup(Int32(depth), &context)
        guard result == 0 else {
            switch -result {
            case ENOSYS:
                throw Failure(
                    "the layer is switched off: choose another --engine, "
                        + "or unset \(EngineChoice.variable)")
            case EAGAIN:
                throw Failure(
                    "a context of depth \(depth) exceeds the limit on AIO requests: choose a "
                        + "smaller --depth, or raise IOCTX_AIO_MAX_NR (see 'ioctx limits')")
            default:
                throw Failure("io_setup(\(depth)) fails: \(Failure.describe(result))")
            }
        }
        self.depth = depth
        self.buffers = buffers
        requests = .allocate(capacity: depth)
        requests.initialize(repeating: iocb(), count: depth)
        events = .allocate(capacity: depth)
        events.initialize(repeating: io_event(), count: depth)
    }

    /// Waits for what is in flight, as io_destroy does.
    deinit {
        io_destroy(context)
        requests.deallocate()
        events.deallocate()
    }

    func prepare(
        _ operation: Operation, slot: Int, descriptor: Int32,
        buffer: UnsafeMutableRawBufferPointer = .init(start: nil, count: 0), offset: Int = 0
    ) {
        var request = iocb()
        request.aio_data = UInt64(slot)
        request.aio_lio_opcode = UInt16(operation.code)
        request.aio_fildes = descriptor
        request.aio_buf = UInt64(UInt(bitPattern: buffer.baseAddress))
        request.aio_nbytes = UInt64(buffer.count)
        request.aio_offset = Int64(offset)
        requests[slot] = request
        prepared.append(requests + slot)
    }

    /// Submits what was prepared; what the context has no room for stays for the next call.
    func submit() {
        while !prepared.isEmpty {
            let result = Int(io_submit(context, prepared.count, &prepared))
            if result > 0 {
                prepared.removeFirst(result)
                inFlight += result
            } else if result == -Int(EAGAIN), inFlight > 0 {
                return
            } else if let request = prepared.removeFirst() {
                // io_submit stops at the request that it refuses.
                refused.append(Completion(slot: Int(request.pointee.aio_data), result: result))
                inFlight += 1
            }
        }
    }

    /// At least one completion, or none after a while or a signal.
    func wait() throws(Failure) -> [Completion] {
        if !refused.isEmpty {
            defer { refused = [] }
            inFlight -= refused.count
            return refused
        }
        var timeout = timespec(tv_sec: 0, tv_nsec: Self.waitNs)
        let count = Int(io_getevents(context, 1, depth, events, &timeout))
        if count == -Int(EINTR) { return [] }
        guard count >= 0 else {
            throw Failure("io_getevents fails: \(Failure.describe(Int32(count)))")
        }
        inFlight -= count
        return (0..<count).map {
            Completion(slot: Int(events[$0].data), result: Int(events[$0].res))
        }
    }
}

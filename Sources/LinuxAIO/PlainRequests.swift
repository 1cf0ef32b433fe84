// Requests that a look at a few words tells, and that are tried at once where the file was in
// memory last time.
//
// Whatever is not plain, or cannot be done at once, is left to the general way, which finds out
// what it is. A request is looked at where the program has it, without a check of that memory,
// so strict mode tries none in this way. One that was tried in vain is handed on as it was then.

import CLibAIO
import JobTable
import Paths

/// A plain read without an eventfd, as a look at a few words tells. The kernel looks at the buffer:
/// the request's words about it are a vector as they lie there.
struct PlainRead {
    let address: UInt
    let data: UInt64
    let descriptor: Int32
    let base: UInt64
    let length: Int
    let offset: Int64

    /// nil when the request that `slot`, which is in user space, points to is anything else.
    @inline(__always)
    init?(at slot: UInt) {
        let address = unsafe Ref<UInt>(address: slot).unsafelyUnwrapped.it
        guard !Memory.isOutsideUserSpace(address), let iocb = Ref<iocb>(address: address) else {
            return nil
        }
        let others =
            UInt64(UInt32(iocb.it.aio_lio_opcode) | iocb.it.aio_key | iocb.it.aio_flags)
            | iocb.it.aio_reserved2 | UInt64(UInt32(bitPattern: iocb.it.aio_rw_flags))
        length = Int(truncatingIfNeeded: iocb.it.aio_nbytes)
        offset = iocb.it.aio_offset
        // Offset -1 would be the file's own position.
        if others != 0 || offset < 0 || length <= 0 || length > System.transferBytesMax {
            return nil
        }
        self.address = address
        data = iocb.it.aio_data
        descriptor = iocb.it.aio_fildes
        base = iocb.it.aio_buf
    }

    @inline(__always)
    var vector: UInt { address &+ UInt(IOCTX_AIO_BUF_OFFSET) }

    /// Of a read that came to all its bytes.
    @inline(__always)
    var event: io_event {
        io_event(data: data, obj: UInt64(address), res: Int64(length), res2: 0)
    }
}

/// A plain read or write, which a look at a few words tells: opcode 0 or 1, key, flags and reserved
/// words 0 but for an eventfd, a buffer in user space, an offset that is not negative.
struct PlainTransfer {
    let data: UInt64
    let isWrite: Bool
    let descriptor: Int32
    let vector: Vector
    let offset: Int64
    /// The eventfd to signal, or -1.
    let resfd: Int32

    /// nil when the request at that address is anything else.
    @inline(__always)
    init?(_ address: UInt) {
        guard let iocb = Ref<iocb>(address: address) else { return nil }
        let opcode = iocb.it.aio_lio_opcode
        let length = iocb.it.aio_nbytes
        let base = iocb.it.aio_buf
        let flags = iocb.it.aio_flags
        if UInt32(opcode & ~1) | iocb.it.aio_key != 0
            || UInt32(bitPattern: iocb.it.aio_rw_flags) | flags & ~UInt32(IOCB_FLAG_RESFD) != 0
            || iocb.it.aio_reserved2 != 0 || iocb.it.aio_offset < 0
            || length &- 1 >= UInt64(System.transferBytesMax)
            || Memory.isKernelHalf(UInt(base &+ length)) || Memory.isKernelHalf(UInt(base))
        {
            return nil
        }
        data = iocb.it.aio_data
        isWrite = opcode != 0
        descriptor = iocb.it.aio_fildes
        vector = Vector(base: UInt(base), length: Int(length))
        offset = iocb.it.aio_offset
        resfd = flags != 0 ? iocb.it.aio_resfd : -1
        if flags != 0 && resfd < 0 { return nil }
    }

    init(_ read: PlainRead) {
        data = read.data
        isWrite = false
        descriptor = read.descriptor
        vector = Vector(base: UInt(truncatingIfNeeded: read.base), length: read.length)
        offset = read.offset
        resfd = -1
    }

    /// The request itself.
    var iocb: iocb {
        var iocb = CLibAIO.iocb()
        iocb.aio_data = data
        iocb.aio_lio_opcode = isWrite ? UInt16(IOCB_CMD_PWRITE) : UInt16(IOCB_CMD_PREAD)
        iocb.aio_fildes = descriptor
        iocb.aio_buf = UInt64(vector.base)
        iocb.aio_nbytes = UInt64(vector.length)
        iocb.aio_offset = offset
        if resfd >= 0 {
            iocb.aio_flags = UInt32(IOCB_FLAG_RESFD)
            iocb.aio_resfd = resfd
        }
        return iocb
    }
}

/// A plain transfer that was tried at once and needs a closer look. It is not read from the
/// program's memory again: that may lie in the buffer, part of which has been read by now.
struct Attempt {
    let address: UInt
    let plain: PlainTransfer
    /// What a read with RWF_NOWAIT came to.
    let result: Int?

    @inline(__always)
    init(address: UInt, plain: PlainTransfer, result: Int?) {
        self.address = address
        self.plain = plain
        self.result = result
    }

    /// A read with those flags that did not come to all its bytes.
    @inline(__always)
    init(_ read: PlainRead, _ flags: Int32, _ result: Int) {
        // More are the length that another thread has stored in the request meanwhile.
        let isShort = flags != 0 && result < read.length
        self.init(
            address: read.address, plain: PlainTransfer(read), result: isShort ? result : nil)
    }
}

extension Ref where Pointee == LinuxFace {
    /// Reads that ask for nothing but their buffer, for as long as they come from memory: how many
    /// of `count`. The first of a submission, and the most of many.
    @inline(__always)
    func readAtOnce(
        _ count: Int, _ pointers: UInt, into events: UInt, attempt: inout Attempt?
    ) -> Int {
        let engine = it.engine
        var accepted = 0
        var event = events
        var descriptor: Int32 = -1
        var flags: Int32 = 0
        while accepted < count {
            guard let read = PlainRead(at: pointers &+ UInt(bitPattern: accepted &* 8)) else {
                break
            }
            if read.descriptor != descriptor {
                guard let hinted = engine.flagsToReadAtOnce(read.descriptor) else { break }
                flags = hinted
                descriptor = read.descriptor
            }
            let result = engine.readAtOnce(descriptor, read.vector, read.offset, flags)
            if result != read.length {
                attempt = Attempt(read, flags, result)
                break
            }
            unsafe Ref<io_event>(address: event).unsafelyUnwrapped.it = read.event
            event &+= UInt(AioRing.eventBytes)
            accepted &+= 1
        }
        return accepted
    }

    /// Transfers of one buffer without flags, for as long as slots are reserved and the file was in
    /// the page cache last time. How many of `count` requests are accepted now,
    /// of which `first` were before; what the next one is, the rest finds out. With `mayTrust`
    /// the caller confirms the eventfd of reads afterwards.
    @inline(__always)
    func submitPlain(
        from first: Int, _ count: Int, _ pointers: UInt, _ gathered: inout Gathered,
        mayTrust: Bool = false
    ) -> Int {
        var accepted = first
        while accepted < count && gathered.slots > 0 {
            let slot = pointers &+ UInt(bitPattern: accepted &* 8)
            guard let address = Ref<UInt>(address: slot)?.it, !Memory.isOutsideUserSpace(address),
                let plain = PlainTransfer(address)
            else { return accepted }
            if gathered.isUnchecked
                && (plain.isWrite || plain.resfd >= 0 && plain.resfd != gathered.checkedEventfd)
            {
                return accepted
            }
            if mayTrust && plain.resfd >= 0 && accepted == 0 && !plain.isWrite
                && it.engine.wasEventfd(plain.resfd)
            {
                gathered.checkedEventfd = plain.resfd
                gathered.isUnchecked = true
            }
            if plain.resfd >= 0 && !maySignal(plain.resfd, &gathered) { return accepted }
            var vector = plain.vector
            let length = vector.length
            var attempted: Int?
            let result = withAddress(of: &vector) {
                it.engine.transferAtOnce(
                    isWrite: plain.isWrite, plain.descriptor, UInt(bitPattern: $0), length,
                    plain.offset, attempted: &attempted)
            }
            guard let result else {
                gathered.attempt = Attempt(address: address, plain: plain, result: attempted)
                return accepted
            }
            gathered.slots &-= 1
            gathered.add(
                io_event(data: plain.data, obj: UInt64(address), res: Int64(result), res2: 0),
                resfd: plain.resfd)
            accepted &+= 1
        }
        return accepted
    }

    /// True when the descriptor is an eventfd, which is asked once in a submission.
    @inline(__always)
    func maySignal(_ resfd: Int32, _ gathered: inout Gathered) -> Bool {
        if resfd != gathered.checkedEventfd {
            if it.engine.checkEventfd(resfd) != 0 { return false }
            gathered.checkedEventfd = resfd
        }
        return true
    }
}

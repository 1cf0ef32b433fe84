// The bindings to io_uring: one ring used by hand.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import Paths

private let hasUring = TestEngine.withDaemon.contains(.uring)

@Suite(.enabled(if: hasUring, "io_uring is missing or forbidden here")) struct RingTests {
    /// One thread makes the ring, submits and waits, as a daemon does.
    private func withRing(
        entries: UInt32 = 8, flags: UInt32 = 0, _ body: (inout Ring) -> Void
    ) {
        var ring = Ring()
        let result = ring.open(
            entryCount: entries, completionCount: entries * 2, flags: flags)
        #expect(result == 0)
        if result == 0 { body(&ring) }
        ring.close()
        let isClosed = !ring.exists && ring.descriptor == -1
        #expect(isClosed)
    }

    private func prepareRead(_ ring: inout Ring, slot: Int32, _ buffer: Buffer, data: UInt64) {
        guard let entry = ring.nextEntry() else {
            Issue.record("no submission entry")
            return
        }
        entry.it.opcode = UInt8(URING_OP_READ)
        entry.it.flags = UInt8(URING_SQE_FIXED_FILE)
        entry.it.fd = slot
        entry.it.address = UInt64(UInt(bitPattern: buffer.bytes.baseAddress))
        entry.it.length = UInt32(buffer.bytes.count)
        entry.it.user_data = data
    }

    @Test("A file in a slot is read by its slot, until the slot is emptied")
    func slots() {
        withRing { ring in
            let file = Files.regular(4096, of: 4)
            let buffer = Buffer(512)
            let checked = ring.checkOperations()
            let registered = ring.registerEmptySlots(4)
            #expect(checked == 0 && registered == 0)
            let filled = ring.fillSlot(3, file: file.number)
            let outOfRange = ring.fillSlot(4, file: file.number)
            let closed = ring.fillSlot(2, file: 1 << 20)
            #expect(filled == 1 && outOfRange < 0 && closed < 0)
            let handle = ring.registerWithThread()
            #expect(handle == 0)
            prepareRead(&ring, slot: 3, buffer, data: 33)
            let pending = ring.pending
            let entered = ring.enter(minComplete: 1)
            let left = ring.pending
            #expect(pending == 1 && entered == 1 && left == 0)
            let completion = ring.nextCompletion()
            #expect(completion?.user_data == 33 && completion?.result == 512)
            #expect(buffer.isFilled(with: 4, 512))
            let hasSecond = ring.nextCompletion() != nil
            #expect(!hasSecond)
            ring.emptySlot(3)
            prepareRead(&ring, slot: 3, buffer, data: 34)
            _ = ring.enter(minComplete: 1)
            let empty = ring.nextCompletion()
            #expect(empty?.user_data == 34 && empty?.result == -EBADF)
        }
    }

    @Test("The submission queue is full at its size, and wraps around for many laps")
    func laps() {
        withRing { ring in
            let file = Files.regular(4096, of: 4)
            _ = ring.registerEmptySlots(1)
            _ = ring.fillSlot(0, file: file.number)
            let buffers = (0..<8).map { _ in Buffer(64) }
            var expected: UInt64 = 0
            for lap in 0..<100 {
                for (position, buffer) in buffers.enumerated() {
                    prepareRead(
                        &ring, slot: 0, buffer, data: UInt64(lap * 8 + position))
                }
                let ninth = ring.nextEntry() == nil
                #expect(ninth, "the ninth entry of eight")
                let entered = ring.enter(minComplete: 8)
                #expect(entered == 8)
                var seen = 0
                while let completion = ring.nextCompletion() {
                    #expect(completion.result == 64)
                    expected &+= completion.user_data
                    seen += 1
                }
                #expect(seen == 8)
            }
            #expect(expected == UInt64(800 * 799 / 2), "each once")
        }
    }

    @Test("A wait with a time-out ends with -ETIME, and without one ready it does not block")
    func timeOut() {
        let flags = UInt32(URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN)
        withRing(flags: flags | UInt32(URING_SETUP_SUBMIT_ALL)) { ring in
            let handle = ring.registerWithThread()
            let nothing = ring.enter(minComplete: 0)
            let timedOut = ring.enter(minComplete: 1, timeoutNs: 1_000_000)
            #expect(handle == 0 && nothing == 0 && timedOut == failure(ETIME))
            let none = ring.nextCompletion() == nil
            #expect(none)
        }
    }

    @Test("A ring that cannot be made leaves nothing behind") func failedOpen() {
        var ring = Ring()
        let result = ring.open(entryCount: 8, completionCount: 16, flags: 1 << 31)
        let exists = ring.exists
        #expect(result == failure(EINVAL) && !exists)
    }
}

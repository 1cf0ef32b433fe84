// What a context shows to readers outside: its record begins as counters.h says.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import LinuxAIO

/// The beginning of a context's record, as the page of counters leads to it.
private func seen(_ index: Int) -> ioctx_context_counts {
    let counters = LinuxFace.current!.it.table.it.counters
    let block = Ref<ioctx_counters>(address: counters.address)!.it
    return Ref<ioctx_context_counts>(
        address: UInt(block.contexts_address) + UInt(index) * UInt(block.contexts_stride))!.it
}

private var block: ioctx_counters {
    Ref<ioctx_counters>(address: LinuxFace.current!.it.table.it.counters.address)!.it
}

@Suite struct ContextCountsTests {
    @Test("A record begins a cache line, so that two threads with a context each share none")
    func lines() {
        #expect(MemoryLayout<Context>.stride % 64 == 0)
    }

    @Test("A context's record begins with its name, size, state and counts") func layout() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let first = AioContext(64)
            let second = AioContext(100)
            #expect(block.contexts_used == 2)
            #expect(seen(0).address == UInt64(first.address) && seen(0).events == 64)
            #expect(seen(1).address == UInt64(second.address) && seen(1).events == 100)
            let file = Files.regular(8192)
            let pipe = Files.pipe()
            let waiting = Iocb.read(pipe.read, Buffer(1))
            #expect(second.submit(.read(file, Buffer(4096))) == 1)
            #expect(second.submit(waiting) == 1)
            #expect(second.submit(Iocb(Int(IOCB_CMD_FSYNC), file)) == 1)
            #expect(second.reap(2).result == 2)
            let before = seen(1).counts
            #expect(before.inlined == 1 && before.readiness == 1 && before.daemon == 1)
            #expect(before.finished == 1 && before.cancelled == 0 && before.adopted == 0)
            #expect(seen(0).counts.inlined == 0)
            #expect(second.destroy() == 0)
            while seen(1).address != 0 { usleep(1000) }
            #expect(seen(1).counts.inlined == 0 && block.gone.inlined == 1)
            #expect(block.gone.finished == 2 && block.gone.cancelled == 1)
            #expect(block.contexts.now == 1 && block.contexts.most == 2)
            withExtendedLifetime((first, waiting)) {}
        }
    }

    @Test("States are those of counters.h") func states() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            setenv("IOCTX_ENGINE", "auto", 1)
            let context = AioContext(64)
            #expect(Int(seen(0).state) == IOCTX_CONTEXT_FRESH)
            let file = Files.regular(4096)
            #expect(context.submit(.read(file, Buffer(4096))) == 1)
            #expect(seen(0).state == 0)
        }
    }

    @Test("Contexts are counted while they can be found, also after a move") func gauges() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let context = AioContext(64)
            for _ in 0..<3 { #expect(AioContext(10).setupResult == 0) }
            #expect(block.contexts.now == 1 && block.contexts.most == 2)
            #expect(block.aio_nr.now == 64 && block.aio_nr.most == 74)
            let bytes = Memory.roundUpToPage(Int(context.ring.nr) * 32)
            let place = Memory.map(bytes: bytes, protection: PROT_NONE)
            let moved = systemCall(
                Int32(SYS_mremap), Int(bitPattern: context.address), bytes, bytes,
                Int(IOCTX_MREMAP_MAYMOVE | IOCTX_MREMAP_FIXED), Int(bitPattern: place))
            #expect(UInt(bitPattern: moved) == place)
            context.forget()
            #expect(LinuxAIO.submit(place, 0, 0) == 0)
            #expect(seen(0).address == UInt64(place) && seen(0).events == 64)
            #expect(block.contexts.now == 1 && block.aio_nr.now == 64)
            #expect(LinuxAIO.destroy(place) == 0)
            #expect(block.contexts.now == 0 && block.aio_nr.now == 0)
        }
    }
}

// Look-up of contexts: which addresses are known, and when. Each case in a process of its own,
// because the table of contexts is the process's.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import LinuxAIO

/// True when the layer finds a context at the address.
private func isKnown(_ address: UInt) -> Bool { LinuxAIO.submit(address, 0, 0) == 0 }

@Suite struct ContextLookUpTests {
    @Test("Unknown, stale and destroyed addresses are -EINVAL from every call")
    func unknownAddresses() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let request = Iocb(Int(IOCB_CMD_PREAD), nil)
            // Before there is any context at all.
            expectUnknown(0, request)
            expectUnknown(4096, request)
            let context = AioContext(1)
            let address = context.address
            #expect(isKnown(address))
            // The look-up goes by the address: nothing here is followed.
            for other in [
                0, 1, 32, address + 32, address + 4096, address - 4096, UInt.max, UInt.max - 4095,
                0x7fff_ffff_f000,
            ] {
                expectUnknown(other, request)
            }
            #expect(context.destroy() == 0)
            expectUnknown(address, request)
            #expect(quotaUsed == 0)
        }
    }

    @Test("A scribbled id makes a context unknown until it is restored, magic does not matter")
    func scribbledID() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let contexts = [AioContext(1), AioContext(1)]
            let ring = Ref<aio_ring>(address: contexts[1].address)!
            for id in [0, 2, UInt32.max] as [UInt32] {
                ring.it.id = id
                #expect(!isKnown(contexts[1].address))
                #expect(LinuxAIO.destroy(contexts[1].address) == failure(EINVAL))
            }
            ring.it.id = 1
            ring.it.magic = 0
            #expect(isKnown(contexts[1].address))
            #expect(isKnown(contexts[0].address))
        }
    }

    @Test("A ring that the program moved is known by its new address only") func moved() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let context = AioContext(1)
            let old = context.address
            let target = mmap(
                nil, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            let new = UInt(bitPattern: target)
            let moved = systemCall(
                Int32(SYS_mremap), Int(bitPattern: old), 4096, 4096, 3, Int(bitPattern: target))
            #expect(moved == Int(bitPattern: new))
            context.forget()
            #expect(isKnown(new))
            #expect(!isKnown(old))
            #expect(quotaUsed == 1)
            #expect(LinuxAIO.destroy(new) == 0)
            #expect(quotaUsed == 0 && !isKnown(new))
        }
    }

    /// The look-up takes no lock: fails, or is reported by ThreadSanitizer, when a chain that
    /// changes under the walk leads anywhere but to the context or to a confirmed miss.
    @Test("Contexts are found while others come and go") func lookUpWhileChanging() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use(("AIO_MAX_NR", "1000000"))
            // Enough of them to have several in a chain.
            let lasting = (0..<600).map { _ in AioContext(1) }
            let addresses = lasting.map(\.address)
            let misses = Memory.record(Shared.self)!
            concurrently(4) { thread in
                for round in 0..<1500 {
                    if thread < 2 {
                        let context = AioContext(1)
                        if context.setupResult != 0 || !isKnown(context.address) { misses.add() }
                        if context.destroy() != 0 { misses.add() }
                    } else if !isKnown(addresses[(round * 7 + thread) % addresses.count]) {
                        misses.add()
                    }
                }
            }
            #expect(misses.count == 0)
            #expect(quotaUsed == 600)
            #expect(recordsUsed <= 602)
        }
    }
}

private func expectUnknown(_ address: UInt, _ request: Iocb) {
    var timeout = timespec(tv_sec: 0, tv_nsec: 0)
    #expect(LinuxAIO.submit(address, 0, 0) == failure(EINVAL))
    #expect(LinuxAIO.destroy(address) == failure(EINVAL))
    #expect(LinuxAIO.cancel(address, request.address) == failure(EINVAL))
    let result = withAddress(of: &timeout) {
        LinuxAIO.getEvents(address, 0, 0, 0, timeout: UInt(bitPattern: $0), sigmask: 0)
    }
    #expect(result == failure(EINVAL))
}

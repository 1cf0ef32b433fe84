// Contexts: ids, quota, look-up, eviction. Each case in a process of its own, because the table
// of contexts is the process's.

import CLibAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import LinuxAIO

private var quotaUsed: UInt32 { LinuxFace.current?.it.quotaUsed ?? 0 }
private var recordsUsed: UInt32 {
    guard let face = LinuxFace.current else { return 0 }
    return face.it.contextCount.load(ordering: .relaxed)
}

/// True when the layer finds a context at the address.
private func isKnown(_ address: UInt) -> Bool { LinuxAIO.submit(address, 0, 0) == 0 }

@Suite struct ContextTableTests {
    @Test("The lowest free id is given out, as by the kernel") func lowestID() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
            var contexts = (0..<20).map { _ in AioContext(1) }
            #expect(contexts.map(\.ring.id) == Array(0..<20))
            #expect(Set(contexts.map(\.address)).count == 20)
            for index in [4, 11, 7] { #expect(contexts[index].destroy() == 0) }
            for id in [4, 7, 11, 20] as [UInt32] {
                contexts.append(AioContext(1))
                #expect(contexts.last?.ring.id == id)
            }
            #expect(recordsUsed == 21)
        }
    }

    @Test("The quota counts io_setup's arguments, exactly") func quota() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use(("AIO_MAX_NR", "1000"))
            #expect(AioContext(1001).setupResult == failure(EAGAIN))
            let first = AioContext(600)
            #expect(first.setupResult == 0 && quotaUsed == 600)
            #expect(AioContext(401).setupResult == failure(EAGAIN))
            #expect(quotaUsed == 600, "a refused io_setup takes nothing")
            let second = AioContext(400)
            #expect(second.setupResult == 0 && quotaUsed == 1000)
            #expect(AioContext(1).setupResult == failure(EAGAIN))
            #expect(first.destroy() == 0)
            #expect(quotaUsed == 400, "returned at once")
            #expect(AioContext(Int32.max).setupResult == failure(EINVAL), "before the quota")
            #expect(AioContext(Int32.min).setupResult == failure(EAGAIN))
            #expect(AioContext(-1).setupResult == failure(EINVAL))
            #expect(AioContext(0).setupResult == failure(EINVAL))
            #expect(second.destroy() == 0 && quotaUsed == 0)
            #expect(AioContext(1000).setupResult == 0)
        }
    }

    @Test("The kernel's order of io_setup's refusals") func setupRefusals() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
            #expect(LinuxAIO.setup(1, 0) == failure(EFAULT))
            #expect(LinuxAIO.setup(0, 0) == failure(EFAULT))
            #expect(LinuxAIO.setup(1, 0xffff_8000_0000_0000) == failure(EFAULT))
            var taken: UInt = 1
            let result = withAddress(of: &taken) { LinuxAIO.setup(1, UInt(bitPattern: $0)) }
            #expect(result == failure(EINVAL) && taken == 1)
            #expect(quotaUsed == 0 && recordsUsed == 0)
        }
    }

    @Test("Unknown, stale and destroyed addresses are -EINVAL from every call")
    func unknownAddresses() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
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
            DaemonEngine.threads.use()
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

    /// A program that unmaps its ring instead of destroying it must not exhaust anything.
    @Test("A context whose address is given out again is evicted, with its id, quota and memory")
    func eviction() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use(("AIO_MAX_NR", "100"))
            var addresses = Set<UInt>()
            for _ in 0..<200 {
                let context = AioContext(40)
                #expect(context.setupResult == 0)
                addresses.insert(context.address)
                let bytes = 32 + Int(context.ring.nr) * 32
                #expect(munmap(UnsafeMutableRawPointer(bitPattern: context.address), bytes) == 0)
                context.forget()
            }
            // If every address were new, the quota would have ended this long ago.
            #expect(addresses.count <= 2)
            #expect(quotaUsed <= 80)
            #expect(recordsUsed <= 4)
        }
    }

    @Test(
        "An evicted context's requests complete unseen, and its record is free afterwards",
        arguments: DaemonEngine.available)
    func evictionInFlight(engine: DaemonEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as DaemonEngine] in
            engine.use()
            let (reader, writer) = Files.pipe()
            let old = AioContext(1)
            let address = old.address
            #expect(old.submit(Iocb.read(reader, Buffer(16), data: 1)) == 1)
            #expect(munmap(UnsafeMutableRawPointer(bitPattern: address), 4096) == 0)
            old.forget()
            let new = AioContext(1)
            #expect(new.address == address)
            let (otherReader, otherWriter) = Files.pipe()
            #expect(new.submit(Iocb.poll(otherReader, data: 2)) == 1)
            #expect(write(otherWriter.number, "x", 1) == 1)
            #expect(new.results(1) == [2: Int64(POLLIN)], "and nothing of the old one's")
            _ = write(writer.number, "hello", 5)
            let table = LinuxFace.current!.it.table
            while table.it.jobsInUse != 0 { usleep(1000) }
            #expect(new.reap(0).result == 0)
            #expect(AioContext(1).ring.id == 0, "the old one's id is free again")
        }
    }

    @Test("A ring that the program moved is known by its new address only") func moved() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
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

    @Test("A destroyed ring is unmapped, but never what the program put in its place")
    func unmapping() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
            let first = AioContext(1)
            let firstAddress = first.address
            #expect(first.destroy() == 0)
            var residency: UInt8 = 0
            #expect(
                mincore(UnsafeMutableRawPointer(bitPattern: firstAddress)!, 1, &residency) == -1)
            let second = AioContext(1)
            let place = UnsafeMutableRawPointer(bitPattern: second.address)!
            let mapped = mmap(
                place, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0)
            #expect(mapped == place)
            let copy = Ref<aio_ring>(address: second.address)!
            copy.it.id = 0
            copy.it.compat_features = 1
            #expect(second.destroy() == 0)
            #expect(mincore(place, 1, &residency) == 0, "the program's own page is there")
        }
    }

    /// The look-up takes no lock: fails, or is reported by ThreadSanitizer, when a chain that
    /// changes under the walk leads anywhere but to the context or to a confirmed miss.
    @Test("Contexts are found while others come and go") func lookUpWhileChanging() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use(("AIO_MAX_NR", "1000000"))
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

    @Test("Of many threads that destroy a context, one succeeds") func destroyOnce() async {
        await #expect(processExitsWith: .success) {
            DaemonEngine.threads.use()
            for _ in 0..<100 {
                let context = AioContext(1)
                let address = context.address
                context.forget()
                let successes = Memory.record(Shared.self)!
                let others = Memory.record(Shared.self)!
                concurrently(3) { _ in
                    switch LinuxAIO.destroy(address) {
                    case 0: successes.add()
                    case failure(EINVAL): break
                    default: others.add()
                    }
                }
                #expect(successes.count == 1 && others.count == 0)
            }
            #expect(quotaUsed == 0 && recordsUsed == 1)
        }
    }

    @Test("IOCTX_ENGINE=off answers -ENOSYS from every call") func off() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            setenv("IOCTX_ENGINE", "off", 1)
            let request = Iocb(Int(IOCB_CMD_PREAD), nil)
            for _ in 0..<2 {
                #expect(LinuxAIO.submit(0, 0, 0) == failure(ENOSYS))
                #expect(LinuxAIO.destroy(0) == failure(ENOSYS))
                #expect(LinuxAIO.cancel(0, request.address) == failure(ENOSYS))
                #expect(
                    LinuxAIO.getEvents(0, 0, 0, 0, timeout: 0, sigmask: 0) == failure(ENOSYS))
                #expect(AioContext(1).setupResult == failure(ENOSYS))
            }
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

/// A counter that threads add to.
struct Shared: ~Copyable {
    let value: Atomic<Int>
}

extension Ref where Pointee == Shared {
    func add(_ count: Int = 1) { it.value.add(count, ordering: .acquiringAndReleasing) }

    var count: Int { it.value.load(ordering: .acquiring) }
}

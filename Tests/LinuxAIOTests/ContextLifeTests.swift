// How contexts come and go: ids, quota, eviction, io_destroy. Each case in a process of its own,
// because the table of contexts is the process's.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import LinuxAIO

@Suite struct ContextLifeTests {
    @Test("The lowest free id is given out, as by the kernel") func lowestID() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
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
            TestEngine.threads.use(("AIO_MAX_NR", "1000"))
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
            TestEngine.threads.use()
            #expect(LinuxAIO.setup(1, 0) == failure(EFAULT))
            #expect(LinuxAIO.setup(0, 0) == failure(EFAULT))
            #expect(LinuxAIO.setup(1, 0xffff_8000_0000_0000) == failure(EFAULT))
            var taken: UInt = 1
            let result = withAddress(of: &taken) { LinuxAIO.setup(1, UInt(bitPattern: $0)) }
            #expect(result == failure(EINVAL) && taken == 1)
            #expect(quotaUsed == 0 && recordsUsed == 0)
        }
    }

    /// A program that unmaps its ring instead of destroying it must not exhaust anything.
    @Test("A context whose address is given out again is evicted, with its id, quota and memory")
    func eviction() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use(("AIO_MAX_NR", "100"))
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
        arguments: TestEngine.withDaemon)
    func evictionInFlight(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
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

    @Test("A destroyed ring is unmapped, but never what the program put in its place")
    func unmapping() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
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

    @Test("Of many threads that destroy a context, one succeeds") func destroyOnce() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
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
}

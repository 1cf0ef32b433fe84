// The calls of POSIX AIO on every engine: what they answer, and in which order.

import CLibAIO
import CPosixAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import PosixAIO

@Suite struct CallsTests {
    /// Fails when Swift and C lay the block out differently.
    @Test("struct aiocb is laid out as the C library has it")
    func layout() {
        let ours: [Int] = withUnsafeTemporaryAllocation(byteCount: 168, alignment: 8) { memory in
            let base = UInt(bitPattern: memory.baseAddress)
            let block = BlockRef(address: base)!
            func offset(_ address: Int) -> Int { address - Int(bitPattern: base) }
            return [
                offset(withAddress(of: &block.it.descriptor) { $0 }),
                offset(withAddress(of: &block.it.opcode) { $0 }),
                offset(withAddress(of: &block.it.priority) { $0 }),
                offset(withAddress(of: &block.it.buffer) { $0 }),
                offset(withAddress(of: &block.it.length) { $0 }),
                offset(withAddress(of: &block.it.notification) { $0 }),
                offset(withUnsafePointer(to: block.it.job) { Int(bitPattern: $0) }),
                offset(withUnsafePointer(to: block.it.place) { Int(bitPattern: $0) }),
                offset(withUnsafePointer(to: block.it.error) { Int(bitPattern: $0) }),
                offset(withUnsafePointer(to: block.it.result) { Int(bitPattern: $0) }),
                offset(withAddress(of: &block.it.offset) { $0 }),
            ]
        }
        let theirs = withUnsafeBytes(of: ioctx_aiocb_offsets) {
            $0.bindMemory(to: Int.self).map { $0 }
        }
        #expect(ours == theirs)
        #expect(MemoryLayout<Notification>.size == 64)
    }

    @Test(
        "Cold and direct reads and writes bring the bytes; the done queue has them once",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"),
        arguments: TestEngine.available)
    func transfers(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            for flags in [0, Files.directFlag] {
                let file = Files.cold(flags: flags)
                let reads = (0..<16).map { Block(file, 4096, at: Int64($0) * 4096) }
                for read in reads { #expect(read.read() == 0) }
                for read in reads { #expect(read.finish() == 4096 && read.holds(0x5a)) }
                let write = Block(file)
                write.fill(0x33)
                #expect(write.write() == 0 && write.finish() == 4096)
                #expect(reads[0].read() == 0)
                while reads[0].error == Int(EINPROGRESS) { _ = suspend([reads[0]]) }
                #expect(reads[0].holds(0x33))
                let collected = collect(milliseconds: 1000)
                #expect(collected.result == 4096 && collected.block == reads[0].address)
                #expect(collect(milliseconds: 0) == (failure(EAGAIN), 0))
            }
        }
    }

    @Test("What is wrong is refused by the call or told by the request")
    func refusals() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let file = Files.cold()
            func refused(_ change: (BlockRef) -> Void) -> Int {
                let block = Block(file)
                change(block.ref)
                let result = block.read()
                return result == 0 ? -block.error : result
            }
            #expect(refused { $0.it.offset = -1 } == failure(EINVAL))
            #expect(refused { $0.it.length = -1 } == failure(EINVAL))
            #expect(refused { $0.it.priority = 21 } == failure(EINVAL))
            #expect(refused { $0.it.priority = -1 } == failure(EINVAL))
            #expect(refused { $0.it.descriptor = -1 } == failure(EBADF))
            #expect(
                refused {
                    $0.it.notification.kind = Int32(IOCTX_SIGEV_SIGNAL)
                    $0.it.notification.signal = 65
                } == failure(EINVAL))
            #expect(
                refused {
                    $0.it.notification.kind = Int32(IOCTX_SIGEV_EVENTFD)
                    $0.it.notification.value = UInt(file.number)
                } == failure(EINVAL))
            #expect(Block(file).sync(O_RDWR) == failure(EINVAL))
            #expect(PosixAIO.list(7, 0, 0, event: 0, individually: true) == failure(EINVAL))
            #expect(PosixAIO.cancel(-1, 0) == failure(EBADF))
        }
    }

    @Test(
        "A request that waits is ended by aio_cancel, by itself or with its file",
        arguments: TestEngine.available)
    func cancel(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let pipe = Files.pipe()
            let reads = (0..<4).map { _ in Block(pipe.read, 10) }
            for read in reads { #expect(read.read() == 0) }
            // The last waits behind the others.
            for index in [3, 0] {
                #expect(reads[index].cancel() == Int(IOCTX_AIO_CANCELED))
                #expect(reads[index].error == Int(ECANCELED) && reads[index].value == -1)
                #expect(reads[index].cancel() == Int(IOCTX_AIO_ALLDONE))
            }
            #expect(reads[1].error == Int(EINPROGRESS))
            #expect(PosixAIO.cancel(pipe.read.number, 0) == Int(IOCTX_AIO_CANCELED))
            #expect(reads[1].error == Int(ECANCELED) && reads[2].error == Int(ECANCELED))
            #expect(PosixAIO.cancel(pipe.read.number, 0) == Int(IOCTX_AIO_ALLDONE))
            let again = Block(pipe.read, 5)
            #expect(again.read() == 0)
            #expect(Glibc.write(pipe.write.number, "hello", 5) == 5)
            #expect(again.finish() == 5)
        }
    }

    @Test(
        "aio_suspend ends with one request of several, with its time, and with a signal",
        arguments: TestEngine.available)
    func suspending(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let pipes = (0..<3).map { _ in Files.pipe() }
            let reads = pipes.map { Block($0.read, 4) }
            for read in reads { #expect(read.read() == 0) }
            #expect(suspend(reads, milliseconds: 20) == failure(EAGAIN))
            #expect(suspend(reads, milliseconds: 0) == failure(EAGAIN))
            // Without SA_RESTART, which signal() would set.
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in }
            sigaction(SIGUSR1, &action, nil)
            // The threads of a concurrent program block signals.
            var set = sigset_t()
            sigemptyset(&set)
            sigaddset(&set, SIGUSR1)
            pthread_sigmask(SIG_UNBLOCK, &set, nil)
            let main = pthread_self()
            var thread = pthread_t()
            let argument = UnsafeMutablePointer<pthread_t>.allocate(capacity: 1)
            argument.initialize(to: main)
            pthread_create(
                &thread, nil,
                { argument in
                    usleep(50_000)
                    pthread_kill(argument!.load(as: pthread_t.self), SIGUSR1)
                    return nil
                }, argument)
            #expect(suspend(reads) == failure(EINTR))
            pthread_join(thread, nil)
            #expect(Glibc.write(pipes[1].write.number, "abcd", 4) == 4)
            #expect(suspend(reads) == 0)
            #expect(reads[1].value == 4 && reads[0].error == Int(EINPROGRESS))
            withExtendedLifetime(pipes) {}
        }
    }

    @Test(
        "A list is done when all of it is, and says when one of it failed",
        arguments: TestEngine.available)
    func lists(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let file = Files.cold()
            let reads = (0..<40).map { Block(file, 512, at: Int64($0) * 1024) }
            #expect(list(reads, isAwaited: true) == 0)
            for read in reads { #expect(read.error == 0 && read.value == 512) }
            let closed = Block(nil)
            #expect(list(reads + [closed], isAwaited: true) == failure(EIO))
            #expect(closed.error == Int(EBADF) && reads[3].value == 512)
            closed.ref.it.opcode = 99
            #expect(list([closed], isAwaited: false) == failure(EIO))
            #expect(closed.error == Int(EINVAL))
            closed.ref.it.opcode = Int32(IOCTX_LIO_NOP)
            #expect(list([closed], isAwaited: true) == 0)
        }
    }

    @Test(
        "What is with the kernel is seen however it is waited for, and whoever watched before",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"))
    func kernelEvents() async {
        await #expect(processExitsWith: .success) {
            TestEngine.auto.use()
            let read = Block(Files.cold(flags: Files.directFlag))
            for _ in 0..<100 { #expect(read.read() == 0 && read.finish() == 4096) }
            // Only looked at.
            #expect(read.read() == 0)
            while read.error == Int(EINPROGRESS) {}
            #expect(read.value == 4096)
            #expect(read.read() == 0)
            while collect(milliseconds: 0).block == 0 {}
            let engine = PosixFace.current!.it.engine
            // In a handler of a thread that watches.
            #expect(read.read() == 0)
            let watch = engine.watchKernel(CurrentThread().name, among: 1)
            #expect(watch != nil && read.finish() == 4096)
            _ = watch?.end()
            // In the place of a thread that never comes back.
            #expect(read.read() == 0)
            #expect(engine.watchKernel(1, among: 1) != nil)
            #expect(read.finish() == 4096)
            // The daemon is there, and leaves when it is in the way.
            for _ in 0..<100 { #expect(read.read() == 0 && read.finish() == 4096) }
        }
    }

    @Test("A forked child finds its parent's requests cancelled, and may make its own")
    func fork() async {
        await #expect(processExitsWith: .success) {
            TestEngine.auto.use()
            let pipe = Files.pipe()
            let read = Block(pipe.read, 4)
            #expect(read.read() == 0 && read.error == Int(EINPROGRESS))
            let child = ioctx_run_in_child(
                { argument in
                    let read = Unmanaged<Block>.fromOpaque(argument!).takeUnretainedValue()
                    let isRight =
                        read.error == Int(ECANCELED) && suspend([read]) == 0
                        && read.cancel() == Int(IOCTX_AIO_ALLDONE)
                    _exit(isRight ? 0 : 1)
                }, Unmanaged.passUnretained(read).toOpaque())
            #expect(child == 0)
            #expect(read.error == Int(EINPROGRESS))
            #expect(read.cancel() == Int(IOCTX_AIO_CANCELED))
            withExtendedLifetime(pipe) {}
        }
    }
}

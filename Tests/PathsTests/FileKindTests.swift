// What kind of file a descriptor has, and that a wrong guess is never a wrong answer.

import CLibAIO
import Glibc
import JobTable
import TestBed
import TestSupport
import Testing

@testable import Paths

private func kind(_ descriptor: Descriptor) -> FileKind? {
    var facts = FileFacts()
    return FileFacts.of(descriptor.number, &facts) == 0 ? facts.kind : nil
}

@Suite struct FileKindTests {
    @Test("Every kind of file is told from its status and flags") func kinds() {
        let (pipeRead, pipeWrite) = Files.pipe()
        let (socket, _) = Files.socketPair()
        #expect(kind(Files.regular(1)) == .cached)
        #expect(kind(Files.memfd(1)) == .cached, "tmpfs is found out by its first read")
        #expect(kind(pipeRead) == .stream && kind(pipeWrite) == .stream)
        #expect(kind(socket) == .stream)
        #expect(kind(Files.eventfd()) == .stream)
        #expect(kind(Files.timerfd()) == .stream)
        #expect(kind(Files.epoll()) == .stream)
        for memory in ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"] {
            #expect(kind(Files.device(memory, O_RDONLY)) == .memory, "\(memory)")
        }
        let messages = open("/dev/kmsg", O_RDONLY | O_NONBLOCK)
        if messages >= 0 { #expect(kind(Descriptor(messages)) == .stream, "it waits") }
        #expect(kind(Files.device("/", O_RDONLY)) == .directory)
        let terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY)
        if terminal >= 0 { #expect(kind(Descriptor(terminal)) == .stream) }
    }

    @Test(
        "O_DIRECT makes a regular file direct",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"))
    func direct() {
        #expect(kind(Files.regular(4096, flags: O_RDWR | Files.directFlag)) == .direct)
    }

    @Test("The kernel's AIO suits direct I/O, but for writes beyond the end of a regular file")
    func kernelAIO() {
        var facts = FileFacts()
        facts.kind = .direct
        facts.status.type = FileType.regular
        facts.status.size = 8192
        #expect(facts.suitsKernelAIO(isWrite: true, end: 8192))
        #expect(!facts.suitsKernelAIO(isWrite: true, end: 8193))
        #expect(facts.suitsKernelAIO(isWrite: false, end: 8193))
        facts.kind = .cached
        #expect(!facts.suitsKernelAIO(isWrite: false, end: 1))
        facts.kind = .direct
        facts.status.type = FileType.block
        facts.status.size = 0
        #expect(facts.suitsKernelAIO(isWrite: true, end: 8192), "a device has its size elsewhere")
    }

    @Test("Closed descriptors and mere paths are -EBADF") func closed() {
        var facts = FileFacts()
        #expect(FileFacts.of(-1, &facts) == failure(EBADF))
        #expect(FileFacts.of(Int32.max, &facts) == failure(EBADF))
        let path = Files.device("/dev/null", Int32(IOCTX_O_PATH))
        #expect(FileFacts.of(path.number, &facts) == failure(EBADF))
    }

    @Test("Access modes, O_NONBLOCK and shareability are read off") func flags() {
        var facts = FileFacts()
        let (pipeRead, pipeWrite) = Files.pipe()
        _ = FileFacts.of(pipeRead.number, &facts)
        #expect(facts.isReadable && !facts.isWritable && facts.isPipe && facts.isShareable)
        #expect(!facts.isNonBlocking)
        _ = fcntl(pipeWrite.number, F_SETFL, O_NONBLOCK)
        _ = FileFacts.of(pipeWrite.number, &facts)
        #expect(!facts.isReadable && facts.isWritable && facts.isNonBlocking)
        let regular = Files.regular(1)
        _ = FileFacts.of(regular.number, &facts)
        #expect(facts.isReadable && facts.isWritable && facts.isRegular && facts.isShareable)
        #expect(facts.inode != 0)
        let eventfd = Files.eventfd()
        _ = FileFacts.of(eventfd.number, &facts)
        #expect(!facts.isShareable, "all files without an inode share one")
    }

    @Test("A file system in memory is known by its type") func memoryFileSystems() {
        let memfd = Files.memfd()
        let proc = Files.device("/proc/self/maps", O_RDONLY)
        #expect(FileFacts().kindWithoutNowait(memfd.number) == .memory)
        #expect(FileFacts().kindWithoutNowait(proc.number) == .memory)
        #expect(FileFacts().kindWithoutNowait(-1) == .quick)
    }

    @Test(
        "A disk in memory is known by its name, also with O_DIRECT",
        .enabled(if: access("/sys/class/zram-control/hot_add", R_OK) == 0, "needs root and zram"))
    func memoryDevices() throws {
        let zram = try ZRAM(bytes: 1 << 20)
        defer { zram.remove() }
        for (flags, kind) in [(0, FileKind.cached), (Int32(IOCTX_O_DIRECT), .memory)] {
            let device = Files.device(zram.path, O_RDWR | flags)
            var facts = FileFacts()
            #expect(FileFacts.of(device.number, &facts) == 0)
            #expect(facts.kind == kind)
            #expect(facts.kindWithoutNowait(device.number) == .memory)
            #expect(!facts.suitsKernelAIO(isWrite: false, end: 4096))
            #expect(
                facts.suitsKernelAIO(isWrite: false, end: 4096, isSignalled: true)
                    == (kind == .memory))
        }
        #expect(!MemoryDevices.contains(0), "there is no such device")
        #expect(!MemoryDevices.contains(UInt64.max >> 1))
    }

    @Test("A path that is too long leads nowhere") func longPath() {
        var path = ShortPath("/proc/self/fd/")
        for _ in 0..<20 { path.append(1_000_000_000) }
        var target: UInt64 = 0
        #expect(withAddress(of: &target) { path.readLink(into: $0, room: 8) } < 0)
        #expect(withAddress(of: &target) { path.readFile(into: $0, room: 8) } < 0)
    }

    // MARK: Hints

    @Test("A hint is kept for the lower descriptors and harmless for all others") func hints() {
        let engine = makeEngine(.inline)
        for number: Int32 in [0, 1, 4095] {
            #expect(engine.hint(number) == .unknown)
            engine.setHint(number, .slow)
            #expect(engine.hint(number) == .slow)
        }
        for number in [-1, 4096, Int32.max, Int32.min] {
            engine.setHint(number, .slow)
            #expect(engine.hint(number) == .unknown)
        }
        #expect(engine.hint(2) == .unknown)
    }

    /// How many reads of a slow file go to a daemon until one is tried inline.
    private func readsUntilRetry(_ engine: Ref<EngineRecord>, _ number: Int32) -> Int {
        (1...1000).first { _ in engine.isTimeToRetry(number) } ?? 0
    }

    @Test("A slow file is tried again, more rarely after each try in vain, up to a limit")
    func retries() {
        let engine = makeEngine(.inline)
        engine.hintSlow(5)
        var intervals: [Int] = []
        for _ in 0..<8 {
            intervals.append(readsUntilRetry(engine, 5))
            #expect(engine.hint(5) == .slow)
            engine.hintSlow(5)
        }
        #expect(intervals == [4, 8, 16, 32, 64, 128, 256, 256])
        #expect(engine.isTimeToRetry(-1), "without a hint every read is tried")
    }

    @Test("A slow file becomes a quick one after several tries that were quick, not after one")
    func recovery() {
        let engine = makeEngine(.inline)
        for _ in 0..<4 { engine.hintSlow(5) }
        #expect(readsUntilRetry(engine, 5) == 32)
        engine.hintQuick(5, .cached)
        #expect(engine.hint(5) == .slow)
        #expect(readsUntilRetry(engine, 5) == 8)
        engine.hintQuick(5, .cached)
        #expect(readsUntilRetry(engine, 5) == 4)
        engine.hintQuick(5, .cached)
        #expect(engine.hint(5) == .cached)
    }

    @Test("Many misses make a file cold, a few do not, and a file that is read from memory forgets")
    func misses() {
        let engine = makeEngine(.inline)
        for _ in 1..<FileHints.missesMax { engine.hintMiss(5, .cached) }
        #expect(engine.hint(5) == .cached)
        engine.hintQuick(5, .cached)
        for _ in 1..<FileHints.missesMax { engine.hintMiss(5, .cached) }
        #expect(engine.hint(5) == .cached)
        engine.hintMiss(5, .cached)
        #expect(engine.hint(5) == .cold)
        #expect(readsUntilRetry(engine, 5) == 4)
        engine.hintMiss(5, .cached)
        #expect(engine.hint(5) == .cold)
        #expect(readsUntilRetry(engine, 5) == 8)
        engine.hintSlow(5)
        #expect(engine.hint(5) == .slow)
        #expect(readsUntilRetry(engine, 5) == 4, "another kind begins anew")
        for number in [-1, 4096, Int32.max, Int32.min] {
            for _ in 0...FileHints.missesMax { engine.hintMiss(number, .cached) }
            #expect(engine.hint(number) == .unknown)
        }
    }

    @Test("Two slow reads in a row make a file slow, one does not, and a quick one between forgets")
    func slowReads() {
        let engine = makeEngine(.inline)
        for _ in 0..<3 {
            engine.hintMiss(5, .quick)
            #expect(engine.hint(5) == .quick)
            engine.hintQuick(5, .quick)
        }
        engine.hintMiss(5, .quick)
        engine.hintMiss(5, .quick)
        #expect(engine.hint(5) == .slow)
        #expect(readsUntilRetry(engine, 5) == 4)
        engine.hintMiss(5, .quick)
        #expect(engine.hint(5) == .slow)
        #expect(readsUntilRetry(engine, 5) == 8)
    }

    @Test("A read is slow by what it takes beyond its copy, and a failed one by the same measure")
    func slowness() {
        #expect(FileHints.slowReadNs(length: 4096) < 30_000)
        #expect(FileHints.slowReadNs(length: 1 << 20) > 1_000_000)
        #expect(FileHints.slowReadNs(length: -5) == FileHints.slowReadNs(length: 0))
    }
}

/// The number was a cached regular file a moment ago, and is something else now.
@Suite struct StaleHintTests {
    private let engine = makeEngine(.inline)
    private let outbox = Outbox.make()

    private func read(_ file: Descriptor, _ count: Int, offset: Int64 = 0) -> (Started, Buffer) {
        engine.setHint(file.number, .cached)
        let buffer = Buffer(count)
        return (
            engine.run(buffer.request(.read, file.number, offset: offset), to: outbox, at: 0),
            buffer
        )
    }

    @Test(
        "Any hint: a regular file's bytes arrive",
        arguments: FileKind.unknown.rawValue...FileKind.eventfd.rawValue)
    func regularFile(hint value: UInt32) {
        let hint = FileKind(rawValue: value)!
        for file in [Files.regular(8192, of: 3), Files.memfd(8192, of: 3)] {
            engine.setHint(file.number, hint)
            let buffer = Buffer(6000)
            let request = buffer.request(.read, file.number, offset: 4096)
            #expect(engine.run(request, to: outbox, at: 0) == .completed(4096))
            #expect(buffer.isFilled(with: 3, 4096))
        }
    }

    @Test(
        "Any hint: a pipe's and a socket's bytes arrive, the offset is the kernel's business",
        arguments: FileKind.unknown.rawValue...FileKind.eventfd.rawValue)
    func streams(hint value: UInt32) {
        let hint = FileKind(rawValue: value)!
        let (pipeRead, pipeWrite) = Files.pipe()
        let (socket, peer) = Files.socketPair()
        for (file, source, offset) in [
            (pipeRead, pipeWrite, Int64(0)), (pipeRead, pipeWrite, 4096), (socket, peer, 0),
        ] {
            #expect(write(source.number, "hello", 5) == 5)
            engine.setHint(file.number, hint)
            let buffer = Buffer(5)
            let request = buffer.request(.read, file.number, offset: offset)
            #expect(engine.run(request, to: outbox, at: 0) == .completed(5))
            #expect(buffer.bytes[0] == UInt8(ascii: "h"))
        }
        engine.setHint(socket.number, hint)
        let request = Buffer(5).request(.read, socket.number, offset: 1)
        #expect(engine.run(request, to: outbox, at: 0) == .completed(failure(ESPIPE)))
    }

    /// fs/read_write.c, rw_verify_area: also where the offset means nothing.
    @Test("A negative offset on a pipe is refused, and takes nothing") func pipeAtMinusOne() {
        let (pipeRead, pipeWrite) = Files.pipe()
        #expect(write(pipeWrite.number, "hello", 5) == 5)
        for _ in 0..<2 {
            #expect(read(pipeRead, 16, offset: -1).0 == .refused(failure(EINVAL)))
        }
        let buffer = Buffer(16)
        #expect(Glibc.read(pipeRead.number, buffer.bytes.baseAddress!, 16) == 5)
    }

    @Test("A short read of an eventfd keeps what it took") func eventfd() {
        let eventfd = Files.eventfd(5)
        let (started, buffer) = read(eventfd, 16)
        #expect(started == .completed(8))
        #expect(buffer.bytes[0] == 5)
    }

    @Test("Closed, unreadable, or a directory: refused as by the kernel") func refused() {
        let buffer = Buffer(16)
        // A number that no other test can get meanwhile.
        let request = buffer.request(.read, 4090)
        engine.setHint(4090, .cached)
        #expect(engine.run(request, to: outbox, at: 0) == .refused(failure(EBADF)))
        #expect(read(Files.pipe().write, 16).0 == .refused(failure(EBADF)))
        #expect(read(Files.regular(1, flags: O_WRONLY), 16).0 == .refused(failure(EBADF)))
        #expect(read(Files.device("/", O_RDONLY), 16).0 == .refused(failure(EINVAL)))
        let path = Files.device("/dev/null", Int32(IOCTX_O_PATH))
        #expect(read(path, 16).0 == .refused(failure(EBADF)))
    }

    /// fs/aio.c, aio_prep_rw: preadv2 would take -1 for the file's own position.
    @Test(
        "A negative offset on a regular file is refused, and moves no position",
        arguments: [Int64(-1), -2, .min])
    func negativeOffset(offset: Int64) {
        let file = Files.regular(100)
        lseek(file.number, 10, SEEK_SET)
        #expect(read(file, 16, offset: offset).0 == .refused(failure(EINVAL)))
        #expect(lseek(file.number, 0, SEEK_CUR) == 10)
    }

    @Test("Unknown flags are refused whatever the hint says") func unknownFlags() {
        let file = Files.regular(100)
        for hint in [FileKind.unknown, .cached] {
            engine.setHint(file.number, hint)
            var request = Buffer(16).request(.read, file.number)
            request.rwFlags = 0x4000_0000
            #expect(engine.run(request, to: outbox, at: 0) == .refused(failure(EOPNOTSUPP)))
        }
    }

    @Test("The memory devices answer at once") func memoryDevices() {
        #expect(read(Files.device("/dev/null"), 16).0 == .completed(0))
        let (started, buffer) = read(Files.device("/dev/zero"), 16)
        #expect(started == .completed(16) && buffer.isFilled(with: 0, 16))
    }

    @Test(
        "A direct file gives its bytes, and -EINVAL in the event for a crooked request",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"))
    func direct() {
        let file = Files.regular(8192, of: 9, flags: O_RDWR | Files.directFlag)
        let (started, buffer) = read(file, 4096, offset: 4096)
        #expect(started == .completed(4096) && buffer.isFilled(with: 9, 4096))
        #expect(read(file, 100, offset: 1).0 == .completed(failure(EINVAL)))
    }
}

// Notifications: by signal, by thread, by eventfd, of requests and of lists.

import CLibAIO
import CPosixAIO
import Glibc
import JobTable
import Synchronization
import TestSupport
import Testing

@testable import PosixAIO

private let calls = Atomic<Int>(0)
/// A bit for each thread, or value of a signal, that was seen.
private let threads = Atomic<UInt64>(0)
private let gate = Atomic<UInt32>(0)

/// Waits for `expected` calls, not for ever.
private func awaitCalls(_ expected: Int) -> Bool {
    for _ in 0..<5000 where calls.load(ordering: .acquiring) < expected { usleep(1000) }
    return calls.load(ordering: .acquiring) == expected
}

private func threadNotification(
    _ function: @convention(c) (UInt) -> Void, value: UInt = 0
) -> Notification {
    var notification = Notification.none
    notification.kind = Int32(IOCTX_SIGEV_THREAD)
    notification.function = unsafeBitCast(function, to: UInt.self)
    notification.value = value
    return notification
}

private func count(_ value: UInt) {
    threads.bitwiseOr(1 << (UInt64(gettid()) & 63), ordering: .relaxed)
    calls.add(1, ordering: .releasing)
}

private func gettid() -> Int { systemCall(Int32(SYS_gettid)) }

@Suite struct NotifyTests {
    @Test(
        "Functions that return at once share a few threads",
        arguments: TestEngine.available)
    func functions(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let file = Files.cold()
            let reads = (0..<100).map { Block(file, 512, at: Int64($0 % 16) * 4096) }
            for read in reads {
                read.ref.it.notification = threadNotification(count)
                #expect(read.read() == 0)
            }
            #expect(awaitCalls(100))
            for read in reads { #expect(read.error == 0 && read.value == 512) }
            #expect(threads.load(ordering: .relaxed).nonzeroBitCount <= 8)
        }
    }

    @Test("Functions that block do not keep others back", arguments: TestEngine.available)
    func blockedFunctions(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let pipe = Files.pipe()
            let reads = (0..<6).map { _ in Block(pipe.read, 1) }
            for (index, read) in reads.enumerated() {
                // Each of the first five waits for the sixth.
                read.ref.it.notification =
                    index < 5
                    ? threadNotification { _ in
                        while gate.load(ordering: .acquiring) == 0 { usleep(1000) }
                        count(0)
                    }
                    : threadNotification { _ in gate.store(1, ordering: .releasing) }
                #expect(read.read() == 0)
            }
            #expect(Glibc.write(pipe.write.number, "abcdef", 6) == 6)
            #expect(awaitCalls(5))
        }
    }

    @Test("A function may end its thread")
    func endedThread() async {
        await #expect(processExitsWith: .success) {
            TestEngine.threads.use()
            let file = Files.cold()
            for index in 0..<20 {
                let read = Block(file, 512)
                read.ref.it.notification = threadNotification { _ in
                    count(0)
                    pthread_exit(nil)
                }
                #expect(read.read() == 0)
                #expect(awaitCalls(index + 1))
            }
        }
    }

    @Test(
        "An eventfd counts requests and lists",
        .enabled(if: Files.haveDirect, "O_DIRECT is refused in this folder"),
        arguments: TestEngine.available)
    func eventfds(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let counter = Files.eventfd(flags: 0)
            var notification = Notification.none
            notification.kind = Int32(IOCTX_SIGEV_EVENTFD)
            notification.value = UInt(counter.number)
            for flags in [0, Files.directFlag] {
                let file = Files.cold(flags: flags)
                let reads = (0..<8).map { Block(file, 4096, at: Int64($0) * 4096) }
                for read in reads {
                    read.ref.it.notification = notification
                    #expect(read.read() == 0)
                }
                var total: UInt64 = 0
                while total < 8 { total += Files.take(counter) }
                #expect(total == 8)
                for read in reads { #expect(read.error == 0) }
                for read in reads { read.ref.it.notification = .none }
                #expect(list(reads, isAwaited: false, notification: notification) == 0)
                #expect(Files.take(counter) == 1)
                for read in reads { #expect(read.error == 0 && read.value == 4096) }
            }
        }
    }

    @Test(
        "The eventfd of a list is signalled when its number leads elsewhere by then",
        arguments: TestEngine.available)
    func reusedNumber(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            let (counter, stranger) = (Files.eventfd(flags: 0), Files.eventfd(flags: 0))
            let same = Descriptor(dup(counter.number))
            var notification = Notification.none
            notification.kind = Int32(IOCTX_SIGEV_EVENTFD)
            notification.value = UInt(counter.number)
            let pipe = Files.pipe()
            let read = Block(pipe.read, 1)
            #expect(list([read], isAwaited: false, notification: notification) == 0)
            counter.reuse(for: stranger)
            #expect(Glibc.write(pipe.write.number, "a", 1) == 1)
            #expect(Files.take(same) == 1)
            var state = pollfd(fd: stranger.number, events: Int16(POLLIN), revents: 0)
            #expect(poll(&state, 1, 0) == 0)
            withExtendedLifetime(counter) {}
        }
    }

    @Test("A signal is queued with its value", arguments: TestEngine.available)
    func signals(engine: TestEngine) async {
        await #expect(processExitsWith: .success) { [engine = engine as TestEngine] in
            engine.use()
            var action = sigaction()
            action.sa_flags = SA_SIGINFO
            action.__sigaction_handler.sa_sigaction = { _, information, _ in
                let value = information!.pointee._sifields._rt.si_sigval.sival_int
                if information!.pointee.si_code == Int32(IOCTX_SI_ASYNCIO) {
                    threads.bitwiseOr(1 << UInt64(value), ordering: .relaxed)
                }
                calls.add(1, ordering: .releasing)
            }
            sigaction(40, &action, nil)
            let pipe = Files.pipe()
            let reads = (0..<5).map { _ in Block(pipe.read, 1) }
            for (index, read) in reads.enumerated() {
                read.ref.it.notification.kind = Int32(IOCTX_SIGEV_SIGNAL)
                read.ref.it.notification.signal = 40
                read.ref.it.notification.value = UInt(10 + index)
                #expect(read.read() == 0)
            }
            #expect(Glibc.write(pipe.write.number, "abcde", 5) == 5)
            #expect(awaitCalls(5))
            #expect(threads.load(ordering: .relaxed) == 0b11111 << 10)
        }
    }
}

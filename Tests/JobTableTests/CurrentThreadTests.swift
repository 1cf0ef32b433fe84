// What a thread knows of itself.

import CLibAIO
import Glibc
import Testing

@testable import JobTable

@Suite struct CurrentThreadTests {
    @Test("A thread's new I/O priority is known within 16 requests, and none is 0")
    func ioPriority() throws {
        let before = systemCall(Int32(SYS_ioprio_get), 1, 0)
        try #require(before >= 0)
        defer { _ = systemCall(Int32(SYS_ioprio_set), 1, 0, before) }
        // The best-effort class, level 5.
        let wanted: UInt16 = 2 << 13 | 5
        try #require(systemCall(Int32(SYS_ioprio_set), 1, 0, Int(wanted)) == 0)
        #expect((0..<17).map { _ in CurrentThread().ioPriority() }.last == wanted)
        try #require(systemCall(Int32(SYS_ioprio_set), 1, 0, 0) == 0)
        #expect((0..<17).map { _ in CurrentThread().ioPriority() }.last == 0)
    }

    private static func blockedSignals() -> UInt64 {
        var mask = sigset_t()
        pthread_sigmask(SIG_BLOCK, nil, &mask)
        return withUnsafeBytes(of: &mask) { $0.load(as: UInt64.self) }
    }

    @Test("A call that blocks signals itself and then waits as the kernel leaves with the old mask")
    func waitWithSignalsBlocked() {
        let before = Self.blockedSignals()
        let thread = CurrentThread()
        thread.enterCall()
        withSignalsBlocked { thread.blockUntilLeaving() }
        #expect(Self.blockedSignals() == before)
        thread.leaveCall()
        #expect(Self.blockedSignals() == before)
        thread.enterCall()
        thread.blockUntilLeaving()
        #expect(Self.blockedSignals() != before)
        thread.leaveCall()
        #expect(Self.blockedSignals() == before)
    }

    @Test("A call that waits as the kernel is still known to come from a handler")
    func waitInHandler() async {
        await #expect(processExitsWith: .success) {
            signal(SIGUSR1) { _ in }
            // Threads that run tests have signals blocked.
            var mask = sigset_t()
            sigemptyset(&mask)
            pthread_sigmask(SIG_SETMASK, &mask, nil)
            let thread = CurrentThread()
            thread.noteUsualMask()
            #expect(!thread.mayBeInHandler)
            // As in the handler.
            sigaddset(&mask, SIGUSR1)
            pthread_sigmask(SIG_BLOCK, &mask, nil)
            #expect(thread.mayBeInHandler)
            thread.enterCall()
            thread.blockUntilLeaving()
            #expect(thread.mayBeInHandler)
            thread.leaveCall()
        }
    }
}

// What a thread knows of itself.

import CLibAIO
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
}

// Limits from the environment, and the numbers that come from the system's files.

import CLibAIO
import Glibc
import Testing

@testable import JobTable

/// A variable's value and what the limit is with it; nil for the default.
struct LimitExample: Codable, Sendable, CustomTestStringConvertible {
    var name: String
    var value: String
    var expected: UInt32?

    init(_ name: String, _ value: String, _ expected: UInt32?) {
        self.name = name
        self.value = value
        self.expected = expected
    }

    var testDescription: String { "\(name)=\(value)" }

    func limit(_ limits: Limits) -> UInt32 {
        switch name {
        case "IOCTX_MAX_AIO_PROCS": limits.maxAioProcs
        case "IOCTX_MAX_AIO_QUEUE_PER_PROC": limits.maxAioQueuePerProc
        case "IOCTX_AIOD_LIFETIME": limits.aiodLifetimeMs
        case "IOCTX_TARGET_AIO_PROCS": limits.targetAioProcs
        case "IOCTX_AIOD_TIMEOUT": limits.aiodTimeoutMs
        case "IOCTX_MAX_BUF_AIO": limits.maxBufAio
        default: limits.aioMaxNr
        }
    }
}

@Suite struct LimitsTests {
    @Test(
        "Each limit is read from its variable, kept in its range, and ignored when no number",
        arguments: [
            LimitExample("IOCTX_MAX_AIO_PROCS", "7", 7),
            LimitExample("IOCTX_MAX_AIO_PROCS", "0", 1),
            LimitExample("IOCTX_MAX_AIO_PROCS", "1024", 1024),
            LimitExample("IOCTX_MAX_AIO_PROCS", "5000", 1024),
            LimitExample("IOCTX_MAX_AIO_PROCS", "", nil),
            LimitExample("IOCTX_MAX_AIO_PROCS", "many", nil),
            LimitExample("IOCTX_MAX_AIO_PROCS", "-1", nil),
            LimitExample("IOCTX_MAX_AIO_QUEUE_PER_PROC", "256", 256),
            LimitExample("IOCTX_MAX_AIO_QUEUE_PER_PROC", "0", 1),
            LimitExample("IOCTX_MAX_AIO_QUEUE_PER_PROC", "999999999", 1 << 24),
            LimitExample("IOCTX_MAX_AIO_QUEUE_PER_PROC", "x1", nil),
            LimitExample("IOCTX_AIOD_LIFETIME", "50", 50),
            LimitExample("IOCTX_AIOD_LIFETIME", "0", 1),
            LimitExample("IOCTX_AIOD_LIFETIME", "99999999999999999999", 3_600_000),
            LimitExample("IOCTX_TARGET_AIO_PROCS", "0", 0),
            LimitExample("IOCTX_TARGET_AIO_PROCS", "2000", 1024),
            LimitExample("IOCTX_AIOD_TIMEOUT", "20", 20),
            LimitExample("IOCTX_AIOD_TIMEOUT", "0", 1),
            LimitExample("IOCTX_MAX_BUF_AIO", "8", 8),
            LimitExample("IOCTX_MAX_BUF_AIO", "0", 1),
            LimitExample("IOCTX_MAX_BUF_AIO", "70000", 65_536),
            LimitExample("IOCTX_AIO_MAX_NR", "1000", 1000),
            LimitExample("IOCTX_AIO_MAX_NR", "0", 0),
            LimitExample("IOCTX_AIO_MAX_NR", "4294967296", UInt32.max),
            LimitExample("IOCTX_AIO_MAX_NR", "10000000000", UInt32.max),
            LimitExample("IOCTX_AIO_MAX_NR", "00000000000000007", 7),
        ])
    func fromEnvironment(example: LimitExample) async {
        await #expect(processExitsWith: .success) { [example = example as LimitExample] in
            unsetenv(example.name)
            let standard = example.limit(Limits.fromEnvironment())
            setenv(example.name, example.value, 1)
            let limits = Limits.fromEnvironment()
            #expect(example.limit(limits) == example.expected ?? standard)
        }
    }

    @Test("Without variables the defaults stand, and the quota is fs.aio-max-nr")
    func defaults() async {
        await #expect(processExitsWith: .success) {
            for name in [
                "MAX_AIO_PROCS", "TARGET_AIO_PROCS", "MAX_AIO_QUEUE_PER_PROC", "MAX_BUF_AIO",
                "AIOD_LIFETIME", "AIOD_TIMEOUT", "AIO_MAX_NR",
            ] {
                unsetenv("IOCTX_\(name)")
            }
            let limits = Limits.fromEnvironment()
            #expect(limits.maxAioProcs == 32)
            #expect(limits.targetAioProcs == 4)
            #expect(limits.maxAioQueuePerProc == 1 << 20)
            #expect(limits.maxBufAio == 256)
            #expect(limits.aiodLifetimeMs == 2000)
            #expect(limits.aiodTimeoutMs == 500)
            let quota = numberIn("/proc/sys/fs/aio-max-nr")
            #expect(limits.aioMaxNr == UInt32(clamping: quota ?? 65536))
        }
    }

    @Test("Room is reserved for as many jobs as the quota allows, and not for more than the limit")
    func jobsMax() {
        var limits = Limits()
        limits.aioMaxNr = 1
        #expect(limits.jobsMax == 65_536)
        limits.aioMaxNr = 100_000
        #expect(limits.jobsMax == 400_000)
        limits.aioMaxNr = .max
        #expect(limits.jobsMax == limits.maxAioQueuePerProc)
        limits.maxAioQueuePerProc = 256
        #expect(limits.jobsMax == 256)
    }

    @Test("A file that is missing or has no number is no limit") func numbersInFiles() {
        #expect(Limits.numberInFile("/nonexistent") == nil)
        #expect(Limits.numberInFile("/dev/null") == nil)
        #expect(Limits.numberInFile("/proc/sys/kernel/ostype") == nil)
        #expect(
            Limits.numberInFile("/proc/sys/kernel/pid_max").map(UInt64.init)
                == numberIn("/proc/sys/kernel/pid_max"))
    }

    @Test(
        "A list of processors names each number once, in ranges or alone",
        arguments: zip(
            ["0-1\n", "0\n", "0-1,3\n", "0,2,4-127", "", "\n"], [2, 1, 3, 126, 0, 0] as [UInt32]))
    func processorLists(list: String, count: UInt32) {
        let counted = Array(list.utf8).withUnsafeBytes { unsafe Limits.numbersInList($0) }
        #expect(counted == count)
    }

    @Test("Possible processors are as many as the C library says are configured, at least")
    func processors() {
        let configured = sysconf(Int32(_SC_NPROCESSORS_CONF))
        #expect(Int(Limits.possibleProcessors()) >= configured)
        #expect(Limits.possibleProcessors() < 10_000)
    }
}

private func numberIn(_ path: String) -> UInt64? {
    let descriptor = open(path, O_RDONLY)
    if descriptor < 0 { return nil }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 64)
    let count = read(descriptor, &buffer, 64)
    return UInt64(String(decoding: buffer[..<max(count, 0)].prefix { $0 > 32 }, as: UTF8.self))
}

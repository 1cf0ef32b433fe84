// The limits of the job table, with the ancestor's names, set by environment variables.

import CLibAIO

/// The value of an environment variable; nil when unset. Only called while the layer is set up.
public func environmentValue(_ name: StaticString) -> UnsafeMutablePointer<CChar>? {
    unsafe name.utf8Start.withMemoryRebound(
        to: CChar.self, capacity: name.utf8CodeUnitCount
    ) {
        unsafe getenv($0)
    }
}

/// The limits in force, fixed when the table is made. vfs_aio.c has their namesakes as sysctls.
public struct Limits {
    /// Most daemons that the pool of threads runs at once (IOCTX_MAX_AIO_PROCS, 1...1024).
    public var maxAioProcs: UInt32 = 32
    /// Idle workers of the pool that stay for `aiodLifetimeMs`; those beyond stay for
    /// `aiodTimeoutMs` (IOCTX_TARGET_AIO_PROCS, 0...1024).
    public var targetAioProcs: UInt32 = 4
    /// Most jobs that wait or run at once in the process, as far as the quota goes: see `jobsMax`
    /// (IOCTX_MAX_AIO_QUEUE_PER_PROC).
    public var maxAioQueuePerProc: UInt32 = 1 << 20
    /// Most direct requests that are with the process's shared context of the kernel's AIO at once;
    /// those beyond go to a daemon (IOCTX_MAX_BUF_AIO).
    public var maxBufAio: UInt32 = 256
    /// How long an idle daemon stays, in milliseconds (IOCTX_AIOD_LIFETIME).
    public var aiodLifetimeMs: UInt32 = 2000
    /// How long an idle worker beyond `targetAioProcs` stays, in milliseconds
    /// (IOCTX_AIOD_TIMEOUT).
    public var aiodTimeoutMs: UInt32 = 500
    /// The process's own quota of io_setup's events (IOCTX_AIO_MAX_NR, else fs.aio-max-nr, which
    /// is read but not consumed).
    public var aioMaxNr: UInt32 = 65536

    /// Jobs that there can ever be, beyond which io_submit answers -EAGAIN: the rings that the
    /// quota allows have no more slots than about twice the quota, and address space is not free
    /// where it is limited.
    public var jobsMax: UInt32 {
        min(maxAioQueuePerProc, max(65_536, UInt32(clamping: UInt64(aioMaxNr) &* 4)))
    }

    /// The defaults.
    public init() {}

    /// This process's. A variable that is no number counts as unset; one out of range is taken to
    /// its bound.
    public static func fromEnvironment() -> Limits {
        var limits = Limits()
        if let value = environmentNumber("IOCTX_MAX_AIO_PROCS") {
            limits.maxAioProcs = min(max(value, 1), 1024)
        }
        if let value = environmentNumber("IOCTX_TARGET_AIO_PROCS") {
            limits.targetAioProcs = min(value, 1024)
        }
        if let value = environmentNumber("IOCTX_MAX_AIO_QUEUE_PER_PROC") {
            limits.maxAioQueuePerProc = min(max(value, 1), 1 << 24)
        }
        if let value = environmentNumber("IOCTX_MAX_BUF_AIO") {
            limits.maxBufAio = min(max(value, 1), 65_536)
        }
        if let value = environmentNumber("IOCTX_AIOD_LIFETIME") {
            limits.aiodLifetimeMs = min(max(value, 1), 3_600_000)
        }
        if let value = environmentNumber("IOCTX_AIOD_TIMEOUT") {
            limits.aiodTimeoutMs = min(max(value, 1), 3_600_000)
        }
        if let value = environmentNumber("IOCTX_AIO_MAX_NR")
            ?? numberInFile("/proc/sys/fs/aio-max-nr")
        {
            limits.aioMaxNr = value
        }
        return limits
    }

    /// CPUs that the kernel counts on at most; io_setup's sizing depends on it. 1 where that cannot
    /// be read.
    public static func possibleProcessors() -> UInt32 {
        var buffer = InlineArray<32, UInt64>(repeating: 0)
        return unsafe withUnsafeMutableBytes(of: &buffer) { bytes in
            let count = unsafe System.readFile("/sys/devices/system/cpu/possible", into: bytes)
            return unsafe max(
                numbersInList(UnsafeRawBufferPointer(rebasing: bytes[..<max(count, 0)])), 1)
        }
    }

    /// How many numbers a list of the kernel's names: "0-1,3" three.
    static func numbersInList(_ list: UnsafeRawBufferPointer) -> UInt32 {
        var count: UInt32 = 0
        var first: UInt32?
        var number: UInt32?
        for index in 0...list.count {
            let character = unsafe index < list.count ? list[index] : UInt8(ascii: "\n")
            switch character {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                number = (number ?? 0) &* 10 &+ UInt32(character &- UInt8(ascii: "0"))
            case UInt8(ascii: "-"):
                first = number
                number = nil
            default:
                if let last = number { count &+= last &- (first ?? last) &+ 1 }
                first = nil
                number = nil
            }
        }
        return count
    }

    /// The leading decimal number of a variable; nil when unset or not a number.
    static func environmentNumber(_ name: StaticString) -> UInt32? {
        guard let value = unsafe environmentValue(name) else { return nil }
        return unsafe leadingNumber(UnsafeRawBufferPointer(start: value, count: strlen(value)))
    }

    static func numberInFile(_ path: StaticString) -> UInt32? {
        var buffer = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))
        return unsafe withUnsafeMutableBytes(of: &buffer) { bytes in
            let count = unsafe System.readFile(path, into: bytes)
            return unsafe leadingNumber(
                UnsafeRawBufferPointer(rebasing: bytes[..<max(count, 0)]))
        }
    }

    /// The decimal number that a text begins with; nil when it begins with no digit.
    private static func leadingNumber(_ text: UnsafeRawBufferPointer) -> UInt32? {
        var number: UInt64 = 0
        var digits = 0
        // 19 digits fit, and are too large already.
        for index in 0..<min(text.count, 19) {
            let character = unsafe text[index]
            if character < 48 || character > 57 { break }
            number = number &* 10 &+ UInt64(character &- 48)
            digits &+= 1
        }
        return digits == 0 ? nil : UInt32(clamping: number)
    }
}

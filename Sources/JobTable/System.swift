// Raw system calls by name, for every layer above.
//
// Invariant: nothing here is a cancellation point, touches errno or allocates, so all of it may
// be called from a signal handler. Results are the kernel's: a value, or a negated errno.

public import CLibAIO
public import Synchronization

/// The negated errno that the layer's functions return.
@inline(__always)
public func failure(_ errno: Int32) -> Int { -Int(errno) }

/// A system call by its number: what the kernel returns, which is a negated errno when it fails.
@inline(__always)
public func systemCall(
    _ number: Int32, _ a: Int = 0, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0, _ e: Int = 0,
    _ f: Int = 0
) -> Int {
    ioctx_syscall(Int(number), a, b, c, d, e, f)
}

/// The address of a variable of ours for the duration of `body`, as an integer to hand to the
/// kernel.
@inline(__always)
public func withAddress<T: ~Copyable, R>(of value: inout T, _ body: (Int) -> R) -> R {
    unsafe withUnsafeMutablePointer(to: &value) { body(Int(bitPattern: $0)) }
}

/// Room on the stack for `count` values, in which nothing has been stored; 1,024 bytes at most, for
/// more of it would come from malloc.
@inline(__always)
public func withRoom<T, R>(for type: T.Type, _ count: Int, _ body: (_ address: UInt) -> R) -> R {
    unsafe withUnsafeTemporaryAllocation(of: type, capacity: count) {
        body(UInt(bitPattern: $0.baseAddress))
    }
}

/// Runs `body`, which may take locks of the layer, with signals blocked.
@inline(__always)
public func withSignalsBlocked<R>(_ body: () -> R) -> R {
    let before = CurrentThread().blockSignals()
    defer { CurrentThread().restoreSignals(before) }
    return body()
}

/// System calls by their raw interface: results are values or negated errnos, errno is not touched,
/// and none is a cancellation point but those that say so.
public enum System {
    /// Largest number of bytes that one read or write moves; the kernel truncates to it.
    public static let transferBytesMax = 0x7fff_f000

    /// True when a filter of system calls is active, or it cannot be told: it may kill for a call
    /// that the program itself never makes. Asked each time, for a program may install one late.
    public static var isFiltered: Bool { systemCall(Int32(SYS_prctl), Int(PR_GET_SECCOMP)) != 0 }

    /// The soft limit RLIMIT_*; nil where it cannot be asked for.
    public static func softLimit(_ resource: __rlimit_resource) -> UInt64? {
        var limit = rlimit()
        let result = withAddress(of: &limit) {
            systemCall(Int32(SYS_prlimit64), 0, Int(resource.rawValue), 0, $0)
        }
        return result < 0 ? nil : UInt64(limit.rlim_cur)
    }

    /// fcntl(2) with F_GETFL.
    @inline(__always)
    public static func fileFlags(_ descriptor: Int32) -> Int {
        systemCall(Int32(SYS_fcntl), Int(descriptor), Int(F_GETFL))
    }

    /// The same for a file that can be read or written: -EBADF for a closed descriptor, and for one
    /// opened with O_PATH, which the kernel's AIO does not see either (fs/file.c, fget).
    @inline(__always)
    public static func openFlags(_ descriptor: Int32) -> Int {
        let flags = fileFlags(descriptor)
        return flags < 0 || flags & Int(IOCTX_O_PATH) != 0 ? failure(EBADF) : flags
    }

    /// close(2), of a descriptor of ours. What it answers changes nothing.
    @inline(__always)
    public static func close(_ descriptor: Int32) {
        _ = systemCall(Int32(SYS_close), Int(descriptor))
    }

    /// A descriptor of ours as far up as leaves 0 to 2 to the program, which may have closed them
    /// to open something else there. The same one where there is no room.
    public static func awayFromStandardStreams(_ descriptor: Int32) -> Int32 {
        if descriptor > 2 || descriptor < 0 { return descriptor }
        let moved = systemCall(
            Int32(SYS_fcntl), Int(descriptor), Int(F_DUPFD_CLOEXEC), 3)
        if moved < 0 { return descriptor }
        close(descriptor)
        return Int32(truncatingIfNeeded: moved)
    }

    /// preadv2 or pwritev2. `offset` -1 means the file's own position, which is what pipes and
    /// sockets need. On 64-bit machines the offset is one argument and the second is ignored.
    @inline(__always)
    public static func transfer(
        isWrite: Bool, _ descriptor: Int32, _ vectors: UInt, _ count: Int, _ offset: Int64,
        _ rwFlags: Int32
    ) -> Int {
        systemCall(
            isWrite ? Int32(SYS_pwritev2) : Int32(SYS_preadv2), Int(descriptor),
            Int(bitPattern: vectors), count, Int(offset), 0, Int(rwFlags))
    }

    /// fsync(2), or fdatasync(2) for the data only.
    public static func sync(_ descriptor: Int32, dataOnly: Bool) -> Int {
        systemCall(dataOnly ? Int32(SYS_fdatasync) : Int32(SYS_fsync), Int(descriptor))
    }

    /// Readiness of one descriptor now, as poll(2) reports it; 0 when not ready.
    @inline(__always)
    public static func readiness(of descriptor: Int32, _ events: UInt32) -> Int {
        var entry = pollfd(
            fd: descriptor, events: Int16(truncatingIfNeeded: events), revents: 0)
        var zero = timespec(tv_sec: 0, tv_nsec: 0)
        while true {
            let count = withAddress(of: &entry) { entryAddress in
                withAddress(of: &zero) {
                    systemCall(Int32(SYS_ppoll), entryAddress, 1, $0, 0, 0)
                }
            }
            // A signal that is pending interrupts even a call that does not wait.
            if count == failure(EINTR) { continue }
            return count <= 0 ? count : Int(UInt16(bitPattern: entry.revents))
        }
    }

    /// CLOCK_MONOTONIC; no system call where the kernel has a vDSO.
    @inline(__always)
    public static func monotonicNs() -> UInt64 {
        var now = timespec(tv_sec: 0, tv_nsec: 0)
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(truncatingIfNeeded: now.tv_sec) &* 1_000_000_000
            &+ UInt64(truncatingIfNeeded: now.tv_nsec)
    }

    /// Whether a moment on that clock has come; UInt64.max never does, and takes no look.
    @inline(__always)
    public static func isPast(_ deadlineNs: UInt64) -> Bool {
        deadlineNs != .max && monotonicNs() >= deadlineNs
    }

    /// A signal handler ends it early.
    @discardableResult
    public static func sleep(nanoseconds: UInt64) -> Int {
        var time = timespec(nanoseconds: nanoseconds)
        return withAddress(of: &time) { systemCall(Int32(SYS_nanosleep), $0, 0) }
    }

    /// Whether a socket is one of AF_UNIX.
    public static func isLocalSocket(_ descriptor: Int32) -> Bool {
        var domain: Int32 = 0
        var bytes: UInt32 = 4
        return withAddress(of: &domain) { domainAddress in
            withAddress(of: &bytes) {
                systemCall(
                    Int32(SYS_getsockopt), Int(descriptor), Int(SOL_SOCKET), 39,  // SO_DOMAIN
                    domainAddress, $0)
            }
        } == 0 && domain == AF_UNIX
    }

    /// The calling thread's identifier. Not cached: a forked child has the thread-locals of its
    /// parent, but not its identifiers.
    @inline(__always)
    public static func threadIdentifier() -> Int32 {
        Int32(truncatingIfNeeded: systemCall(Int32(SYS_gettid)))
    }

    /// False when a filter of system calls is active that may kill whoever opens a file: a sandbox
    /// opens what it needs and then nothing more.
    public static var mayOpenFiles: Bool {
        if opensNothing.load(ordering: .relaxed) { return false }
        if !filterForbids({ System.openRoot() }) { return true }
        opensNothing.store(true, ordering: .relaxed)
        return false
    }

    /// It was found so, and no filter is ever taken back.
    private static let opensNothing = Atomic<Bool>(false)

    private static func openRoot() -> Int {
        let path: StaticString = "/"
        return unsafe systemCall(
            Int32(SYS_openat), Int(AT_FDCWD), Int(bitPattern: path.utf8Start), Int(IOCTX_O_PATH))
    }

    /// True when a filter of system calls is active and what `body` does fails in a child: here it
    /// might be killed for it.
    public static func filterForbids(_ body: @convention(c) () -> Int) -> Bool {
        if !isFiltered { return false }
        var body = body
        return withAddress(of: &body) { bodyAddress in
            unsafe ioctx_run_in_child(
                { argument in
                    typealias Body = @convention(c) () -> Int
                    if Ref<Body>(address: UInt(bitPattern: argument))?.it() ?? -1 < 0 {
                        _ = systemCall(Int32(SYS_exit_group), 1)
                    }
                }, UnsafeMutableRawPointer(bitPattern: bodyAddress)) != 0
        }
    }

    /// Reads a small file such as a sysctl into `buffer`; the number of bytes, or a negated errno.
    static func readFile(_ path: StaticString, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        if !mayOpenFiles { return failure(EPERM) }
        let descriptor = unsafe systemCall(
            Int32(SYS_openat), Int(AT_FDCWD), Int(bitPattern: path.utf8Start),
            Int(O_RDONLY | O_CLOEXEC))
        if descriptor < 0 { return descriptor }
        let count = systemCall(
            Int32(SYS_read), descriptor, Int(bitPattern: buffer.baseAddress), buffer.count)
        close(Int32(truncatingIfNeeded: descriptor))
        return count
    }
}

extension timespec {
    /// A moment or a time on a clock of nanoseconds; one of more than a hundred years becomes that.
    public init(nanoseconds: UInt64) {
        let bounded = Swift.min(nanoseconds, 1 << 62)
        self.init(
            tv_sec: Int(truncatingIfNeeded: bounded / 1_000_000_000),
            tv_nsec: Int(truncatingIfNeeded: bounded % 1_000_000_000))
    }
}

// MARK: - Futex

extension Atomic<UInt32> {
    /// Sleeps while the word is `expected`, until `deadlineNs` on the monotonic clock
    /// (`UInt64.max` for ever). Returns 0 when woken, or -EAGAIN, -EINTR, -ETIMEDOUT.
    ///
    /// There is always a timeout: without one the kernel would restart the wait after a handler
    /// installed with SA_RESTART, where io_getevents answers EINTR (futex(2), signal(7)).
    @inline(__always)
    public borrowing func wait(while expected: UInt32, until deadlineNs: UInt64) -> Int {
        var deadline = timespec(nanoseconds: deadlineNs)
        return unsafe withUnsafePointer(to: self) { word in
            withAddress(of: &deadline) {
                systemCall(
                    Int32(SYS_futex), Int(bitPattern: word),
                    Int(FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG), Int(expected), $0, 0,
                    Int(UInt32.max))
            }
        }
    }

    /// FUTEX_WAKE: wakes at most so many who wait for this word.
    @inline(__always)
    public borrowing func wake(_ count: Int32 = Int32.max) {
        unsafe withUnsafePointer(to: self) {
            _ = systemCall(
                Int32(SYS_futex), Int(bitPattern: $0), Int(FUTEX_WAKE | FUTEX_PRIVATE_FLAG),
                Int(count))
        }
    }

    /// Wakes those whose bits are among these.
    public borrowing func wake(bits: UInt32) {
        unsafe withUnsafePointer(to: self) {
            _ = systemCall(
                Int32(SYS_futex), Int(bitPattern: $0),
                Int(FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG), Int(Int32.max), 0, 0, Int(bits))
        }
    }
}

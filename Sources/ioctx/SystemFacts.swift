// The facts behind `ioctx probe`. The names of the stored properties are the keys of --json.
//
// System calls that a seccomp filter might answer by a kill are made in a child, which leaves
// what it finds in a page of shared memory.

import CLibAIO
import Glibc
import JobTable
import Paths

struct SystemFacts: Encodable {
    struct Kernel: Encodable {
        let release: String
        let machine: String
    }

    struct KernelAio: Encodable {
        let available: Bool
        let errno: Int32
        let killedBySeccomp: Bool
        let aioNr: Known<Int>
        let aioMaxNr: Known<Int>
    }

    struct Uring: Encodable {
        let available: Bool
        let errno: Int32
        let killedBySeccomp: Bool
        let disabled: Known<Int>
        let singleIssuerDeferTaskrun: Bool
        /// Of the question which operations there are.
        let registerErrno: Int32
        let msgRingSendFd: Bool
        let operations: [String: Bool]
        let features: [String]
    }

    struct Seccomp: Encodable {
        enum Mode: String, Encodable {
            case disabled, strict, filter, unknown
        }

        let mode: Mode
        let filters: Known<Int>
    }

    struct Limit: Encodable {
        let soft: Known<UInt64>
        let hard: Known<UInt64>
    }

    struct ResourceLimits: Encodable {
        let nofile: Limit
        let memlock: Limit
        let nproc: Limit
    }

    struct Candidate: Encodable {
        let serves: Bool
        let obstacle: String
        let errno: Int32
        let reason: String
    }

    struct EngineFacts: Encodable {
        let auto: String
        let requested: Known<String>
        let uring: Candidate
        let threads: Candidate
    }

    let schema: Int
    let version: String
    let kernel: Kernel
    let engine: EngineFacts
    let ioUring: Uring
    let kernelAio: KernelAio
    let seccomp: Seccomp
    let limits: ResourceLimits
    let pageSizeBytes: Int
    /// CPUs that may ever be plugged in, by which io_setup sizes its rings.
    let cpusPossible: Int

    static func gather() -> SystemFacts {
        let kernel = kernelNow()
        let uring = uringNow()
        let seccomp = seccompNow()
        return SystemFacts(
            schema: 1,
            version: IOCtx.configuration.version,
            kernel: kernel,
            engine: enginesNow(kernel: kernel, uring: uring, seccomp: seccomp),
            ioUring: uring,
            kernelAio: kernelAioNow(),
            seccomp: seccomp,
            limits: ResourceLimits(
                nofile: limit(RLIMIT_NOFILE), memlock: limit(__RLIMIT_MEMLOCK),
                nproc: limit(__RLIMIT_NPROC)),
            pageSizeBytes: sysconf(Int32(_SC_PAGESIZE)),
            cpusPossible: Int(Limits.possibleProcessors()))
    }
}

extension SystemFacts.Limit {
    var text: String {
        func words(_ known: Known<UInt64>) -> String {
            known.value.map(\.description) ?? "unlimited"
        }
        return soft.value == hard.value
            ? words(soft) : "\(words(soft)), can be raised to \(words(hard))"
    }
}

extension SystemFacts.Uring {
    var failure: String { failureText(errno: errno, killed: killedBySeccomp) }
}

extension SystemFacts.KernelAio {
    var failure: String { failureText(errno: errno, killed: killedBySeccomp) }
}

private func failureText(errno: Int32, killed: Bool) -> String {
    killed ? "is killed by a seccomp filter" : "fails: \(Failure.describe(errno))"
}

// MARK: - Reading the system

extension SystemFacts {
    private static func kernelNow() -> Kernel {
        var names = utsname()
        uname(&names)
        func text<T>(_ field: T) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        return Kernel(release: text(names.release), machine: text(names.machine))
    }

    private static func limit(_ resource: __rlimit_resource) -> Limit {
        var values = rlimit()
        getrlimit(Int32(resource.rawValue), &values)
        func known(_ value: rlim_t) -> Known<UInt64> {
            Known(value == ~0 ? nil : UInt64(value))
        }
        return Limit(soft: known(values.rlim_cur), hard: known(values.rlim_max))
    }

    private static func number(in path: String) -> Known<Int> {
        Known(SystemFile.text(of: path).flatMap { Int($0.prefix { !$0.isWhitespace }) })
    }

    private static func seccompNow() -> Seccomp {
        func field(_ name: String) -> Int? {
            let line = SystemFile.text(of: "/proc/self/status")?.split(separator: "\n").first {
                $0.hasPrefix("\(name):")
            }
            return line?.split(whereSeparator: \.isWhitespace).last.flatMap { Int($0) }
        }
        let mode: Seccomp.Mode
        switch field("Seccomp") {
        case 0: mode = .disabled
        case 1: mode = .strict
        case 2: mode = .filter
        default: mode = .unknown
        }
        return Seccomp(mode: mode, filters: Known(field("Seccomp_filters")))
    }

    private static func kernelAioNow() -> KernelAio {
        let found = inChild { memory in
            let page = memory!.assumingMemoryBound(to: Found.self)
            var context: UInt = 0
            let result = withUnsafeMutablePointer(to: &context) {
                ioctx_syscall(Int(SYS_io_setup), 1, Int(bitPattern: $0), 0, 0, 0, 0)
            }
            page.pointee.errno = Int32(truncatingIfNeeded: -result)
        }
        return KernelAio(
            available: found.errno == 0, errno: found.errno, killedBySeccomp: found.wasKilled,
            aioNr: number(in: "/proc/sys/fs/aio-nr"),
            aioMaxNr: number(in: "/proc/sys/fs/aio-max-nr"))
    }
}

// MARK: - Trying system calls

/// What a probing child leaves behind.
private struct Found {
    /// Overwritten by the child; as it stands, the child was killed before it could say.
    var errno: Int32 = Found.nothing
    var wasKilled = false
    var features: UInt32 = 0
    var hasDeferTaskrun = false
    var registerErrno: Int32 = 0
    /// One bit for each io_uring operation.
    var operations: UInt64 = 0

    static let nothing: Int32 = -1

    func has(_ operation: Int) -> Bool {
        operations & (1 << UInt64(operation)) != 0
    }
}

extension SystemFacts {
    /// Runs `body` in a child. It shares nothing with us but the page of `Found` that it gets, may
    /// only make raw system calls, and is killed in our place when a filter forbids one of them.
    private static func inChild(
        _ body: @convention(c) (UnsafeMutableRawPointer?) -> Void
    ) -> Found {
        let size = MemoryLayout<Found>.size
        let memory = mmap(
            nil, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { return Found(errno: ENOMEM) }
        defer { munmap(memory, size) }
        let page = memory.bindMemory(to: Found.self, capacity: 1)
        page.initialize(to: Found())
        let status = ioctx_run_in_child(body, memory)
        var found = page.pointee
        if status < 0 {
            found.errno = -status
        } else if found.errno == Found.nothing {
            // A kill has no errno: the one for what is forbidden stands in, with the flag.
            found.errno = EPERM
            found.wasKilled = true
        }
        return found
    }

    /// Why no filter of system calls can be installed here, as a library is to do in the program
    /// for `ioctx run --intercept seccomp`; nil where it can be.
    static func filterRefusal() -> String? {
        let found = inChild { memory in
            // struct sock_fprog with one struct sock_filter, which allows everything
            // (linux/filter.h).
            var allow: UInt64 = UInt64(0x7fff_0000) << 32 | 0x06
            let result = withUnsafeMutablePointer(to: &allow) { instruction in
                var program = (UInt16(1), Int(bitPattern: instruction))
                let made = ioctx_syscall(
                    Int(SYS_prctl), Int(PR_SET_NO_NEW_PRIVS), 1, 0, 0, 0, 0)
                return made < 0
                    ? made
                    : withUnsafeMutablePointer(to: &program) {
                        // SECCOMP_SET_MODE_FILTER, with the library's flags: TSYNC and SPEC_ALLOW.
                        ioctx_syscall(Int(SYS_seccomp), 1, 5, Int(bitPattern: $0), 0, 0, 0)
                    }
            }
            memory!.assumingMemoryBound(to: Found.self).pointee.errno =
                Int32(truncatingIfNeeded: -result)
        }
        return found.errno == 0
            ? nil : "seccomp(2) \(failureText(errno: found.errno, killed: found.wasKilled))"
    }

    private static func uringNow() -> Uring {
        let found = inChild { memory in
            let page = memory!.assumingMemoryBound(to: Found.self)
            let ring = SystemFacts.setUpRing(flags: 0) { page.pointee.features = $0 }
            guard ring >= 0 else {
                page.pointee.errno = Int32(truncatingIfNeeded: -ring)
                return
            }
            let flags = URING_SETUP_SINGLE_ISSUER | URING_SETUP_DEFER_TASKRUN
            page.pointee.hasDeferTaskrun = SystemFacts.setUpRing(flags: flags) { _ in } >= 0
            var probe = uring_probe()
            let registered = withUnsafeMutablePointer(to: &probe) {
                ioctx_syscall(
                    Int(IOCTX_SYS_io_uring_register), ring, Int(URING_REGISTER_PROBE),
                    Int(bitPattern: $0), 64, 0, 0)
            }
            page.pointee.registerErrno = Int32(truncatingIfNeeded: -registered)
            withUnsafeBytes(of: &probe.ops) { bytes in
                for (index, entry) in bytes.bindMemory(to: uring_probe_op.self).enumerated()
                where Int(entry.flags) & Int(URING_OP_SUPPORTED) != 0 {
                    page.pointee.operations |= 1 << UInt64(index)
                }
            }
            // Last, so that a child killed on the way has said nothing.
            page.pointee.errno = 0
        }
        return Uring(
            available: found.errno == 0, errno: found.errno, killedBySeccomp: found.wasKilled,
            disabled: number(in: "/proc/sys/kernel/io_uring_disabled"),
            singleIssuerDeferTaskrun: found.hasDeferTaskrun,
            registerErrno: found.registerErrno,
            msgRingSendFd: found.has(sendZeroCopyOperation),
            operations: operationsNeeded.mapValues { found.has(Int($0)) },
            features: featureNames.enumerated().compactMap { index, name in
                found.features & (1 << UInt32(index)) == 0 ? nil : name
            })
    }

    /// The ring's descriptor, or a negated errno; `body` gets the kernel's feature bits.
    private static func setUpRing(flags: Int, _ body: (UInt32) -> Void) -> Int {
        var params = uring_params()
        params.flags = UInt32(flags)
        let ring = withUnsafeMutablePointer(to: &params) {
            ioctx_syscall(Int(IOCTX_SYS_io_uring_setup), 1, Int(bitPattern: $0), 0, 0, 0, 0)
        }
        if ring >= 0 { body(params.features) }
        return ring
    }

    private static let operationsNeeded = [
        "readv": URING_OP_READV, "writev": URING_OP_WRITEV, "fsync": URING_OP_FSYNC,
        "poll_add": URING_OP_POLL_ADD, "async_cancel": URING_OP_ASYNC_CANCEL,
        "close": URING_OP_CLOSE,
        "read": URING_OP_READ, "write": URING_OP_WRITE, "msg_ring": URING_OP_MSG_RING,
        "futex_wait": URING_OP_FUTEX_WAIT,
    ]

    /// IORING_OP_SEND_ZC came with the same kernel as MSG_RING's SEND_FD, which no probe names.
    private static let sendZeroCopyOperation = 47

    /// IORING_FEAT_*, bit by bit.
    private static let featureNames = [
        "SINGLE_MMAP", "NODROP", "SUBMIT_STABLE", "RW_CUR_POS", "CUR_PERSONALITY", "FAST_POLL",
        "POLL_32BITS", "SQPOLL_NONFIXED", "EXT_ARG", "NATIVE_WORKERS", "RSRC_TAGS", "CQE_SKIP",
        "LINKED_FILE", "REG_REG_RING", "RECVSEND_BUNDLE", "MIN_TIMEOUT", "RW_ATTR", "NO_IOWAIT",
    ]
}

// MARK: - Engines

extension SystemFacts {
    private static func enginesNow(
        kernel: Kernel, uring: Uring, seccomp: Seccomp
    ) -> EngineFacts {
        let survey = Engine.survey()
        // A filter may leave io_uring_setup alone; what it hides then looks like an old kernel.
        let isHidden = survey.uring == .kernelTooOld && uring.registerErrno != 0
        let uringReason = reason(
            isHidden ? .notPermitted : survey.uring, errno: survey.uringErrno, what: "io_uring",
            notPermitted: notPermittedReason(uring: uring, seccomp: seccomp),
            tooOld: "Linux \(kernel.release) lacks an io_uring feature that the layer needs; "
                + "it is there from Linux 6.7")
        let threadsReason = reason(
            survey.threads, errno: survey.threadsErrno, what: "the pool of threads",
            notPermitted: "a private descriptor table (close_range or unshare) is not permitted; "
                + "allow it in the seccomp profile",
            tooOld: "Linux \(kernel.release) is too old for it; use a newer kernel")
        return EngineFacts(
            auto: name(survey.chosen),
            requested: Known(getenv(EngineChoice.variable).map { String(cString: $0) }),
            uring: Candidate(
                serves: survey.uring == .none, obstacle: survey.uring.key,
                errno: survey.uringErrno, reason: uringReason),
            threads: Candidate(
                serves: survey.threads == .none, obstacle: survey.threads.key,
                errno: survey.threadsErrno, reason: threadsReason))
    }

    private static func name(_ engine: Engine) -> String {
        engine == .automatic ? "auto" : "\(engine)"
    }

    private static func notPermittedReason(uring: Uring, seccomp: Seccomp) -> String {
        switch uring.disabled.value {
        case 2:
            return "io_uring is switched off; 'sysctl -w kernel.io_uring_disabled=0' allows it"
        case 1 where geteuid() != 0:
            return "io_uring is reserved for privileged users; "
                + "'sysctl -w kernel.io_uring_disabled=0' allows it, "
                + "or membership of the group in kernel.io_uring_group"
        default:
            return seccomp.mode == .filter
                ? "a seccomp filter forbids io_uring; use a profile that allows io_uring_setup, "
                    + "io_uring_enter and io_uring_register "
                    + "(docker run --security-opt seccomp=FILE)"
                : "io_uring is not permitted; a security module may forbid it: ask its policy"
        }
    }

    private static func reason(
        _ obstacle: Obstacle, errno: Int32, what: String, notPermitted: String, tooOld: String
    ) -> String {
        switch obstacle {
        case .none:
            return ""
        case .notPermitted:
            return notPermitted
        case .notImplemented:
            return "\(what) is not implemented here; use a kernel that has it, "
                + "or a seccomp profile that does not hide it"
        case .killedBySeccomp:
            return "a seccomp filter kills a process that uses \(what); "
                + "use a profile that allows its system calls"
        case .kernelTooOld:
            return tooOld
        case .descriptorLimit:
            return "\(what) needs more file descriptors; raise the limit with 'ulimit -n'"
        case .noMemory:
            return "\(what) needs memory that it cannot have; raise the limit with 'ulimit -l', "
                + "or give the container more memory"
        case .other:
            return "\(what) fails: \(Failure.describe(errno)); "
                + "report it with the output of 'ioctx probe --json'"
        }
    }
}

extension Obstacle {
    fileprivate var key: String {
        switch self {
        case .none: "none"
        case .notPermitted: "not_permitted"
        case .notImplemented: "not_implemented"
        case .killedBySeccomp: "killed_by_seccomp"
        case .kernelTooOld: "kernel_too_old"
        case .descriptorLimit: "descriptor_limit"
        case .noMemory: "no_memory"
        case .other: "other"
        }
    }
}

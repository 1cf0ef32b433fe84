// The system calls that the two sides make, by name.

import CBenchmark
import CLibAIO
import Glibc

enum CallNames {
    private static let names: [Int: String] = [
        Int(SYS_io_submit): "io_submit", Int(SYS_io_getevents): "io_getevents",
        Int(SYS_io_pgetevents): "io_pgetevents", Int(SYS_io_setup): "io_setup",
        Int(SYS_io_destroy): "io_destroy", Int(SYS_io_cancel): "io_cancel",
        Int(SYS_preadv2): "preadv2", Int(SYS_pwritev2): "pwritev2", Int(SYS_read): "read",
        Int(SYS_write): "write", Int(SYS_pread64): "pread64", Int(SYS_pwrite64): "pwrite64",
        Int(SYS_preadv): "preadv", Int(SYS_pwritev): "pwritev", Int(SYS_fsync): "fsync",
        Int(SYS_fdatasync): "fdatasync", Int(SYS_futex): "futex", Int(SYS_fcntl): "fcntl",
        Int(SYS_fstat): "fstat", Int(SYS_poll): "poll", Int(SYS_ppoll): "ppoll",
        Int(SYS_epoll_ctl): "epoll_ctl", Int(SYS_epoll_pwait): "epoll_pwait",
        Int(SYS_sendmsg): "sendmsg", Int(SYS_recvmsg): "recvmsg", Int(SYS_close): "close",
        Int(SYS_mmap): "mmap", Int(SYS_munmap): "munmap", Int(SYS_mremap): "mremap",
        Int(SYS_madvise): "madvise", Int(SYS_process_vm_readv): "process_vm_readv",
        Int(SYS_rt_sigprocmask): "rt_sigprocmask", Int(SYS_rt_sigqueueinfo): "rt_sigqueueinfo",
        Int(SYS_rt_sigtimedwait): "rt_sigtimedwait", Int(SYS_clone3): "clone3",
        Int(SYS_prlimit64): "prlimit64", Int(SYS_ioprio_get): "ioprio_get",
        Int(SYS_getpid): "getpid", Int(SYS_getuid): "getuid",
        Int(SYS_kcmp): "kcmp", Int(IOCTX_SYS_io_uring_enter): "io_uring_enter",
        Int(IOCTX_SYS_io_uring_register): "io_uring_register",
    ]

    static func named(_ calls: benchmark_calls) -> [String: UInt64] {
        var result: [String: UInt64] = [:]
        withUnsafeBytes(of: calls.count) { bytes in
            for (number, count) in bytes.bindMemory(to: UInt64.self).enumerated() where count > 0 {
                result[names[number] ?? "\(number)"] = count
            }
        }
        return result
    }
}

/*
 * Raw system calls, thread-locals and thread start.
 *
 * The layer's entry points are system calls to their users: they must not be cancellation
 * points and must not touch errno, so nothing here goes through the C library's wrappers.
 * Every call returns the kernel's value: a result, or a negated errno.
 */
#ifndef IOCTX_SYSTEM_H
#define IOCTX_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__x86_64__)
static inline intptr_t ioctx_syscall(intptr_t number, intptr_t a, intptr_t b, intptr_t c,
                                     intptr_t d, intptr_t e, intptr_t f)
{
    intptr_t result;
    register intptr_t r10 __asm__("r10") = d;
    register intptr_t r8 __asm__("r8") = e;
    register intptr_t r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline intptr_t ioctx_syscall(intptr_t number, intptr_t a, intptr_t b, intptr_t c,
                                     intptr_t d, intptr_t e, intptr_t f)
{
    register intptr_t x8 __asm__("x8") = number;
    register intptr_t x0 __asm__("x0") = a;
    register intptr_t x1 __asm__("x1") = b;
    register intptr_t x2 __asm__("x2") = c;
    register intptr_t x3 __asm__("x3") = d;
    register intptr_t x4 __asm__("x4") = e;
    register intptr_t x5 __asm__("x5") = f;

    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "the layer knows the system call convention of x86_64 and aarch64 only"
#endif

/*
 * The sixth argument of the layer's own io_* calls, by which the filter of libioctx-seccomp.so knows
 * them. No pointer has this value: its upper bits make it no address.
 */
#define IOCTX_EXEMPT 0x10c7a10c0de10c7a

/* Numbers that older C library headers do not have; the same on every architecture. */
enum {
    IOCTX_SYS_io_uring_setup = 425,
    IOCTX_SYS_io_uring_enter = 426,
    IOCTX_SYS_io_uring_register = 427,
    IOCTX_SYS_pidfd_open = 434,
    IOCTX_SYS_close_range = 436,
    IOCTX_SYS_pidfd_getfd = 438,
};

#if defined(__aarch64__)
enum { IOCTX_O_DIRECT = 0200000, IOCTX_O_LARGEFILE = 0400000 };
#else
enum { IOCTX_O_DIRECT = 040000, IOCTX_O_LARGEFILE = 0100000 };
#endif

enum {
    IOCTX_SCHED_IDLE = 5,
    IOCTX_SCHED_DEADLINE = 6,
    IOCTX_SCHED_RESET_ON_FORK = 0x40000000,
    IOCTX_O_PATH = 010000000,
    IOCTX_RWF_HIPRI = 0x01,
    IOCTX_RWF_DSYNC = 0x02,
    IOCTX_RWF_SYNC = 0x04,
    IOCTX_RWF_NOWAIT = 0x08,
    IOCTX_RWF_APPEND = 0x10,
    IOCTX_RWF_NOAPPEND = 0x20,
    IOCTX_RWF_ATOMIC = 0x40,
    IOCTX_RWF_DONTCACHE = 0x80,
    IOCTX_RWF_NOSIGNAL = 0x100,
    IOCTX_MADV_WIPEONFORK = 18,
    IOCTX_MFD_CLOEXEC = 1,
    IOCTX_MFD_NOEXEC_SEAL = 8,
    IOCTX_POLLRDHUP = 0x2000,
    IOCTX_MREMAP_MAYMOVE = 1,
    IOCTX_MREMAP_FIXED = 2,
    IOCTX_CLOSE_RANGE_UNSHARE = 2,
};

/* struct epoll_event with the low half of its data only, without a packed 64-bit field. */
struct ioctx_epoll_event {
    uint32_t events;
#if !defined(__x86_64__)
    uint32_t padding;
#endif
    uint32_t data;
    uint32_t data_high;
};
_Static_assert(sizeof(struct ioctx_epoll_event) == sizeof(struct epoll_event), "epoll_event");

/* The compiler moves no access to memory across it. */
static inline void ioctx_compiler_barrier(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* For a loop that waits for another processor. */
static inline void ioctx_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* mmap(2), where the kernel likes, and munmap(2): functions of their own for ThreadSanitizer's sake. */
intptr_t ioctx_map(size_t bytes, int protection, int flags, int file);
intptr_t ioctx_unmap(uintptr_t address, size_t bytes);

/*
 * The processor that the calling thread runs on, at the moment, as the vDSO of x86_64 tells; -1 on
 * others, where it would take a system call, for which a filter might kill.
 */
int ioctx_processor(void);

/*
 * What a thread knows of itself inside the layer. Zero in a thread that has never called it.
 * `critical` counts the layer's locks that this thread holds: a call that arrives with it
 * non-zero comes from a signal handler that interrupted the layer, and must not take a lock.
 */
struct ioctx_thread {
    uint32_t critical;
    uint32_t calls;    /* calls of the layer that are open in this thread */
    uint32_t requests; /* requests since a hint was doubted last */
    uint32_t blockers; /* calls of the layer that block signals */
    uint16_t io_priority;
    uint16_t io_priority_uses; /* how many requests more are to have that without a look */
    bool is_mask_known, was_taken_for_handler;
    bool is_blocked;      /* signals are blocked until the outermost call ends */
    uint64_t mask_before; /* the mask that is restored then */
    uint64_t usual_mask; /* the signals that are blocked outside of handlers, if that is known */
    uintptr_t context; /* the context of the outermost open call */
    uintptr_t station; /* in a daemon of ours, its station; else 0 */
};

/* initial-exec: one instruction, and no call into the loader from a signal handler. */
extern __thread struct ioctx_thread ioctx_thread_local
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline struct ioctx_thread *ioctx_thread_self(void)
{
    return &ioctx_thread_local;
}

/* Enough for a daemon, which runs nothing of the program's. */
enum { IOCTX_DAEMON_STACK_BYTES = 128 * 1024 };

/*
 * Starts a detached thread with all signals blocked and `stack_bytes` for its frames; 0 is the C library's
 * usual stack.
 * The mask goes through pthread_sigmask, which leaves the C library's own signals alone, so
 * that setuid() still reaches the thread. Returns 0 or a positive errno: EAGAIN also in a child that
 * the C library does not know of, where pthread_create might wait for ever.
 */
int ioctx_thread_start(void *(*body)(void *), void *argument, size_t stack_bytes);

/*
 * For a process that starts its thread later, if at all: should a child that shares its memory be the
 * first to call ioctx_thread_start, it is told by this.
 */
void ioctx_note_starter(void);

/*
 * Runs body(argument) in a child that shares no memory with us except MAP_SHARED mappings, has its signals
 * blocked, leaves no core and sends no signal when it ends: a seccomp filter that kills or traps, kills the
 * child.
 * Returns the wait status, or a negated errno when no child could be had.
 */
int ioctx_run_in_child(void (*body)(void *), void *argument);

/*
 * Sleeps that pthread_cancel ends: -IOCTX_THREAD_CANCELLED then, which is no errno. Nothing of the thread
 * has been unwound: the layer's frames have things to take back, and not all of them have unwinding tables.
 * The caller goes back to the program's call, where the thread's end goes on (exports.c). A handler that
 * interrupts such a sleep may end the thread, too; if it leaves it by longjmp, the thread must not be ended
 * later, for the C library still knows the frame that is gone.
 */

enum { IOCTX_THREAD_CANCELLED = 4000 };

/* FUTEX_WAIT_BITSET until `deadline` (struct timespec, monotonic): 0 or a negated errno. */
int ioctx_cancellable_wait(const uint32_t *word, uint32_t expected, uint32_t bits, const void *deadline);

/*
 * For at most `ns` until the kernel has an event for its AIO context, which is left there: -EFAULT when
 * there is one, 0 when the time is over, else a negated errno. No cancellation point with 0.
 */
int ioctx_await_event(uintptr_t context, uint64_t ns, int is_cancellable);

/*
 * Lets the calling thread use memory under every protection key (pkeys(7)): a new thread has the rights of
 * the one that starts it, and a daemon serves all threads.
 */
void ioctx_open_memory_keys(void);

#endif

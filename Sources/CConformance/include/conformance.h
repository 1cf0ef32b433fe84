/*
 * What the compatibility suite needs from C: fork and vfork, which Swift refuses to import, signal
 * handlers, mounts, seccomp filters, and byte loops that must be quick in a debug build too.
 *
 * Calls that can fail return a negated errno.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>

/* The recorded answers of the kernel: reference.txt, ended by a zero byte. */
const char *conformance_reference(void);

/* ---- Processes ---- */
int conformance_fork(void);

/* Runs body(argument) in a vfork child, which ends with its value; returns the child's pid. */
int conformance_vfork(int (*body)(void *), void *argument);

/* The same in a child made by clone(CLONE_VM), which runs beside its parent. */
int conformance_clone_vm(int (*body)(void *), void *argument);

/* ---- Signals ---- */

/* Counts signal `number` from now on; `flags` are sigaction's. */
void conformance_catch(int number, int flags);
int conformance_caught(void);

/* Calls `body(argument)` from the handler instead of counting alone. */
void conformance_on_signal(int number, int flags, void (*body)(void *), void *argument);

/* ---- POSIX AIO ---- */

/* struct aiocb; its own header would bring types that another module has defined differently. */
struct conformance_aiocb {
    int aio_fildes;
    int aio_lio_opcode;
    int aio_reqprio;
    void *aio_buf;
    size_t aio_nbytes;
    uint64_t aio_sigevent[8];
    uint64_t private_fields[4];
    intptr_t aio_offset;
    uint64_t reserved[4];
};

/* Fills in a struct sigevent. */
void conformance_notify(void *event, int kind, int signal, int value);

/* The same with SIGEV_THREAD; `body` gets `value`. `own_stack` asks for attributes. */
void conformance_notify_thread(void *event, void (*body)(int), int value,
                               int own_stack);

/*
 * From now on, `signal` with SA_SIGINFO: the handler counts, and remembers of the last one the
 * si_code, and of each the si_value as a bit.
 */
void conformance_catch_values(int signal, int flags);
int conformance_caught_code(void);
unsigned long conformance_caught_values(void);

/* Facts about the calling thread, for functions of SIGEV_THREAD. */
int conformance_signals_blocked(void);
int conformance_is_detached(void);
size_t conformance_stack_size(void);

/* ---- Bytes ---- */

/* The byte at each offset of a pattern is known by its seed and the offset. */
void conformance_fill(void *bytes, size_t length, uint32_t seed, uint64_t offset);
int conformance_has_pattern(const void *bytes, size_t length, uint32_t seed, uint64_t offset);
uint32_t conformance_hash(const void *bytes, size_t length);

/* A load and a store that the compiler neither drops nor moves, for rings that others write. */
uint32_t conformance_load(const void *address);
void conformance_store(void *address, uint32_t value);

/* ---- System ---- */

enum conformance_forbidden {
    CONFORMANCE_FORBID_URING = 1,
    CONFORMANCE_FORBID_KERNEL_AIO = 2,
    CONFORMANCE_FORBID_CLONE = 4,
};

/*
 * Answers the named system calls with `error` from now on, or kills the process for them where
 * `error` is 0.
 */
int conformance_forbid(int what, int error);

/* Attaches `fd` to a free loop device that goes when closed; its descriptor, name in `path`. */
int conformance_loop(int fd, char *path, size_t size);

/* A mount name space of the process's own, from which nothing spreads. */
int conformance_private_mounts(void);
int conformance_mount(const char *source, const char *target, const char *type, const char *data);

int conformance_set_nonblocking(int fd, int on);
int conformance_bytes_readable(int fd);

/*
 * Starts `path` in a session of its own, with `input` as stdin, or nothing where it is negative,
 * `output` as stdout and nothing on stderr. Its pid.
 */
int conformance_spawn(const char *path, char *const arguments[], int input, int output);

/* Soft and hard limit at once. The names are those that Swift's view of the C library lacks. */
enum conformance_limit {
    CONFORMANCE_LIMIT_FSIZE,
    CONFORMANCE_LIMIT_NOFILE,
    CONFORMANCE_LIMIT_MEMLOCK,
    CONFORMANCE_LIMIT_NPROC,
};
int conformance_set_limit(enum conformance_limit limit, unsigned long value);

/* SIGALRM every so many microseconds; 0 ends it. */
void conformance_alarm_every(long us);

/* What the C library declares for _GNU_SOURCE only, which Swift's view of it lacks. */
int conformance_memfd(const char *name);
int conformance_pipe(int ends[2], int flags);
int conformance_join(pthread_t thread, double seconds);
enum { CONFORMANCE_DEEPBIND = 8 };

/* A function of `library` itself; NULL where only a library that it needs has one of that name. */
void *conformance_symbol(void *library, const char *name, const char *version);

/* "EBADF" for 9, or NULL; positive numbers. */
const char *conformance_errno_name(int error);
const char *conformance_signal_name(int number);

#endif

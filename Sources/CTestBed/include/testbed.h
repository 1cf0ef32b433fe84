/*
 * What cases need from C: fork and vfork, which Swift refuses to import, signal handlers, mounts,
 * seccomp filters, and byte loops that must be quick in a debug build too.
 *
 * Calls that can fail return a negated errno.
 */
#ifndef TESTBED_H
#define TESTBED_H

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

/* ---- Processes ---- */
int testbed_fork(void);

/* Runs body(argument) in a vfork child, which ends with its value; returns the child's pid. */
int testbed_vfork(int (*body)(void *), void *argument);

/* The same in a child made by clone(CLONE_VM), which runs beside its parent. */
int testbed_clone_vm(int (*body)(void *), void *argument);

/* ---- Signals ---- */

/* Counts signal `number` from now on; `flags` are sigaction's. */
void testbed_catch(int number, int flags);
int testbed_caught(void);

/* Calls `body(argument)` from the handler instead of counting alone. */
void testbed_on_signal(int number, int flags, void (*body)(void *), void *argument);

/* ---- POSIX AIO ---- */

/* struct aiocb; its own header would bring types that another module has defined differently. */
struct testbed_aiocb {
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
void testbed_notify(void *event, int kind, int signal, int value);

/* The same with SIGEV_THREAD; `body` gets `value`. `own_stack` asks for attributes. */
void testbed_notify_thread(void *event, void (*body)(int), int value, int own_stack);

/* Destroys those attributes, and writes over their memory. */
void testbed_end_attributes(void *event);

/*
 * From now on, `signal` with SA_SIGINFO: the handler counts, and remembers of the last one the
 * si_code, and of each the si_value as a bit.
 */
void testbed_catch_values(int signal, int flags);
int testbed_caught_code(void);
unsigned long testbed_caught_values(void);

/* Facts about the calling thread, for functions of SIGEV_THREAD. */
int testbed_signals_blocked(void);
int testbed_is_detached(void);
size_t testbed_stack_size(void);

/* ---- Bytes ---- */

/* The byte at each offset of a pattern is known by its seed and the offset. */
void testbed_fill(void *bytes, size_t length, uint32_t seed, uint64_t offset);
int testbed_has_pattern(const void *bytes, size_t length, uint32_t seed, uint64_t offset);
uint32_t testbed_hash(const void *bytes, size_t length);

/* A load and a store that the compiler neither drops nor moves, for rings that others write. */
uint32_t testbed_load(const void *address);
void testbed_store(void *address, uint32_t value);

/* ---- System ---- */

enum testbed_forbidden {
    TESTBED_FORBID_URING = 1,
    TESTBED_FORBID_KERNEL_AIO = 2,
    TESTBED_FORBID_CLONE = 4,
};

/*
 * Answers the named system calls with `error` from now on, or kills the process for them where
 * `error` is 0.
 */
int testbed_forbid(int what, int error);

/* Attaches `fd` to a free loop device that goes when closed; its descriptor, name in `path`. */
int testbed_loop(int fd, char *path, size_t size);

/* A mount name space of the process's own, from which nothing spreads. */
int testbed_private_mounts(void);
int testbed_mount(const char *source, const char *target, const char *type, const char *data);

/*
 * Mounts a file in memory on the file `path`, each of whose transfers takes `delay_us`; served by a
 * child that ends when it is unmounted, or with the caller. The child's pid.
 */
int testbed_slow_file(const char *path, uint64_t bytes, unsigned delay_us);

int testbed_set_nonblocking(int fd, int on);
int testbed_bytes_readable(int fd);

/*
 * Starts `path` in a session of its own, with `input` as stdin, or nothing where it is negative,
 * `output` as stdout and nothing on stderr. Its pid.
 */
int testbed_spawn(const char *path, char *const arguments[], int input, int output);

/* Soft and hard limit at once. The names are those that Swift's view of the C library lacks. */
enum testbed_limit {
    TESTBED_LIMIT_FSIZE,
    TESTBED_LIMIT_NOFILE,
    TESTBED_LIMIT_MEMLOCK,
    TESTBED_LIMIT_NPROC,
};
int testbed_set_limit(enum testbed_limit limit, unsigned long value);

/* SIGALRM every so many microseconds; 0 ends it. */
void testbed_alarm_every(long us);

/* What the C library declares for _GNU_SOURCE only, which Swift's view of it lacks. */
int testbed_memfd(const char *name);
int testbed_pipe(int ends[2], int flags);
int testbed_join(pthread_t thread, double seconds);
enum { TESTBED_DEEPBIND = 8, TESTBED_O_DIRECT = 040000 };

/* A function of `library` itself; NULL where only a library that it needs has one of that name. */
void *testbed_symbol(void *library, const char *name, const char *version);

/* "EBADF" for 9, or NULL; positive numbers. */
const char *testbed_errno_name(int error);
const char *testbed_signal_name(int number);

#endif

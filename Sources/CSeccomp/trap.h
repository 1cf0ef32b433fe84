/*
 * libioctx-seccomp.so: catches the io_* system calls that a program makes by the instruction itself.
 *
 * filter.c   has the kernel send SIGSYS for the six numbers
 * handler.c  answers that signal with the layer's result
 * signals.c  keeps the program's own signal handling from getting in the way
 *
 * It stands beside libioctx.so, which it needs, so that programs which do without it keep the C
 * library's signal functions. Both are named in LD_PRELOAD.
 */
#ifndef IOCTX_TRAP_H
#define IOCTX_TRAP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>

/* In the siginfo of each trap of ours (SECCOMP_RET_DATA), to tell it from another filter's. */
enum { TRAP_DATA = 0x10c7 };

/* Exported by libioctx.so: one of the six calls, and the way past its syscall(3). */
long ioctx_aio_call(long number, long a, long b, long c, long d, long e, long f);
long ioctx_syscall_function(long number, ...);

/* The C library's functions, or those of a library that comes after this one. */
struct next_functions {
    int (*sigaction)(int, const struct sigaction *, struct sigaction *);
    int (*sigprocmask)(int, const sigset_t *, sigset_t *);
    int (*pthread_sigmask)(int, const sigset_t *, sigset_t *);
    int (*pthread_attr_setsigmask_np)(pthread_attr_t *, const sigset_t *);
    __sighandler_t (*signal)(int, __sighandler_t);
};
const struct next_functions *next(void);

/* Puts the handler in place, and keeps what was there as the program's own action. */
void install_handler(void);

/* Not 0 once this process has been trapped, to find out whether a filter is installed. */
extern volatile sig_atomic_t traps_seen;

/* What the program wants of SIGSYS, as it believes to have set it; by sigaction's rules. */
int set_program_action(const struct sigaction *wanted, struct sigaction *before);

#endif

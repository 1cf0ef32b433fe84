/*
 * The C library's signal functions, as programs see them under the filter.
 *
 * A SIGSYS that is blocked, ignored or not handled when the filter traps ends the process. So the
 * program's own action for it is only noted, for handler.c to call, and it is left out of every
 * mask. All else goes on to the next library unchanged. What a program does by the instruction
 * itself, or by setcontext with a mask of its own, is not seen here, nor the threads in which the C library
 * calls the functions of timers and message queues, with all signals blocked.
 */
#include "trap.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct next_functions *next(void)
{
    static struct next_functions functions;

    /* The last one assigned is looked at. First called by a constructor, before any thread. */
    if (!__atomic_load_n(&functions.signal, __ATOMIC_ACQUIRE)) {
        *(void **)&functions.sigaction = dlsym(RTLD_NEXT, "sigaction");
        *(void **)&functions.sigprocmask = dlsym(RTLD_NEXT, "sigprocmask");
        *(void **)&functions.pthread_sigmask = dlsym(RTLD_NEXT, "pthread_sigmask");
        *(void **)&functions.pthread_attr_setsigmask_np =
            dlsym(RTLD_NEXT, "pthread_attr_setsigmask_np");
        __atomic_store_n((void **)&functions.signal, dlsym(RTLD_NEXT, "signal"), __ATOMIC_RELEASE);
    }
    return &functions;
}

/* The mask without SIGSYS, in `room`; NULL stays NULL. */
static const sigset_t *without_trap(const sigset_t *mask, sigset_t *room)
{
    if (!mask)
        return NULL;
    *room = *mask;
    sigdelset(room, SIGSYS);
    return room;
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before)
{
    struct sigaction changed;

    if (number == SIGSYS)
        return set_program_action(wanted, before);
    if (wanted) {
        changed = *wanted;
        sigdelset(&changed.sa_mask, SIGSYS);
        wanted = &changed;
    }
    return next()->sigaction(number, wanted, before);
}

__sighandler_t signal(int number, __sighandler_t handler)
{
    struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;

    if (number != SIGSYS)
        return next()->signal(number, handler);
    set_program_action(&wanted, &before);
    return before.sa_handler;
}

int sigprocmask(int how, const sigset_t *mask, sigset_t *before)
{
    sigset_t room;

    return next()->sigprocmask(how, how == SIG_UNBLOCK ? mask : without_trap(mask, &room), before);
}

static int thread_mask(int how, const sigset_t *mask, sigset_t *before)
{
    sigset_t room;

    return next()->pthread_sigmask(how, how == SIG_UNBLOCK ? mask : without_trap(mask, &room),
                                   before);
}

/* It moved from libpthread to the C library: programs ask for it in either version. */
int thread_mask_new(int, const sigset_t *, sigset_t *) __attribute__((alias("thread_mask")));
int thread_mask_old(int, const sigset_t *, sigset_t *) __attribute__((alias("thread_mask")));
__asm__(".symver thread_mask_new, pthread_sigmask@@GLIBC_2.32");
__asm__(".symver thread_mask_old, pthread_sigmask@GLIBC_2.2.5");

int thread_attributes(pthread_attr_t *attributes, const sigset_t *mask)
{
    sigset_t room;

    return next()->pthread_attr_setsigmask_np(attributes, without_trap(mask, &room));
}
__asm__(".symver thread_attributes, pthread_attr_setsigmask_np@@GLIBC_2.32");

/* ---- Older names, which the C library serves within itself ---- */

int __sigaction(int, const struct sigaction *, struct sigaction *) __attribute__((alias("sigaction")));
__sighandler_t ssignal(int, __sighandler_t) __attribute__((alias("signal")));
__sighandler_t bsd_signal(int, __sighandler_t) __attribute__((alias("signal")));

static __sighandler_t set_handler(int number, __sighandler_t handler, int flags)
{
    struct sigaction wanted = {.sa_handler = handler, .sa_flags = flags}, before;

    return sigaction(number, &wanted, &before) < 0 ? SIG_ERR : before.sa_handler;
}

/* What signal() is to a program that is compiled for ISO C alone. */
__sighandler_t __sysv_signal(int number, __sighandler_t handler)
{
    return set_handler(number, handler, (int)SA_RESETHAND | SA_NODEFER);
}
__sighandler_t sysv_signal(int, __sighandler_t) __attribute__((alias("__sysv_signal")));

static int mask_one(int how, int number, sigset_t *before)
{
    sigset_t one;

    sigemptyset(&one);
    return sigaddset(&one, number) < 0 ? -1 : sigprocmask(how, &one, before);
}

__sighandler_t sigset(int number, __sighandler_t handler)
{
    int is_held = handler == SIG_HOLD;
    struct sigaction current;
    __sighandler_t before;
    sigset_t mask;

    if (!is_held)
        before = set_handler(number, handler, 0);
    else
        before = sigaction(number, NULL, &current) < 0 ? SIG_ERR : current.sa_handler;
    if (before == SIG_ERR || mask_one(is_held ? SIG_BLOCK : SIG_UNBLOCK, number, &mask) < 0)
        return SIG_ERR;
    return sigismember(&mask, number) ? SIG_HOLD : before;
}

int sighold(int number)
{
    return mask_one(SIG_BLOCK, number, NULL);
}

int sigignore(int number)
{
    return set_handler(number, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
}

/* Of 4.2BSD: a mask is the first 32 signals. */
static int mask_first(int how, int bits)
{
    sigset_t mask, before;
    int result = 0;

    sigemptyset(&mask);
    for (int number = 1; number <= 32; number++)
        if ((unsigned)bits >> (number - 1) & 1)
            sigaddset(&mask, number);
    if (sigprocmask(how, &mask, &before) < 0)
        return -1;
    for (int number = 1; number <= 31; number++)
        if (sigismember(&before, number))
            result |= 1 << (number - 1);
    return result;
}

int sigblock(int bits)
{
    return mask_first(SIG_BLOCK, bits);
}

int sigsetmask(int bits)
{
    return mask_first(SIG_SETMASK, bits);
}

/* ---- The system calls ---- */

/* The kernel's own struct sigaction. */
struct raw_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

static const unsigned long trap_bit = 1ul << (SIGSYS - 1);

/* These two are called with syscall's own arguments, its number first. */
static long raw_sigaction(long call, int number, const struct raw_action *wanted, struct raw_action *before,
                          size_t bytes)
{
    struct raw_action changed;
    struct sigaction action = {0}, old;

    if (number != SIGSYS || bytes != sizeof trap_bit) {
        if (wanted) {
            changed = *wanted;
            changed.mask &= ~trap_bit;
            wanted = &changed;
        }
        return ioctx_syscall_function(call, number, wanted, before, bytes);
    }
    if (wanted) {
        action.sa_sigaction = (void (*)(int, siginfo_t *, void *))wanted->handler;
        action.sa_flags = (int)wanted->flags;
        memcpy(&action.sa_mask, &wanted->mask, sizeof wanted->mask);
    }
    set_program_action(wanted ? &action : NULL, &old);
    if (before) {
        before->handler = (void *)old.sa_sigaction;
        before->flags = (unsigned)old.sa_flags;
        before->restorer = NULL;
        memcpy(&before->mask, &old.sa_mask, sizeof before->mask);
    }
    return 0;
}

static long raw_sigprocmask(long call, int how, const unsigned long *mask, unsigned long *before,
                            size_t bytes)
{
    unsigned long changed;

    if (mask && bytes == sizeof changed && how != SIG_UNBLOCK) {
        changed = *mask & ~trap_bit;
        mask = &changed;
    }
    return ioctx_syscall_function(call, how, mask, before, bytes);
}

/* The two calls that touch actions and masks stay here, the others go on to libioctx.so. */
__attribute__((naked)) long syscall(__attribute__((unused)) long number, ...)
{
    __asm__("cmp    %[sigaction], %%edi\n\t"
            "je     %P[raw_sigaction]\n\t"
            "cmp    %[sigprocmask], %%edi\n\t"
            "je     %P[raw_sigprocmask]\n\t"
            "jmp    *ioctx_syscall_function@GOTPCREL(%%rip)"
            :
            : [sigaction] "i"(SYS_rt_sigaction), [sigprocmask] "i"(SYS_rt_sigprocmask),
              [raw_sigaction] "i"(raw_sigaction), [raw_sigprocmask] "i"(raw_sigprocmask));
}

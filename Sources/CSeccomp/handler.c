/*
 * The SIGSYS handler: makes the call in the layer, in the context of the instruction that was
 * trapped, and puts its result where the kernel would have.
 *
 * The signal is delivered between two instructions of the program, never inside the layer, so the
 * thread holds no lock of ours. The handler blocks no signal (its mask is empty, SA_NODEFER): while
 * an io_getevents waits in it, signals are delivered as during the system call, and end it with
 * -EINTR. It runs on the thread's own stack, never on an alternate one, which is often too small.
 */
#include "trap.h"

#include <errno.h>
#include <linux/audit.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

volatile sig_atomic_t traps_seen;

/*
 * The process whose thread changes or reads the action below; 0 for none. Taken with all signals blocked, so
 * a handler never waits for itself. In a forked child it may be its parent's, which is nobody there.
 */
static atomic_int action_owner;
/* The program's action, and the place of the next one: a fork may come in the middle of a change. */
static struct sigaction program_actions[2];
static atomic_int program_action;

static void lock_action(sigset_t *mask)
{
    sigset_t all;
    int self = getpid(), owner;

    sigfillset(&all);
    next()->pthread_sigmask(SIG_BLOCK, &all, mask);
    do {
        owner = 0;
        if (atomic_compare_exchange_strong(&action_owner, &owner, self))
            return;
        __builtin_ia32_pause();
    } while (owner == self || !atomic_compare_exchange_strong(&action_owner, &owner, self));
}

static void unlock_action(const sigset_t *mask)
{
    atomic_store(&action_owner, 0);
    next()->pthread_sigmask(SIG_SETMASK, mask, NULL);
}

int set_program_action(const struct sigaction *wanted, struct sigaction *before)
{
    struct sigaction old, new;
    sigset_t mask;
    int place;

    /* Their memory is the program's: touched without the lock. */
    if (wanted)
        new = *wanted;
    lock_action(&mask);
    place = atomic_load(&program_action);
    old = program_actions[place];
    if (wanted) {
        program_actions[!place] = new;
        atomic_store(&program_action, !place);
    }
    unlock_action(&mask);
    if (before)
        *before = old;
    return 0;
}

/* What the kernel does where SIGSYS is not handled. */
static void die(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};

    next()->sigaction(SIGSYS, &standard, NULL);
    syscall(SYS_tgkill, getpid(), gettid(), SIGSYS);
}

/* A SIGSYS that is not ours: another filter's, or sent by somebody. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    struct sigaction action;
    sigset_t before;

    set_program_action(NULL, &action);
    if (action.sa_handler == SIG_IGN && info->si_code <= 0)
        return;
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        die();
        return;
    }
    if (action.sa_flags & SA_RESETHAND) {
        struct sigaction standard = {.sa_handler = SIG_DFL};

        set_program_action(&standard, NULL);
    }
    sigdelset(&action.sa_mask, SIGSYS);
    next()->pthread_sigmask(SIG_BLOCK, &action.sa_mask, &before);
    if (action.sa_flags & SA_SIGINFO)
        action.sa_sigaction(number, info, context);
    else
        action.sa_handler(number);
    next()->pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void on_sigsys(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int before = errno;

    if (info->si_code == SYS_SECCOMP && info->si_errno == TRAP_DATA &&
        info->si_arch == AUDIT_ARCH_X86_64) {
        traps_seen = 1;
        registers[REG_RAX] = ioctx_aio_call(
            info->si_syscall, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
            registers[REG_R10], registers[REG_R8], registers[REG_R9]);
    } else {
        pass_on(number, info, context);
    }
    errno = before;
}

void install_handler(void)
{
    struct sigaction ours = {.sa_sigaction = on_sigsys,
                             .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    struct sigaction before;
    sigset_t one;

    sigemptyset(&ours.sa_mask);
    if (next()->sigaction(SIGSYS, &ours, &before) == 0)
        set_program_action(&before, NULL);
    sigemptyset(&one);
    sigaddset(&one, SIGSYS);
    next()->sigprocmask(SIG_UNBLOCK, &one, NULL);
}

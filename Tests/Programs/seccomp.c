// Runs a program under a seccomp filter that forbids io_uring, with "both" the kernel's AIO too, with
// "aio" that alone, with "rare" calls that only a layer would make for a program, with "daemon" those that
// it makes for its threads, with "start" those without which they cannot start:
//
//     seccomp EPERM|ENOSYS|KILL [both|aio|rare|daemon|start] -- PROGRAM ARGUMENTS…
//
// This is what containers and hardened systems do; KILL ends the whole process at the first attempt,
// so a library that merely probes for the calls does not survive it.

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "name this architecture's AUDIT_ARCH value here"
#endif

static const int io_uring_calls[] = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register};
static const int aio_calls[] = {SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel,
    SYS_io_getevents, SYS_io_pgetevents};
static const int rare_calls[] = {SYS_statx, SYS_readahead};
static const int daemon_calls[] = {SYS_ioprio_get, SYS_ioprio_set, SYS_sched_setaffinity,
    SYS_sched_setscheduler};

static const int start_calls[] = {SYS_close_range, SYS_bind, SYS_connect, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_recvmsg};

static struct sock_filter program[64];
static unsigned short length;

static void add(struct sock_filter instruction) { program[length++] = instruction; }

static void forbid(const int *calls, int count, unsigned action) {
    for (int i = 0; i < count; i++) {
        add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1));
        add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
    }
}

int main(int argc, char **argv) {
    unsigned action = 0;
    if (argc > 1 && strcmp(argv[1], "EPERM") == 0)
        action = SECCOMP_RET_ERRNO | EPERM;
    else if (argc > 1 && strcmp(argv[1], "ENOSYS") == 0)
        action = SECCOMP_RET_ERRNO | ENOSYS;
    else if (argc > 1 && strcmp(argv[1], "KILL") == 0)
        action = SECCOMP_RET_KILL_PROCESS;
    int at = 2, both = argc > 2 && strcmp(argv[2], "both") == 0;
    int aio = argc > 2 && strcmp(argv[2], "aio") == 0;
    int rare = argc > 2 && strcmp(argv[2], "rare") == 0;
    int daemon = argc > 2 && strcmp(argv[2], "daemon") == 0;
    int start = argc > 2 && strcmp(argv[2], "start") == 0;
    bool named = both || aio || rare || daemon || start;
    at += named;
    if (action == 0 || at + 1 >= argc || strcmp(argv[at], "--") != 0) {
        fprintf(stderr, "usage: seccomp EPERM|ENOSYS|KILL [both|aio|rare|daemon|start] -- PROGRAM ARGUMENTS...\n");
        return 125;
    }
    add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    if (!named || both)
        forbid(io_uring_calls, 3, action);
    if (rare)
        forbid(rare_calls, 2, action);
    if (daemon)
        forbid(daemon_calls, 4, action);
    if (start)
        forbid(start_calls, 6, action);
    if (both || aio)
        forbid(aio_calls, 6, action);
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog filter = {length, program};
    if (!named || both)
        setenv("IO_URING_FORBIDDEN", "1", 1);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) {
        perror("seccomp: cannot install the filter");
        return 125;
    }
    execvp(argv[at + 1], argv + at + 1);
    perror(argv[at + 1]);
    return 127;
}

/* See benchmark.h. */
#include "benchmark.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <system.h>

int benchmark_raw_setup(int maxevents, uintptr_t *context)
{
    return (int)ioctx_syscall(SYS_io_setup, maxevents, (intptr_t)context, 0, 0, 0, 0);
}

int benchmark_raw_destroy(uintptr_t context)
{
    return (int)ioctx_syscall(SYS_io_destroy, (intptr_t)context, 0, 0, 0, 0, 0);
}

int benchmark_raw_submit(uintptr_t context, long count, struct iocb **list)
{
    return (int)ioctx_syscall(SYS_io_submit, (intptr_t)context, count, (intptr_t)list, 0, 0, 0);
}

int benchmark_raw_getevents(uintptr_t context, long least, long most, struct io_event *events,
                            struct timespec *timeout)
{
    return (int)ioctx_syscall(SYS_io_getevents, (intptr_t)context, least, most, (intptr_t)events,
                              (intptr_t)timeout, 0);
}

ssize_t benchmark_resident_bytes(int fd, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
    ssize_t resident = 0;
    unsigned char *is_resident;
    void *map;

    if (pages == 0)
        return 0;
    map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    is_resident = malloc(pages);
    if (!is_resident || mincore(map, bytes, is_resident))
        resident = -errno;
    for (size_t i = 0; resident >= 0 && i < pages; i++)
        resident += (is_resident[i] & 1) * (ssize_t)page;
    free(is_resident);
    munmap(map, bytes);
    return resident;
}

void benchmark_die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* ---- Counting system calls ---- */

/* An unknown option of prctl, which nobody else asks for. */
enum { MARK = 0x696f6374 };

void benchmark_mark(int begins)
{
    ioctx_syscall(SYS_prctl, MARK, begins, 0, 0, 0, 0);
}

/* How often a tracer that is busy with stops looks up. */
enum { STOPS_PER_LOOK = 256 };

static void count_entry(pid_t thread, struct benchmark_calls *calls, int *is_counting)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    if (info.entry.nr == SYS_prctl && info.entry.args[0] == MARK)
        *is_counting = info.entry.args[1] != 0;
    else if (*is_counting && info.entry.nr < BENCHMARK_CALLS_MAX)
        calls->count[info.entry.nr]++;
}

int benchmark_trace(pid_t child, struct benchmark_calls *calls, int (*is_interrupted)(void *),
                    void *argument)
{
    int status, is_counting = 0;

    memset(calls, 0, sizeof *calls);
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status))
        return -ECHILD;
    if (ptrace(PTRACE_SEIZE, child, NULL,
               (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL))) {
        int error = errno;

        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return -error;
    }
    kill(child, SIGCONT);
    for (unsigned stops = 0;; stops++) {
        pid_t thread = waitpid(-1, &status, __WALL);
        intptr_t signal = 0;

        if (thread < 0)
            return -errno;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread != child)
                continue;
            return status;
        }
        if (stops % STOPS_PER_LOOK == 0 && is_interrupted(argument)) {
            kill(child, SIGKILL);
            while (waitpid(-1, &status, __WALL) != child || WIFSTOPPED(status))
                ;
            return -EINTR;
        }
        if (WSTOPSIG(status) == (SIGTRAP | 0x80))
            count_entry(thread, calls, &is_counting);
        else if (status >> 16 == 0)
            signal = WSTOPSIG(status); /* its own, to be delivered */
        ptrace(PTRACE_SYSCALL, thread, NULL, (void *)signal);
    }
}

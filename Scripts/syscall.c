/*
 * Prints the mean time of one call in nanoseconds, the least of many short rounds: of getppid() through
 * the C library's syscall(), or, with an argument, of an io_destroy() in vain by the instruction.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A trap takes long, and its time varies little. */
enum { CALLS = 20000, ROUNDS = 300, TRAP_ROUNDS = 20 };

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void destroy_nothing(void)
{
#ifdef __x86_64__
    long result = SYS_io_destroy;

    __asm__ volatile("syscall" : "+a"(result) : "D"(0L) : "rcx", "r11", "memory");
#endif
}

int main(int count, char **arguments)
{
    double least_ns = 1e18;

    (void)arguments;

    for (int round = 0; round < (count > 1 ? TRAP_ROUNDS : ROUNDS); round++) {
        double start_ns = now_ns();

        for (int i = 0; i < CALLS; i++) {
            if (count > 1)
                destroy_nothing();
            else
                syscall(SYS_getppid);
        }
        double mean_ns = (now_ns() - start_ns) / CALLS;

        if (mean_ns < least_ns)
            least_ns = mean_ns;
    }
    printf("%.2f\n", least_ns);
    return 0;
}

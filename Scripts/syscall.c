/*
 * Prints the mean time of one getppid() through the C library's syscall(), in nanoseconds: the least of
 * many short rounds.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 20000, ROUNDS = 300 };

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(void)
{
    double least_ns = 1e18;

    for (int round = 0; round < ROUNDS; round++) {
        double start_ns = now_ns();

        for (int i = 0; i < CALLS; i++)
            syscall(SYS_getppid);
        double mean_ns = (now_ns() - start_ns) / CALLS;

        if (mean_ns < least_ns)
            least_ns = mean_ns;
    }
    printf("%.2f\n", least_ns);
    return 0;
}

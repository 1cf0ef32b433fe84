/*
 * What a preloaded library costs a program that does not use it: starts PROGRAM many times,
 * by turns without and with LD_PRELOAD=LIBRARY, and prints the median times in microseconds.
 *
 * usage: startup LIBRARY PROGRAM RUNS
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static double run_us(char *program)
{
    char *arguments[] = {program, NULL};
    double start = now_us();
    int status = 0;
    pid_t pid;
    int error = posix_spawn(&pid, program, NULL, NULL, arguments, environ);

    if (error || waitpid(pid, &status, 0) < 0 || status != 0) {
        fprintf(stderr, "startup: cannot run %s: %s\n", program,
                error ? strerror(error) : "it failed");
        exit(1);
    }
    return now_us() - start;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

static double median(double *times, int count)
{
    qsort(times, count, sizeof(*times), compare);
    return times[count / 2];
}

int main(int argc, char **argv)
{
    int runs = argc == 4 ? atoi(argv[3]) : 0;

    if (runs < 1) {
        fprintf(stderr, "usage: startup LIBRARY PROGRAM RUNS\n");
        return 64;
    }
    double *without = calloc(runs, sizeof(double)), *with = calloc(runs, sizeof(double));
    if (!without || !with)
        return 1;
    for (int i = -5; i < runs; i++) { /* the first ones only warm up */
        unsetenv("LD_PRELOAD");
        double plain = run_us(argv[2]);
        setenv("LD_PRELOAD", argv[1], 1);
        double preloaded = run_us(argv[2]);

        if (i >= 0) {
            without[i] = plain;
            with[i] = preloaded;
        }
    }
    printf("%.0f %.0f\n", median(without, runs), median(with, runs));
    return 0;
}

/*
 * Prints the mean time of one cached 4 KiB read, submitted and reaped alone, in nanoseconds: the
 * least of several rounds. Usage: cached FILE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 1024, READS = 50000, ROUNDS = 7 };

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int count, char **arguments)
{
    static char buffer[BLOCK];
    io_context_t context = 0;
    struct iocb request, *list = &request;
    struct io_event event;
    double least_ns = 1e18;
    int file = count == 2 ? open(arguments[1], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;

    if (file < 0 || io_setup(8, &context) < 0)
        return 1;
    for (int block = 0; block < BLOCKS; block++)
        if (pwrite(file, buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
            return 1;
    for (int round = 0; round < ROUNDS; round++) {
        double start_ns = now_ns();

        for (int i = 0; i < READS; i++) {
            io_prep_pread(&request, file, buffer, BLOCK, (i * 7919LL % BLOCKS) * BLOCK);
            if (io_submit(context, 1, &list) != 1 ||
                io_getevents(context, 1, 1, &event, NULL) != 1 || event.res != BLOCK)
                return 1;
        }
        double mean_ns = (now_ns() - start_ns) / READS;

        if (mean_ns < least_ns)
            least_ns = mean_ns;
    }
    printf("%.0f\n", least_ns);
    return 0;
}

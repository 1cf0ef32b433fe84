/*
 * Makes a file and reads 4 KiB of it COUNT times, cached, one request at a time: what callgrind
 * counts the instructions of. Usage: reads FILE COUNT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libaio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 256 };

int main(int count, char **arguments)
{
    static char buffer[BLOCK];
    io_context_t context = 0;
    struct iocb request, *list = &request;
    struct io_event event;
    int file = count == 3 ? open(arguments[1], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;

    if (file < 0 || io_setup(8, &context) < 0)
        return 1;
    for (int block = 0; block < BLOCKS; block++)
        if (pwrite(file, buffer, BLOCK, (off_t)block * BLOCK) != BLOCK)
            return 1;
    for (long i = 0, reads = atol(arguments[2]); i < reads; i++) {
        io_prep_pread(&request, file, buffer, BLOCK, i * 7919 % BLOCKS * BLOCK);
        if (io_submit(context, 1, &list) != 1 ||
            io_getevents(context, 1, 1, &event, NULL) != 1 || event.res != BLOCK)
            return 1;
    }
    return 0;
}

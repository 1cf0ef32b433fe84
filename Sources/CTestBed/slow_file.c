/*
 * A file in memory whose transfers take as long as one likes, for want of a disk of a certain speed:
 * FUSE by its own protocol (linux/fuse.h), mounted on a file, and served by one process.
 *
 * Every read, write and fsync is answered so many microseconds after it came, in the order in which
 * they came, however many are under way: a disk that does all of them at once. The bytes have been
 * moved by then. Nothing else takes time.
 */
#include "testbed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    /* The most that FUSE may have under way, and room for that: a power of two. */
    UNDER_WAY_MAX = 1024,
    ANSWERS_MAX = 2 * UNDER_WAY_MAX,
    TRANSFER_BYTES_MAX = 1 << 20,
    REQUEST_BYTES_MAX = TRANSFER_BYTES_MAX + 4096,
    /* Seconds for which the kernel need not ask for the size again. */
    ATTRIBUTES_HOLD = 1000000,
};

struct answer {
    uint64_t due_ns;
    uint64_t request;
    /* Of a read, what it gets; of a write, its size as FUSE wants it. */
    const void *bytes;
    uint32_t count;
    struct fuse_write_out written;
};

struct slow_file {
    int fuse;
    char *memory;
    uint64_t bytes;
    uint64_t delay_ns;
    /* In the order in which they are due. */
    struct answer answers[ANSWERS_MAX];
    unsigned first, end;
    char request[REQUEST_BYTES_MAX];
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void answer(struct slow_file *file, uint64_t request, int error, const void *bytes,
                   size_t count)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof header + count), .error = -error, .unique = request};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, count}};

    /* Where whoever asked has gone, nobody wants it. */
    if (writev(file->fuse, parts, 2) < 0)
        return;
}

static struct answer *answer_later(struct slow_file *file, uint64_t request)
{
    struct answer *later = &file->answers[file->end++ % ANSWERS_MAX];

    *later = (struct answer){.due_ns = now_ns() + file->delay_ns, .request = request};
    return later;
}

static void answer_what_is_due(struct slow_file *file)
{
    while (file->first != file->end) {
        struct answer *due = &file->answers[file->first % ANSWERS_MAX];

        if (due->due_ns > now_ns())
            return;
        if (due->written.size > 0)
            answer(file, due->request, 0, &due->written, sizeof due->written);
        else
            answer(file, due->request, 0, due->bytes, due->count);
        file->first++;
    }
}

/* How many of `count` bytes at `offset` are there. */
static uint32_t within(const struct slow_file *file, uint64_t offset, uint32_t count)
{
    uint64_t left = offset < file->bytes ? file->bytes - offset : 0;

    return count < left ? count : (uint32_t)left;
}

static void serve(struct slow_file *file)
{
    const struct fuse_in_header *header = (const void *)file->request;
    const void *body = header + 1;
    uint64_t request = header->unique;

    switch (header->opcode) {
    case FUSE_INIT: {
        struct fuse_init_out init = {
            .major = FUSE_KERNEL_VERSION,
            .minor = 31,
            .max_readahead = ((const struct fuse_init_in *)body)->max_readahead,
            .flags = FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_BIG_WRITES | FUSE_MAX_PAGES,
            .max_background = UNDER_WAY_MAX,
            .congestion_threshold = UNDER_WAY_MAX,
            .max_write = TRANSFER_BYTES_MAX,
            .max_pages = TRANSFER_BYTES_MAX / 4096,
            .time_gran = 1,
        };
        answer(file, request, 0, &init, sizeof init);
        break;
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out attributes = {
            .attr_valid = ATTRIBUTES_HOLD,
            .attr = {.ino = header->nodeid, .mode = S_IFREG | 0600, .nlink = 1,
                     .size = file->bytes, .blksize = 4096},
        };
        answer(file, request, 0, &attributes, sizeof attributes);
        break;
    }
    case FUSE_OPEN: {
        struct fuse_open_out opened = {.fh = 0};

        answer(file, request, 0, &opened, sizeof opened);
        break;
    }
    case FUSE_READ: {
        const struct fuse_read_in *read = body;
        struct answer *later = answer_later(file, request);

        later->bytes = file->memory + read->offset;
        later->count = within(file, read->offset, read->size);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *write = body;
        struct answer *later = answer_later(file, request);

        later->written.size = within(file, write->offset, write->size);
        memcpy(file->memory + write->offset, write + 1, later->written.size);
        break;
    }
    case FUSE_FSYNC:
        answer_later(file, request);
        break;
    case FUSE_FLUSH:
    case FUSE_RELEASE:
        answer(file, request, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        answer(file, request, ENOSYS, NULL, 0);
    }
}

static void serve_until_unmounted(struct slow_file *file)
{
    for (;;) {
        struct pollfd readable = {.fd = file->fuse, .events = POLLIN};
        struct timespec pause = {0}, *until = NULL;

        answer_what_is_due(file);
        if (read(file->fuse, file->request, sizeof file->request) > 0) {
            serve(file);
            continue;
        }
        if (errno == ENODEV)
            return;
        if (file->first != file->end) {
            uint64_t due = file->answers[file->first % ANSWERS_MAX].due_ns, now = now_ns();

            if (due <= now)
                continue;
            pause.tv_nsec = (long)(due - now) % 1000000000;
            pause.tv_sec = (time_t)((due - now) / 1000000000);
            until = &pause;
        }
        ppoll(&readable, 1, until, NULL);
    }
}

int testbed_slow_file(const char *path, uint64_t bytes, unsigned delay_us)
{
    /* All of it is mapped before the fork; what nobody touches takes no memory. */
    struct slow_file *file = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC), pid = -1, error = 0;
    char options[100];

    if (fuse < 0 || file == MAP_FAILED || memory == MAP_FAILED) {
        error = errno;
    } else {
        snprintf(options, sizeof options, "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
        if (mount("slow", path, "fuse", 0, options) < 0 || (pid = fork()) < 0)
            error = errno;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_TIMERSLACK, 1);
        file->fuse = fuse;
        file->memory = memory;
        file->bytes = bytes;
        file->delay_ns = (uint64_t)delay_us * 1000;
        serve_until_unmounted(file);
        _exit(0);
    }
    if (fuse >= 0)
        close(fuse);
    if (file != MAP_FAILED)
        munmap(file, sizeof *file);
    if (memory != MAP_FAILED)
        munmap(memory, bytes);
    return error ? -error : pid;
}

// Proves that a request works on the file it was submitted for and on nothing else: whatever the
// program closes, reopens, locks or hides, before, during and after; and that nothing of the layer
// ever lands in a descriptor that is not its own.

#include "harness.h"

#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#define FILE_BLOCKS 128

// ---- A number used again -------------------------------------------------------------------

// Submits reads of file A, closes its number, gives the number to file B, and wants A's data.
static void read_then_reuse_the_number(int flags, int reads) {
    close(patterned_file("a", 1, FILE_BLOCKS * BLOCK));
    close(patterned_file("b", 2, FILE_BLOCKS * BLOCK));
    if (flags & O_DIRECT)
        close(open_direct("a", O_RDONLY));
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32], *list[32];
    struct io_event events[32];
    for (int round = 0; round < 60; round++) {
        int a = open(temp_path("a"), O_RDONLY | flags);
        make_cold(a);
        for (int i = 0; i < reads; i++) {
            io_prep_pread(&requests[i], a, buffer + i * BLOCK, BLOCK,
                (long long)((round + i * 41) % FILE_BLOCKS) * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, reads, list), reads);
        int b = -1;
        if (round % 2) {
            close(a);
            b = open(temp_path("b"), O_RDONLY);
        } else {
            int other = open(temp_path("b"), O_RDONLY);
            b = dup2(other, a);
            close(other);
        }
        must(b, a);
        reap(context, reads, events);
        for (int i = 0; i < reads; i++)
            must_that(events[i].res == BLOCK && has_pattern(events[i].obj->u.c.buf, 1,
                    (uint64_t)events[i].obj->u.c.offset, BLOCK),
                "round %d: result %ld or the other file's data", round, (long)events[i].res);
        close(b);
    }
}

static void cold_read_keeps_its_file(void) { read_then_reuse_the_number(0, 1); }
static void batch_of_cold_reads_keeps_its_file(void) { read_then_reuse_the_number(0, 32); }
static void direct_reads_keep_their_file(void) { read_then_reuse_the_number(O_DIRECT, 16); }

static void write_then_reuse_the_number(int flags) {
    int b_check = patterned_file("b", 2, FILE_BLOCKS * BLOCK);
    int a_check = patterned_file("a", 1, FILE_BLOCKS * BLOCK);
    if (flags & O_DIRECT)
        close(open_direct("a", O_RDWR));
    io_context_t context = new_context(64);
    char *buffer = aligned(16 * BLOCK), *back = aligned(FILE_BLOCKS * BLOCK);
    struct iocb requests[17], *list[17];
    struct io_event events[17];
    for (uint64_t round = 0; round < 20; round++) {
        int a = open(temp_path("a"), O_RDWR | flags);
        for (int i = 0; i < 16; i++) {
            long long at = (long long)(i * 8) * BLOCK;
            fill_pattern(buffer + i * BLOCK, 100 + round, (uint64_t)at, BLOCK);
            io_prep_pwrite(&requests[i], a, buffer + i * BLOCK, BLOCK, at);
            list[i] = &requests[i];
        }
        io_prep_fsync(&requests[16], a);
        list[16] = &requests[16];
        must(io_submit(context, 17, list), 17);
        close(a);
        int b = open(temp_path("b"), O_RDWR);
        must(b, a);
        reap(context, 17, events);
        for (int i = 0; i < 17; i++)
            expect(events[i].res, events[i].obj == &requests[16] ? 0 : BLOCK);
        close(b);
        must(pread(a_check, back, FILE_BLOCKS * BLOCK, 0), FILE_BLOCKS * BLOCK);
        for (int i = 0; i < 16; i++)
            must_that(has_pattern(back + i * 8 * BLOCK, 100 + round, (uint64_t)(i * 8 * BLOCK), BLOCK),
                "block %d was not written", i * 8);
    }
    must(pread(b_check, back, FILE_BLOCKS * BLOCK, 0), FILE_BLOCKS * BLOCK);
    expect_that(has_pattern(back, 2, 0, FILE_BLOCKS * BLOCK), "the other file was written");
}

static void buffered_writes_keep_their_file(void) { write_then_reuse_the_number(0); }
static void direct_writes_keep_their_file(void) { write_then_reuse_the_number(O_DIRECT); }

// Writes at the end of a file are done one after the other, several by one call where that is
// possible: each has its own result and its own event, and its file, whatever becomes of the number.
static void direct_writes_extend_their_file(void) {
    enum { WRITES = 64, BAD = 20 };
    io_context_t context = new_context(WRITES);
    char *buffer = aligned(3 * WRITES * BLOCK), *back = aligned(3 * WRITES * BLOCK);
    char *nothing = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint64_t round = 0; round < 10; round++) {
        char name[32];
        snprintf(name, sizeof name, "extended-%d", (int)round);
        int fd = open_direct(name, O_RDWR | O_CREAT), check = open(temp_path(name), O_RDONLY);
        struct iocb requests[WRITES], *list[WRITES];
        struct io_event events[WRITES];
        long long end = 0, bad_at = 0;
        for (int i = 0; i < WRITES; i++) {
            size_t length = i == BAD ? BLOCK : (size_t)(i % 3 + 1) * BLOCK;
            if (i == BAD)
                bad_at = end;
            fill_pattern(buffer + end, round, (uint64_t)end, length);
            io_prep_pwrite(&requests[i], fd, i == BAD ? nothing : buffer + end, length, end);
            requests[i].data = (void *)(i == BAD ? -EFAULT : (long)length);
            list[i] = &requests[i];
            end += (long long)length;
        }
        for (int i = 0; i < WRITES / 2; i++)
            must(io_submit(context, 1, &list[i]), 1);
        must(io_submit(context, WRITES / 2, &list[WRITES / 2]), WRITES / 2);
        close(fd);
        int stranger = open(temp_path("stranger"), O_RDWR | O_CREAT | O_TRUNC, 0666);
        must(stranger, fd);
        reap(context, WRITES, events);
        uint64_t seen = 0;
        for (int i = 0; i < WRITES; i++) {
            expect(events[i].res, (long)events[i].data);
            seen |= 1ull << (events[i].obj - requests);
        }
        expect_that(seen == UINT64_MAX, "not every request has an event: %lx", (long)seen);
        must(pread(check, back, (size_t)end, 0), end);
        expect_that(has_pattern(back, round, 0, (size_t)bad_at), "the first writes are missing");
        long long after = bad_at + BLOCK;
        expect_that(has_pattern(back + after, round, (uint64_t)after, (size_t)(end - after)),
            "the writes after the bad one are missing");
        expect(lseek(stranger, 0, SEEK_END), 0);
        close(stranger);
        close(check);
    }
}

// Buffered requests are done in the order in which they were submitted, through one context or two.
static void buffered_requests_keep_their_order(void) {
    enum { BLOCKS = 8 };
    int fd = patterned_file("ordered", 0, BLOCKS * BLOCK);
    io_context_t writing = new_context(64), reading = new_context(64);
    char *buffer = aligned(4 * BLOCK), *back = aligned(BLOCK);
    struct iocb writes[4], read, *list[4];
    struct io_event events[4];
    uint64_t state = 1;
    for (uint64_t round = 1; round <= 500; round++) {
        // Two writes of one block in one call: the later one counts; and two of its neighbours.
        long long block = (long long)(next_random(&state) % (BLOCKS - 2));
        for (int i = 0; i < 4; i++) {
            long long at = (block + (i > 1 ? i - 1 : 0)) * BLOCK;
            fill_pattern(buffer + i * BLOCK, round * 4 + (uint64_t)i, (uint64_t)at, BLOCK);
            io_prep_pwrite(&writes[i], fd, buffer + i * BLOCK, BLOCK, at);
            list[i] = &writes[i];
        }
        must(io_submit(writing, 4, list), 4);
        int which = (int)(next_random(&state) % 3) + 1;
        long long at = (block + which - 1) * BLOCK;
        io_prep_pread(&read, fd, back, BLOCK, at);
        io_context_t context = round % 2 ? reading : writing;
        submit(context, &read);
        if (context == reading) {
            reap(reading, 1, events);
            expect(events[0].res, BLOCK);
        }
        int left = context == reading ? 4 : 5;
        while (left > 0) {
            long got = io_getevents(writing, 1, 4, events, NULL);
            must_that(got > 0, "io_getevents: %ld", got);
            for (int i = 0; i < got; i++)
                expect(events[i].res, BLOCK);
            left -= (int)got;
        }
        must_that(has_pattern(back, round * 4 + (uint64_t)which, (uint64_t)at, BLOCK),
            "round %d: the read came before write %d", (int)round, which);
    }
    struct iocb sync, *one = &sync;
    for (uint64_t round = 0; round < 20; round++) {
        fill_pattern(buffer, 5000 + round, 0, BLOCK);
        io_prep_pwrite(&writes[0], fd, buffer, BLOCK, 0);
        submit(writing, &writes[0]);
        io_prep_fsync(&sync, fd);
        must(io_submit(reading, 1, &one), 1);
        reap(reading, 1, events);
        expect(events[0].res, 0);
        must(pread(fd, back, BLOCK, 0), BLOCK);
        must_that(has_pattern(back, 5000 + round, 0, BLOCK), "an fsync came before the write");
        reap(writing, 1, events);
        expect(events[0].res, BLOCK);
    }
}

static void eventfd_is_kept_too(void) {
    int fd = patterned_file("file", 1, FILE_BLOCKS * BLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(BLOCK);
    for (int round = 0; round < 20; round++) {
        int counter = eventfd(0, EFD_NONBLOCK), kept = dup(counter);
        struct iocb request;
        struct io_event event;
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, BLOCK, (long long)(round * 5) * BLOCK);
        io_set_eventfd(&request, counter);
        submit(context, &request);
        close(counter);
        int stranger = eventfd(0, EFD_NONBLOCK);
        must(stranger, counter);
        reap(context, 1, &event);
        struct pollfd p = {.fd = kept, .events = POLLIN};
        expect(poll(&p, 1, 5000), 1);
        uint64_t value = 0;
        expect(read(kept, &value, sizeof value), sizeof value);
        expect(value, 1);
        expect_that(!readable(stranger), "another eventfd was written");
        close(kept);
        close(stranger);
    }
}

static void unlinked_files_are_read(void) {
    io_context_t context = new_context(8);
    char *buffer = aligned(8 * BLOCK);
    struct iocb request;
    int fd = patterned_file("gone", 3, 8 * BLOCK);
    unlink(temp_path("gone"));
    make_cold(fd);
    io_prep_pread(&request, fd, buffer, 8 * BLOCK, 0);
    submit(context, &request);
    close(fd);
    struct io_event event;
    reap(context, 1, &event);
    expect(event.res, 8 * BLOCK);
    expect_that(has_pattern(buffer, 3, 0, 8 * BLOCK), "wrong data");
}

// A thread may have a descriptor table of its own, where the same number is another file.
struct own_table {
    io_context_t context;
    int number;
};

static void *read_through_own_table(void *argument) {
    struct own_table *table = argument;
    must(unshare(CLONE_FILES), 0);
    int b = open(temp_path("b"), O_RDONLY);
    must(dup2(b, table->number), table->number);
    char *buffer = aligned(BLOCK);
    for (int i = 0; i < 50; i++) {
        struct iocb request;
        make_cold(table->number);
        io_prep_pread(&request, table->number, buffer, BLOCK, (long long)i * BLOCK);
        must(run_one(table->context, &request), BLOCK);
        must_that(has_pattern(buffer, 2, (uint64_t)i * BLOCK, BLOCK), "data of the other table's file");
    }
    return NULL;
}

static void threads_with_their_own_table_read_their_own_files(void) {
    int a = patterned_file("a", 1, FILE_BLOCKS * BLOCK);
    close(patterned_file("b", 2, FILE_BLOCKS * BLOCK));
    struct own_table table = {new_context(8), a};
    io_context_t context = new_context(8);
    pthread_t thread;
    start_thread(&thread, read_through_own_table, &table);
    char *buffer = aligned(BLOCK);
    for (int i = 0; i < 50; i++) {
        struct iocb request;
        make_cold(a);
        io_prep_pread(&request, a, buffer, BLOCK, (long long)i * BLOCK);
        must(run_one(context, &request), BLOCK);
        must_that(has_pattern(buffer, 1, (uint64_t)i * BLOCK, BLOCK), "data of the other table's file");
    }
    pthread_join(thread, NULL);
}

// What a number leads to is told by a link in /proc, of which there is one for each table. The program's
// has another file, or none, under these numbers.
static void *use_own_eventfds(void *file) {
    must(unshare(CLONE_FILES), 0);
    int number = *(int *)file;
    int counter = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0), notices = inotify_init();
    char *buffer = aligned(BLOCK);
    uint64_t count = 0;
    struct iocb request, *list = &request;
    io_context_t context = used_context(8);
    io_prep_pread(&request, number, buffer, BLOCK, 0);
    io_set_eventfd(&request, counter);
    must(run_one(context, &request), BLOCK);
    io_prep_pread(&request, counter, &count, sizeof count, 0);
    expect(run_one(context, &request), sizeof count);
    expect((long)count, 1);
    io_prep_pread(&request, number, buffer, BLOCK, 0);
    io_set_eventfd(&request, timer);
    expect(io_submit(context, 1, &list), -EINVAL);
    io_set_eventfd(&request, notices);
    expect(io_submit(context, 1, &list), -EINVAL);
    must(io_destroy(context), 0);
    return NULL;
}

static void threads_with_their_own_table_have_their_own_eventfds(void) {
    int file = patterned_file("a", 1, BLOCK);
    for (int round = 0; round < 2; round++) {
        pthread_t thread;
        start_thread(&thread, use_own_eventfds, &file);
        pthread_join(thread, NULL);
        for (int i = 0; i < 16; i++) open("/dev/null", O_RDWR);
    }
}

// ---- Locks and references ------------------------------------------------------------------

// Any close() of any descriptor of a file drops the process's record locks on it.
static void expect_record_lock(const char *name, const char *when) {
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        int fd = open(temp_path(name), O_RDWR);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
        must(fcntl(fd, F_GETLK, &lock), 0);
        expect_that(lock.l_type == F_WRLCK && lock.l_pid == parent, "the lock is gone %s", when);
        _exit(0);
    }
    expect_clean_exit(child, 10);
}

static void record_locks_are_kept(void) {
    setenv("IOCTX_AIOD_LIFETIME", "200", 1);
    int fd = patterned_file("file", 1, 512 * BLOCK);
    int direct = open(temp_path("file"), O_RDWR | O_DIRECT);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1000};
    io_context_t context = new_context(256);
    char *buffer = aligned(128 * BLOCK);
    struct iocb requests[129], *list[129];
    struct io_event events[129];
    must(fcntl(fd, F_SETLK, &lock), 0);
    expect_record_lock("file", "before any request");
    for (int round = 0; round < 6; round++) {
        int through = round % 2 && direct >= 0 ? direct : fd;
        make_cold(fd);
        for (int i = 0; i < 128; i++) {
            long long at = (long long)((i * 41 + round) % 512) * BLOCK;
            if (i % 16 == 7)
                io_prep_pwrite(&requests[i], through, buffer + i * BLOCK, BLOCK, at);
            else
                io_prep_pread(&requests[i], through, buffer + i * BLOCK, BLOCK, at);
            list[i] = &requests[i];
        }
        io_prep_fsync(&requests[128], fd);
        list[128] = &requests[128];
        must(io_submit(context, 129, list), 129);
        expect_record_lock("file", "during requests");
        reap(context, 129, events);
        expect_record_lock("file", "after requests");
    }
    expect(io_destroy(context), 0);
    expect_record_lock("file", "after io_destroy");
    // The library's threads leave after a while and close what they have.
    double deadline = now_seconds() + 10;
    while (threads_named("aiod") > 0 && now_seconds() < deadline)
        sleep_ms(20);
    expect_record_lock("file", "after the daemons have gone");
}

static bool can_lock(const char *name) {
    int fd = open(temp_path(name), O_RDWR);
    bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return locked;
}

// A reference held longer than the request would hold the lock after the program let go of it.
static void flock_ends_with_the_last_close(void) {
    close(patterned_file("file", 1, FILE_BLOCKS * BLOCK));
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32], *list[32];
    struct io_event events[32];
    for (int round = 0; round < 60; round++) {
        int flags = round % 3 == 2 ? O_DIRECT : 0;
        int fd = open(temp_path("file"), O_RDWR | flags);
        if (fd < 0)
            continue;
        must(flock(fd, LOCK_EX), 0);
        must_that(!can_lock("file"), "a second lock was granted");
        make_cold(fd);
        for (int i = 0; i < 32; i++) {
            io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK,
                (long long)((i * 41 + round) % FILE_BLOCKS) * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, 32, list), 32);
        reap(context, 32, events);
        close(fd);
        // The kernel itself drops a direct request's reference a little after its event.
        double deadline = now_seconds() + (flags ? 5 : 0);
        bool locked = can_lock("file");
        while (!locked && now_seconds() < deadline)
            locked = can_lock("file");
        must_that(locked, "round %d: the lock is still held", round);
    }
}

static void written_program_can_be_executed(void) {
    int source = open("/bin/true", O_RDONLY);
    struct stat s;
    must(fstat(source, &s), 0);
    char *image = aligned((size_t)s.st_size);
    must(read(source, image, (size_t)s.st_size), s.st_size);
    io_context_t context = new_context(8);
    for (int round = 0; round < 10; round++) {
        int fd = open(temp_path("program"), O_RDWR | O_CREAT | O_TRUNC, 0755);
        struct iocb request;
        io_prep_pwrite(&request, fd, image, (size_t)s.st_size, 0);
        must(run_one(context, &request), s.st_size);
        io_prep_fsync(&request, fd);
        must(run_one(context, &request), 0);
        make_cold(fd);
        io_prep_pread(&request, fd, image, (size_t)s.st_size, 0);
        must(run_one(context, &request), s.st_size);
        close(fd);
        pid_t child = fork();
        if (child == 0) {
            // The kernel itself drops an fsync's reference a little after its event.
            double deadline = now_seconds() + 5;
            do {
                execl(temp_path("program"), "program", (char *)NULL);
            } while (errno == ETXTBSY && now_seconds() < deadline);
            must_that(false, "round %d: %s", round, strerror(errno));
        }
        expect_clean_exit(child, 10);
        unlink(temp_path("program"));
    }
}

static void pipes_end_with_their_writer(void) {
    io_context_t context = new_context(8);
    for (int round = 0; round < 20; round++) {
        int pipes[2];
        char in[16];
        struct iocb request;
        must(pipe(pipes), 0);
        io_prep_pwrite(&request, pipes[1], "hello", 5, 0);
        must(run_one(context, &request), 5);
        close(pipes[1]);
        must(read(pipes[0], in, sizeof in), 5);
        // Were the writing end still held, this read would not end and the case would run out of time.
        must(read(pipes[0], in, sizeof in), 0);
        close(pipes[0]);
    }
}

#define PIPE_REASON "the kernel does pipes inside io_submit, which blocks until they are ready"

static void waiting_pipe_requests_see_the_end(void) {
    io_context_t context = new_context(8);
    for (int round = 0; round < 20; round++) {
        int pipes[2];
        char in[16];
        struct iocb request;
        struct io_event event;
        must(pipe(pipes), 0);
        io_prep_pread(&request, pipes[0], in, sizeof in, 0);
        submit(context, &request);
        close(pipes[0]);
        // The request holds the reading end, so the writer still has a reader.
        if (round % 2)
            must(write(pipes[1], "hello", 5), 5);
        close(pipes[1]);
        reap(context, 1, &event);
        expect(event.res, round % 2 ? 5 : 0);
    }
}

static void big_pipe_writes_wait_for_the_reader(void) {
    io_context_t context = new_context(8);
    size_t size = 300000, have = 0;
    char *out = aligned(size), *in = aligned(size);
    int pipes[2];
    struct iocb request;
    struct io_event event;
    must(pipe(pipes), 0);
    fill_pattern(out, 4, 0, size);
    io_prep_pwrite(&request, pipes[1], out, size, 0);
    submit(context, &request);
    expect(io_getevents(context, 0, 1, &event, NULL), 0);
    close(pipes[1]);
    for (ssize_t got; (got = read(pipes[0], in + have, size - have)) > 0; have += (size_t)got) {
    }
    expect(have, size);
    expect_that(has_pattern(in, 4, 0, size), "wrong data");
    reap(context, 1, &event);
    expect(event.res, size);
}

// ---- Programs that close what they do not know ---------------------------------------------

#define VICTIMS 60

static struct victim {
    enum { PIPE, STREAM, DATAGRAM, COUNTER, EPOLL, RING, PLAIN, KINDS } kind;
    int fds[2];
} victims[VICTIMS];

static int new_ring(void) {
    struct io_uring_params params = {0};
    // Set by the seccomp launcher, one of whose filters kills for the attempt.
    if (getenv("IO_URING_FORBIDDEN"))
        return -1;
    int ring = (int)syscall(SYS_io_uring_setup, 8, &params);
    if (ring < 0)
        return -1;
    // A table to put files into, should somebody take this ring for theirs.
    struct io_uring_rsrc_register files = {.nr = 64, .flags = IORING_RSRC_REGISTER_SPARSE};
    syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES2, &files, sizeof files);
    return ring;
}

static void open_victim(struct victim *victim, int kind) {
    victim->kind = kind;
    victim->fds[1] = -1;
    switch (victim->kind) {
    case PIPE: must(pipe(victim->fds), 0); break;
    case STREAM: must(socketpair(AF_UNIX, SOCK_STREAM, 0, victim->fds), 0); break;
    case DATAGRAM: must(socketpair(AF_UNIX, SOCK_DGRAM, 0, victim->fds), 0); break;
    case COUNTER: victim->fds[0] = eventfd(0, 0); break;
    case EPOLL: victim->fds[0] = epoll_create1(0); break;
    case RING: victim->fds[0] = new_ring(); break;
    default: victim->fds[0] = open(temp_path("victim"), O_RDWR | O_CREAT | O_TRUNC, 0600); break;
    }
}

// Lines of a descriptor's fdinfo that begin so: "tfd:" is a file watched by an epoll, an indented line
// a file registered with, or a poll armed on, an io_uring.
static int entries_in(int fd, const char *mark) {
    char path[64], line[256];
    int count = 0;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        count += strncmp(line, mark, strlen(mark)) == 0;
    if (file)
        fclose(file);
    return count;
}

static void expect_untouched(const struct victim *victim) {
    static const char *const names[] = {"pipe", "stream socket", "datagram socket", "eventfd", "epoll",
        "io_uring", "file"};
    struct stat s;
    for (int i = 0; i < 2; i++) {
        int fd = victim->fds[i];
        if (fd < 0)
            continue;
        if (victim->kind == PLAIN) {
            must(fstat(fd, &s), 0);
            expect_that(s.st_size == 0 && lseek(fd, 0, SEEK_CUR) == 0, "descriptor %d was written", fd);
        } else {
            expect_that(!readable(fd), "something was put into %s %d", names[victim->kind], fd);
        }
        if (victim->kind == EPOLL)
            expect_that(entries_in(fd, "tfd:") == 0, "epoll %d was given a file", fd);
        if (victim->kind == RING)
            expect_that(entries_in(fd, " ") == 0, "io_uring %d was given a file", fd);
    }
}

// Requests of all kinds, checked.
static void use_everything(io_context_t context) {
    int fd = open(temp_path("data"), O_RDWR), counter = eventfd(0, EFD_NONBLOCK), pipes[2];
    int direct = open(temp_path("data"), O_RDWR | O_DIRECT);
    char *buffer = aligned(64 * BLOCK), byte;
    struct iocb requests[70], *list[70];
    struct io_event events[70];
    must(pipe(pipes), 0);
    make_cold(fd);
    int count = 0;
    for (; count < 64; count++)
        io_prep_pread(&requests[count], count % 4 == 3 && direct >= 0 ? direct : fd,
            buffer + count * BLOCK, BLOCK, (long long)(count * 41 % FILE_BLOCKS) * BLOCK);
    io_prep_fsync(&requests[count++], fd);
    io_prep_poll(&requests[count++], pipes[0], POLLIN);
    // Two bytes written and one read, so that the poll finds the pipe readable whenever it looks.
    io_prep_pwrite(&requests[count++], pipes[1], "xy", 2, 0);
    if (on_layer())
        io_prep_pread(&requests[count++], pipes[0], &byte, 1, 0);
    for (int i = 0; i < count; i++) {
        io_set_eventfd(&requests[i], counter);
        list[i] = &requests[i];
    }
    must(io_submit(context, count, list), count);
    reap(context, count, events);
    for (int i = 0; i < count; i++) {
        struct iocb *request = events[i].obj;
        if (request - requests < 64)
            must_that(events[i].res == BLOCK && has_pattern(request->u.c.buf, 1,
                    (uint64_t)request->u.c.offset, BLOCK),
                "request %d: result %ld or wrong data", (int)(request - requests), (long)events[i].res);
        else if (request - requests == 64)
            expect(events[i].res, 0);
        else if (request->aio_lio_opcode == IO_CMD_POLL)
            expect(events[i].res & POLLIN, POLLIN);
        else
            expect(events[i].res, request->u.c.nbytes);
    }
    uint64_t total = 0, value;
    double deadline = now_seconds() + 5;
    while (total < (uint64_t)count && now_seconds() < deadline)
        if (read(counter, &value, sizeof value) == sizeof value)
            total += value;
    expect(total, count);
    close(fd), close(direct), close(counter), close(pipes[0]), close(pipes[1]);
    free(buffer);
}

static void close_from_3(int round) {
    if (round % 2 && syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        return;
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
}

// Closes all, puts strangers on the numbers, and goes on; each round shifts which kind gets which.
static void close_all_and_go_on(bool used_before, bool in_flight) {
    close(patterned_file("data", 1, FILE_BLOCKS * BLOCK));
    io_context_t context = new_context(128);
    for (int round = 0; round < KINDS; round++) {
        char *buffer = aligned(16 * BLOCK);
        struct iocb requests[16];
        struct io_event events[16];
        if (used_before)
            use_everything(context);
        if (in_flight) {
            int fd = open(temp_path("data"), O_RDONLY);
            make_cold(fd);
            for (int i = 0; i < 16; i++) {
                io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, (long long)(i * 7) * BLOCK);
                submit(context, &requests[i]);
            }
        }
        close_from_3(round);
        for (int i = 0; i < VICTIMS; i++)
            open_victim(&victims[i], (i + round) % KINDS);
        if (in_flight) {
            reap(context, 16, events);
            for (int i = 0; i < 16; i++)
                expect(events[i].res, BLOCK);
            for (int i = 0; i < 16; i++)
                expect_that(has_pattern(buffer + i * BLOCK, 1, (uint64_t)(i * 7 * BLOCK), BLOCK),
                    "wrong data");
        }
        for (int i = 0; i < 3; i++)
            use_everything(context);
        io_context_t fresh = new_context(128);
        use_everything(fresh);
        must(io_destroy(fresh), 0);
        for (int i = 0; i < VICTIMS; i++)
            expect_untouched(&victims[i]);
        free(buffer);
    }
}

static void closing_all_after_setup_harms_nothing(void) { close_all_and_go_on(false, false); }
static void closing_all_after_use_harms_nothing(void) { close_all_and_go_on(true, false); }
static void closing_all_in_flight_harms_nothing(void) { close_all_and_go_on(true, true); }

// Descriptors of the library that stayed behind after each request would add up.
static void descriptors_do_not_pile_up(void) {
    io_context_t context = new_context(128);
    close(patterned_file("data", 1, FILE_BLOCKS * BLOCK));
    int before = -1;
    for (int round = 0; round < 60; round++) {
        use_everything(context);
        int open_now = 0;
        for (int fd = 0; fd < 1024; fd++)
            open_now += fcntl(fd, F_GETFD) >= 0;
        if (round == 9)
            before = open_now;
        if (round > 9)
            must_that(open_now <= before, "%d descriptors, earlier %d", open_now, before);
    }
}

// ---- Protection keys -----------------------------------------------------------------------

// A buffer that only the submitting thread has made accessible, after daemons were started.
static void a_buffer_under_a_key_of_the_thread_is_read_into(void) {
    int fd = patterned_file("keyed", 9, 64 * BLOCK), ends[2];
    io_context_t context = new_context(8);
    struct iocb request;
    struct io_event event;
    char byte, *buffer = aligned(BLOCK);
    // A POLL that must wait has a daemon started, if none runs.
    must(pipe(ends), 0);
    io_prep_pread(&request, fd, &byte, 1, 0);
    must(run_one(context, &request), 1);
    io_prep_poll(&request, ends[0], POLLIN);
    submit(context, &request);
    must(write(ends[1], "x", 1), 1);
    reap(context, 1, &event);
    int key = pkey_alloc(0, 0);
    if (key < 0) skip_case("this processor has no protection keys");
    must(pkey_mprotect(buffer, BLOCK, PROT_READ | PROT_WRITE, key), 0);
    for (int round = 0; round < 4; round++) {
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, BLOCK, round * 16l * BLOCK);
        must(run_one(context, &request), BLOCK);
        expect(has_pattern(buffer, 9, (uint64_t)round * 16 * BLOCK, BLOCK), true);
    }
}

static const struct test_case cases[] = {
    CASE(a_buffer_under_a_key_of_the_thread_is_read_into),
    CASE(cold_read_keeps_its_file),
    CASE(batch_of_cold_reads_keeps_its_file),
    CASE(direct_reads_keep_their_file),
    CASE(buffered_writes_keep_their_file),
    CASE(direct_writes_keep_their_file),
    CASE(direct_writes_extend_their_file),
    CASE(buffered_requests_keep_their_order),
    CASE(eventfd_is_kept_too),
    CASE(unlinked_files_are_read),
    CASE(threads_with_their_own_table_read_their_own_files),
    CASE(threads_with_their_own_table_have_their_own_eventfds),
    SLOW_CASE(record_locks_are_kept, 40),
    CASE(flock_ends_with_the_last_close),
    CASE(written_program_can_be_executed),
    CASE(pipes_end_with_their_writer),
    LAYER_CASE(waiting_pipe_requests_see_the_end, 20, PIPE_REASON),
    LAYER_CASE(big_pipe_writes_wait_for_the_reader, 20, PIPE_REASON),
    SLOW_CASE(closing_all_after_setup_harms_nothing, 40),
    SLOW_CASE(closing_all_after_use_harms_nothing, 40),
    SLOW_CASE(closing_all_in_flight_harms_nothing, 40),
    CASE(descriptors_do_not_pile_up),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

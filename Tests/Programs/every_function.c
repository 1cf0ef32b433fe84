// Proves that each of libaio's ten functions, in each of its versions, each opcode and each flag does
// what a program expects of it when the arguments are right.

#include "harness.h"

#include <dlfcn.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

#define SIZE (1 << 20)

extern int io_queue_wait(io_context_t context, struct timespec *timeout);

// ---- Opcodes -------------------------------------------------------------------------------

static void pread_reads_what_is_there(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    char *buffer = aligned(SIZE);
    struct iocb request;
    io_prep_pread(&request, fd, buffer, SIZE, 0);
    request.data = &fd;
    expect(run_one(context, &request), SIZE);
    expect_that(has_pattern(buffer, 1, 0, SIZE), "wrong data in the whole file");
    io_prep_pread(&request, fd, buffer + 3, 777, 12345);
    expect(run_one(context, &request), 777);
    expect_that(has_pattern(buffer + 3, 1, 12345, 777), "wrong data at an odd offset");
    make_cold(fd);
    io_prep_pread(&request, fd, buffer, 65536, 65536);
    expect(run_one(context, &request), 65536);
    expect_that(has_pattern(buffer, 1, 65536, 65536), "wrong data from a cold file");
    expect(io_destroy(context), 0);
}

static void pwrite_writes_what_is_given(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    char *buffer = aligned(SIZE), *back = aligned(SIZE);
    fill_pattern(buffer, 2, 4097, 10000);
    struct iocb request;
    io_prep_pwrite(&request, fd, buffer, 10000, 4097);
    expect(run_one(context, &request), 10000);
    expect(pread(fd, back, SIZE, 0), SIZE);
    expect_that(has_pattern(back, 1, 0, 4097), "bytes before the write changed");
    expect_that(has_pattern(back + 4097, 2, 4097, 10000), "the write did not land");
    expect_that(has_pattern(back + 14097, 1, 14097, SIZE - 14097), "bytes after the write changed");
    io_prep_pwrite(&request, fd, buffer, 10000, SIZE + 4097);
    expect(run_one(context, &request), 10000);
    struct stat s;
    fstat(fd, &s);
    expect(s.st_size, SIZE + 14097);
}

// Cuts a buffer into unequal pieces, so that a wrong iovec order shows in the data.
static int cut(char *buffer, size_t size, struct iovec *pieces) {
    int count = 0;
    for (size_t at = 0, step = 1; at < size; at += step, step = step * 3 + 1, count++) {
        if (step > size - at)
            step = size - at;
        pieces[count] = (struct iovec){buffer + at, step};
    }
    return count;
}

static void preadv_scatters(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    char *buffer = aligned(SIZE);
    struct iovec pieces[32];
    int count = cut(buffer, 100000, pieces);
    struct iocb request;
    io_prep_preadv(&request, fd, pieces, count, 513);
    expect(run_one(context, &request), 100000);
    expect_that(has_pattern(buffer, 1, 513, 100000), "wrong data");
    make_cold(fd);
    io_prep_preadv(&request, fd, pieces, count, 200001);
    expect(run_one(context, &request), 100000);
    expect_that(has_pattern(buffer, 1, 200001, 100000), "wrong data from a cold file");
}

static void pwritev_gathers(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    char *buffer = aligned(SIZE), *back = aligned(SIZE);
    fill_pattern(buffer, 2, 999, 100000);
    struct iovec pieces[32];
    int count = cut(buffer, 100000, pieces);
    struct iocb request;
    io_prep_pwritev(&request, fd, pieces, count, 999);
    expect(run_one(context, &request), 100000);
    expect(pread(fd, back, 100000, 999), 100000);
    expect_that(has_pattern(back, 2, 999, 100000), "wrong data");
}

// The iovec array, like the iocb, belongs to the program again once io_submit has returned.
static void iocb_and_vector_are_copied_at_submit(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(64);
    char *buffer = aligned(64 * BLOCK);
    make_cold(fd);
    for (int i = 0; i < 64; i++) {
        struct iovec piece[2] = {{buffer + i * BLOCK, 100}, {buffer + i * BLOCK + 100, BLOCK - 100}};
        struct iocb request;
        io_prep_preadv(&request, fd, piece, 2, (long long)i * BLOCK);
        request.data = (void *)(long)i;
        submit(context, &request);
        memset(&request, 0xff, sizeof request);
        memset(piece, 0xff, sizeof piece);
    }
    struct io_event events[64];
    reap(context, 64, events);
    uint64_t seen = 0;
    for (int i = 0; i < 64; i++) {
        expect(events[i].res, BLOCK);
        seen |= 1ul << ((long)events[i].data & 63);
    }
    expect(seen, -1);
    expect_that(has_pattern(buffer, 1, 0, 64 * BLOCK), "wrong data");
}

static void fsync_and_fdsync_answer_zero(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    struct iocb request;
    must(pwrite(fd, "dirty", 5, 0), 5);
    io_prep_fsync(&request, fd);
    expect(run_one(context, &request), 0);
    must(pwrite(fd, "dirty", 5, 0), 5);
    io_prep_fdsync(&request, fd);
    expect(run_one(context, &request), 0);
    int reader = open(temp_path("file"), O_RDONLY);
    io_prep_fsync(&request, reader);
    expect(run_one(context, &request), 0);
}

static void poll_reports_readiness(void) {
    io_context_t context = new_context(8);
    int pipes[2], sockets[2];
    must(pipe(pipes), 0);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    struct iocb request;
    struct io_event event;
    io_prep_poll(&request, pipes[1], POLLOUT);
    expect(run_one(context, &request), POLLOUT);

    io_prep_poll(&request, pipes[0], POLLIN);
    submit(context, &request);
    expect(io_getevents(context, 0, 1, &event, NULL), 0);
    must(write(pipes[1], "x", 1), 1);
    reap(context, 1, &event);
    // The kernel passes on what the waker said, which may name more than was asked for.
    expect(event.res & POLLIN, POLLIN);
    must(write(pipes[1], "x", 1), 1);
    expect(io_getevents(context, 0, 1, &event, NULL), 0);

    close(sockets[1]);
    io_prep_poll(&request, sockets[0], POLLIN);
    expect(run_one(context, &request), POLLIN | POLLHUP);

    int fd = patterned_file("file", 1, BLOCK);
    io_prep_poll(&request, fd, POLLIN);
    expect(run_one(context, &request), POLLIN);
}

static void direct_requests_carry_data(void) {
    close(patterned_file("file", 1, SIZE));
    int fd = open_direct("file", O_RDWR);
    io_context_t context = new_context(32);
    char *buffer = aligned(SIZE), *back = aligned(SIZE);
    struct iocb requests[16], *list[16];
    struct io_event events[16];
    for (int i = 0; i < 16; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * 65536, 65536, i * 65536);
        list[i] = &requests[i];
    }
    must(io_submit(context, 16, list), 16);
    reap(context, 16, events);
    for (int i = 0; i < 16; i++)
        expect(events[i].res, 65536);
    expect_that(has_pattern(buffer, 1, 0, SIZE), "wrong data read");

    fill_pattern(buffer, 2, 0, SIZE);
    struct iovec pieces[4] = {{buffer, BLOCK}, {buffer + BLOCK, 3 * BLOCK},
        {buffer + 4 * BLOCK, BLOCK}, {buffer + 5 * BLOCK, 11 * BLOCK}};
    struct iocb request;
    io_prep_pwritev(&request, fd, pieces, 4, 0);
    expect(run_one(context, &request), 16 * BLOCK);
    io_prep_pwrite(&request, fd, buffer + 16 * BLOCK, SIZE - 16 * BLOCK, 16 * BLOCK);
    expect(run_one(context, &request), SIZE - 16 * BLOCK);
    io_prep_pwrite(&request, fd, buffer, BLOCK, SIZE + BLOCK);
    expect(run_one(context, &request), BLOCK);
    io_prep_fdsync(&request, fd);
    expect(run_one(context, &request), 0);
    struct iovec halves[2] = {{back, SIZE / 2}, {back + SIZE / 2, SIZE / 2}};
    io_prep_preadv(&request, fd, halves, 2, 0);
    expect(run_one(context, &request), SIZE);
    expect_that(has_pattern(back, 2, 0, SIZE), "wrong data after the write");
    struct stat s;
    fstat(fd, &s);
    expect(s.st_size, SIZE + 2 * BLOCK);
}

static void pipes_and_sockets_carry_data(void) {
    io_context_t context = new_context(8);
    int pipes[2], sockets[2];
    char in[64] = "", out[] = "through the layer";
    must(pipe(pipes), 0);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    struct iocb request;
    // A pipe has no offset: the kernel ignores it.
    io_prep_pwrite(&request, pipes[1], out, sizeof out, 4096);
    expect(run_one(context, &request), sizeof out);
    io_prep_pread(&request, pipes[0], in, sizeof in, 4096);
    expect(run_one(context, &request), sizeof out);
    expect(memcmp(in, out, sizeof out), 0);
    memset(in, 0, sizeof in);
    io_prep_pwrite(&request, sockets[1], out, sizeof out, 0);
    expect(run_one(context, &request), sizeof out);
    struct iovec piece = {in, sizeof in};
    io_prep_preadv(&request, sockets[0], &piece, 1, 0);
    expect(run_one(context, &request), sizeof out);
    expect(memcmp(in, out, sizeof out), 0);
}

// ---- Flags ---------------------------------------------------------------------------------

static void resfd_counts_every_event(void) {
    int fd = patterned_file("file", 1, SIZE), counter = eventfd(0, EFD_NONBLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(64 * BLOCK);
    struct iocb requests[64], *list[64];
    for (int i = 0; i < 64; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, i * BLOCK);
        io_set_eventfd(&requests[i], counter);
        list[i] = &requests[i];
    }
    io_prep_fsync(&requests[62], fd);
    io_set_eventfd(&requests[62], counter);
    requests[63].u.c.flags = 0;
    must(io_submit(context, 64, list), 64);
    struct io_event events[64];
    reap(context, 64, events);
    // The count follows the event, so the last one may be a moment behind.
    uint64_t total = 0, value;
    double deadline = now_seconds() + 5;
    while (total < 63 && now_seconds() < deadline)
        if (read(counter, &value, sizeof value) == sizeof value)
            total += value;
    expect(total, 63);
    sleep_ms(20);
    expect_that(!readable(counter), "the eventfd was written once too often");
}

static void ioprio_flag_takes_a_valid_class(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    short best_effort = 2 << 13 | 4, idle = 3 << 13;
    struct iocb request;
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    request.u.c.flags = 1 << 1;
    request.aio_reqprio = best_effort;
    expect(run_one(context, &request), BLOCK);
    request.aio_reqprio = idle;
    make_cold(fd);
    expect(run_one(context, &request), BLOCK);
    // Without the flag the field is not looked at.
    request.u.c.flags = 0;
    request.aio_reqprio = (short)(7 << 13);
    expect(run_one(context, &request), BLOCK);
    expect_that(has_pattern(buffer, 1, 0, BLOCK), "wrong data");
}

static void rw_flags_are_honoured(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    struct iocb request;
    struct stat s;
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    request.aio_rw_flags = RWF_HIPRI;
    expect(run_one(context, &request), BLOCK);
    struct iovec piece = {buffer, 100};
    io_prep_pwritev2(&request, fd, &piece, 1, 0, RWF_DSYNC);
    expect(run_one(context, &request), 100);
    io_prep_pwritev2(&request, fd, &piece, 1, 0, RWF_SYNC);
    expect(run_one(context, &request), 100);
    // An appending write ignores its offset.
    fill_pattern(buffer, 2, BLOCK, 100);
    io_prep_pwritev2(&request, fd, &piece, 1, 7, RWF_APPEND);
    expect(run_one(context, &request), 100);
    fstat(fd, &s);
    expect(s.st_size, BLOCK + 100);
    expect(pread(fd, buffer, 100, BLOCK), 100);
    expect_that(has_pattern(buffer, 2, BLOCK, 100), "the appended bytes are wrong");
}

static void nowait_never_waits(void) {
    int fd = patterned_file("file", 1, SIZE), pipes[2];
    io_context_t context = new_context(8);
    char *buffer = aligned(SIZE);
    struct iocb request;
    must(pread(fd, buffer, BLOCK, 0), BLOCK);
    struct iovec piece = {buffer, BLOCK};
    io_prep_preadv2(&request, fd, &piece, 1, 0, RWF_NOWAIT);
    long got = run_one(context, &request);
    if (got == -EOPNOTSUPP)
        skip_case("the file system of the temporary directory has no RWF_NOWAIT");
    expect(got, BLOCK);
    make_cold(fd);
    // The page cache is free to keep the page.
    got = run_one(context, &request);
    expect_that(got == -EAGAIN || got == BLOCK, "expected -EAGAIN or a block got %ld", got);
    must(pipe(pipes), 0);
    io_prep_preadv2(&request, pipes[0], &piece, 1, 0, RWF_NOWAIT);
    expect(run_one(context, &request), -EAGAIN);
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    io_prep_pread(&request, pipes[0], buffer, BLOCK, 0);
    expect(run_one(context, &request), -EAGAIN);
}

static void append_mode_appends(void) {
    close(patterned_file("file", 1, BLOCK));
    int fd = open(temp_path("file"), O_RDWR | O_APPEND);
    io_context_t context = new_context(64);
    char *buffer = aligned(64 * 100), *back = aligned(BLOCK + 6400);
    struct iocb requests[64], *list[64];
    struct io_event events[64];
    fill_pattern(buffer, 2, 0, 6400);
    for (int i = 0; i < 64; i++) {
        io_prep_pwrite(&requests[i], fd, buffer + 100 * i, 100, 0);
        list[i] = &requests[i];
    }
    must(io_submit(context, 64, list), 64);
    reap(context, 64, events);
    expect(pread(fd, back, BLOCK + 6400, 0), BLOCK + 6400);
    expect_that(has_pattern(back, 1, 0, BLOCK), "the old contents changed");
    expect_that(has_pattern(back + BLOCK, 2, 0, 6400), "appending writes are out of order");
    struct iovec piece = {buffer, 8};
    io_prep_pwritev2(&requests[0], fd, &piece, 1, 0, RWF_NOAPPEND);
    long got = run_one(context, &requests[0]);
    if (got != -EOPNOTSUPP) {
        expect(got, 8);
        expect(pread(fd, back, 8, 0), 8);
        expect(memcmp(back, buffer, 8), 0);
    }
}

// ---- Functions -----------------------------------------------------------------------------

static void contexts_have_a_ring(void) {
    io_context_t contexts[20];
    for (int i = 0; i < 20; i++) {
        contexts[i] = new_context(4);
        struct ring *ring = ring_of(contexts[i]);
        expect((unsigned long)ring % 4096, 0);
        expect(ring->id, i);
        expect(ring->magic, 0xa10a10a1);
        expect(ring->compat, 1);
        expect(ring->incompat, 0);
        expect(ring->header_length, 32);
        expect(ring->head, 0);
        expect(ring->tail, 0);
    }
    for (int i = 0; i < 20; i += 10)
        expect(io_destroy(contexts[i]), 0);
    expect(io_destroy(contexts[10]), -EINVAL);
}

static int called;

static void callback(io_context_t context, struct iocb *request, long res, long res2) {
    (void)context;
    called++;
    expect(res, request->u.c.nbytes);
    expect(res2, 0);
}

static void queue_functions_work(void) {
    int fd = patterned_file("file", 1, SIZE);
    io_context_t context = NULL;
    expect(io_queue_init(0, &context), -EINVAL);
    expect(io_queue_init(-1, &context), -EINVAL);
    // Unlike io_setup it does not ask that the variable be zero.
    context = (io_context_t)1;
    must(io_queue_init(16, &context), 0);
    char *buffer = aligned(10 * BLOCK);
    struct iocb requests[10];
    for (int i = 0; i < 10; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, (size_t)(i + 1) * 100, i * BLOCK);
        io_set_callback(&requests[i], callback);
        submit(context, &requests[i]);
    }
    struct timespec second = {1, 0};
    expect(io_queue_wait(context, &second), 0);
    double deadline = now_seconds() + 5;
    while (called < 10 && now_seconds() < deadline)
        expect(io_queue_run(context), 0);
    expect(called, 10);
    expect(io_queue_run(context), 0);
    expect(called, 10);
    expect(io_queue_release(context), 0);
    expect(io_queue_release(context), -EINVAL);
}

static void inline_wrappers_work(void) {
    int fd = patterned_file("file", 1, BLOCK), counter = eventfd(1, 0);
    io_context_t context = new_context(8);
    struct iocb requests[3];
    struct io_event events[3];
    expect(io_fsync(context, &requests[0], callback, fd), 1);
    expect(io_fdsync(context, &requests[1], callback, fd), 1);
    expect(io_poll(context, &requests[2], callback, counter, POLLIN), 1);
    reap(context, 3, events);
    for (int i = 0; i < 3; i++) {
        expect_that(events[i].data == (void *)callback, "the callback is lost");
        expect(events[i].res, events[i].obj == &requests[2] ? POLLIN : 0);
    }
}

static void pgetevents_reaps(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    struct iocb request;
    struct io_event event;
    struct timespec soon = {5, 0};
    sigset_t mask;
    sigfillset(&mask);
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    submit(context, &request);
    expect(io_pgetevents(context, 1, 1, &event, &soon, &mask), 1);
    expect(event.res, BLOCK);
    submit(context, &request);
    expect(io_pgetevents(context, 1, 1, &event, NULL, NULL), 1);
    expect(io_pgetevents(context, 0, 1, &event, NULL, NULL), 0);
    struct timespec none = {0, 0};
    expect(io_pgetevents(context, 1, 1, &event, &none, &mask), 0);
}

static void cancel_ends_a_poll(void) {
    io_context_t context = new_context(8);
    int counter = eventfd(0, 0);
    struct iocb request;
    struct io_event event = {.res = 99}, result = {.res = 77};
    io_prep_poll(&request, counter, POLLIN);
    request.data = &counter;
    submit(context, &request);
    expect(io_cancel(context, &request, &result), -EINPROGRESS);
    expect(result.res, 77);
    reap(context, 1, &event);
    expect(event.res, 0);
    expect_that(event.obj == &request && event.data == &counter, "another request was cancelled");
    expect(io_cancel(context, &request, &result), -EINVAL);
}

// Programs linked decades ago bind to the first versions, whose arguments differ.
static void first_versions_work(void) {
    int (*old_getevents)(io_context_t, long, struct io_event *, const struct timespec *) =
        dlvsym(RTLD_DEFAULT, "io_getevents", "LIBAIO_0.1");
    int (*old_cancel)(io_context_t, struct iocb *) = dlvsym(RTLD_DEFAULT, "io_cancel", "LIBAIO_0.1");
    int (*old_wait)(io_context_t, const struct timespec *) =
        dlvsym(RTLD_DEFAULT, "io_queue_wait", "LIBAIO_0.1");
    must_that(old_getevents && old_cancel && old_wait, "a LIBAIO_0.1 symbol is missing");
    int fd = patterned_file("file", 1, BLOCK), counter = eventfd(0, 0);
    io_context_t context = new_context(8);
    char *buffer = aligned(4 * BLOCK);
    struct iocb requests[4];
    struct io_event events[4];
    struct timespec second = {1, 0}, none = {0, 0};
    for (int i = 0; i < 4; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, 0);
        submit(context, &requests[i]);
    }
    expect(old_wait(context, &second), 0);
    int got = 0;
    for (int i = 0; i < 4 && got < 4; i++)
        got += old_getevents(context, 4 - got, events, &second);
    expect(got, 4);
    expect(old_getevents(context, 4, events, &none), 0);
    // It waits for one event, not for all that there is room for.
    io_prep_poll(&requests[0], counter, POLLIN);
    submit(context, &requests[0]);
    submit(context, &requests[1]);
    expect(old_getevents(context, 4, events, NULL), 1);
    expect(old_cancel(context, &requests[0]), -EINPROGRESS);
    expect(old_getevents(context, 4, events, NULL), 1);
    expect(events[0].res, 0);
}

static void current_versions_are_the_default(void) {
    static const char *const names[] = {"io_setup", "io_destroy", "io_cancel", "io_getevents",
        "io_queue_wait"};
    for (int i = 0; i < 5; i++) {
        expect_that(dlvsym(RTLD_DEFAULT, names[i], "LIBAIO_0.4") != NULL, "no %s@LIBAIO_0.4", names[i]);
        expect_that(dlvsym(RTLD_DEFAULT, names[i], "LIBAIO_0.4") == dlsym(RTLD_DEFAULT, names[i]),
            "%s is not its 0.4 version", names[i]);
    }
    expect_that(dlvsym(RTLD_DEFAULT, "io_pgetevents", "LIBAIO_0.5") != NULL, "no io_pgetevents@0.5");
}

// libaio returns -errno and leaves errno itself alone.
static void errno_is_left_alone(void) {
    io_context_t context = NULL, stale = new_context(1);
    io_destroy(stale);
    struct iocb request, *list[] = {&request};
    struct io_event event;
    int pipes[2];
    must(pipe(pipes), 0);
    io_prep_pread(&request, -1, &event, 1, 0);
    errno = 4321;
    io_setup(0, &context);
    expect(errno, 4321);
    io_setup(8, &context);
    io_submit(context, 1, list);
    io_cancel(context, &request, &event);
    io_getevents(context, 2, 1, &event, NULL);
    io_getevents(context, 0, 1, &event, NULL);
    io_pgetevents(context, 2, 1, &event, NULL, NULL);
    io_queue_run(context);
    io_prep_pread(&request, pipes[0], &event, 1, 0);
    request.aio_rw_flags = RWF_NOWAIT;
    io_submit(context, 1, list);
    io_getevents(context, 0, 1, &event, NULL);
    io_destroy(context);
    io_destroy(NULL);
    expect(errno, 4321);
}

static const struct test_case cases[] = {
    CASE(contexts_have_a_ring),
    CASE(pread_reads_what_is_there),
    CASE(pwrite_writes_what_is_given),
    CASE(preadv_scatters),
    CASE(pwritev_gathers),
    CASE(iocb_and_vector_are_copied_at_submit),
    CASE(fsync_and_fdsync_answer_zero),
    CASE(poll_reports_readiness),
    CASE(direct_requests_carry_data),
    CASE(pipes_and_sockets_carry_data),
    CASE(resfd_counts_every_event),
    CASE(ioprio_flag_takes_a_valid_class),
    CASE(rw_flags_are_honoured),
    CASE(nowait_never_waits),
    CASE(append_mode_appends),
    CASE(queue_functions_work),
    CASE(inline_wrappers_work),
    CASE(pgetevents_reaps),
    CASE(cancel_ends_a_poll),
    CASE(first_versions_work),
    CASE(current_versions_are_the_default),
    CASE(errno_is_left_alone),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

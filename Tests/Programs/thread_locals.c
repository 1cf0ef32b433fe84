// Proves that a program with more thread-local memory than a daemon's frames need has daemons all the
// same: the C library takes that memory from each thread's stack.

#include "harness.h"

#include <aio.h>
#include <grp.h>

// More than a daemon is given for its frames.
static __thread volatile char locals[1 << 18];

// A read of an empty pipe, which no thread of the program may wait for, and one of a cold file.
static void requests_have_a_daemon(void) {
    int fds[2];
    char byte = 0, *block = aligned(BLOCK);
    struct iocb requests[2];
    struct io_event events[2];
    io_context_t context = used_context(8);
    int file = patterned_file("file", 1, 16 * BLOCK);
    locals[sizeof locals - 1] = 1;
    must(pipe(fds), 0);
    io_prep_pread(&requests[0], fds[0], &byte, 1, 0);
    submit(context, &requests[0]);
    make_cold(file);
    io_prep_pread(&requests[1], file, block, BLOCK, 4 * BLOCK);
    submit(context, &requests[1]);
    must(io_getevents(context, 1, 1, events, NULL), 1);
    expect(events[0].res, BLOCK);
    expect_that(has_pattern(block, 1, 4 * BLOCK, BLOCK), "the block is another");
    must(write(fds[1], "x", 1), 1);
    reap(context, 1, events);
    expect(byte, 'x');
    expect(io_destroy(context), 0);
}

// The C library has every thread of the process change its user, in a handler on that thread's stack.
static void its_user_may_change(void) {
    if (geteuid() != 0)
        skip_case("only root may change its user");
    int fds[2];
    char byte = 0;
    struct iocb request;
    struct io_event event;
    io_context_t context = used_context(8);
    must(pipe(fds), 0);
    io_prep_pread(&request, fds[0], &byte, 1, 0);
    submit(context, &request);
    must(setgroups(0, NULL), 0);
    must(setresgid(65534, 65534, 65534), 0);
    must(setresuid(65534, 65534, 65534), 0);
    must(write(fds[1], "x", 1), 1);
    reap(context, 1, &event);
    expect(byte, 'x');
}

static volatile char seen;

static void take(union sigval value) {
    locals[0] = 1;
    seen = *(char *)value.sival_ptr;
}

static void functions_have_a_thread(void) {
    int fds[2];
    char byte = 0;
    struct aiocb request = {.aio_buf = &byte, .aio_nbytes = 1};
    const struct aiocb *list[] = {&request};
    must(pipe(fds), 0);
    request.aio_fildes = fds[0];
    request.aio_sigevent.sigev_notify = SIGEV_THREAD;
    request.aio_sigevent.sigev_notify_function = take;
    request.aio_sigevent.sigev_value.sival_ptr = &byte;
    must(aio_read(&request), 0);
    must(write(fds[1], "x", 1), 1);
    must(aio_suspend(list, 1, NULL), 0);
    expect(aio_return(&request), 1);
    while (seen == 0)
        usleep(1000);
    expect(seen, 'x');
}

static const struct test_case cases[] = {
    LAYER_CASE(requests_have_a_daemon, 0, "it waits for the pipe in io_submit"),
    LAYER_CASE(its_user_may_change, 0, "it waits for the pipe in io_submit"),
    CASE(functions_have_a_thread),
};

int main(int argc, char **argv) {
    return RUN_CASES(argc, argv, cases);
}

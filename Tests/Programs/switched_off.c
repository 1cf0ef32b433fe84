// Proves that with IOCTX_ENGINE=off every call answers -ENOSYS, as on a kernel without AIO.

#include "harness.h"

#include <dlfcn.h>

#define REASON "the kernel's AIO cannot be switched off by a variable"

extern int io_queue_wait(io_context_t context, struct timespec *timeout);

static void every_call_answers_enosys(void) {
    io_context_t context = NULL, some = (io_context_t)4096;
    struct iocb request, *list[] = {&request};
    struct io_event event;
    struct timespec none = {0, 0};
    char byte;
    io_prep_pread(&request, 0, &byte, 1, 0);
    expect(io_setup(1, &context), -ENOSYS);
    expect(io_setup(0, NULL), -ENOSYS);
    expect_that(context == NULL, "the variable was changed");
    expect(io_submit(some, 1, list), -ENOSYS);
    expect(io_submit(NULL, -1, NULL), -ENOSYS);
    expect(io_cancel(some, &request, &event), -ENOSYS);
    expect(io_cancel(NULL, NULL, NULL), -ENOSYS);
    expect(io_getevents(some, 0, 1, &event, &none), -ENOSYS);
    expect(io_getevents(NULL, 1, 1, NULL, NULL), -ENOSYS);
    expect(io_pgetevents(some, 0, 1, &event, &none, NULL), -ENOSYS);
    expect(io_queue_init(1, &context), -ENOSYS);
    expect(io_queue_run(some), -ENOSYS);
    expect(io_queue_wait(some, &none), -ENOSYS);
    expect(io_queue_release(some), -ENOSYS);
    expect(io_destroy(some), -ENOSYS);
    expect(io_destroy(NULL), -ENOSYS);
}

static void first_versions_answer_enosys(void) {
    int (*old_getevents)(io_context_t, long, struct io_event *, const struct timespec *) =
        dlvsym(RTLD_DEFAULT, "io_getevents", "LIBAIO_0.1");
    int (*old_cancel)(io_context_t, struct iocb *) = dlvsym(RTLD_DEFAULT, "io_cancel", "LIBAIO_0.1");
    int (*old_wait)(io_context_t, const struct timespec *) =
        dlvsym(RTLD_DEFAULT, "io_queue_wait", "LIBAIO_0.1");
    must_that(old_getevents && old_cancel && old_wait, "a LIBAIO_0.1 symbol is missing");
    struct iocb request = {.aio_fildes = 0};
    expect(old_getevents(NULL, 1, NULL, NULL), -ENOSYS);
    expect(old_cancel(NULL, &request), -ENOSYS);
    expect(old_wait(NULL, NULL), -ENOSYS);
}

static const struct test_case cases[] = {
    LAYER_CASE(every_call_answers_enosys, 10, REASON),
    LAYER_CASE(first_versions_answer_enosys, 10, REASON),
};

int main(int argc, char **argv) {
    setenv("IOCTX_ENGINE", "off", 1);
    return RUN_CASES(argc, argv, cases);
}

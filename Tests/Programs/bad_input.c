// Proves that bad arguments come back as the kernel's errno, from the call and in the order of checks
// in which the kernel gives them, that nothing crashes, and that no refused request costs a slot.

#include "harness.h"

#include <poll.h>
#include <sys/socket.h>

#define IOCB_FLAG_RESFD 1u
#define IOCB_FLAG_IOPRIO 2u
#define UNKNOWN_RWF 0x40000000
#define CLASS_7 ((short)(7 << 13))

static void setup_checks_its_arguments(void) {
    io_context_t context = (io_context_t)8;
    expect(io_setup(8, &context), -EINVAL);
    expect_that(context == (io_context_t)8, "the variable was changed");
    context = NULL;
    expect(io_setup(0, &context), -EINVAL);
    expect_that(context == NULL, "the variable was changed");
    expect(io_setup(8, NULL), -EFAULT);
    expect(io_setup(0, NULL), -EFAULT);
    expect(io_setup(8, KERNEL_HALF), -EFAULT);
    expect(io_setup(-1, KERNEL_HALF), -EFAULT);
    // A refused io_setup has used nothing up.
    must(io_setup(8, &context), 0);
    expect(ring_of(context)->id, 0);
}

// ---- Contexts that are none ----------------------------------------------------------------

static void wrong_contexts_are_refused(void) {
    io_context_t stale = new_context(8), live = new_context(8);
    must(io_destroy(stale), 0);
    char *page = aligned(4096);
    memset(page, 0, 4096);
    io_context_t wrong[] = {NULL, (io_context_t)-1, stale, (io_context_t)page,
        (io_context_t)((char *)live + 64), (io_context_t)KERNEL_HALF, (io_context_t)12345};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct iocb request, *list[] = {&request};
        struct io_event event;
        struct timespec soon = {0, 1000};
        io_prep_pread(&request, 0, &event, 1, 0);
        long got[] = {io_destroy(wrong[i]), io_submit(wrong[i], 1, list), io_submit(wrong[i], 0, list),
            io_submit(wrong[i], 1, NULL), io_cancel(wrong[i], &request, &event),
            call_io_getevents(wrong[i], 1, 1, &event, &soon),
            call_io_getevents(wrong[i], 0, 0, NULL, NULL)};
        for (size_t j = 0; j < sizeof got / sizeof *got; j++)
            expect_that(got[j] == -EINVAL, "context %zu, call %zu: expected -EINVAL got %ld", i, j, got[j]);
    }
    expect(io_destroy(live), 0);
}

// ---- io_submit -----------------------------------------------------------------------------

static void submit_checks_its_arguments(void) {
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    char byte;
    struct iocb good, *list[] = {&good, NULL, &good};
    io_prep_pread(&good, fd, &byte, 1, 0);
    expect(io_submit(context, -1, list), -EINVAL);
    expect(io_submit(NULL, -1, list), -EINVAL);
    expect(io_submit(context, 0, NULL), 0);
    expect(io_submit(context, 0, KERNEL_HALF), 0);
    expect(io_submit(context, 1, NULL), -EFAULT);
    expect(io_submit(context, 1, KERNEL_HALF), -EFAULT);
    expect(io_submit(context, 1, list + 1), -EFAULT);
    expect(io_submit(context, 3, list), 1);
    list[1] = KERNEL_HALF;
    expect(io_submit(context, 1, list + 1), -EFAULT);
    expect(io_submit(context, 3, list), 1);
    struct io_event events[2];
    reap(context, 2, events);
    expect_all_slots(context, fd);
}

// What a request is made against, by the kind of descriptor it names.
enum target { FILE_RW, FILE_R, FILE_W, DIRECTORY, CLOSED, PATH_ONLY, PIPE_R, PIPE_W, FULL, TARGETS };
static int targets[TARGETS];

static void open_targets(void) {
    int pipes[2];
    targets[FILE_RW] = patterned_file("file", 1, 65536);
    targets[FILE_R] = open(temp_path("file"), O_RDONLY);
    targets[FILE_W] = open(temp_path("file"), O_WRONLY);
    targets[DIRECTORY] = open("/", O_RDONLY | O_DIRECTORY);
    targets[CLOSED] = 999;
    targets[PATH_ONLY] = open(temp_path("file"), O_PATH);
    must(pipe(pipes), 0);
    targets[PIPE_R] = pipes[0];
    targets[PIPE_W] = pipes[1];
    targets[FULL] = open("/dev/full", O_RDWR);
}

// One request and what it must come to, at io_submit or (in_event) as the event's result. The fields
// left out are zero; `buf` 0 stands for a good buffer, NO_BUFFER for the null pointer.
struct bad_request {
    const char *what;
    enum target target;
    int opcode;
    int answer;
    uint64_t buf, nbytes;
    int64_t offset;
    int64_t reserved2;
    unsigned flags;
    int resfd;
    int rw_flags;
    short reqprio;
    bool in_event;
};

#define NO_BUFFER 1
#define HALF ((uint64_t)KERNEL_HALF)
#define TOO_LONG (1ul << 63)

static const struct bad_request bad_requests[] = {
    // reserved2 and sizes that fit no ssize_t come before the descriptor.
    {"reserved2 set", FILE_RW, 0, -EINVAL, .nbytes = 8, .reserved2 = 1},
    {"reserved2 before fd", CLOSED, 0, -EINVAL, .nbytes = 8, .reserved2 = 1},
    {"nbytes negative", FILE_RW, 0, -EINVAL, .nbytes = TOO_LONG},
    {"nbytes negative before fd", CLOSED, 0, -EINVAL, .nbytes = TOO_LONG},
    {"nbytes -1 before opcode", CLOSED, 99, -EINVAL, .nbytes = -1ul},
    // The descriptor comes before the opcode, and so does resfd.
    {"fd closed", CLOSED, 0, -EBADF, .nbytes = 8},
    {"fd closed before opcode", CLOSED, 99, -EBADF, .nbytes = 8},
    {"fd closed before resfd", CLOSED, 0, -EBADF, .nbytes = 8, .flags = IOCB_FLAG_RESFD, .resfd = 0},
    {"fd O_PATH", PATH_ONLY, 0, -EBADF, .nbytes = 8},
    {"fd O_PATH for poll", PATH_ONLY, 5, -EBADF, .buf = POLLIN},
    {"fd O_PATH for fsync", PATH_ONLY, 2, -EBADF, .buf = NO_BUFFER},
    {"resfd not open", FILE_RW, 0, -EBADF, .nbytes = 8, .flags = IOCB_FLAG_RESFD, .resfd = 999},
    {"resfd -1", FILE_RW, 0, -EBADF, .nbytes = 8, .flags = IOCB_FLAG_RESFD, .resfd = -1},
    {"resfd not an eventfd", FILE_RW, 0, -EINVAL, .nbytes = 8, .flags = IOCB_FLAG_RESFD, .resfd = -2},
    {"resfd before opcode", FILE_RW, 99, -EBADF, .nbytes = 8, .flags = IOCB_FLAG_RESFD, .resfd = 999},
    {"opcode 4", FILE_RW, 4, -EINVAL, .nbytes = 8},
    {"opcode NOOP", FILE_RW, 6, -EINVAL, .nbytes = 8},
    {"opcode 9", FILE_RW, 9, -EINVAL, .nbytes = 8},
    {"opcode 99", FILE_RW, 99, -EINVAL, .nbytes = 8},
    {"opcode -1", FILE_RW, -1, -EINVAL, .nbytes = 8},
    // Priority, then rw_flags, then the access mode, then the kind of file, the buffer, the offset.
    {"ioprio class 7", FILE_RW, 0, -EINVAL, .nbytes = 8, .flags = IOCB_FLAG_IOPRIO, .reqprio = CLASS_7},
    {"ioprio before rw_flags", FILE_RW, 0, -EINVAL, .nbytes = 8, .flags = IOCB_FLAG_IOPRIO,
        .reqprio = CLASS_7, .rw_flags = UNKNOWN_RWF},
    {"rw_flags unknown", FILE_RW, 0, -EOPNOTSUPP, .nbytes = 8, .rw_flags = UNKNOWN_RWF},
    {"rw_flags unknown, vector", FILE_RW, 7, -EOPNOTSUPP, .nbytes = 1, .rw_flags = UNKNOWN_RWF},
    {"rw_flags before access mode", FILE_W, 0, -EOPNOTSUPP, .nbytes = 8, .rw_flags = UNKNOWN_RWF},
    {"rw_flags -1", FILE_RW, 1, -EOPNOTSUPP, .nbytes = 8, .rw_flags = -1},
    {"read of a write-only file", FILE_W, 0, -EBADF, .nbytes = 8},
    {"write of a read-only file", FILE_R, 1, -EBADF, .nbytes = 8},
    {"readv of a write-only file", FILE_W, 7, -EBADF, .nbytes = 1},
    {"writev of a read-only file", FILE_R, 8, -EBADF, .nbytes = 1},
    {"read of a pipe's writing end", PIPE_W, 0, -EBADF, .nbytes = 8},
    {"write of a pipe's reading end", PIPE_R, 1, -EBADF, .nbytes = 8},
    {"access mode before offset", FILE_W, 0, -EBADF, .nbytes = 8, .offset = -1},
    {"access mode before buffer", FILE_W, 0, -EBADF, .buf = HALF, .nbytes = 8},
    {"read of a directory", DIRECTORY, 0, -EINVAL, .nbytes = 8},
    {"directory before buffer", DIRECTORY, 0, -EINVAL, .buf = HALF, .nbytes = 8},
    {"read into the kernel", FILE_RW, 0, -EFAULT, .buf = HALF, .nbytes = 8},
    {"write from the kernel", FILE_RW, 1, -EFAULT, .buf = HALF, .nbytes = 8},
    {"buffer before offset", FILE_RW, 0, -EFAULT, .buf = HALF, .nbytes = 8, .offset = -1},
    {"offset -1", FILE_RW, 0, -EINVAL, .nbytes = 8, .offset = -1},
    {"offset -1, write", FILE_RW, 1, -EINVAL, .nbytes = 8, .offset = -1},
    {"offset overflows", FILE_RW, 0, -EINVAL, .nbytes = 8, .offset = INT64_MAX},
    {"offset -1, vector", FILE_RW, 7, -EINVAL, .nbytes = 1, .offset = -1},
    // Vectors.
    {"1025 pieces", FILE_RW, 7, -EINVAL, .nbytes = 1025},
    {"1025 pieces, write", FILE_RW, 8, -EINVAL, .nbytes = 1025},
    {"2^32 pieces are none", FILE_RW, 7, 0, .nbytes = 1ul << 32, .in_event = true},
    {"null vector", FILE_RW, 7, -EFAULT, .buf = NO_BUFFER, .nbytes = 1},
    {"kernel vector", FILE_RW, 7, -EFAULT, .buf = HALF, .nbytes = 1},
    {"kernel vector, write", FILE_RW, 8, -EFAULT, .buf = HALF, .nbytes = 2},
    {"vector before offset", FILE_RW, 7, -EINVAL, .nbytes = 1025, .offset = -1},
    {"empty vector", FILE_RW, 7, 0, .nbytes = 0, .in_event = true},
    // FSYNC and FDSYNC want every other field zero.
    {"fsync with a buffer", FILE_RW, 2, -EINVAL, .buf = 0},
    {"fsync with nbytes", FILE_RW, 2, -EINVAL, .buf = NO_BUFFER, .nbytes = 1},
    {"fsync with an offset", FILE_RW, 2, -EINVAL, .buf = NO_BUFFER, .offset = 1},
    {"fsync with rw_flags", FILE_RW, 2, -EINVAL, .buf = NO_BUFFER, .rw_flags = 1},
    {"fdsync with a buffer", FILE_RW, 3, -EINVAL, .buf = 0},
    {"fdsync with nbytes", FILE_RW, 3, -EINVAL, .buf = NO_BUFFER, .nbytes = 1},
    {"fsync of a pipe", PIPE_W, 2, -EINVAL, .buf = NO_BUFFER},
    {"fdsync of a pipe", PIPE_R, 3, -EINVAL, .buf = NO_BUFFER},
    {"fsync of /dev/full", FULL, 2, -EINVAL, .buf = NO_BUFFER},
    {"fsync of a closed fd", CLOSED, 2, -EBADF, .buf = 0},
    // POLL has 16 bits of events and nothing else.
    {"poll with high bits", PIPE_R, 5, -EINVAL, .buf = 0x10001},
    {"poll with an offset", PIPE_R, 5, -EINVAL, .buf = POLLIN, .offset = 1},
    {"poll with nbytes", PIPE_R, 5, -EINVAL, .buf = POLLIN, .nbytes = 1},
    {"poll with rw_flags", PIPE_R, 5, -EINVAL, .buf = POLLIN, .rw_flags = 1},
    // What the kernel takes and answers in the event.
    {"unknown flag bit", FILE_RW, 0, 8, .nbytes = 8, .flags = 0x80, .in_event = true},
    {"unmapped buffer", FILE_RW, 0, -EFAULT, .buf = 4096, .nbytes = 8, .in_event = true},
    {"unmapped buffer, write", FILE_RW, 1, -EFAULT, .buf = 4096, .nbytes = 8, .in_event = true},
    {"offset past every file", FILE_RW, 1, -EFBIG, .nbytes = 8, .offset = INT64_MAX - 8, .in_event = true},
    {"past the end", FILE_RW, 0, 0, .nbytes = 8, .offset = 1 << 20, .in_event = true},
    {"no bytes", FILE_RW, 0, 0, .nbytes = 0, .in_event = true},
};

static int not_an_eventfd;

static void fill_in(struct iocb *request, const struct bad_request *bad, void *buffer, void *vector) {
    bool scattered = bad->opcode == IO_CMD_PREADV || bad->opcode == IO_CMD_PWRITEV;
    memset(request, 0, sizeof *request);
    request->aio_lio_opcode = (short)bad->opcode;
    request->aio_fildes = targets[bad->target];
    request->aio_reqprio = bad->reqprio;
    request->aio_rw_flags = (unsigned)bad->rw_flags;
    request->u.c.buf = bad->buf ? (void *)bad->buf : scattered ? vector : buffer;
    if (bad->buf == NO_BUFFER && bad->opcode != IO_CMD_POLL)
        request->u.c.buf = NULL;
    request->u.c.nbytes = bad->nbytes;
    request->u.c.offset = bad->offset;
    request->u.c.__pad3 = bad->reserved2;
    request->u.c.flags = bad->flags;
    request->u.c.resfd = (unsigned)(bad->resfd == -2 ? not_an_eventfd : bad->resfd);
}

static void bad_requests_get_the_kernels_errno(void) {
    stay_on_one_cpu();
    open_targets();
    not_an_eventfd = targets[FILE_RW];
    io_context_t context = new_context(8);
    char buffer[64];
    struct iovec vector[1] = {{buffer, 8}};
    for (size_t i = 0; i < sizeof bad_requests / sizeof *bad_requests; i++) {
        const struct bad_request *bad = &bad_requests[i];
        struct iocb request, *list[] = {&request};
        struct io_event event;
        fill_in(&request, bad, buffer, vector);
        long got = io_submit(context, 1, list);
        bool taken = got == 1;
        if (taken) {
            reap(context, 1, &event);
            got = (long)event.res;
        }
        expect_that(taken == bad->in_event && got == bad->answer, "%s: expected %s %d got %s %ld",
            bad->what, bad->in_event ? "event" : "io_submit", bad->answer,
            taken ? "event" : "io_submit", got);
    }
    struct io_event none;
    expect(io_getevents(context, 0, 1, &none, NULL), 0);
    expect_all_slots(context, targets[FILE_RW]);
    remark("%zu requests", sizeof bad_requests / sizeof *bad_requests);
}

static void vectors_are_checked_piece_by_piece(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    char buffer[64];
    struct iovec vector[2] = {{buffer, 8}, {buffer + 8, 8}};
    struct iocb request;
    io_prep_preadv(&request, fd, vector, 2, 0);
    vector[1].iov_len = (size_t)-1;
    expect(run_one(context, &request), -EINVAL);
    vector[1] = (struct iovec){KERNEL_HALF, 8};
    expect(run_one(context, &request), -EFAULT);
    // A piece that is merely unmapped ends the transfer where it stands.
    vector[1] = (struct iovec){(void *)4096, 8};
    expect(run_one(context, &request), 8);
    expect_that(has_pattern(buffer, 1, 0, 8), "wrong data");
}

static void key_is_overwritten(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    char byte;
    struct iocb request;
    io_prep_pread(&request, fd, &byte, 1, 0);
    request.key = 0xdeadbeef;
    expect(run_one(context, &request), 1);
    expect(request.key, 0);
    request.aio_lio_opcode = 99;
    request.key = 0xdeadbeef;
    expect(run_one(context, &request), -EINVAL);
    expect(request.key, 0);
    request.u.c.__pad3 = 1;
    request.key = 0xdeadbeef;
    expect(run_one(context, &request), -EINVAL);
    expect(request.key, 0xdeadbeef);
}

// The first failing request ends the batch; its error is for the next call to report.
static void a_bad_request_ends_the_batch(void) {
    int fd = patterned_file("file", 1, BLOCK), counter = eventfd(0, EFD_NONBLOCK);
    io_context_t context = new_context(8);
    char bytes[3];
    struct iocb requests[3], *list[3];
    for (int i = 0; i < 3; i++) {
        io_prep_pread(&requests[i], i == 1 ? -1 : fd, &bytes[i], 1, i);
        io_set_eventfd(&requests[i], counter);
        list[i] = &requests[i];
    }
    expect(io_submit(context, 3, list), 1);
    struct io_event events[3];
    reap(context, 1, events);
    expect_that(events[0].obj == &requests[0], "another request was taken");
    expect(io_submit(context, 2, list + 1), -EBADF);
    sleep_ms(20);
    uint64_t count = 0;
    expect(read(counter, &count, sizeof count), sizeof count);
    expect(count, 1);
    expect(io_getevents(context, 0, 3, events, NULL), 0);
    expect(io_submit(context, 1, list + 2), 1);
    reap(context, 1, events);
    expect_that(events[0].obj == &requests[2], "another request was taken");
}

// What leads elsewhere now is not signalled, and the requests leave no trace but in their buffers.
static void a_number_that_was_an_eventfd_is_refused(void) {
    int fd = patterned_file("file", 1, 8 * BLOCK), counter = eventfd(0, 0);
    int stranger = open(temp_path("stranger"), O_RDWR | O_CREAT | O_TRUNC, 0600), pipes[2];
    io_context_t context = new_context(8);
    char *buffer = aligned(4 * BLOCK);
    struct iocb requests[4], *list[4];
    struct io_event events[4];
    struct stat status;
    must(pipe(pipes), 0);
    for (int i = 0; i < 4; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, i * BLOCK);
        io_set_eventfd(&requests[i], counter);
        list[i] = &requests[i];
    }
    for (int round = 0; round < 130; round++) {
        int number = round % 2 ? dup2(stranger, counter) : dup2(pipes[1], counter);
        must(number, counter);
        expect(io_submit(context, 4, list), -EINVAL);
        must(close(counter), 0);
        expect(io_submit(context, 4, list), -EBADF);
        must(io_getevents(context, 0, 4, events, NULL), 0);
        int fresh = eventfd(0, 0);
        if (fresh != counter)
            must(dup2(fresh, counter), counter);
        must(io_submit(context, 4, list), 4);
        reap(context, 4, events);
        uint64_t signals = 0;
        must(read(counter, &signals, sizeof signals), sizeof signals);
        expect(signals, 4);
        if (fresh != counter)
            close(fresh);
    }
    must(fstat(stranger, &status), 0);
    expect(status.st_size, 0);
    expect_that(!readable(pipes[0]), "something was written to a pipe");
    expect_all_slots(context, fd);
}

static void offsets_on_sockets_are_refused_in_the_event(void) {
    io_context_t context = new_context(8);
    int sockets[2];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    must(write(sockets[1], "abc", 3), 3);
    char buffer[8];
    struct iocb request;
    io_prep_pread(&request, sockets[0], buffer, 8, 4096);
    expect(run_one(context, &request), -ESPIPE);
    io_prep_pread(&request, sockets[0], buffer, 8, 0);
    expect(run_one(context, &request), 3);
}

static void misaligned_direct_requests_are_refused_in_the_event(void) {
    close(patterned_file("file", 1, 65536));
    int fd = open_direct("file", O_RDWR);
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    struct iocb request;
    io_prep_pread(&request, fd, buffer, 100, 0);
    expect(run_one(context, &request), -EINVAL);
    io_prep_pread(&request, fd, buffer, BLOCK, 3);
    expect(run_one(context, &request), -EINVAL);
    io_prep_pwrite(&request, fd, buffer, 100, 0);
    expect(run_one(context, &request), -EINVAL);
    io_prep_pread(&request, fd, buffer, BLOCK, 65536);
    expect(run_one(context, &request), 0);
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    expect(run_one(context, &request), BLOCK);
}

static void broken_pipe_is_the_events_result(void) {
    signal(SIGPIPE, SIG_IGN);
    io_context_t context = new_context(8);
    int pipes[2];
    must(pipe(pipes), 0);
    close(pipes[0]);
    struct iocb request;
    io_prep_pwrite(&request, pipes[1], pipes, 4, 0);
    expect(run_one(context, &request), -EPIPE);
}

// ---- io_getevents, io_pgetevents, io_cancel ------------------------------------------------

static void getevents_checks_its_arguments(void) {
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct io_event events[4];
    struct timespec soon = {0, 1000}, zero = {0, 0};
    char byte;
    struct iocb request;
    expect(call_io_getevents(context, -1, 1, events, &soon), -EINVAL);
    expect(call_io_getevents(context, 2, 1, events, &soon), -EINVAL);
    expect(call_io_getevents(context, 0, -1, events, &soon), -EINVAL);
    expect(call_io_getevents(context, 0, 0, NULL, NULL), 0);
    expect(call_io_getevents(context, 0, 0, NULL, &soon), 0);
    expect(call_io_getevents(context, 0, 4, events, NULL), 0);
    expect(call_io_getevents(context, 0, 4, events, &soon), 0);
    expect(call_io_getevents(context, 1, 4, events, &zero), 0);
    expect(call_io_getevents(context, 1, 4, events, &soon), 0);
    expect(call_io_getevents(context, 1, 1, events, KERNEL_HALF), -EFAULT);
    // The time-out is looked at first, then the context.
    expect(call_io_getevents(NULL, 1, 1, events, KERNEL_HALF), -EFAULT);
    expect(call_io_getevents(NULL, -1, 1, events, NULL), -EINVAL);
    expect(call_io_getevents(context, 2, 1, KERNEL_HALF, &soon), -EINVAL);

    // A bad array does not consume the event.
    io_prep_pread(&request, fd, &byte, 1, 0);
    submit(context, &request);
    expect(call_io_getevents(context, 1, 1, NULL, NULL), -EFAULT);
    expect(call_io_getevents(context, 1, 1, KERNEL_HALF, NULL), -EFAULT);
    expect(call_io_getevents(context, 0, 1, NULL, NULL), -EFAULT);
    reap(context, 1, events);
    expect(events[0].res, 1);
    expect_all_slots(context, fd);
}

static void pgetevents_checks_its_arguments(void) {
    io_context_t context = new_context(8);
    struct io_event event;
    struct timespec soon = {0, 1000};
    sigset_t mask;
    sigemptyset(&mask);
    expect(call_io_pgetevents(context, -1, 1, &event, &soon, &mask), -EINVAL);
    expect(call_io_pgetevents(context, 2, 1, &event, &soon, NULL), -EINVAL);
    expect(call_io_pgetevents(context, 1, 1, &event, &soon, &mask), 0);
    expect(call_io_pgetevents(context, 1, 1, &event, &soon, KERNEL_HALF), -EFAULT);
    expect(call_io_pgetevents(context, 1, 1, &event, KERNEL_HALF, &mask), -EFAULT);
    // Time-out and mask are looked at before the context.
    expect(call_io_pgetevents(NULL, 1, 1, &event, KERNEL_HALF, &mask), -EFAULT);
    expect(call_io_pgetevents(NULL, 1, 1, &event, &soon, KERNEL_HALF), -EFAULT);
    expect(call_io_pgetevents(NULL, 1, 1, &event, &soon, &mask), -EINVAL);
    expect(call_io_pgetevents(context, 0, 0, NULL, NULL, NULL), 0);
    // The mask holds for the call only.
    sigset_t after;
    sigfillset(&mask);
    expect(call_io_pgetevents(context, 1, 1, &event, &soon, &mask), 0);
    sigprocmask(SIG_SETMASK, NULL, &after);
    expect(sigismember(&after, SIGUSR1), 0);
}

static void cancel_checks_its_arguments(void) {
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK), counter = eventfd(0, 0);
    io_context_t context = new_context(8), other = new_context(8);
    struct io_event event;
    char byte;
    struct iocb request, unknown;
    io_prep_poll(&request, counter, POLLIN);
    io_prep_poll(&unknown, counter, POLLIN);
    expect(io_cancel(NULL, NULL, NULL), -EFAULT);
    expect(io_cancel(context, NULL, &event), -EFAULT);
    expect(io_cancel(context, KERNEL_HALF, &event), -EFAULT);
    expect(io_cancel(NULL, &request, &event), -EINVAL);
    expect(io_cancel(context, &unknown, &event), -EINVAL);
    submit(context, &request);
    request.key = 1;
    expect(io_cancel(context, &request, &event), -EINVAL);
    request.key = 0;
    expect(io_cancel(other, &request, &event), -EINVAL);
    expect(io_cancel(context, &unknown, &event), -EINVAL);
    // The result is not written, so a bad pointer there is no error.
    expect(io_cancel(context, &request, NULL), -EINPROGRESS);
    reap(context, 1, &event);
    expect(event.res, 0);
    io_prep_pread(&request, fd, &byte, 1, 0);
    submit(context, &request);
    expect(io_cancel(context, &request, &event), -EINVAL);
    reap(context, 1, &event);
    expect(io_cancel(context, &request, &event), -EINVAL);
    expect_all_slots(context, fd);
}

static const struct test_case cases[] = {
    CASE(setup_checks_its_arguments),
    CASE(wrong_contexts_are_refused),
    CASE(submit_checks_its_arguments),
    CASE(bad_requests_get_the_kernels_errno),
    CASE(vectors_are_checked_piece_by_piece),
    CASE(key_is_overwritten),
    CASE(a_bad_request_ends_the_batch),
    CASE(a_number_that_was_an_eventfd_is_refused),
    CASE(offsets_on_sockets_are_refused_in_the_event),
    CASE(misaligned_direct_requests_are_refused_in_the_event),
    CASE(broken_pipe_is_the_events_result),
    CASE(getevents_checks_its_arguments),
    CASE(pgetevents_checks_its_arguments),
    CASE(cancel_checks_its_arguments),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

// Proves that an fsync's event comes to whoever waits for it, however it is waited for: it may be with
// the kernel, whose events somebody has to take.

#include "harness.h"

#include <aio.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SLOW_BYTES (48u << 20)

// A file with so much to write that its fsync takes a while.
static int dirty_file(const char *name) {
    int fd = open(temp_path(name), O_RDWR | O_CREAT, 0600);
    must_that(fd >= 0, "open: %s", strerror(errno));
    char *buffer = aligned(1 << 20);
    fill_pattern(buffer, 7, 0, 1 << 20);
    for (unsigned offset = 0; offset < SLOW_BYTES; offset += 1 << 20) {
        must(pwrite(fd, buffer, 1 << 20, offset), 1 << 20);
    }
    free(buffer);
    return fd;
}

static void write_block(int fd, int block) {
    char buffer[BLOCK];
    fill_pattern(buffer, 3, (uint64_t)block * BLOCK, BLOCK);
    must(pwrite(fd, buffer, BLOCK, (off_t)block * BLOCK), BLOCK);
}

// ---- Ways to wait --------------------------------------------------------------------------

static void every_way_to_wait_ends(void) {
    static way_to_wait *const ways[] = {
        by_waiting, by_waiting_for_more, by_polling, by_polling_without_time, by_slices, with_a_mask,
        by_reading_the_ring,
    };
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(8);
    for (int round = 0; round < 12; round++) {
        for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
            struct iocb request;
            struct io_event event = {0};
            write_block(fd, round);
            if (way % 2 == 0) {
                io_prep_fsync(&request, fd);
            } else {
                io_prep_fdsync(&request, fd);
            }
            request.data = (void *)(uintptr_t)(way + 1);
            submit(context, &request);
            must_that(ways[way](context, &event) == 1, "way %u did not end", way);
            expect(event.res, 0);
            expect(event.obj == &request, 1);
            expect((uintptr_t)event.data, way + 1);
        }
        // After a while nobody looks after events that nobody asks for.
        if (round == 6) sleep_ms(300);
    }
    expect(io_destroy(context), 0);
}

static void a_slow_one_ends_too(void) {
    static way_to_wait *const ways[] = {
        by_waiting, by_reading_the_ring, by_polling,
    };
    io_context_t context = new_context(8);
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        int fd = dirty_file("slow");
        struct iocb request;
        struct io_event event = {0};
        io_prep_fsync(&request, fd);
        submit(context, &request);
        must_that(ways[way](context, &event) == 1, "way %u did not end", way);
        expect(event.res, 0);
        close(fd);
    }
}

static void several_at_once(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(64);
    for (int round = 0; round < 30; round++) {
        struct iocb requests[16], *pointers[16];
        struct io_event events[16];
        for (int i = 0; i < 16; i++) {
            pointers[i] = &requests[i];
            write_block(fd, i);
            io_prep_fsync(&requests[i], fd);
        }
        must(io_submit(context, 16, pointers), 16);
        reap(context, 16, events);
        for (int i = 0; i < 16; i++) expect(events[i].res, 0);
    }
}

// ---- Company -------------------------------------------------------------------------------

static void *sync_often(void *argument) {
    char name[32];
    snprintf(name, sizeof name, "file-%ld", (long)(intptr_t)argument);
    int fd = patterned_file(name, 1, 16 * BLOCK);
    io_context_t context = new_context(8);
    for (int i = 0; i < 150; i++) {
        struct iocb requests[2], *pointers[] = {&requests[0], &requests[1]};
        struct io_event events[2];
        char buffer[BLOCK];
        memset(buffer, i, BLOCK);
        io_prep_pwrite(&requests[0], fd, buffer, BLOCK, (long)(i % 16) * BLOCK);
        io_prep_fdsync(&requests[1], fd);
        must(io_submit(context, 2, pointers), 2);
        must(io_getevents(context, 2, 2, events, NULL), 2);
        for (int k = 0; k < 2; k++) expect(events[k].res, events[k].obj == &requests[0] ? BLOCK : 0);
        expect(events[0].obj != events[1].obj, 1);
    }
    expect(ring_of(context)->head, ring_of(context)->tail);
    expect(io_destroy(context), 0);
    close(fd);
    return NULL;
}

static void many_threads_get_their_own(void) {
    pthread_t threads[6];
    for (long i = 0; i < 6; i++) start_thread(&threads[i], sync_often, (void *)i);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
}

struct other {
    io_context_t context;
    int fd;
    struct iocb request;
    char byte;
};

static void *read_later(void *argument) {
    struct other *other = argument;
    sleep_ms(4);
    io_prep_pread(&other->request, other->fd, &other->byte, 1, 0);
    submit(other->context, &other->request);
    return NULL;
}

static void another_threads_event_ends_the_wait(void) {
    struct other other = {.context = new_context(8), .fd = patterned_file("file", 1, BLOCK)};
    for (int round = 0; round < 3; round++) {
        int fd = dirty_file("slow");
        struct iocb request;
        struct io_event events[2];
        pthread_t thread;
        io_prep_fsync(&request, fd);
        submit(other.context, &request);
        start_thread(&thread, read_later, &other);
        long got = io_getevents(other.context, 1, 2, events, NULL);
        must_that(got >= 1, "%ld events", got);
        if (got == 1) {
            must(io_getevents(other.context, 1, 1, events + 1, NULL), 1);
        }
        for (int i = 0; i < 2; i++) expect(events[i].res, events[i].obj == &request ? 0 : 1);
        expect(events[0].obj != events[1].obj, 1);
        pthread_join(thread, NULL);
        close(fd);
    }
}

static void *destroy_later(void *argument) {
    sleep_ms(3);
    expect(io_destroy(argument), 0);
    return NULL;
}

static void destroying_awaits_it(void) {
    int fd = dirty_file("slow");
    io_context_t context = new_context(8);
    struct iocb request;
    io_prep_fsync(&request, fd);
    submit(context, &request);
    expect(io_destroy(context), 0);

    // While this thread waits for it.
    write_block(fd, 1);
    pthread_t thread;
    context = new_context(8);
    io_prep_fsync(&request, fd);
    submit(context, &request);
    start_thread(&thread, destroy_later, context);
    struct io_event event;
    struct timespec ten = {10, 0};
    long got = call_io_getevents(context, 1, 1, &event, &ten);
    expect_either(got, 1, -EINVAL);
    pthread_join(thread, NULL);
}

// ---- POSIX AIO -----------------------------------------------------------------------------

static void go_before_an_aio_fsync(int fd, bool write) {
    for (int round = 0; round < 20; round++) {
        static char buffers[8][BLOCK] __attribute__((aligned(BLOCK)));
        struct aiocb blocks[8], sync = {.aio_fildes = fd};
        const struct aiocb *list[] = {&sync};
        make_cold(fd);
        memset(blocks, 0, sizeof blocks);
        for (int i = 0; i < 8; i++) {
            blocks[i].aio_fildes = fd;
            blocks[i].aio_buf = buffers[i];
            blocks[i].aio_nbytes = BLOCK;
            blocks[i].aio_offset = (off_t)((i * 37 + round) % 256) * BLOCK;
            must(write ? aio_write(&blocks[i]) : aio_read(&blocks[i]), 0);
        }
        must(aio_fsync(O_SYNC, &sync), 0);
        while (aio_error(&sync) == EINPROGRESS) aio_suspend(list, 1, NULL);
        expect(aio_return(&sync), 0);
        for (int i = 0; i < 8; i++) {
            // The C library's may be a moment late.
            while (!on_layer() && aio_error(&blocks[i]) == EINPROGRESS) sleep_ms(1);
            expect(aio_error(&blocks[i]), 0);
            expect(aio_return(&blocks[i]), BLOCK);
        }
    }
}

// Whoever finishes the last of them gives the fsync back; nobody finds it by looking now and then.
static void an_aio_fsync_follows_at_once(void) {
    setenv("IOCTX_AIOD_LIFETIME", "60000", 1);
    int fd = patterned_file("file", 1, 256 * BLOCK);
    go_before_an_aio_fsync(fd, false);
    go_before_an_aio_fsync(open_direct("file", O_RDWR), true);
}

// ---- Handlers ------------------------------------------------------------------------------

static io_context_t handlers_context;
static int handlers_fd;
static atomic_int handled;
static sigjmp_buf away;

static void sync_in_handler(int number) {
    (void)number;
    struct iocb request, *pointer = &request;
    struct io_event event;
    io_prep_fdsync(&request, handlers_fd);
    if (io_submit(handlers_context, 1, &pointer) == 1) {
        while (io_getevents(handlers_context, 1, 1, &event, NULL) == 0) {
        }
        if (event.obj == &request && event.res == 0) atomic_fetch_add(&handled, 1);
    }
}

static void jump_away(int number) {
    (void)number;
    siglongjmp(away, 1);
}

static void alarm_in(int us, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    must(sigaction(SIGALRM, &action, NULL), 0);
    ualarm((useconds_t)us, 0);
}

static void a_handler_may_sync(void) {
    handlers_context = new_context(8);
    handlers_fd = patterned_file("other", 1, BLOCK);
    io_context_t context = new_context(8);
    for (int round = 0; round < 4; round++) {
        int fd = dirty_file("slow");
        struct iocb request;
        struct io_event event;
        io_prep_fsync(&request, fd);
        submit(context, &request);
        alarm_in(3000, sync_in_handler);
        long got = io_getevents(context, 1, 1, &event, NULL);
        if (got == -EINTR) got = io_getevents(context, 1, 1, &event, NULL);
        must(got, 1);
        expect(event.obj == &request, 1);
        close(fd);
    }
    remark("%d in handlers", atomic_load(&handled));
}

static void a_handler_may_jump_away(void) {
    io_context_t context = new_context(8);
    // A handler that interrupts the start of a daemon may not jump.
    static struct io_event event;
    struct timespec moment = {0, 1000};
    must(io_getevents(context, 1, 1, &event, &moment), 0);
    for (int round = 0; round < 4; round++) {
        int fd = dirty_file("slow");
        struct iocb request;
        event.obj = NULL;
        io_prep_fsync(&request, fd);
        submit(context, &request);
        if (sigsetjmp(away, 1) == 0) {
            // By when it sleeps, on a busy machine as well.
            alarm_in(20000, jump_away);
            io_getevents(context, 2, 2, &event, NULL);
            must_that(0, "two events came");
        }
        // The kernel takes an event while it waits for the other.
        if (on_layer() || event.obj == NULL) must(io_getevents(context, 1, 1, &event, NULL), 1);
        expect(event.obj == &request, 1);
        expect(event.res, 0);
        close(fd);
    }
}

// ---- Refusals ------------------------------------------------------------------------------

// A file that has no fsync, or none at all, is refused by io_submit, and leaves room for all others.
static void refuse(io_context_t context, int good) {
    int pipes[2], path = open(temp_path("file"), O_PATH);
    must(pipe(pipes), 0);
    struct {
        int fd;
        long answer;
    } const bad[] = {{pipes[0], -EINVAL}, {path, -EBADF}, {-1, -EBADF}};
    for (int round = 0; round < 30; round++) {
        struct iocb requests[2], *list[] = {&requests[0], &requests[1]};
        io_prep_fsync(&requests[0], bad[round % 3].fd);
        expect(io_submit(context, 1, list), bad[round % 3].answer);
        // Behind another, it ends the call.
        requests[1] = requests[0];
        io_prep_fdsync(&requests[0], good);
        must(io_submit(context, 2, list), 1);
        struct io_event event;
        must(io_getevents(context, 1, 1, &event, NULL), 1);
        expect(event.obj == &requests[0] && event.res == 0, 1);
    }
    close(path);
    close(pipes[0]);
    close(pipes[1]);
}

static void without_an_fsync_it_is_refused(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(2);
    refuse(context, fd);
    expect(io_destroy(context), 0);
}

// A filter that comes late takes the kernel's AIO from the layer: it does without.
static void a_late_filter_changes_nothing(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_submit, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {4, filter};
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(2);
    struct iocb request;
    io_prep_fsync(&request, fd);
    expect(run_one(context, &request), 0);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all), 0);
    refuse(context, fd);
    expect(io_destroy(context), 0);
}

// ---- Processes -----------------------------------------------------------------------------

static void a_child_has_its_own(void) {
    for (int round = 0; round < 4; round++) {
        int fd = dirty_file("slow");
        io_context_t context = new_context(8);
        struct iocb request;
        struct io_event event;
        io_prep_fsync(&request, fd);
        submit(context, &request);
        pid_t child = fork();
        if (child == 0) {
            sync_often((void *)(intptr_t)9);
            _exit(0);
        }
        must(io_getevents(context, 1, 1, &event, NULL), 1);
        expect(event.obj == &request, 1);
        expect_clean_exit(child, 15);
        expect(io_destroy(context), 0);
        close(fd);
    }
}

static const struct test_case cases[] = {
    CASE(every_way_to_wait_ends),
    CASE(a_slow_one_ends_too),
    CASE(several_at_once),
    CASE(many_threads_get_their_own),
    CASE(another_threads_event_ends_the_wait),
    CASE(destroying_awaits_it),
    CASE(an_aio_fsync_follows_at_once),
    CASE(a_handler_may_sync),
    CASE(a_handler_may_jump_away),
    CASE(without_an_fsync_it_is_refused),
    LAYER_CASE(a_late_filter_changes_nothing, 0, "the filter forbids the kernel's own calls"),
    CASE(a_child_has_its_own),
};

int main(int argc, char **argv) {
    return RUN_CASES(argc, argv, cases);
}

// Proves that whoever sleeps for an event gets it when the kernel's caller would, whatever becomes of the
// context, of the process or of the thread meanwhile.

#include "harness.h"

#include <aio.h>
#include <sys/resource.h>
#include <sys/time.h>

// ---- io_getevents --------------------------------------------------------------------------

static io_context_t context;

static void *reap_with_mask(void *result) {
    struct io_event event;
    struct timespec timeout = {4, 0};
    sigset_t mask;
    sigemptyset(&mask);
    *(long *)result = call_io_pgetevents(context, 1, 1, &event, &timeout, &mask);
    return NULL;
}

// The first request of a context may make its ring the kernel's.
static void who_sleeps_with_a_mask_before_the_first_request_gets_its_event(void) {
    pthread_t reaper;
    struct iocb request;
    long reaped = 0;
    close(patterned_file("file", 1, BLOCK));
    int fd = open_direct("file", O_RDONLY);
    context = new_context(16);
    start_thread(&reaper, reap_with_mask, &reaped);
    sleep_ms(100);
    io_prep_pread(&request, fd, aligned(BLOCK), BLOCK, 0);
    submit(context, &request);
    pthread_join(reaper, NULL);
    expect(reaped, 1);
}

// Under the kernel, io_submit itself takes the time that a buffered read takes.
static void a_short_time_is_enough_for_what_io_submit_would_have_done(void) {
    const int reads = 64, size = 16 * BLOCK;
    int fd = patterned_file("file", 1, (size_t)reads * size);
    char *buffer = aligned(size);
    context = new_context(16);
    make_cold(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    for (int index = 0; index < reads; index++) {
        struct iocb request;
        struct io_event event;
        struct timespec timeout = {0, 1};
        io_prep_pread(&request, fd, buffer, size, (long)(index * 37 % reads) * size);
        submit(context, &request);
        must(io_getevents(context, 1, 1, &event, &timeout), 1);
        expect((long)event.res, size);
    }
}

// ---- A handler that forks ------------------------------------------------------------------

static void expect_that_both_were_interrupted(long result) {
    expect(result, -EINTR);
    if (forked_child == 0) _exit(result == -EINTR ? 0 : 1);
    expect_clean_exit(forked_child, 5);
}

static void a_child_forked_by_a_handler_returns_from_io_getevents(void) {
    struct io_event event;
    context = new_context(16);
    fork_in_handler_after(100000);
    expect_that_both_were_interrupted(io_getevents(context, 1, 1, &event, NULL));
}

static void a_child_forked_by_a_handler_returns_from_io_pgetevents(void) {
    struct io_event event;
    struct timespec timeout = {4, 0};
    sigset_t mask;
    sigemptyset(&mask);
    context = new_context(16);
    fork_in_handler_after(100000);
    expect_that_both_were_interrupted(
        call_io_pgetevents(context, 1, 1, &event, &timeout, &mask));
}

// On a context with the kernel's ring.
static void a_child_forked_by_a_handler_returns_from_the_kernels_wait(void) {
    struct iocb request;
    struct io_event event;
    close(patterned_file("file", 1, BLOCK));
    context = new_context(16);
    io_prep_pread(&request, open_direct("file", O_RDONLY), aligned(BLOCK), BLOCK, 0);
    must(run_one(context, &request), BLOCK);
    fork_in_handler_after(100000);
    expect_that_both_were_interrupted(io_getevents(context, 1, 1, &event, NULL));
}

static void a_child_forked_by_a_handler_returns_from_aio_suspend(void) {
    int ends[2];
    char byte;
    must(pipe(ends), 0);
    struct aiocb block = {
        .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    const struct aiocb *list[] = {&block};
    must(aio_read(&block), 0);
    fork_in_handler_after(100000);
    long result = aio_suspend(list, 1, NULL);
    expect_that_both_were_interrupted(result < 0 ? -errno : result);
    must(write(ends[1], "x", 1), 1);
    while (aio_error(&block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    expect(aio_return(&block), 1);
}

// The child may have made requests of its own before it returns there.
static void fork_and_use_aio(int signal) {
    static char data[BLOCK];
    struct aiocb block = {
        .aio_fildes = open(temp_path("file"), O_RDONLY), .aio_buf = data, .aio_nbytes = BLOCK,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    const struct aiocb *list[] = {&block};
    struct iocb request;
    (void)signal;
    forked_child = fork();
    if (forked_child != 0) return;
    must(aio_read(&block), 0);
    must(aio_suspend(list, 1, NULL), 0);
    io_prep_pread(&request, block.aio_fildes, data, BLOCK, 0);
    must(run_one(new_context(8), &request), BLOCK);
}

static void a_child_that_has_requests_of_its_own_returns_from_io_getevents(void) {
    struct io_event event;
    close(patterned_file("file", 1, BLOCK));
    context = new_context(16);
    handle_alarm_after(100000, fork_and_use_aio);
    expect_that_both_were_interrupted(io_getevents(context, 1, 1, &event, NULL));
}

static void a_child_that_has_requests_of_its_own_returns_from_lio_listio(void) {
    int ends[2];
    char byte;
    must(pipe(ends), 0);
    close(patterned_file("file", 1, BLOCK));
    struct aiocb block = {
        .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1, .aio_lio_opcode = LIO_READ,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    struct aiocb *list[] = {&block};
    handle_alarm_after(100000, fork_and_use_aio);
    long result = lio_listio(LIO_WAIT, list, 1, NULL);
    expect_that_both_were_interrupted(result < 0 ? -errno : result);
    must(write(ends[1], "x", 1), 1);
    while (aio_error(&block) == EINPROGRESS) sleep_ms(1);
    expect(aio_return(&block), 1);
}

// ---- aio_suspend and aio_fsync -------------------------------------------------------------

static struct aiocb sync_block;
static atomic_bool has_started, may_leave;

static void stay_in_handler(int signal) {
    (void)signal;
    while (!atomic_load(&may_leave)) usleep(1000);
}

static void start_sync(int fd) {
    memset(&sync_block, 0, sizeof sync_block);
    sync_block.aio_fildes = fd;
    sync_block.aio_sigevent.sigev_notify = SIGEV_NONE;
    must(aio_fsync(O_SYNC, &sync_block), 0);
}

static int fd_to_sync, bytes_to_sync;

static void *sync_and_wait(void *buffer) {
    const struct aiocb *list[] = {&sync_block};
    must(pwrite(fd_to_sync, buffer, bytes_to_sync, 0), bytes_to_sync);
    start_sync(fd_to_sync);
    atomic_store(&has_started, true);
    while (aio_error(&sync_block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    return NULL;
}

static void *wait_for_sync(void *unused) {
    (void)unused;
    const struct aiocb *list[] = {&sync_block};
    while (aio_error(&sync_block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    return NULL;
}

// The thread that sleeps for its request, and so for all that is done then, is called away by a handler:
// others get what is theirs. In the second round, for what the first leaves behind.
static void a_waiter_needs_no_other_waiter(void) {
    struct sigaction action = {.sa_handler = stay_in_handler};
    char *buffer = calloc(1, 64 << 20);
    fd_to_sync = open(temp_path("file"), O_RDWR | O_CREAT, 0600);
    sigaction(SIGUSR1, &action, NULL);
    for (int round = 0; round < 2; round++) {
        pthread_t first, second;
        atomic_store(&has_started, false);
        bytes_to_sync = round == 0 ? 4 << 20 : 64 << 20;
        start_thread(&first, sync_and_wait, buffer);
        while (!atomic_load(&has_started)) usleep(50);
        usleep(round == 0 ? 300 : 3000);
        start_thread(&second, wait_for_sync, NULL);
        usleep(2000);
        if (round > 0) pthread_kill(first, SIGUSR1);
        pthread_join(second, NULL);
        atomic_store(&may_leave, true);
        pthread_join(first, NULL);
        sleep_ms(30);
    }
}

static void collect_in_handler(int signal) {
    (void)signal;
    while (aio_error(&sync_block) == EINPROGRESS) {}
    atomic_store(&may_leave, true);
    usleep(100000);
}

// The handler finds the request done, and stays for longer than daemons without work do.
static void a_handler_may_find_done_what_its_thread_sleeps_for(void) {
    struct sigaction action = {.sa_handler = collect_in_handler};
    struct itimerval soon = {.it_value = {0, 2000}};
    const struct aiocb *list[] = {&sync_block};
    char *buffer = calloc(1, 64 << 20);
    setenv("IOCTX_AIOD_LIFETIME", "1", 1);
    fd_to_sync = open(temp_path("file"), O_RDWR | O_CREAT, 0600);
    sigaction(SIGALRM, &action, NULL);
    for (int round = 0; round < 5; round++) {
        must(pwrite(fd_to_sync, buffer, 64 << 20, 0), 64 << 20);
        start_sync(fd_to_sync);
        must(setitimer(ITIMER_REAL, &soon, NULL), 0);
        while (aio_error(&sync_block) == EINPROGRESS) aio_suspend(list, 1, NULL);
        while (!atomic_load(&may_leave)) usleep(1000);
        atomic_store(&may_leave, false);
        expect(aio_return(&sync_block), 0);
    }
}

// Without a descriptor for a daemon the write goes to the kernel, and nobody can do the fsync after it.
static void an_fsync_without_a_daemon_is_not_done_before_the_write(void) {
    const int size = 2 << 20;
    close(patterned_file("file", 1, size));
    int fd = open_direct("file", O_RDWR);
    char *buffer = aligned(size);
    while (dup(fd) >= 0) {}
    for (int round = 0; round < 50; round++) {
        struct aiocb write_block = {
            .aio_fildes = fd, .aio_buf = buffer, .aio_nbytes = size,
            .aio_sigevent.sigev_notify = SIGEV_NONE};
        const struct aiocb *writes[] = {&write_block}, *syncs[] = {&sync_block};
        must(aio_write(&write_block), 0);
        memset(&sync_block, 0, sizeof sync_block);
        sync_block.aio_fildes = fd;
        sync_block.aio_sigevent.sigev_notify = SIGEV_NONE;
        if (aio_fsync(O_SYNC, &sync_block) < 0) {
            expect(errno, EAGAIN);
        } else {
            while (aio_error(&sync_block) == EINPROGRESS) aio_suspend(syncs, 1, NULL);
            if (aio_return(&sync_block) == 0)
                expect_that(aio_error(&write_block) != EINPROGRESS, "the fsync came first");
        }
        while (aio_error(&write_block) == EINPROGRESS) aio_suspend(writes, 1, NULL);
        expect(aio_return(&write_block), size);
    }
}

// ---- Cancelled threads ---------------------------------------------------------------------

static struct aiocb endless_block;
static atomic_bool has_cleaned_up, has_returned;

static void clean_up(void *unused) {
    (void)unused;
    atomic_store(&has_cleaned_up, true);
}

static void *suspend_for_ever(void *unused) {
    const struct aiocb *list[] = {&endless_block};
    // Compiled with -fexceptions, as C++ is: the handler is found by unwinding.
    pthread_cleanup_push(clean_up, NULL);
    atomic_store(&has_started, true);
    aio_suspend(list, 1, NULL);
    pthread_cleanup_pop(0);
    return unused;
}

static void *list_for_ever(void *unused) {
    struct aiocb *list[] = {&endless_block};
    atomic_store(&has_started, true);
    lio_listio(LIO_WAIT, list, 1, NULL);
    atomic_store(&has_returned, true);
    pthread_testcancel();
    return unused;
}

static int start_endless(void) {
    static char byte;
    int ends[2];
    must(pipe(ends), 0);
    endless_block = (struct aiocb){
        .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1, .aio_lio_opcode = LIO_READ,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    return ends[1];
}

static void a_cancelled_thread_in_aio_suspend_is_unwound(void) {
    pthread_t thread;
    void *result;
    start_endless();
    must(aio_read(&endless_block), 0);
    start_thread(&thread, suspend_for_ever, NULL);
    while (!atomic_load(&has_started)) sched_yield();
    sleep_ms(50);
    must(pthread_cancel(thread), 0);
    must(pthread_join(thread, &result), 0);
    expect((long)result, (long)PTHREAD_CANCELED);
    expect(atomic_load(&has_cleaned_up), true);
}

// <aio.h> declares that it throws nothing: whoever unwinds from there ends a program of C++.
static void lio_listio_is_no_cancellation_point(void) {
    pthread_t thread;
    void *result;
    int writer = start_endless();
    start_thread(&thread, list_for_ever, NULL);
    while (!atomic_load(&has_started)) sched_yield();
    sleep_ms(50);
    must(pthread_cancel(thread), 0);
    sleep_ms(50);
    expect(atomic_load(&has_returned), false);
    must(write(writer, "x", 1), 1);
    must(pthread_join(thread, &result), 0);
    expect((long)result, (long)PTHREAD_CANCELED);
    expect(atomic_load(&has_returned), true);
}

static void end_thread_in_handler(int signal) {
    (void)signal;
    pthread_exit((void *)7);
}

static void a_thread_that_a_handler_ends_keeps_its_result(void) {
    struct sigaction action = {.sa_handler = end_thread_in_handler};
    pthread_t thread;
    void *result;
    start_endless();
    must(aio_read(&endless_block), 0);
    sigaction(SIGUSR1, &action, NULL);
    start_thread(&thread, suspend_for_ever, NULL);
    while (!atomic_load(&has_started)) sched_yield();
    sleep_ms(50);
    pthread_kill(thread, SIGUSR1);
    must(pthread_join(thread, &result), 0);
    expect((long)result, 7);
    expect(atomic_load(&has_cleaned_up), true);
}

// ---- Blocks and functions ------------------------------------------------------------------

#define LIST_LENGTH (1 << 16)

static const struct aiocb *long_list[LIST_LENGTH];

static void *suspend_for_seconds(void *result) {
    struct timespec seconds = {5, 0};
    long_list[0] = &endless_block;
    atomic_store(&has_started, true);
    *(int *)result = aio_suspend(long_list, LIST_LENGTH, &seconds);
    return NULL;
}

// The block of a request that is done may be another request's by the time that a sleeper looks at it,
// and between two looks at a long list.
static void aio_suspend_sees_what_is_done_and_made_again(void) {
    for (int round = 0; round < 40; round++) {
        pthread_t thread;
        int result = -1, writer = start_endless();
        must(aio_read(&endless_block), 0);
        atomic_store(&has_started, false);
        start_thread(&thread, suspend_for_seconds, &result);
        while (!atomic_load(&has_started)) {}
        usleep(100 + (useconds_t)round * 100);
        must(write(writer, "x", 1), 1);
        while (aio_error(&endless_block) == EINPROGRESS) {}
        expect(aio_return(&endless_block), 1);
        must(aio_read(&endless_block), 0);
        // Where the first request was done before the thread has looked at all, it waits for this one.
        for (int look = 0; look < 100 && result < 0; look++) usleep(1000);
        must(write(writer, "x", 1), 1);
        pthread_join(thread, NULL);
        expect(result, 0);
        while (aio_error(&endless_block) == EINPROGRESS) {}
    }
}

static atomic_int status_of_child;

static void fork_in_function(union sigval ends_thread) {
    int status;
    pid_t forked = fork();
    if (forked == 0 && ends_thread.sival_int) pthread_exit(NULL);
    if (forked == 0) return;
    waitpid(forked, &status, 0);
    atomic_store(&status_of_child, status);
}

static void a_child_forked_by_a_notification_ends_with_its_thread(void) {
    int fd = patterned_file("file", 1, BLOCK);
    char byte;
    for (int round = 0; round < 4; round++) {
        struct aiocb block = {
            .aio_fildes = fd, .aio_buf = &byte, .aio_nbytes = 1,
            .aio_sigevent = {
                .sigev_notify = SIGEV_THREAD, .sigev_notify_function = fork_in_function,
                .sigev_value.sival_int = round % 2}};
        atomic_store(&status_of_child, -1);
        must(aio_read(&block), 0);
        for (int look = 0; look < 500 && atomic_load(&status_of_child) < 0; look++) sleep_ms(10);
        expect(atomic_load(&status_of_child), 0);
    }
}

// ---- aio_cancel ----------------------------------------------------------------------------

static struct aiocb *_Atomic done_block;
static atomic_bool is_over;

static void *collect_and_unmap(void *unused) {
    (void)unused;
    while (!atomic_load(&is_over)) {
        struct aiocb *block = atomic_load(&done_block);
        const struct aiocb *list[] = {block};
        struct timespec timeout = {0, 1000000};
        if (!block) continue;
        while (aio_error(block) == EINPROGRESS) aio_suspend(list, 1, &timeout);
        aio_return(block);
        munmap(block, BLOCK);
        atomic_store(&done_block, NULL);
    }
    return NULL;
}

static void aio_cancel_looks_at_no_block_that_is_gone(void) {
    pthread_t collector;
    int ends[2];
    char byte;
    must(pipe(ends), 0);
    start_thread(&collector, collect_and_unmap, NULL);
    for (int round = 0; round < 300; round++) {
        struct aiocb *block =
            mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        block->aio_fildes = ends[0];
        block->aio_buf = &byte;
        block->aio_nbytes = 1;
        block->aio_sigevent.sigev_notify = SIGEV_NONE;
        must(aio_read(block), 0);
        usleep(300);
        atomic_store(&done_block, block);
        if (aio_cancel(ends[0], NULL) == AIO_NOTCANCELED) must(write(ends[1], "x", 1), 1);
        while (atomic_load(&done_block)) sched_yield();
    }
    atomic_store(&is_over, true);
    pthread_join(collector, NULL);
}

// AIO_ALLDONE means that the outcome is there.
static void aio_cancel_is_not_ahead_of_the_outcome(void) {
    int cold = patterned_file("cold", 1, 256 * BLOCK);
    char *buffer = aligned(BLOCK);
    for (int round = 0; round < 4000; round++) {
        struct aiocb block = {
            .aio_fildes = cold, .aio_buf = buffer, .aio_nbytes = BLOCK,
            .aio_offset = round % 128 * 2l * BLOCK, .aio_sigevent.sigev_notify = SIGEV_NONE};
        const struct aiocb *list[] = {&block};
        if (round % 128 == 0) make_cold(cold);
        must(aio_read(&block), 0);
        usleep((useconds_t)(round % 16) * 10);
        if (aio_cancel(cold, round % 2 ? &block : NULL) == AIO_ALLDONE)
            expect(aio_error(&block), 0);
        while (aio_error(&block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    }
}

// ---- SIGPIPE ----

static void aio_write_leaves_the_programs_own_sigpipe(void) {
    int ends[2];
    sigset_t pipe_signal, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigprocmask(SIG_BLOCK, &pipe_signal, NULL);
    must(pipe(ends), 0);
    close(ends[0]);
    for (int own = 0; own < 2; own++) {
        if (own) expect(write(ends[1], "x", 1), -1);
        struct aiocb block = {
            .aio_fildes = ends[1], .aio_buf = "x", .aio_nbytes = 1,
            .aio_sigevent.sigev_notify = SIGEV_NONE};
        must(aio_write(&block), 0);
        while (aio_error(&block) == EINPROGRESS) usleep(100);
        expect(aio_error(&block), EPIPE);
        sigpending(&pending);
        expect(sigismember(&pending, SIGPIPE), own);
    }
}

static void *make_requests(void *unused) {
    (void)unused;
    char byte;
    int ends[2];
    must(pipe(ends), 0);
    struct aiocb block = {
        .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    while (!atomic_load(&is_over)) {
        must(aio_read(&block), 0);
        must(write(ends[1], "x", 1), 1);
        while (aio_error(&block) == EINPROGRESS) sched_yield();
        aio_return(&block);
    }
    return NULL;
}

// What others do with records of ours that are free again must not change the answer.
static void aio_cancel_tells_what_it_has_cancelled(void) {
    pthread_t others[2];
    int ends[2];
    char byte;
    must(pipe(ends), 0);
    for (int index = 0; index < 2; index++) start_thread(&others[index], make_requests, NULL);
    for (int round = 0; round < 500; round++) {
        struct aiocb block = {
            .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1,
            .aio_sigevent.sigev_notify = SIGEV_NONE};
        must(aio_read(&block), 0);
        if (round % 2) usleep(100);
        int answer = aio_cancel(ends[0], &block);
        if (answer == AIO_NOTCANCELED) {
            must(write(ends[1], "x", 1), 1);
            while (aio_error(&block) == EINPROGRESS) sched_yield();
            continue;
        }
        expect(answer, AIO_CANCELED);
        expect(aio_error(&block), ECANCELED);
    }
    atomic_store(&is_over, true);
    for (int index = 0; index < 2; index++) pthread_join(others[index], NULL);
}

// ---- Several who wait -----------------------------------------------------------------------

static void *wait_for_many(void *context) {
    struct io_event events[256];
    io_getevents(context, 200, 256, events, NULL);
    return NULL;
}

// Who waits for more than there are leaves them to others.
static void who_wants_one_event_gets_it_beside_who_wants_many(bool is_direct) {
    int fd = patterned_file("file", 6, 100 * BLOCK);
    if (is_direct) fd = open_direct("file", O_RDONLY);
    io_context_t context = used_context(512);
    char *buffer = aligned(BLOCK);
    pthread_t other;
    start_thread(&other, wait_for_many, context);
    sleep_ms(100);
    for (int number = 0; number < 100; number++) {
        struct iocb request;
        struct io_event event;
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, BLOCK, (long)number * BLOCK);
        submit(context, &request);
        must(io_getevents(context, 1, 1, &event, &(struct timespec){5, 0}), 1);
        must((long)event.res, BLOCK);
    }
}

static void one_cold_read_beside_who_wants_many(void) {
    who_wants_one_event_gets_it_beside_who_wants_many(false);
}

static void one_direct_read_beside_who_wants_many(void) {
    who_wants_one_event_gets_it_beside_who_wants_many(true);
}

static atomic_bool is_over;

static void *change_user(void *unused) {
    while (!atomic_load(&is_over)) {
        must(seteuid(geteuid()), 0);
        usleep(50);
    }
    return unused;
}

// The C library has each thread take a signal of its own for that, of which a program without handlers
// knows nothing.
static void aio_suspend_is_not_ended_by_a_change_of_user(void) {
    close(patterned_file("file", 6, 100 * BLOCK));
    int fd = open_direct("file", O_RDONLY);
    char *buffer = aligned(BLOCK);
    pthread_t other;
    start_thread(&other, change_user, NULL);
    for (int number = 0; number < 2000; number++) {
        struct aiocb block = {
            .aio_fildes = fd, .aio_buf = buffer, .aio_nbytes = BLOCK,
            .aio_offset = number % 100 * (long)BLOCK, .aio_sigevent.sigev_notify = SIGEV_NONE};
        const struct aiocb *list[] = {&block};
        must(aio_read(&block), 0);
        must_that(aio_suspend(list, 1, NULL) == 0, "request %d: %s", number, strerror(errno));
        must((long)aio_return(&block), BLOCK);
    }
    atomic_store(&is_over, true);
    pthread_join(other, NULL);
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        CASE(who_sleeps_with_a_mask_before_the_first_request_gets_its_event),
        CASE(a_short_time_is_enough_for_what_io_submit_would_have_done),
        CASE(a_child_forked_by_a_handler_returns_from_io_getevents),
        CASE(a_child_forked_by_a_handler_returns_from_io_pgetevents),
        CASE(a_child_forked_by_a_handler_returns_from_the_kernels_wait),
        CASE(a_child_forked_by_a_handler_returns_from_aio_suspend),
        CASE(a_child_that_has_requests_of_its_own_returns_from_io_getevents),
        LAYER_CASE(a_child_that_has_requests_of_its_own_returns_from_lio_listio, 0,
            "the C library has no threads in such a child"),
        CASE(a_waiter_needs_no_other_waiter),
        CASE(a_handler_may_find_done_what_its_thread_sleeps_for),
        CASE(an_fsync_without_a_daemon_is_not_done_before_the_write),
        CASE(aio_cancel_tells_what_it_has_cancelled),
        CASE(aio_cancel_looks_at_no_block_that_is_gone),
        CASE(a_cancelled_thread_in_aio_suspend_is_unwound),
        CASE(lio_listio_is_no_cancellation_point),
        CASE(a_thread_that_a_handler_ends_keeps_its_result),
        CASE(aio_cancel_is_not_ahead_of_the_outcome),
        CASE(aio_write_leaves_the_programs_own_sigpipe),
        CASE(aio_suspend_sees_what_is_done_and_made_again),
        CASE(a_child_forked_by_a_notification_ends_with_its_thread),
        CASE(aio_suspend_is_not_ended_by_a_change_of_user),
        CASE(one_cold_read_beside_who_wants_many),
        CASE(one_direct_read_beside_who_wants_many),
    };
    return RUN_CASES(argc, argv, cases);
}

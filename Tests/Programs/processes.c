// Proves that requests in flight survive, or end with, what processes and threads do: fork, vfork,
// exec, exit, threads that end at once; and that the layer costs a program nothing it did not ask for.

#include "harness.h"

#include <aio.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define BLOCKS_IN_FLIGHT 64
#define PIPE_REASON "the kernel reads a pipe inside io_submit, which blocks while it is empty"

// Requests of every kind that can be under way for long: cold reads, direct reads, polls, an fsync,
// and on the layer reads of empty pipes.
struct flight {
    io_context_t context;
    int fd, direct, counter, pipes[2];
    char *buffer, byte;
    struct iocb requests[2 * BLOCKS_IN_FLIGHT + 3];
    int count;
};

static struct flight *take_off(void) {
    struct flight *f = calloc(1, sizeof *f);
    f->fd = patterned_file("flight", 9, 512 * BLOCK);
    f->direct = open(temp_path("flight"), O_RDONLY | O_DIRECT);
    f->counter = eventfd(0, 0);
    must(pipe(f->pipes), 0);
    f->buffer = aligned(2 * BLOCKS_IN_FLIGHT * BLOCK);
    f->context = new_context(256);
    make_cold(f->fd);
    for (int i = 0; i < BLOCKS_IN_FLIGHT; i++) {
        io_prep_pread(&f->requests[f->count], f->fd, f->buffer + f->count * BLOCK, BLOCK,
            (long long)(i * 41 % 512) * BLOCK);
        submit(f->context, &f->requests[f->count++]);
    }
    for (int i = 0; i < BLOCKS_IN_FLIGHT && f->direct >= 0; i++) {
        io_prep_pread(&f->requests[f->count], f->direct, f->buffer + f->count * BLOCK, BLOCK,
            (long long)((i * 41 + 256) % 512) * BLOCK);
        submit(f->context, &f->requests[f->count++]);
    }
    io_prep_fsync(&f->requests[f->count], f->fd);
    submit(f->context, &f->requests[f->count++]);
    io_prep_poll(&f->requests[f->count], f->counter, POLLIN);
    submit(f->context, &f->requests[f->count++]);
    if (on_layer()) {
        io_prep_pread(&f->requests[f->count], f->pipes[0], &f->byte, 1, 0);
        submit(f->context, &f->requests[f->count++]);
    }
    return f;
}

// Ends the open requests and checks every event and all data.
static void land(struct flight *f) {
    uint64_t one = 1;
    must(write(f->counter, &one, sizeof one), sizeof one);
    must(write(f->pipes[1], "x", 1), 1);
    struct io_event events[2 * BLOCKS_IN_FLIGHT + 3];
    reap(f->context, f->count, events);
    for (int i = 0; i < f->count; i++) {
        struct iocb *request = events[i].obj;
        if (request->aio_fildes != f->fd && request->aio_fildes != f->direct)
            expect(events[i].res & 1, 1);
        else if (request->aio_lio_opcode == IO_CMD_FSYNC)
            expect(events[i].res, 0);
        else
            expect_that(events[i].res == BLOCK &&
                    has_pattern(request->u.c.buf, 9, (uint64_t)request->u.c.offset, BLOCK),
                "request %ld: result %ld or wrong data", (long)(request - f->requests),
                (long)events[i].res);
    }
    expect(io_destroy(f->context), 0);
}

// What a fresh process must be able to do from beginning to end.
static void use_a_new_context(int fd) {
    char *buffer = aligned(4 * BLOCK);
    io_context_t context = new_context(8);
    struct iocb request;
    io_prep_pread(&request, fd, buffer, 4 * BLOCK, 8 * BLOCK);
    must(run_one(context, &request), 4 * BLOCK);
    must_that(has_pattern(buffer, 9, 8 * BLOCK, 4 * BLOCK), "wrong data");
    make_cold(fd);
    io_prep_pread(&request, fd, buffer, 4 * BLOCK, 100 * BLOCK);
    must(run_one(context, &request), 4 * BLOCK);
    must_that(has_pattern(buffer, 9, 100 * BLOCK, 4 * BLOCK), "wrong data from a cold file");
    io_prep_fdsync(&request, fd);
    must(run_one(context, &request), 0);
    must(io_destroy(context), 0);
}

// ---- fork ----------------------------------------------------------------------------------

static void child_of_fork(struct flight *f) {
    struct io_event event;
    struct timespec soon = {0, 1000000};
    struct iocb *list[] = {&f->requests[0]};
    expect(io_submit(f->context, 1, list), -EINVAL);
    expect(call_io_getevents(f->context, 0, 1, &event, &soon), -EINVAL);
    expect(io_cancel(f->context, list[0], &event), -EINVAL);
    expect(io_destroy(f->context), -EINVAL);
    io_context_t first = new_context(8);
    expect(ring_of(first)->id, 0);
    use_a_new_context(f->fd);
}

static void fork_leaves_the_contexts_behind(void) {
    for (int round = 0; round < 10; round++) {
        struct flight *f = take_off();
        pid_t child = fork();
        if (child == 0) {
            child_of_fork(f);
            // Both ways of leaving: with and without the exit handlers.
            if (round % 2)
                exit(0);
            _exit(0);
        }
        if (round % 3 == 0)
            land(f);
        expect_clean_exit(child, 15);
        if (round % 3)
            land(f);
    }
}

static void grandchildren_can_use_aio(void) {
    int fd = patterned_file("file", 9, 512 * BLOCK);
    use_a_new_context(fd);
    pid_t child = fork();
    if (child == 0) {
        use_a_new_context(fd);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            use_a_new_context(fd);
            _exit(0);
        }
        use_a_new_context(fd);
        expect_clean_exit(grandchild, 10);
        _exit(0);
    }
    expect_clean_exit(child, 15);
    use_a_new_context(fd);
}

// A fork without libc's knowledge runs no pthread_atfork handler, and locks of libc's that a thread of
// the layer held just then stay held.
static void raw_fork_leaves_the_contexts_behind(void) {
    for (int round = 0; round < 20; round++) {
        struct flight *f = take_off();
        pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) {
            child_of_fork(f);
            _exit(0);
        }
        expect_clean_exit(child, 15);
        land(f);
    }
}

struct worker {
    int fd;
    atomic_bool *stop;
    long rounds;
};

static void *work(void *argument) {
    struct worker *worker = argument;
    io_context_t context = new_context(32);
    char *buffer = aligned(8 * BLOCK);
    struct iocb requests[8], *list[8];
    struct io_event events[8];
    while (!atomic_load(worker->stop)) {
        for (int i = 0; i < 8; i++) {
            long long block = (worker->rounds * 8 + i) * 41 % 512;
            io_prep_pread(&requests[i], worker->fd, buffer + i * BLOCK, BLOCK, block * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, 8, list), 8);
        reap(context, 8, events);
        for (int i = 0; i < 8; i++)
            must_that(events[i].res == BLOCK && has_pattern(events[i].obj->u.c.buf, 9,
                    (uint64_t)events[i].obj->u.c.offset, BLOCK), "wrong data");
        if (++worker->rounds % 16 == 0)
            make_cold(worker->fd);
    }
    return NULL;
}

// fork may come while other threads are anywhere inside the library.
static void threads_go_on_while_one_forks(void) {
    int fd = patterned_file("file", 9, 512 * BLOCK);
    atomic_bool stop = false;
    struct worker workers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        workers[i] = (struct worker){fd, &stop, 0};
        start_thread(&threads[i], work, &workers[i]);
    }
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        if (child == 0) {
            use_a_new_context(fd);
            _exit(0);
        }
        expect_clean_exit(child, 15);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        expect_that(workers[i].rounds > 0, "a thread stood still");
    }
}

// ---- vfork and exec ------------------------------------------------------------------------

static void submit_in_vfork_child(io_context_t context, struct iocb *request) {
    static struct iocb *list[1];
    static volatile long answer;
    list[0] = request;
    answer = 0;
    pid_t child = vfork();
    if (child == 0) {
        answer = io_submit(context, 1, list);
        _exit(0);
    }
    expect_clean_exit(child, 10);
    expect(answer, 1);
}

static void vfork_shares_the_contexts(void) {
    struct flight *f = take_off();
    static struct iocb request;
    static char buffer[512];
    int cached = patterned_file("cached", 5, BLOCK);
    io_context_t context = new_context(8);
    io_prep_pread(&request, cached, buffer, 512, 0);
    submit_in_vfork_child(context, &request);
    struct io_event event;
    reap(context, 1, &event);
    expect(event.res, 512);
    expect_that(has_pattern(buffer, 5, 0, 512), "wrong data");
    land(f);
}

// What the child needs a daemon for must not depend on one that ends with the child.
static void vfork_starts_nothing_that_ends_with_the_child(void) {
    setenv("IOCTX_AIOD_LIFETIME", "1", 1);
    static struct iocb request;
    int fd = patterned_file("file", 9, 512 * BLOCK);
    char *buffer = aligned(4 * BLOCK);
    io_context_t context = new_context(8);
    double deadline = now_seconds() + 10;
    while (threads_named("aiod") > 0 && now_seconds() < deadline)
        sleep_ms(2);
    expect(threads_named("aiod"), 0);
    make_cold(fd);
    io_prep_pread(&request, fd, buffer, 4 * BLOCK, 100 * BLOCK);
    submit_in_vfork_child(context, &request);
    struct io_event event;
    reap(context, 1, &event);
    expect(event.res, 4 * BLOCK);
    expect_that(has_pattern(buffer, 9, 100 * BLOCK, 4 * BLOCK), "wrong data");
    use_a_new_context(fd);
    expect(io_destroy(context), 0);
}

extern char **environ;

static void spawned_programs_run(void) {
    struct flight *f = take_off();
    char *arguments[] = {"true", NULL};
    for (int i = 0; i < 10; i++) {
        pid_t child;
        must(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), 0);
        expect_clean_exit(child, 10);
    }
    land(f);
}

static void exec_ends_requests_in_flight(void) {
    for (int round = 0; round < 10; round++) {
        pid_t child = fork();
        if (child == 0) {
            take_off();
            execlp("true", "true", (char *)NULL);
            _exit(1);
        }
        expect_clean_exit(child, 15);
    }
}

// ---- Exit ----------------------------------------------------------------------------------

static void exit_ends_requests_in_flight(void) {
    for (int round = 0; round < 10; round++) {
        pid_t child = fork();
        if (child == 0) {
            take_off();
            if (round % 2)
                exit(0);
            _exit(0);
        }
        expect_clean_exit(child, 15);
    }
}

static void exit_does_not_wait_for_empty_pipes(void) {
    pid_t child = fork();
    if (child == 0) {
        io_context_t context = new_context(64);
        static struct iocb requests[50];
        static char bytes[50];
        for (int i = 0; i < 50; i++) {
            int pipes[2];
            must(pipe(pipes), 0);
            io_prep_pread(&requests[i], pipes[0], &bytes[i], 1, 0);
            submit(context, &requests[i]);
        }
        exit(0);
    }
    expect_clean_exit(child, 10);
}

static void *finish_alone(void *argument) {
    struct flight *f = argument;
    sleep_ms(50);
    land(f);
    use_a_new_context(f->fd);
    exit(0);
}

static void main_thread_may_leave(void) {
    pid_t child = fork();
    if (child == 0) {
        struct flight *f = take_off();
        pthread_t thread;
        start_thread(&thread, finish_alone, f);
        pthread_exit(NULL);
    }
    expect_clean_exit(child, 15);
}

// Without an exit by anyone, the process ends with its last thread; idle daemons must not keep it for
// longer than they live as a rule.
static void *finish_without_exit(void *argument) {
    sleep_ms(20);
    land(argument);
    return NULL;
}

static void process_ends_with_its_last_thread(void) {
    pid_t child = fork();
    if (child == 0) {
        struct flight *f = take_off();
        pthread_t thread;
        start_thread(&thread, finish_without_exit, f);
        pthread_exit(NULL);
    }
    expect_clean_exit(child, 18);
}

// ---- Threads that end at once --------------------------------------------------------------

static void *submit_and_leave(void *argument) {
    struct flight *f = argument;
    struct iocb *list[2 * BLOCKS_IN_FLIGHT];
    make_cold(f->fd);
    for (int i = 0; i < f->count; i++)
        list[i] = &f->requests[i];
    must(io_submit(f->context, f->count, list), f->count);
    return NULL;
}

static void run_thread_that_leaves(struct flight *f) {
    pthread_t thread;
    struct io_event events[2 * BLOCKS_IN_FLIGHT];
    start_thread(&thread, submit_and_leave, f);
    pthread_join(thread, NULL);
    reap(f->context, f->count, events);
    for (int i = 0; i < f->count; i++)
        expect_that(events[i].res == BLOCK && has_pattern(events[i].obj->u.c.buf, 9,
                (uint64_t)events[i].obj->u.c.offset, BLOCK),
            "result %ld or wrong data", (long)events[i].res);
}

static void reads_outlive_their_thread(bool direct) {
    struct flight *f = calloc(1, sizeof *f);
    f->fd = patterned_file("file", 9, 512 * BLOCK);
    int fd = direct ? open_direct("file", O_RDONLY) : f->fd;
    f->context = new_context(256);
    f->buffer = aligned(2 * BLOCKS_IN_FLIGHT * BLOCK);
    for (int round = 0; round < 20; round++) {
        memset(f->buffer, 0, 2 * BLOCKS_IN_FLIGHT * BLOCK);
        f->count = round % 2 ? 2 * BLOCKS_IN_FLIGHT : 1;
        for (int i = 0; i < f->count; i++)
            io_prep_pread(&f->requests[i], fd, f->buffer + i * BLOCK, BLOCK,
                (long long)((i * 41 + round * 7) % 512) * BLOCK);
        run_thread_that_leaves(f);
    }
}

static void cold_reads_outlive_their_thread(void) { reads_outlive_their_thread(false); }
static void direct_reads_outlive_their_thread(void) { reads_outlive_their_thread(true); }

struct pipe_reads {
    io_context_t context;
    struct iocb requests[50];
    char bytes[50];
    int pipes[50][2];
};

static void *read_pipes_and_leave(void *argument) {
    struct pipe_reads *p = argument;
    for (int i = 0; i < 50; i++) {
        io_prep_pread(&p->requests[i], p->pipes[i][0], &p->bytes[i], 1, 0);
        submit(p->context, &p->requests[i]);
    }
    return NULL;
}

static void pipe_reads_outlive_their_thread(void) {
    struct pipe_reads *p = calloc(1, sizeof *p);
    pthread_t thread;
    struct io_event events[50];
    p->context = new_context(64);
    for (int i = 0; i < 50; i++)
        must(pipe(p->pipes[i]), 0);
    start_thread(&thread, read_pipes_and_leave, p);
    pthread_join(thread, NULL);
    sleep_ms(20);
    expect(io_getevents(p->context, 0, 50, events, NULL), 0);
    for (int i = 0; i < 50; i++) {
        char byte = (char)('0' + i);
        must(write(p->pipes[i][1], &byte, 1), 1);
    }
    reap(p->context, 50, events);
    for (int i = 0; i < 50; i++) {
        expect(events[i].res, 1);
        expect(p->bytes[i], '0' + i);
    }
}

// ---- What is there when nobody asked -------------------------------------------------------

static int entries_naming(const char *directory, const char *word) {
    DIR *entries = opendir(directory);
    must_that(entries != NULL, "cannot read %s", directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        char target[256];
        ssize_t length = readlinkat(dirfd(entries), entry->d_name, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        count += *word == 0 ? entry->d_name[0] != '.' : strstr(target, word) != NULL;
    }
    closedir(entries);
    return count;
}

static bool mapped(const char *word) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    bool found = false;
    while (maps && fgets(line, sizeof line, maps))
        found |= strstr(line, word) != NULL;
    if (maps)
        fclose(maps);
    return found;
}

static void nothing_happens_at_load_time(void) {
    expect(entries_naming("/proc/self/task", ""), 1);
    expect(entries_naming("/proc/self/fd", "io_uring"), 0);
    expect(entries_naming("/proc/self/fd", "memfd:"), 0);
    expect(entries_naming("/proc/self/fd", "socket:"), 0);
    expect(entries_naming("/proc/self/fd", "eventpoll"), 0);
    expect_that(!mapped("memfd:"), "a memfd is mapped");
    expect_that(!mapped("io_uring"), "an io_uring is mapped");
}

static void idle_daemons_leave_and_come_back(void) {
    setenv("IOCTX_AIOD_LIFETIME", "200", 1);
    int most = 0;
    for (int round = 0; round < 2; round++) {
        struct flight *f = take_off();
        int there = threads_named("aiod");
        most = there > most ? there : most;
        land(f);
        double deadline = now_seconds() + 15;
        while (threads_named("aiod") > 0 && now_seconds() < deadline)
            sleep_ms(20);
        expect(threads_named("aiod"), 0);
    }
    expect_that(most > 0, "no thread named aiod was ever seen");
    struct flight *f = take_off();
    land(f);
    remark("at most %d daemons", most);
}

// ---- Requests that nobody asks for ---------------------------------------------------------

static void start_sync(struct aiocb *block, int fd) {
    memset(block, 0, sizeof *block);
    block->aio_fildes = fd;
    block->aio_sigevent.sigev_notify = SIGEV_NONE;
    must(aio_fsync(O_SYNC, block), 0);
}

static void process_ends_although_nobody_asks_for_its_requests(void) {
    static struct aiocb block;
    int fd = patterned_file("file", 1, BLOCK);
    setenv("IOCTX_AIOD_LIFETIME", "100", 1);
    pid_t child = fork();
    if (child == 0) {
        start_sync(&block, fd);
        pthread_exit(NULL);
    }
    expect_clean_exit(child, 8);
}

// Leaves a request under way whose block is in a frame that is gone, as main() does when it returns.
__attribute__((noinline)) static void leave_a_request(int fd, size_t depth) {
    static const char data[BLOCK];
    char *room = __builtin_alloca(depth + sizeof(struct aiocb));
    must(pwrite(fd, data, BLOCK, 0), BLOCK);
    start_sync((struct aiocb *)room, fd);
}

static void exit_writes_to_no_frame_that_is_gone(void) {
    int fd = patterned_file("file", 1, BLOCK);
    for (size_t depth = 0; depth < 1024; depth += 32) {
        int status = -1;
        // An fsync that ends just between the return and the library's part of exit() is nobody's fault.
        for (int tries = 0; tries < 3 && status != 0; tries++) {
            pid_t child = fork();
            if (child == 0) {
                leave_a_request(fd, depth);
                exit(0);
            }
            status = wait_for(child, 8);
        }
        must_that(status == 0, "child ended with %#x, with a block at depth %zu", status, depth);
    }
}

// ---- Descriptor tables of their own --------------------------------------------------------

static atomic_bool is_over;

static void *read_with_own_descriptors(void *unused) {
    char *buffer = aligned(BLOCK);
    must((int)syscall(SYS_unshare, CLONE_FILES), 0);
    io_context_t context = new_context(8);
    int fd = open(temp_path("cold"), O_RDONLY);
    struct iocb request;
    for (int round = 0; !atomic_load(&is_over); round++) {
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, BLOCK, round * 3l % 64 * BLOCK);
        must(run_one(context, &request), BLOCK);
    }
    io_destroy(context);
    return unused;
}

static void threads_with_their_own_descriptors_share_few_daemons(void) {
    pthread_t threads[2];
    patterned_file("cold", 9, 64 * BLOCK);
    for (int i = 0; i < 2; i++) start_thread(&threads[i], read_with_own_descriptors, NULL);
    sleep_ms(1500);
    int daemons = threads_named("aiod");
    atomic_store(&is_over, true);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    expect_that(daemons <= 12, "%d daemons", daemons);
}

// The ways to a daemon have names in the network's namespace.
static void a_network_of_its_own_keeps_no_daemon_away(void) {
    setenv("IOCTX_AIOD_LIFETIME", "100", 1);
    setenv("IOCTX_AIOD_TIMEOUT", "100", 1);
    int empty = eventfd(0, 0);
    uint64_t one = 1;
    io_context_t context = used_context(8);
    struct iocb request;
    struct io_event event;
    for (int round = 0; round < 2; round++) {
        io_prep_poll(&request, empty, POLLIN);
        submit(context, &request);
        must(write(empty, &one, sizeof one), sizeof one);
        reap(context, 1, &event);
        must(read(empty, &one, sizeof one), sizeof one);
        sleep_ms(400);
        if (round == 0 && unshare(CLONE_NEWNET) < 0) skip_case("no network namespace is to be had here");
    }
}

// ---- A filter that comes late --------------------------------------------------------------

static void forbid_to_all_threads(unsigned call) {
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {4, instructions};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    must((int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter), 0);
}

// What is with io_uring then fails, and the rest goes elsewhere.
static void a_filter_that_comes_late_keeps_back_no_event(void) {
    int fd = patterned_file("cold", 9, 512 * BLOCK), ends[2], counter = eventfd(0, EFD_NONBLOCK);
    char *buffer = aligned(BLOCK), byte;
    io_context_t context = new_context(16);
    struct iocb waiting, request;
    struct io_event event;
    must(pipe(ends), 0);
    io_prep_pread(&waiting, ends[0], &byte, 1, 0);
    io_set_eventfd(&waiting, counter);
    submit(context, &waiting);
    make_cold(fd);
    forbid_to_all_threads(SYS_io_uring_enter);
    bool has_waiting_failed = false;
    for (int round = 0; round < 8; round++) {
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, BLOCK, round * 50l * BLOCK);
        submit(context, &request);
        do {
            reap(context, 1, &event);
            if (event.obj != &waiting) continue;
            has_waiting_failed = true;
            expect((long)event.res, -EIO);
        } while (event.obj != &request);
        if (round > 0) expect((long)event.res, BLOCK);
    }
    if (has_waiting_failed) {
        uint64_t count = 0;
        must(poll(&(struct pollfd){.fd = counter, .events = POLLIN}, 1, 5000), 1);
        must(read(counter, &count, sizeof count), sizeof count);
        expect((long)count, 1);
        // Nobody holds the pipe any more.
        signal(SIGPIPE, SIG_IGN);
        close(ends[0]);
        for (int look = 0; look < 200 && write(ends[1], "x", 1) == 1; look++) sleep_ms(10);
        expect(write(ends[1], "x", 1) < 0 ? errno : 0, EPIPE);
    }
    double before = processor_seconds();
    sleep_ms(300);
    expect_that(processor_seconds() - before < 0.1, "a daemon is busy with nothing");
}

// Daemons that wait for readiness by epoll look by time then.
static void a_filter_against_epoll_keeps_no_pipe_waiting(void) {
    int ends[2];
    char byte = 0;
    io_context_t context = used_context(512);
    struct iocb request;
    struct io_event event;
    must(pipe(ends), 0);
    io_prep_pread(&request, ends[0], &byte, 1, 0);
    submit(context, &request);
    // Those of one file are tried together.
    int quiet[2];
    static struct iocb polls[300];
    must(pipe(quiet), 0);
    for (int i = 0; i < 300; i++) {
        io_prep_poll(&polls[i], quiet[0], POLLIN);
        submit(context, &polls[i]);
    }
    forbid_to_all_threads(SYS_epoll_pwait);
    for (int round = 0; round < 3; round++) {
        double before = processor_seconds();
        sleep_ms(300);
        expect_that(processor_seconds() - before < 0.1, "a daemon is busy with nothing");
        must(write(ends[1], "x", 1), 1);
        reap(context, 1, &event);
        expect(byte, 'x');
        byte = 0;
        submit(context, &request);
    }
    must(write(ends[1], "x", 1), 1);
    reap(context, 1, &event);
    must(write(quiet[1], "x", 1), 1);
    for (int i = 0; i < 300; i++) reap(context, 1, &event);
    expect(io_destroy(context), 0);
}

// The kernel's AIO takes direct reads, and its events must be had without that call then.
static void a_filter_against_io_getevents_keeps_back_no_signal(void) {
    close(patterned_file("file", 9, BLOCK));
    int fd = open_direct("file", O_RDONLY);
    struct aiocb block = {
        .aio_fildes = fd, .aio_buf = aligned(BLOCK), .aio_nbytes = BLOCK,
        .aio_sigevent = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}};
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    must(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
    for (int round = 0; round < 6; round++) {
        if (round == 3) forbid_to_all_threads(SYS_io_getevents);
        must(aio_read(&block), 0);
        must(sigtimedwait(&usr1, NULL, &(struct timespec){5, 0}), SIGUSR1);
        expect(aio_return(&block), BLOCK);
    }
    double before = processor_seconds();
    sleep_ms(300);
    expect_that(processor_seconds() - before < 0.1, "a daemon is busy with nothing");
}

// Whoever is told that a read has failed has its buffer for itself.
static void a_read_that_a_filter_ends_writes_nothing_later(void) {
    const size_t size = 128 << 20;
    close(patterned_file("large", 9, size));
    int fd = open_direct("large", O_RDONLY), ends[2];
    char *buffer = aligned(size), byte;
    io_context_t context = used_context(16);
    struct iocb request, other;
    struct io_event event;
    must(pipe(ends), 0);
    memset(buffer, 0, size);
    io_prep_pread(&request, fd, buffer, size, 0);
    submit(context, &request);
    sleep_ms(2);
    forbid_to_all_threads(SYS_io_uring_enter);
    // Has the daemon look up.
    io_prep_poll(&other, ends[0], POLLIN);
    submit(context, &other);
    must(write(ends[1], "x", 1), 1);
    do {
        reap(context, 1, &event);
    } while (event.obj != &request);
    // Where another engine does it, it is done.
    if ((long)event.res == (long)size) return;
    expect((long)event.res, -EIO);
    must(read(ends[0], &byte, 1), 1);
    memset(buffer, 0, size);
    sleep_ms(500);
    for (size_t at = 0; at < size; at += BLOCK) must_that(!buffer[at], "written to later");
}

static const struct test_case cases[] = {
    SLOW_CASE(fork_leaves_the_contexts_behind, 60),
    CASE(grandchildren_can_use_aio),
    SLOW_CASE(raw_fork_leaves_the_contexts_behind, 60),
    SLOW_CASE(threads_go_on_while_one_forks, 60),
    CASE(vfork_shares_the_contexts),
    CASE(vfork_starts_nothing_that_ends_with_the_child),
    CASE(spawned_programs_run),
    SLOW_CASE(exec_ends_requests_in_flight, 40),
    SLOW_CASE(exit_ends_requests_in_flight, 40),
    LAYER_CASE(exit_does_not_wait_for_empty_pipes, 20, PIPE_REASON),
    CASE(main_thread_may_leave),
    CASE(process_ends_with_its_last_thread),
    CASE(cold_reads_outlive_their_thread),
    CASE(direct_reads_outlive_their_thread),
    LAYER_CASE(pipe_reads_outlive_their_thread, 20, PIPE_REASON),
    CASE(process_ends_although_nobody_asks_for_its_requests),
    LAYER_CASE(exit_writes_to_no_frame_that_is_gone, 60, "the C library writes there"),
    CASE(a_network_of_its_own_keeps_no_daemon_away),
    CASE(threads_with_their_own_descriptors_share_few_daemons),
    LAYER_CASE(a_filter_that_comes_late_keeps_back_no_event, 20, PIPE_REASON),
    LAYER_CASE(a_filter_against_epoll_keeps_no_pipe_waiting, 20, PIPE_REASON),
    CASE(a_filter_against_io_getevents_keeps_back_no_signal),
    SLOW_CASE(a_read_that_a_filter_ends_writes_nothing_later, 60),
    LAYER_CASE(nothing_happens_at_load_time, 20, "the kernel's AIO has nothing to start"),
    LAYER_CASE(idle_daemons_leave_and_come_back, 40, "the kernel's AIO has no daemons in the process"),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

// Proves that whoever may read a process's memory finds in it what the layer has counted, exactly, and
// without stopping it: requests by face and path, contexts, jobs and daemons. The case is the reader;
// the program on the layer is its child, which stops at each look.

#include "harness.h"
#include "../../Sources/CLibAIO/include/counters.h"

#include <aio.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define REASON "the kernel keeps no such counters"

// ---- The reader ----------------------------------------------------------------------------

struct sight {
    struct ioctx_counters block;
    struct ioctx_linux_counts linux_counts;
    unsigned living;
};

static uintptr_t block_of(pid_t process) {
    char path[64], line[512];
    uintptr_t start = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", process);
    FILE *maps = fopen(path, "r");
    must_that(maps != NULL, "cannot open %s: %s", path, strerror(errno));
    while (start == 0 && fgets(line, sizeof line, maps))
        if (strstr(line, " /memfd:" IOCTX_COUNTERS_NAME " (deleted)"))
            start = strtoul(line, NULL, 16);
    fclose(maps);
    return start;
}

static void add(struct ioctx_linux_counts *sum, const struct ioctx_linux_counts *made,
    const struct ioctx_linux_counts *finished) {
    sum->inlined += made->inlined;
    sum->readiness += made->readiness;
    sum->daemon += made->daemon;
    sum->adopted += made->adopted;
    sum->finished += finished->finished;
    sum->cancelled += finished->cancelled;
}

static void *records(int memory, const struct ioctx_counters *block) {
    size_t bytes = (size_t)block->contexts_used * block->contexts_stride;
    void *room = malloc(bytes + 1);
    must(pread(memory, room, bytes, (off_t)block->contexts_address), bytes);
    return room;
}

// Reads as counters.h asks for: what is finished first, and again when counts were on their way.
static struct sight look(pid_t process) {
    struct sight sight;
    struct ioctx_counters before, after;
    char path[64];
    uintptr_t address = block_of(process);
    must_that(address != 0, "no block in process %d", process);
    snprintf(path, sizeof path, "/proc/%d/mem", process);
    int memory = open(path, O_RDONLY);
    must_that(memory >= 0, "cannot open %s: %s", path, strerror(errno));
    do {
        memset(&sight, 0, sizeof sight);
        must(pread(memory, &before, sizeof before, (off_t)address), sizeof before);
        char *finished = records(memory, &before), *made = records(memory, &before);
        must(pread(memory, &sight.block, sizeof sight.block, (off_t)address), sizeof sight.block);
        add(&sight.linux_counts, &sight.block.gone, &before.gone);
        for (size_t i = 0; i < before.contexts_used; i++) {
            struct ioctx_context_counts *one = (void *)(made + i * before.contexts_stride);
            struct ioctx_context_counts *old = (void *)(finished + i * before.contexts_stride);
            add(&sight.linux_counts, &one->counts, &old->counts);
            sight.living += one->address != 0 && !(one->state & IOCTX_CONTEXT_DYING);
        }
        sight.block.posix_finished = before.posix_finished;
        free(made);
        free(finished);
        must(pread(memory, &after, sizeof after, (off_t)address), sizeof after);
    } while (before.moves & 1 || before.moves != after.moves);
    close(memory);
    expect(sight.block.magic, IOCTX_COUNTERS_MAGIC);
    expect(sight.block.version, IOCTX_COUNTERS_VERSION);
    expect(sight.block.bytes, sizeof sight.block);
    return sight;
}

static uint64_t linux_made(const struct sight *sight) {
    return sight->linux_counts.inlined + sight->linux_counts.readiness + sight->linux_counts.daemon;
}

static uint64_t linux_done(const struct sight *sight) {
    return sight->linux_counts.inlined + sight->linux_counts.finished;
}

static uint64_t posix_made(const struct sight *sight) {
    const struct ioctx_counters *block = &sight->block;
    return block->posix_inlined + block->posix_readiness + block->posix_daemon + block->posix_native;
}

static uint64_t posix_done(const struct sight *sight) {
    return sight->block.posix_inlined + sight->block.posix_finished;
}

// ---- The program on the layer --------------------------------------------------------------

static int to_reader[2], to_program[2];
static pid_t program;

static unsigned threads_of_the_layer(void) {
    char path[512], name[32];
    unsigned count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", program);
    DIR *tasks = opendir(path);
    must_that(tasks != NULL, "cannot open %s: %s", path, strerror(errno));
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", program, task->d_name);
        FILE *comm = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        count += comm && fgets(name, sizeof name, comm) && strncmp(name, "aiod/", 5) == 0;
        if (comm)
            fclose(comm);
    }
    closedir(tasks);
    return count;
}

static void start(void (*body)(void)) {
    must(pipe(to_reader), 0);
    must(pipe(to_program), 0);
    program = fork();
    must_that(program >= 0, "no child");
    if (program > 0)
        return;
    body();
    _exit(0);
}

// In the program: stops until the reader has looked.
static void stop(void) {
    char byte = 0;
    must(write(to_reader[1], &byte, 1), 1);
    must(read(to_program[0], &byte, 1), 1);
}

static void await_stop(void) {
    struct pollfd entry = {to_reader[0], POLLIN, 0};
    char byte;
    must(poll(&entry, 1, 15000), 1);
    must(read(to_reader[0], &byte, 1), 1);
}

static void go_on(void) {
    char byte = 0;
    must(write(to_program[1], &byte, 1), 1);
}

static void end(void) {
    go_on();
    expect_clean_exit(program, 15);
}

// Runs the program to its next stop and looks.
static struct sight next(void) {
    await_stop();
    return look(program);
}

// Threads come and go in their own time.
static void expect_daemons(struct sight sight) {
    for (int i = 0; i < 1000 && sight.block.daemons.now != threads_of_the_layer(); i++) {
        sleep_ms(1);
        sight = look(program);
    }
    expect(sight.block.daemons.now, threads_of_the_layer());
    // Where contexts may become the kernel's, there is none before the first request that needs it.
    expect_that(sight.block.num_aio_procs.now < sight.block.daemons.now || sight.block.daemons.now == 0,
        "workers are not all");
}

static bool kernel_serves_direct(void) {
    const char *engine = getenv("IOCTX_ENGINE");
    return (!engine || strcmp(engine, "auto") == 0 || strcmp(engine, "native") == 0) &&
        prctl(PR_GET_SECCOMP) == 0;
}

// ---- Linux AIO -----------------------------------------------------------------------------

static void limits(void) {
    setenv("IOCTX_MAX_AIO_PROCS", "5", 1);
    setenv("IOCTX_TARGET_AIO_PROCS", "3", 1);
    setenv("IOCTX_MAX_AIO_QUEUE_PER_PROC", "1000", 1);
    setenv("IOCTX_MAX_BUF_AIO", "7", 1);
    setenv("IOCTX_AIOD_LIFETIME", "60000", 1);
    setenv("IOCTX_AIOD_TIMEOUT", "50000", 1);
    setenv("IOCTX_AIO_MAX_NR", "4000", 1);
    stop();
    io_context_t first = new_context(64), second = new_context(100);
    stop();
    must(io_destroy(second), 0);
    stop();
    must(io_destroy(first), 0);
    stop();
}

static void limits_and_contexts_can_be_read(void) {
    start(limits);
    await_stop();
    expect(block_of(program), 0);
    go_on();
    struct sight sight = next();
    expect(sight.block.pid, program);
    expect(sight.block.max_aio_procs, 5);
    expect(sight.block.target_aio_procs, 3);
    expect(sight.block.max_aio_queue_per_proc, 1000);
    expect(sight.block.max_buf_aio, 7);
    expect(sight.block.aiod_lifetime, 60000);
    expect(sight.block.aiod_timeout, 50000);
    expect(sight.block.aio_max_nr, 4000);
    expect(sight.block.contexts.now, 2);
    expect(sight.block.aio_nr.now, 164);
    expect(sight.living, 2);
    expect_daemons(sight);
    expect(linux_made(&sight), 0);
    go_on();
    sight = next();
    expect(sight.block.contexts.now, 1);
    expect(sight.block.aio_nr.now, 64);
    expect(sight.living, 1);
    go_on();
    sight = next();
    expect(sight.block.contexts.now, 0);
    expect(sight.block.contexts.most, 2);
    expect(sight.block.aio_nr.now, 0);
    expect(sight.block.aio_nr.most, 164);
    expect(sight.living, 0);
    end();
}

static void read_cached(io_context_t context, int fd, int count) {
    static char buffers[32][BLOCK];
    struct iocb requests[32], *list[32];
    struct io_event events[32];
    for (int i = 0; i < count; i++) {
        io_prep_pread(&requests[i], fd, buffers[i], BLOCK, i * BLOCK);
        list[i] = &requests[i];
    }
    must(io_submit(context, count, list), count);
    reap(context, count, events);
}

static void linux_paths(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), pipes[2];
    char bytes[8];
    struct iocb requests[8], *list[1];
    struct io_event events[8];
    must(pipe(pipes), 0);
    io_context_t context = new_context(64);
    for (int i = 0; i < 100; i++)
        read_cached(context, fd, 1);
    read_cached(context, fd, 32);
    stop();
    // Three reads of an empty pipe and a poll, which wait.
    for (int i = 0; i < 3; i++) {
        io_prep_pread(&requests[i], pipes[0], &bytes[i], 1, 0);
        submit(context, &requests[i]);
    }
    int quiet[2];
    must(pipe(quiet), 0);
    io_prep_poll(&requests[3], quiet[0], POLLIN);
    submit(context, &requests[3]);
    stop();
    expect(io_cancel(context, &requests[3], events), -EINPROGRESS);
    must(write(pipes[1], "abc", 3), 3);
    reap(context, 4, events);
    stop();
    for (int i = 0; i < 4; i++) {
        io_prep_fsync(&requests[i], fd);
        expect(run_one(context, &requests[i]), 0);
    }
    // What is refused is not counted, and its slot is free.
    int descriptors[] = {pipes[0], -1};
    for (int i = 0; i < 200; i++) {
        io_prep_fsync(&requests[0], descriptors[i % 2]);
        list[0] = &requests[0];
        expect(io_submit(context, 1, list), i % 2 ? -EBADF : -EINVAL);
    }
    stop();
    // A full ring refuses, and what fills it is counted.
    io_context_t small = new_context(1);
    int slots = (int)ring_of(small)->nr - 1;
    io_prep_pread(&requests[0], fd, bytes, 1, 0);
    list[0] = &requests[0];
    for (int i = 0; i < slots; i++)
        must(io_submit(small, 1, list), 1);
    must(io_submit(small, 1, list), -EAGAIN);
    must(io_submit(small, 1, list), -EAGAIN);
    // io_destroy ends a read that waits.
    io_prep_pread(&requests[4], quiet[0], bytes, 1, 0);
    submit(context, &requests[4]);
    char number = (char)slots;
    must(write(to_reader[1], &number, 1), 1);
    must(io_destroy(small), 0);
    must(io_destroy(context), 0);
    stop();
}

// A daemon publishes an event, and gives the job back after that.
static void await_empty_table(struct sight *sight) {
    for (int i = 0; i < 1000 &&
         sight->block.num_queue_count.now + sight->block.num_buf_aio.now > 0; i++) {
        sleep_ms(1);
        *sight = look(program);
    }
}

static void linux_requests_are_counted_by_path(void) {
    start(linux_paths);
    struct sight sight = next();
    expect(sight.linux_counts.inlined, 132);
    expect(linux_made(&sight), 132);
    expect(linux_done(&sight), 132);
    expect(sight.block.num_queue_count.now, 0);
    expect(sight.block.num_queue_count.most, 0);
    go_on();
    sight = next();
    expect(sight.linux_counts.readiness, 4);
    expect(linux_made(&sight), 136);
    expect(linux_done(&sight), 132);
    expect(sight.block.num_queue_count.now, 4);
    go_on();
    sight = next();
    expect(linux_made(&sight), 136);
    expect(linux_done(&sight), 136);
    expect(sight.linux_counts.cancelled, 1);
    await_empty_table(&sight);
    expect(sight.block.num_queue_count.now, 0);
    expect(sight.block.num_queue_count.most, 4);
    go_on();
    sight = next();
    expect(sight.linux_counts.daemon, 4);
    expect(linux_done(&sight), 140);
    expect_daemons(sight);
    expect(sight.block.linux_eagain, 0);
    go_on();
    char slots;
    must(read(to_reader[0], &slots, 1), 1);
    sight = next();
    expect(sight.block.linux_eagain, 2);
    expect(sight.linux_counts.inlined, 132 + slots);
    expect(sight.linux_counts.readiness, 5);
    expect(sight.linux_counts.daemon, 4);
    expect(sight.linux_counts.cancelled, 2);
    expect(linux_done(&sight), linux_made(&sight));
    // All of it is left of contexts that are gone, once the daemon has let go of the last.
    expect(sight.living, 0);
    for (int i = 0; i < 1000 && sight.block.gone.finished < 9; i++) {
        sleep_ms(1);
        sight = look(program);
    }
    expect(sight.block.gone.inlined, 132 + slots);
    expect(sight.block.gone.finished, 9);
    end();
}

static void direct(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), direct = open_direct("file", O_RDONLY);
    char *buffer = aligned(BLOCK);
    struct iocb request, *list[] = {&request, &request, &request};
    struct io_event events[3];
    io_context_t context = new_context(8);
    io_prep_pread(&request, direct, buffer, BLOCK, 0);
    must(run_one(context, &request), BLOCK);
    must(io_submit(context, 3, list), 3);
    reap(context, 3, events);
    stop();
    must(io_destroy(context), 0);
    close(fd);
    stop();
}

static void direct_requests_are_the_kernels_or_a_daemons(void) {
    start(direct);
    for (int i = 0; i < 2; i++) {
        struct sight sight = next();
        expect(sight.linux_counts.adopted + sight.linux_counts.daemon, 4);
        if (kernel_serves_direct())
            expect(sight.linux_counts.adopted, 4);
        expect(linux_done(&sight), linux_made(&sight));
        expect(sight.living, 1 - i);
        i ? end() : go_on();
    }
}

// Finds each event in the ring already, and leaves eight to the kernel at the end.
static void direct_unawaited(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), direct = open_direct("file", O_RDONLY);
    char *buffer = aligned(BLOCK);
    struct iocb request, *list[8];
    struct io_event events[8];
    io_context_t context = used_context(64);
    struct ring *ring = ring_of(context);
    io_prep_pread(&request, direct, buffer, BLOCK, 0);
    for (int i = 0; i < 8; i++)
        list[i] = &request;
    for (int i = 0; i < 100; i++) {
        submit(context, &request);
        for (int j = 0; j < 5000 && __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == ring->head; j++)
            sleep_ms(1);
        reap(context, 1, events);
    }
    must(io_submit(context, 8, list), 8);
    reap(context, 8, events);
    stop();
    close(fd);
}

static void direct_requests_stay_the_kernels_when_nobody_has_to_wait(void) {
    if (!kernel_serves_direct())
        skip_case("a daemon has the direct requests here");
    start(direct_unawaited);
    expect(next().block.num_buf_aio.most, 8);
    end();
}

// ---- POSIX AIO -----------------------------------------------------------------------------

static void prepare(struct aiocb *block, int fd, void *buffer, size_t size, off_t offset) {
    memset(block, 0, sizeof *block);
    block->aio_fildes = fd;
    block->aio_buf = buffer;
    block->aio_nbytes = size;
    block->aio_offset = offset;
    block->aio_sigevent.sigev_notify = SIGEV_NONE;
}

static void finish(struct aiocb *block, ssize_t result) {
    const struct aiocb *list[] = {block};
    while (aio_error(block) == EINPROGRESS)
        aio_suspend(list, 1, NULL);
    expect(aio_return(block), result);
}

static atomic_int calls;

static void be_called(union sigval value) {
    (void)value;
    atomic_fetch_add(&calls, 1);
}

static void posix_paths(void) {
    setenv("IOCTX_MAX_AIO_QUEUE_PER_PROC", "5", 1);
    int fd = patterned_file("file", 1, 64 * BLOCK), direct = open_direct("file", O_RDONLY), pipes[2];
    char *buffer = aligned(BLOCK), bytes[8];
    struct aiocb blocks[8], *list[4];
    must(pipe(pipes), 0);
    stop();
    for (int i = 0; i < 10; i++) {
        prepare(&blocks[0], fd, buffer, BLOCK, i * BLOCK);
        must(aio_read(&blocks[0]), 0);
        finish(&blocks[0], BLOCK);
    }
    for (int i = 0; i < 4; i++) {
        prepare(&blocks[i], fd, buffer, BLOCK, i * BLOCK);
        blocks[i].aio_lio_opcode = LIO_READ;
        list[i] = &blocks[i];
    }
    must(lio_listio(LIO_WAIT, list, 4, NULL), 0);
    stop();
    for (int i = 0; i < 5; i++) {
        prepare(&blocks[i], pipes[0], &bytes[i], 1, 0);
        must(aio_read(&blocks[i]), 0);
    }
    // The table is full.
    prepare(&blocks[5], pipes[0], &bytes[5], 1, 0);
    must(aio_read(&blocks[5]), -1);
    must(errno, EAGAIN);
    stop();
    expect(aio_cancel(pipes[0], &blocks[4]), AIO_CANCELED);
    must(write(pipes[1], "abcd", 4), 4);
    for (int i = 0; i < 4; i++)
        finish(&blocks[i], 1);
    stop();
    for (int i = 0; i < 3; i++) {
        prepare(&blocks[i], direct, buffer, BLOCK, i * BLOCK);
        must(aio_read(&blocks[i]), 0);
        finish(&blocks[i], BLOCK);
    }
    prepare(&blocks[0], fd, NULL, 0, 0);
    must(aio_fsync(O_SYNC, &blocks[0]), 0);
    finish(&blocks[0], 0);
    // A function, which takes another thread of ours.
    prepare(&blocks[0], fd, buffer, BLOCK, 0);
    blocks[0].aio_sigevent.sigev_notify = SIGEV_THREAD;
    blocks[0].aio_sigevent.sigev_notify_function = be_called;
    must(aio_read(&blocks[0]), 0);
    finish(&blocks[0], BLOCK);
    while (atomic_load(&calls) == 0)
        sleep_ms(1);
    stop();
}

static void posix_requests_are_counted_by_path(void) {
    start(posix_paths);
    await_stop();
    expect(block_of(program), 0);
    go_on();
    struct sight sight = next();
    expect(sight.block.posix_inlined, 14);
    expect(posix_made(&sight), 14);
    expect(sight.block.contexts_used, 0);
    go_on();
    sight = next();
    expect(sight.block.posix_readiness, 5);
    expect(posix_made(&sight), 19);
    expect(posix_done(&sight), 14);
    expect(sight.block.posix_eagain, 1);
    expect(sight.block.num_queue_count.now, 5);
    expect(sight.block.num_queue_count.most, 5);
    go_on();
    sight = next();
    expect(posix_made(&sight), 19);
    expect(posix_done(&sight), 19);
    expect(sight.block.posix_cancelled, 1);
    await_empty_table(&sight);
    expect(sight.block.num_queue_count.now, 0);
    expect(sight.block.num_buf_aio.most, 0);
    go_on();
    sight = next();
    expect(sight.block.posix_native + sight.block.posix_daemon, 4);
    if (kernel_serves_direct()) {
        // A pool has the fsync when one of the reads is not forgotten yet.
        expect_either(sight.block.posix_native, 4, 3);
        // Each is made while the one before it may not be forgotten.
        expect_that(sight.block.num_buf_aio.most >= 1 && sight.block.num_buf_aio.most <= 4,
            "%lu at most", sight.block.num_buf_aio.most);
    }
    expect(posix_made(&sight), 24);
    expect(posix_done(&sight), 24);
    expect(sight.block.posix_inlined, 15);
    expect(sight.block.posix_eagain, 1);
    expect(linux_made(&sight), 0);
    await_empty_table(&sight);
    expect(sight.block.num_buf_aio.now, 0);
    expect_daemons(sight);
    end();
}

// ---- Processes -----------------------------------------------------------------------------

static pid_t *child;

static void parent_and_child(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(64);
    read_cached(context, fd, 5);
    *child = fork();
    if (*child == 0) {
        *child = getpid();
        stop();
        context = new_context(10);
        read_cached(context, fd, 2);
        stop();
        _exit(0);
    }
    expect_clean_exit(*child, 15);
    stop();
}

static void forked_child_counts_for_itself(void) {
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    start(parent_and_child);
    await_stop();
    expect(block_of(*child), 0);
    go_on();
    await_stop();
    struct sight mine = look(*child), parents = look(program);
    expect(mine.block.pid, *child);
    expect(mine.linux_counts.inlined, 2);
    expect(mine.block.contexts.now, 1);
    expect(mine.block.aio_nr.now, 10);
    expect(parents.block.pid, program);
    expect(parents.linux_counts.inlined, 5);
    expect(parents.block.aio_nr.now, 64);
    go_on();
    parents = next();
    expect(parents.linux_counts.inlined, 5);
    end();
}

// ---- Without a name ------------------------------------------------------------------------

static void forbid_memfd(unsigned action) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {4, filter};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all), 0);
}

static void use_unseen(void) {
    int fd = open(temp_path("file"), O_RDONLY), pipes[2];
    char byte;
    struct iocb request;
    must(pipe(pipes), 0);
    io_context_t context = new_context(64);
    read_cached(context, fd, 32);
    must(write(pipes[1], "x", 1), 1);
    io_prep_pread(&request, pipes[0], &byte, 1, 0);
    expect(run_one(context, &request), 1);
    stop();
    must(io_destroy(context), 0);
}

static void under_errno(void) {
    forbid_memfd(SECCOMP_RET_ERRNO | EPERM);
    use_unseen();
}

static void under_kill(void) {
    forbid_memfd(SECCOMP_RET_KILL_PROCESS);
    use_unseen();
}

static void under_ulimit(void) {
    struct rlimit none = {0, 0};
    must(setrlimit(RLIMIT_FSIZE, &none), 0);
    use_unseen();
}

static void without_memfd_the_layer_works_unseen(void) {
    void (*const bodies[])(void) = {under_errno, under_kill, under_ulimit};
    close(patterned_file("file", 1, 64 * BLOCK));
    for (int i = 0; i < 3; i++) {
        start(bodies[i]);
        await_stop();
        expect(block_of(program), 0);
        end();
    }
}

// ---- While it runs -------------------------------------------------------------------------

#define WORKERS 3
static atomic_bool is_over;
static atomic_ulong made_in_all;

// Contexts that come and go, with requests on every path of the layer's own.
static void *churn(void *argument) {
    int fd = *(int *)argument, pipes[2];
    char bytes[4];
    struct iocb requests[4];
    struct io_event events[4];
    must(pipe(pipes), 0);
    while (!atomic_load(&is_over)) {
        io_context_t context = new_context(64);
        read_cached(context, fd, 8);
        for (int i = 0; i < 4; i++) {
            io_prep_pread(&requests[i], pipes[0], &bytes[i], 1, 0);
            submit(context, &requests[i]);
        }
        must(write(pipes[1], "abcd", 4), 4);
        reap(context, 4, events);
        must(io_destroy(context), 0);
        atomic_fetch_add(&made_in_all, 12);
    }
    return NULL;
}

static void churners(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    pthread_t threads[WORKERS];
    struct pollfd entry = {to_program[0], POLLIN, 0};
    io_context_t context = new_context(1);
    char byte = 0;
    for (int i = 0; i < WORKERS; i++)
        start_thread(&threads[i], churn, &fd);
    must(write(to_reader[1], &byte, 1), 1);
    must(poll(&entry, 1, 15000), 1);
    must(read(to_program[0], &byte, 1), 1);
    atomic_store(&is_over, true);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    must(io_destroy(context), 0);
    unsigned long made = atomic_load(&made_in_all);
    must(write(to_reader[1], &made, sizeof made), sizeof made);
    must(read(to_program[0], &byte, 1), 1);
}

static void counters_never_go_back_while_it_runs(void) {
    start(churners);
    await_stop();
    struct sight last = look(program);
    int looks = 0;
    for (double until = now_seconds() + 2; now_seconds() < until; looks++) {
        struct sight sight = look(program);
        expect_that(linux_made(&sight) >= linux_done(&sight), "%lu made, %lu done",
            linux_made(&sight), linux_done(&sight));
        expect_that(linux_made(&sight) >= linux_made(&last) && linux_done(&sight) >= linux_done(&last),
            "made %lu after %lu, done %lu after %lu", linux_made(&sight), linux_made(&last),
            linux_done(&sight), linux_done(&last));
        expect_that(sight.block.contexts.now >= 1 && sight.block.contexts.now <= WORKERS + 1,
            "%lu contexts", sight.block.contexts.now);
        last = sight;
    }
    unsigned long made;
    go_on();
    must(read(to_reader[0], &made, sizeof made), sizeof made);
    struct sight sight = look(program);
    expect(linux_made(&sight), made);
    expect(linux_done(&sight), made);
    expect(sight.block.contexts.now, 0);
    remark("%d looks, %lu requests", looks, made);
    end();
}

static const struct test_case cases[] = {
    LAYER_CASE(limits_and_contexts_can_be_read, 0, REASON),
    LAYER_CASE(linux_requests_are_counted_by_path, 0, REASON),
    LAYER_CASE(direct_requests_are_the_kernels_or_a_daemons, 0, REASON),
    LAYER_CASE(direct_requests_stay_the_kernels_when_nobody_has_to_wait, 0, REASON),
    LAYER_CASE(posix_requests_are_counted_by_path, 0, REASON),
    LAYER_CASE(forked_child_counts_for_itself, 0, REASON),
    LAYER_CASE(without_memfd_the_layer_works_unseen, 0, REASON),
    LAYER_CASE(counters_never_go_back_while_it_runs, 0, REASON),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

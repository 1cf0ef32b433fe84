// Proves that the layer asks no more of a process than the kernel's AIO does: few descriptors, no
// threads, little memory, no privileges.

#include "harness.h"

#include <aio.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define READS 5000
#define FILE_BLOCKS 8192

// Root is exempt from several limits, which would hide what every other user meets.
static void become_nobody(void) {
    if (geteuid() != 0)
        return;
    // Relative names go on working where the way to the directory is closed to others.
    must(chdir(temp_path("")), 0);
    must(setgroups(0, NULL), 0);
    must(setresgid(65534, 65534, 65534), 0);
    must(setresuid(65534, 65534, 65534), 0);
}

static void set_limit(int which, rlim_t value) {
    struct rlimit limit = {value, value};
    must(setrlimit((__rlimit_resource_t)which, &limit), 0);
}

// ---- Five thousand reads -------------------------------------------------------------------

static void read_five_thousand(int batch) {
    int fd = patterned_file("file", 1, (size_t)FILE_BLOCKS * BLOCK);
    char *buffer = aligned((size_t)READS * BLOCK);
    static struct iocb requests[READS], *list[READS];
    static struct io_event events[READS];
    static unsigned char seen[READS];
    set_limit(RLIMIT_NOFILE, 1024);
    become_nobody();
    io_context_t context = new_context(READS);
    make_cold(fd);
    for (int i = 0; i < READS; i++) {
        io_prep_pread(&requests[i], fd, buffer + (size_t)i * BLOCK, BLOCK,
            (long long)(i * 3l * 389 % FILE_BLOCKS) * BLOCK);
        requests[i].data = (void *)(long)i;
        list[i] = &requests[i];
    }
    for (int at = 0; at < READS;) {
        int count = READS - at < batch ? READS - at : batch;
        int taken = io_submit(context, count, list + at);
        must_that(taken > 0, "io_submit of %d at %d: %s", count, at, strerrorname_np(-taken));
        at += taken;
    }
    reap(context, READS, events);
    for (int i = 0; i < READS; i++) {
        struct iocb *request = events[i].obj;
        must(events[i].res, BLOCK);
        must(seen[(long)events[i].data]++, 0);
        must_that(has_pattern(request->u.c.buf, 1, (uint64_t)request->u.c.offset, BLOCK),
            "wrong data in read %ld", (long)events[i].data);
    }
    expect(io_destroy(context), 0);
}

static void five_thousand_single_cold_reads(void) { read_five_thousand(1); }
static void five_thousand_cold_reads_in_batches(void) { read_five_thousand(1000); }
static void five_thousand_cold_reads_at_once(void) { read_five_thousand(READS); }

// Each file is closed as soon as its read is submitted: more files in flight than descriptors allowed.
static void more_files_in_flight_than_descriptors(void) {
    enum { FILES = 1500 };
    char name[32], *buffer = aligned((size_t)FILES * BLOCK);
    int here = open(temp_path(""), O_RDONLY | O_DIRECTORY);
    static struct iocb requests[FILES];
    static struct io_event events[FILES];
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        int fd = openat(here, name, O_RDWR | O_CREAT, 0666);
        must_that(fd >= 0, "cannot create %s", name);
        fill_pattern(buffer, (uint64_t)i, 0, BLOCK);
        must(pwrite(fd, buffer, BLOCK, 0), BLOCK);
        close(fd);
    }
    must(syncfs(here), 0);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        int fd = openat(here, name, O_RDONLY);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    set_limit(RLIMIT_NOFILE, 256);
    become_nobody();
    io_context_t context = new_context(FILES);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        int fd = openat(here, name, O_RDONLY);
        must_that(fd >= 0, "cannot open %s: %s", name, strerror(errno));
        io_prep_pread(&requests[i], fd, buffer + (size_t)i * BLOCK, BLOCK, 0);
        requests[i].data = (void *)(long)i;
        submit(context, &requests[i]);
        close(fd);
    }
    reap(context, FILES, events);
    for (int i = 0; i < FILES; i++) {
        long number = (long)events[i].data;
        must(events[i].res, BLOCK);
        must_that(has_pattern(buffer + number * BLOCK, (uint64_t)number, 0, BLOCK),
            "file %ld was read from another", number);
    }
}

// ---- What may be refused -------------------------------------------------------------------

// Everything that does not have to wait for somebody else, checked.
static void use_files(int fd) {
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32], *list[32], request;
    struct io_event events[32];
    make_cold(fd);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 32; i++) {
            io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK,
                (long long)((i * 7 + round) % 64) * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, 32, list), 32);
        reap(context, 32, events);
        for (int i = 0; i < 32; i++)
            must_that(events[i].res == BLOCK && has_pattern(events[i].obj->u.c.buf, 1,
                    (uint64_t)events[i].obj->u.c.offset, BLOCK), "wrong data");
    }
    fill_pattern(buffer, 1, 0, BLOCK);
    io_prep_pwrite(&request, fd, buffer, BLOCK, 0);
    must(run_one(context, &request), BLOCK);
    io_prep_fsync(&request, fd);
    must(run_one(context, &request), 0);
    must(io_destroy(context), 0);
}

static void no_descriptor_is_free(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    set_limit(RLIMIT_NOFILE, (rlim_t)fd + 1);
    must(dup(fd), -1);
    use_files(fd);
}

static int feeder;

static void *feed_after_an_event(void *argument) {
    io_context_t context = *(io_context_t *)argument;
    struct io_event event;
    struct timespec time = {5, 0};
    long got = io_getevents(context, 1, 1, &event, &time);
    expect(got, 1);
    must(write(feeder, "x", 1), 1);
    return NULL;
}

// As on the kernel, where io_submit waits for the pipe.
static void an_event_is_there_while_a_later_request_waits(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), pipes[2];
    char *buffer = aligned(2 * BLOCK);
    struct iocb requests[2], *list[] = {&requests[0], &requests[1]};
    pthread_t thread;
    must(pipe(pipes), 0);
    feeder = pipes[1];
    io_context_t context = new_context(8);
    must(read(fd, buffer, BLOCK), BLOCK);
    set_limit(RLIMIT_NOFILE, (rlim_t)pipes[1] + 1);
    must(dup(fd), -1);
    io_prep_pread(list[0], fd, buffer, BLOCK, 0);
    io_prep_pread(list[1], pipes[0], buffer + BLOCK, BLOCK, 0);
    start_thread(&thread, feed_after_an_event, &context);
    must(io_submit(context, 2, list), 2);
    pthread_join(thread, NULL);
    struct io_event event;
    reap(context, 1, &event);
    expect((long)event.res, 1);
    must(io_destroy(context), 0);
}

static void no_thread_can_be_started(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    become_nobody();
    set_limit(RLIMIT_NPROC, 0);
    use_files(fd);
}

// Of address space, and of memory.
struct pages {
    unsigned long mapped, resident;
};

static struct pages own_pages(void) {
    struct pages own = {0, 0};
    FILE *file = fopen("/proc/self/statm", "r");
    must_that(file && fscanf(file, "%lu %lu", &own.mapped, &own.resident) == 2,
        "cannot read /proc/self/statm");
    fclose(file);
    return own;
}

static void little_memory_is_enough(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    set_limit(RLIMIT_AS, own_pages().mapped * 4096 + (256ul << 20));
    use_files(fd);
}

// A shared mapping's file may not outgrow RLIMIT_FSIZE; the signal for trying would end the program.
static void small_files_are_enough(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    set_limit(RLIMIT_FSIZE, 64 * BLOCK);
    use_files(fd);
}

static void no_memory_for_more_requests_is_enough(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(BLOCK);
    struct iocb request;
    make_cold(fd);
    set_limit(RLIMIT_DATA, 0);
    for (int number = 0; number < 64; number++) {
        io_prep_pread(&request, fd, buffer, BLOCK, (number * 7 % 64) * BLOCK);
        must(run_one(context, &request), BLOCK);
        must_that(has_pattern(buffer, 1, (uint64_t)(number * 7 % 64) * BLOCK, BLOCK), "wrong data");
    }
    io_prep_fsync(&request, fd);
    must(run_one(context, &request), 0);
    must(io_destroy(context), 0);
}

static void install(struct sock_filter *filter, unsigned short length) {
    struct sock_fprog program = {length, filter};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// Of two calls at most.
static void forbid(int call, int other, unsigned action) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)other, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    install(filter, sizeof filter / sizeof filter[0]);
}

// As after the failure of a file system: the descriptor is good, and nothing is to be learnt of its file.
// At any file with that number or a higher one.
static void let_nobody_look_at(int fd) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fstat, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_statx, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (unsigned)fd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    install(filter, sizeof filter / sizeof filter[0]);
}

static void a_file_that_cannot_be_looked_at_answers_itself(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), closed = 1000;
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    struct iocb request, *list = &request;
    make_cold(fd);
    let_nobody_look_at(0);
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    must(run_one(context, &request), BLOCK);
    expect_that(has_pattern(buffer, 1, 0, BLOCK), "wrong data");
    io_prep_pwrite(&request, fd, buffer, BLOCK, 64 * BLOCK);
    expect(run_one(context, &request), BLOCK);
    io_prep_fsync(&request, fd);
    expect(run_one(context, &request), 0);
    io_prep_pread(&request, closed, buffer, BLOCK, 0);
    expect(io_submit(context, 1, &list), -EBADF);
    must(io_destroy(context), 0);
}

// What waits for readiness needs no such look.
static void a_file_that_cannot_be_looked_at_can_be_polled(void) {
    int ends[2], high = 900;
    io_context_t context = used_context(8);
    struct iocb request;
    struct io_event event;
    must(pipe(ends), 0);
    must(dup2(ends[0], high), high);
    let_nobody_look_at(high);
    io_prep_poll(&request, high, POLLIN);
    submit(context, &request);
    must(write(ends[1], "x", 1), 1);
    reap(context, 1, &event);
    expect(event.res & POLLIN, POLLIN);
    must(io_destroy(context), 0);
}

// ---- I/O priorities ------------------------------------------------------------------------

static void read_cold_blocks(io_context_t context, int fd, int count) {
    char *buffer = aligned(BLOCK);
    struct iocb request;
    make_cold(fd);
    for (int block = 0; block < count; block++) {
        io_prep_pread(&request, fd, buffer, BLOCK, block * 32l * BLOCK);
        must(run_one(context, &request), BLOCK);
    }
}

// As of a service that is started in it, and then runs as another user.
static void a_real_time_class_that_was_inherited_fails_no_request(void) {
    if (geteuid() != 0)
        skip_case("only root may give itself the real-time class");
    int fd = patterned_file("file", 1, 64 * 32 * BLOCK);
    must((int)syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 4), 0);
    // The layer asks for the class once in 16 requests.
    io_context_t context = new_context(8);
    read_cold_blocks(context, fd, 17);
    become_nobody();
    read_cold_blocks(context, fd, 64);
}

static bool have_ring(void) {
    for (int fd = 0; fd < 64; fd++) {
        char path[32], link[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) > 0 && strstr(link, "io_uring")) return true;
    }
    return false;
}

// Of a buffered read the disk sees the priority of the thread that makes it.
static void the_daemon_has_the_class_of_what_it_reads(void) {
    int fd = patterned_file("file", 1, 64 * 32 * BLOCK);
    io_context_t context = used_context(8);
    must(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}), 0);
    for (int round = 0; round < 4; round++) read_cold_blocks(context, fd, 64);
    if (!have_ring()) skip_case("without io_uring a worker has it for the time of the read");
    int daemon = thread_named("aiod/0");
    must_that(daemon != 0, "there is no daemon");
    expect(syscall(SYS_ioprio_get, 1, daemon) >> 13, 3);
    must(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}), 0);
    for (int round = 0; round < 4; round++) read_cold_blocks(context, fd, 64);
    expect(syscall(SYS_ioprio_get, 1, daemon) >> 13, 0);
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &(struct sched_param){1}) < 0) return;
    for (int round = 0; round < 4; round++) read_cold_blocks(context, fd, 64);
    expect(syscall(SYS_ioprio_get, 1, daemon) >> 13, geteuid() == 0 ? 1 : 2);
}

static void locked_memory_stays_small(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        skip_case("mlockall: %s", strerror(errno));
    use_files(fd);
    unsigned long resident = own_pages().resident;
    expect_that(resident < 1ul << 16, "%lu MiB are resident", resident >> 8);
}

static void no_memory_may_be_locked(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    set_limit(RLIMIT_MEMLOCK, 0);
    become_nobody();
    use_files(fd);
}

static void standard_descriptors_may_be_closed(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    close(0), close(1), close(2);
    use_files(fd);
    // What the program opens next must still be its own, with nothing in it.
    int pipes[2];
    must(pipe(pipes), 0);
    use_files(fd);
    expect_that(!readable(pipes[0]), "something was written into the program's pipe");
}

static void user_can_change_with_requests_in_flight(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32];
    struct io_event events[32];
    make_cold(fd);
    for (int i = 0; i < 32; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, (long long)(i * 7 % 64) * BLOCK);
        submit(context, &requests[i]);
    }
    // setuid() waits for every thread of the process, the library's included.
    become_nobody();
    reap(context, 32, events);
    for (int i = 0; i < 32; i++)
        expect(events[i].res, BLOCK);
    use_files(fd);
}

// The same, and one event is to be counted in an eventfd that its writers wait for.
static long run_counted(io_context_t context, struct iocb *request, int counter) {
    struct pollfd entry = {.fd = counter, .events = POLLIN};
    eventfd_t count = 0;
    io_set_eventfd(request, counter);
    long result = run_one(context, request);
    if (poll(&entry, 1, 3000) == 1)
        eventfd_read(counter, &count);
    expect(count, 1);
    return result;
}

// One more thread can be had, or two, or three, and then no more: whoever comes away without one must
// not take requests down with it.
static void last_threads_are_enough(void) {
    const int writes = 5;
    char *buffer = aligned(BLOCK);
    close(patterned_file("file", 1, BLOCK));
    must(chmod(temp_path("file"), 0666), 0);
    must(chmod(temp_path(""), 0777), 0);
    for (int threads = 2; threads <= 4; threads++) {
        pid_t child = fork();
        if (child == 0) {
            set_limit(RLIMIT_NPROC, (rlim_t)threads);
            become_nobody();
            int fd = open_direct("file", O_RDWR | O_TRUNC), plain = open("file", O_RDONLY);
            int counter = eventfd(0, 0);
            io_context_t context = new_context(8);
            struct iocb request;
            // A buffered one first: the ring stays ours.
            io_prep_pread(&request, plain, buffer, BLOCK, 0);
            expect(run_one(context, &request), 0);
            for (int number = 0; number < writes; number++) {
                io_prep_pwrite(&request, fd, buffer, BLOCK, number * BLOCK);
                expect(run_counted(context, &request, counter), BLOCK);
                io_prep_fsync(&request, fd);
                expect(run_counted(context, &request, counter), 0);
                io_prep_pread(&request, fd, buffer, BLOCK, number * BLOCK);
                expect(run_counted(context, &request, counter), BLOCK);
            }
            _exit(0);
        }
        expect_clean_exit(child, 10);
    }
}

// The kernel's context is small, and what the program means to do with its room is its own affair.
static void address_space_is_left(void) {
    char byte;
    int fd = patterned_file("file", 1, BLOCK);
    set_limit(RLIMIT_AS, (rlim_t)256 << 20);
    struct aiocb block = {
        .aio_fildes = fd, .aio_buf = &byte, .aio_nbytes = 1, .aio_sigevent.sigev_notify = SIGEV_NONE};
    new_context(8);
    must(aio_read(&block), 0);
    while (aio_error(&block) == EINPROGRESS) sleep_ms(1);
    expect_that(malloc((size_t)100 << 20) != NULL, "no 100 MiB of 256 are left");
}

static void nothing(union sigval value) { (void)value; }

// A server without memory tries again and again, and has other uses for its address space. Room for a part
// of what is needed, each time more of it.
static void set_ups_that_fail_leave_nothing(void) {
    char byte;
    struct aiocb block = {
        .aio_fildes = -1, .aio_buf = &byte, .aio_nbytes = 1, .aio_sigevent.sigev_notify = SIGEV_NONE};
    struct rlimit limit = {0, RLIM_INFINITY};
    int fails = 0;
    for (rlim_t room = 8; room <= 1024; room += room / 4) {
        unsigned long before = 0, after = 0;
        limit.rlim_cur = (own_pages().mapped + room) * BLOCK;
        must(setrlimit(RLIMIT_AS, &limit), 0);
        for (int i = 0; i < 20; i++) {
            io_context_t context = NULL;
            if (io_setup(8, &context) == 0 || (aio_read(&block) < 0 && errno != EAGAIN)) goto made;
            fails++;
            if (i == 0) before = own_pages().mapped;
        }
        after = own_pages().mapped;
        expect_that(after <= before, "%lu pages became %lu", before, after);
    }
made:
    expect_that(fails > 0, "none has failed");
}

static atomic_int calls;

static void count_call(union sigval value) {
    (void)value;
    atomic_fetch_add(&calls, 1);
}

static void a_function_whose_thread_cannot_be_had_is_called(void) {
    char byte;
    pthread_attr_t attributes;
    struct aiocb block = {
        .aio_fildes = patterned_file("file", 1, BLOCK), .aio_buf = &byte, .aio_nbytes = 1,
        .aio_sigevent.sigev_notify = SIGEV_THREAD,
        .aio_sigevent.sigev_notify_function = count_call,
        .aio_sigevent.sigev_notify_attributes = &attributes};
    must(pthread_attr_init(&attributes), 0);
    must(pthread_attr_setstacksize(&attributes, (size_t)1 << 46), 0);
    for (int i = 1; i <= 3; i++) {
        must(aio_read(&block), 0);
        while (aio_error(&block) == EINPROGRESS || atomic_load(&calls) < i) sleep_ms(1);
        expect(aio_return(&block), 1);
    }
}

// A program that finds its list refused asks each block what became of it.
static void a_refused_list_is_told_in_its_blocks(void) {
    int fd = patterned_file("file", 1, BLOCK);
    struct aiocb block = {
        .aio_fildes = fd, .aio_buf = "0123456789", .aio_nbytes = 10, .aio_lio_opcode = LIO_WRITE,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    struct aiocb *list[] = {&block};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = nothing};
    must(aio_write(&block), 0);
    while (aio_error(&block) == EINPROGRESS) sleep_ms(1);
    expect(aio_return(&block), 10);
    // Threads that were there for it end meanwhile.
    sleep_ms(2000);
    become_nobody();
    set_limit(RLIMIT_NPROC, 0);
    must(lio_listio(LIO_NOWAIT, list, 1, &event), -1);
    expect(errno, EAGAIN);
    expect(aio_error(&block), EAGAIN);
}

// As programs that lock themselves in do: new requests on files that are open still work.
static void files_can_be_read_when_none_can_be_opened_any_more(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    use_files(fd);
    set_limit(RLIMIT_NOFILE, 0);
    use_files(fd);
}

// A sandbox that ends who opens anything, from the start, and once the daemons have left.
static void nothing_is_opened_in_a_sandbox(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    setenv("IOCTX_AIOD_LIFETIME", "50", 1);
    for (int late = 0; late < 2; late++) {
        pid_t child = fork();
        if (child == 0) {
            if (late) use_files(fd);
            forbid(SYS_openat, SYS_pipe2, late ? SECCOMP_RET_KILL_THREAD : SECCOMP_RET_KILL_PROCESS);
            use_files(fd);
            sleep_ms(300);
            use_files(fd);
            _exit(0);
        }
        expect_clean_exit(child, 10);
    }
}

static void aio_suspend_needs_no_poll(void) {
    int pipes[2];
    char byte;
    struct aiocb block = {.aio_buf = &byte, .aio_nbytes = 1};
    const struct aiocb *list[] = {&block};
    struct timespec time = {0, 10000000};
    must(pipe(pipes), 0);
    block.aio_fildes = pipes[0];
    block.aio_sigevent.sigev_notify = SIGEV_NONE;
    must(aio_read(&block), 0);
    forbid(SYS_poll, SYS_poll, SECCOMP_RET_KILL_PROCESS);
    expect(aio_suspend(list, 1, &time), -1);
    expect(errno, EAGAIN);
    must(write(pipes[1], "x", 1), 1);
    must(aio_suspend(list, 1, NULL), 0);
    expect(aio_return(&block), 1);
}

static atomic_int *traps;

static void count_trap(int number) {
    (void)number;
    atomic_fetch_add(traps, 1);
}

// The program has a handler for what its filter traps: what is tried in a child is not for it.
static void no_handler_runs_for_what_is_tried(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    traps = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGSYS, count_trap);
    forbid(SYS_memfd_create, SYS_clone3, SECCOMP_RET_TRAP);
    use_files(fd);
    expect(atomic_load(traps), 0);
}

// POSIX AIO's threads in the C library have SIGXFSZ blocked: the request fails, and the program lives.
static void aio_write_beyond_the_file_size_limit_fails(void) {
    int fd = patterned_file("file", 1, BLOCK);
    char *buffer = aligned(BLOCK);
    set_limit(RLIMIT_FSIZE, 2 * BLOCK);
    for (int number = 1; number < 4; number++) {
        struct aiocb block = {
            .aio_fildes = fd, .aio_buf = buffer, .aio_nbytes = BLOCK, .aio_offset = number * BLOCK,
            .aio_sigevent.sigev_notify = SIGEV_NONE};
        must(aio_write(&block), 0);
        while (aio_error(&block) == EINPROGRESS) sleep_ms(1);
        expect(aio_error(&block), number < 2 ? 0 : EFBIG);
        expect(aio_return(&block), number < 2 ? BLOCK : -1);
    }
    // What no file can hold is wrong whatever the limit.
    struct aiocb block = {
        .aio_fildes = fd, .aio_buf = buffer, .aio_nbytes = BLOCK, .aio_offset = INT64_MAX - 10,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    must(aio_write(&block), 0);
    while (aio_error(&block) == EINPROGRESS) sleep_ms(1);
    expect(aio_error(&block), EINVAL);
}

// lib/iov_iter.c: a transfer ends at 2 GiB less a page, which parts must not exceed together.
static void no_more_is_transferred_than_the_kernel_does(void) {
    enum { parts = 40, part = 64 << 20 };
    int fd = patterned_file("file", 1, part);
    must(ftruncate(fd, (off_t)parts * part), 0);
    char *buffer = mmap(NULL, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec vectors[parts];
    struct iocb request;
    for (int index = 0; index < parts; index++) vectors[index] = (struct iovec){buffer, part};
    make_cold(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    // What is cached is read first, and the rest elsewhere.
    must(pread(fd, buffer, BLOCK, 0), BLOCK);
    io_prep_preadv(&request, fd, vectors, parts, 0);
    expect(run_one(new_context(8), &request), 0x7ffff000);
}

static void all_memory_to_come_may_be_locked(void) {
    become_nobody();
    set_limit(RLIMIT_MEMLOCK, 8 << 20);
    if (mlockall(MCL_FUTURE) < 0) skip_case("memory cannot be locked here");
    int fd = patterned_file("locked", 1, 64 * BLOCK);
    char *buffer = aligned(BLOCK);
    io_context_t context = new_context(64);
    struct iocb request;
    make_cold(fd);
    for (int round = 0; round < 8; round++) {
        io_prep_pread(&request, fd, buffer, BLOCK, round * 8l * BLOCK);
        must(run_one(context, &request), BLOCK);
    }
    must(io_destroy(context), 0);
}

// ---- Vectors -------------------------------------------------------------------------------

#define VECTOR_BLOCKS 4096
#define COLD_FILES 100

// With all the room for vectors taken, requests of a call that would be deferred are done in it. Each
// of them is on a file of its own.
static void requests_go_on_when_the_room_for_vectors_is_taken(void) {
    static struct iocb fillers[VECTOR_BLOCKS], requests[COLD_FILES], *list[COLD_FILES];
    static struct io_event events[COLD_FILES];
    struct iovec vectors[3];
    int ends[2], files[COLD_FILES];
    char *buffer = aligned(3 * BLOCK);
    io_context_t waiting = new_context(VECTOR_BLOCKS + 64), context = new_context(2 * COLD_FILES);
    must(pipe(ends), 0);
    for (int i = 0; i < 3; i++) vectors[i] = (struct iovec){buffer + i * BLOCK, BLOCK};
    for (int i = 0; i < COLD_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "cold-%d", i);
        files[i] = patterned_file(name, (uint64_t)i, 3 * BLOCK);
        make_cold(files[i]);
        io_prep_preadv(&requests[i], files[i], vectors, 3, 0);
        list[i] = &requests[i];
    }
    for (int i = 0; i < VECTOR_BLOCKS; i++) {
        io_prep_preadv(&fillers[i], ends[0], vectors, 3, 0);
        submit(waiting, &fillers[i]);
    }
    must(io_submit(context, COLD_FILES, list), COLD_FILES);
    reap(context, COLD_FILES, events);
    for (int i = 0; i < COLD_FILES; i++) expect((long)events[i].res, 3 * BLOCK);
    must(io_destroy(waiting), 0);
}

// A program takes an fsync that is refused for lost data.
static void an_fsync_that_no_daemon_can_take_is_made(void) {
    enum { WRITES = 8, FSYNCS = 3, ALL = WRITES + FSYNCS };
    close(patterned_file("file", 4, WRITES * BLOCK));
    int fd = open_direct("file", O_RDWR);
    char *buffer = aligned(BLOCK);
    set_limit(RLIMIT_NOFILE, 64);
    while (dup(fd) >= 0) {}
    for (int round = 0; round < 100; round++) {
        struct aiocb blocks[ALL] = {0};
        for (int i = 0; i < ALL; i++) {
            struct aiocb *block = &blocks[i];
            block->aio_fildes = fd;
            block->aio_buf = buffer;
            block->aio_nbytes = BLOCK;
            block->aio_offset = i * BLOCK;
            block->aio_sigevent.sigev_notify = SIGEV_NONE;
            must(i < WRITES ? aio_write(block) : aio_fsync(O_SYNC, block), 0);
        }
        for (int i = 0; i < ALL; i++) {
            const struct aiocb *list[] = {&blocks[i]};
            while (aio_error(&blocks[i]) == EINPROGRESS) aio_suspend(list, 1, NULL);
            expect(aio_return(&blocks[i]), i < WRITES ? BLOCK : 0);
        }
    }
}

// ---- Requests that hang ---------------------------------------------------------------------

#define HANGING 20

// Memory whose pages are waited for until `let_go`.
static char *hanging_memory(size_t size, int *handler) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    must_that(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    *handler = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (*handler < 0)
        skip_case("userfaultfd: %s", strerror(errno));
    must(ioctl(*handler, UFFDIO_API, &api), 0);
    range.range.start = (uintptr_t)memory;
    range.range.len = size;
    must(ioctl(*handler, UFFDIO_REGISTER, &range), 0);
    return memory;
}

static void let_go(int handler, char *memory, size_t size) {
    struct uffdio_zeropage range = {.range = {(uintptr_t)memory, size}};
    must(ioctl(handler, UFFDIO_ZEROPAGE, &range), 0);
}

static struct iocb *extending_write(const char *name, void *buffer) {
    struct iocb *request = calloc(1, sizeof *request);
    close(open(temp_path(name), O_CREAT | O_TRUNC, 0600));
    io_prep_pwrite(request, open_direct(name, O_WRONLY), buffer, BLOCK, 0);
    return request;
}

static void requests_that_hang_hold_no_others(void) {
    int handler;
    char *memory = hanging_memory(HANGING * BLOCK, &handler), name[16];
    io_context_t hanging = used_context(HANGING), context = used_context(1);
    struct io_event events[HANGING];
    for (int i = 0; i < HANGING; i++) {
        snprintf(name, sizeof name, "file%d", i);
        submit(hanging, extending_write(name, memory + i * BLOCK));
    }
    expect(run_one(context, extending_write("other", aligned(BLOCK))), BLOCK);
    must(io_getevents(hanging, 0, HANGING, events, NULL), 0);
    let_go(handler, memory, HANGING * BLOCK);
    reap(hanging, HANGING, events);
    for (int i = 0; i < HANGING; i++) expect((long)events[i].res, BLOCK);
    // The next ones have threads enough, and as many as the first.
    for (int i = 0; i < HANGING; i++)
        expect(run_one(context, extending_write(name, aligned(BLOCK))), BLOCK);
}

static const struct test_case cases[] = {
    SLOW_CASE(five_thousand_single_cold_reads, 60),
    SLOW_CASE(five_thousand_cold_reads_in_batches, 60),
    SLOW_CASE(five_thousand_cold_reads_at_once, 60),
    SLOW_CASE(more_files_in_flight_than_descriptors, 60),
    CASE(no_descriptor_is_free),
    CASE(an_event_is_there_while_a_later_request_waits),
    CASE(no_thread_can_be_started),
    CASE(little_memory_is_enough),
    CASE(small_files_are_enough),
    CASE(no_memory_for_more_requests_is_enough),
    CASE(a_file_that_cannot_be_looked_at_answers_itself),
    CASE(a_file_that_cannot_be_looked_at_can_be_polled),
    CASE(a_real_time_class_that_was_inherited_fails_no_request),
    LAYER_CASE(the_daemon_has_the_class_of_what_it_reads, 0, "the kernel has no daemon"),
    CASE(locked_memory_stays_small),
    CASE(no_memory_may_be_locked),
    CASE(all_memory_to_come_may_be_locked),
    CASE(standard_descriptors_may_be_closed),
    CASE(user_can_change_with_requests_in_flight),
    SLOW_CASE(last_threads_are_enough, 40),
    CASE(address_space_is_left),
    LAYER_CASE(set_ups_that_fail_leave_nothing, 0, "the kernel's need little, and not of this limit"),
    LAYER_CASE(a_function_whose_thread_cannot_be_had_is_called, 0, "the C library drops it"),
    CASE(a_refused_list_is_told_in_its_blocks),
    CASE(files_can_be_read_when_none_can_be_opened_any_more),
    CASE(nothing_is_opened_in_a_sandbox),
    CASE(no_handler_runs_for_what_is_tried),
    CASE(aio_suspend_needs_no_poll),
    CASE(aio_write_beyond_the_file_size_limit_fails),
    LAYER_CASE(requests_go_on_when_the_room_for_vectors_is_taken, 40,
        "on the kernel io_submit itself waits for the pipe"),
    CASE(an_fsync_that_no_daemon_can_take_is_made),
    LAYER_CASE(requests_that_hang_hold_no_others, 40, "the kernel's io_submit waits for the buffer's page"),
    SLOW_CASE(no_more_is_transferred_than_the_kernel_does, 60),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

// Proves that the layer asks no more of a process than the kernel's AIO does: few descriptors, no
// threads, little memory, no privileges.

#include "harness.h"

#include <grp.h>
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

static void no_thread_can_be_started(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    become_nobody();
    set_limit(RLIMIT_NPROC, 0);
    use_files(fd);
}

static void little_memory_is_enough(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must_that(file && fscanf(file, "%lu", &pages) == 1, "cannot read /proc/self/statm");
    set_limit(RLIMIT_AS, pages * 4096 + (256ul << 20));
    use_files(fd);
}

// A shared mapping's file may not outgrow RLIMIT_FSIZE; the signal for trying would end the program.
static void small_files_are_enough(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    set_limit(RLIMIT_FSIZE, 64 * BLOCK);
    use_files(fd);
}

static void locked_memory_stays_small(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        skip_case("mlockall: %s", strerror(errno));
    use_files(fd);
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must_that(file && fscanf(file, "%lu %lu", &pages, &resident) == 2, "cannot read /proc/self/statm");
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

static const struct test_case cases[] = {
    SLOW_CASE(five_thousand_single_cold_reads, 60),
    SLOW_CASE(five_thousand_cold_reads_in_batches, 60),
    SLOW_CASE(five_thousand_cold_reads_at_once, 60),
    SLOW_CASE(more_files_in_flight_than_descriptors, 60),
    CASE(no_descriptor_is_free),
    CASE(no_thread_can_be_started),
    CASE(little_memory_is_enough),
    CASE(small_files_are_enough),
    CASE(locked_memory_stays_small),
    CASE(no_memory_may_be_locked),
    CASE(standard_descriptors_may_be_closed),
    CASE(user_can_change_with_requests_in_flight),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

// Proves that no request overtakes a deferred write that it must come after: under the kernel, a direct
// write that makes its file longer is done when io_submit returns, and so is a buffered one.

#include "harness.h"

#include <sys/time.h>
#include <sys/utsname.h>

#define LONG (8 << 20)

static char *filled(size_t size, char value) { return memset(aligned(size), value, size); }

// A file of one block, in which a long direct write of 'A' from its beginning has been submitted.
struct scene {
    io_context_t context;
    int direct, buffered;
    struct iocb first, second;
    char *block;
};

static struct scene *new_scene(void) {
    struct scene *scene = calloc(1, sizeof *scene);
    scene->context = used_context(16);
    scene->block = filled(BLOCK, 'B');
    scene->buffered = patterned_file("file", 1, BLOCK);
    scene->direct = open_direct("file", O_RDWR);
    io_prep_pwrite(&scene->first, scene->direct, filled(LONG, 'A'), LONG, 0);
    submit(scene->context, &scene->first);
    return scene;
}

static void submit_second(struct scene *scene) {
    struct io_event events[2];
    submit(scene->context, &scene->second);
    reap(scene->context, 2, events);
    for (int index = 0; index < 2; index++)
        expect((long)events[index].res, events[index].obj == &scene->first ? LONG : BLOCK);
}

static void expect_block(struct scene *scene, long offset, char value) {
    char byte = 0;
    expect(pread(scene->buffered, &byte, 1, offset), 1);
    expect(byte, value);
}

static void a_direct_write_inside_comes_after(void) {
    struct scene *scene = new_scene();
    io_prep_pwrite(&scene->second, scene->direct, scene->block, BLOCK, 0);
    submit_second(scene);
    expect_block(scene, 0, 'B');
}

static void a_buffered_write_comes_after(void) {
    struct scene *scene = new_scene();
    io_prep_pwrite(&scene->second, scene->buffered, scene->block, BLOCK, 0);
    submit_second(scene);
    expect_block(scene, 0, 'B');
}

static io_context_t kernels_context;
static struct iocb *second_of_handler;
static _Atomic long answer_of_handler;

static void submit_in_handler(int signal) {
    (void)signal;
    atomic_store(&answer_of_handler, io_submit(kernels_context, 1, &second_of_handler));
}

// A handler must not wait for what it may have interrupted. The write that its read is about comes after
// another one.
static void a_handler_on_the_kernels_ring_overtakes_nothing(void) {
    struct scene *scene = new_scene();
    struct sigaction action = {.sa_handler = submit_in_handler};
    struct itimerval soon = {.it_value = {0, 300}};
    struct iocb write, *read = &scene->second;
    struct io_event events[2];
    kernels_context = new_context(16);
    second_of_handler = read;
    io_prep_pread(read, scene->direct, aligned(BLOCK), BLOCK, 0);
    must(run_one(kernels_context, read), BLOCK);
    reap(scene->context, 1, events);
    sigaction(SIGALRM, &action, NULL);
    for (int round = 0; round < 5; round++) {
        must(ftruncate(scene->buffered, BLOCK), 0);
        io_prep_pwrite(&write, scene->direct, filled(LONG, 'C'), LONG, LONG);
        io_prep_pread(read, scene->direct, scene->block, BLOCK, LONG);
        scene->block[0] = 0;
        atomic_store(&answer_of_handler, 0);
        submit(scene->context, &scene->first);
        submit(scene->context, &write);
        must(setitimer(ITIMER_REAL, &soon, NULL), 0);
        reap(scene->context, 2, events);
        while (atomic_load(&answer_of_handler) == 0) sched_yield();
        expect_either(atomic_load(&answer_of_handler), 1, -EAGAIN);
        if (atomic_load(&answer_of_handler) != 1) continue;
        reap(kernels_context, 1, events);
        expect((long)events[0].res, BLOCK);
        expect(scene->block[0], 'C');
    }
}

static void appends(long offset) {
    struct scene *scene = new_scene();
    io_prep_pwrite(&scene->second, scene->direct, scene->block, BLOCK, offset);
    scene->second.aio_rw_flags = RWF_APPEND;
    submit_second(scene);
    expect(lseek(scene->buffered, 0, SEEK_END), LONG + BLOCK);
    expect_block(scene, LONG, 'B');
}

static void an_append_goes_to_the_new_end(void) { appends(0); }
static void an_append_with_an_offset_goes_to_the_new_end(void) { appends(LONG); }

static void a_direct_read_sees_the_new_end(void) {
    struct scene *scene = new_scene();
    io_prep_pread(&scene->second, scene->direct, scene->block, BLOCK, LONG - BLOCK);
    submit_second(scene);
    expect(scene->block[0], 'A');
}

static void a_buffered_read_sees_the_new_end(void) {
    struct scene *scene = new_scene();
    io_prep_pread(&scene->second, scene->buffered, scene->block, BLOCK, LONG - BLOCK);
    submit_second(scene);
    expect(scene->block[0], 'A');
}

// Another context's, which the kernel serves by itself.
static void a_read_of_another_context_sees_the_new_end(void) {
    struct iocb request;
    struct io_event event;
    io_context_t other = new_context(4);
    close(patterned_file("other", 1, BLOCK));
    io_prep_pread(&request, open_direct("other", O_RDONLY), aligned(BLOCK), BLOCK, 0);
    must(run_one(other, &request), BLOCK);
    struct scene *scene = new_scene();
    io_prep_pread(&scene->second, scene->direct, scene->block, BLOCK, LONG - BLOCK);
    must(run_one(other, &scene->second), BLOCK);
    expect(scene->block[0], 'A');
    reap(scene->context, 1, &event);
}

static void a_read_before_a_deferred_write_sees_that_the_file_is_longer(void) {
    setenv("IOCTX_WRITES", "async", 1);
    io_context_t context = new_context(4);
    int fd = open(temp_path("hole"), O_RDWR | O_CREAT, 0600);
    char *block = aligned(BLOCK);
    struct iocb write, read;
    struct io_event events[2];
    io_prep_pwrite(&write, fd, filled(LONG, 'A'), LONG, BLOCK);
    io_prep_pread(&read, fd, block, BLOCK, 0);
    submit(context, &write);
    submit(context, &read);
    reap(context, 2, events);
    for (int index = 0; index < 2; index++)
        expect((long)events[index].res, events[index].obj == &write ? LONG : BLOCK);
}

// While io_submit waits for the write, as while the kernel's does it, no handler runs; after it the handler
// forks, and the child returns from io_submit.
static void a_child_forked_during_the_wait_returns_from_io_submit(void) {
    struct io_event event;
    struct scene *scene = new_scene();
    io_prep_pread(&scene->second, scene->direct, scene->block, BLOCK, LONG - BLOCK);
    fork_in_handler_after(2000);
    submit(scene->context, &scene->second);
    while (forked_child < 0) sleep_ms(1);
    if (forked_child == 0) _exit(0);
    expect_clean_exit(forked_child, 5);
    for (int events = 0; events < 2; events++) reap(scene->context, 1, &event);
    expect(scene->block[0], 'A');
}

// The kernel's io_submit has looked at O_APPEND by then. Linux 6.9 has a flag with which a daemon need not.
static void o_append_set_later_moves_no_write(void) {
    struct scene *scene = new_scene();
    struct io_event event;
    struct utsname system;
    int major = 0, minor = 0;
    uname(&system);
    sscanf(system.release, "%d.%d", &major, &minor);
    if (on_layer() && major * 100 + minor < 609) skip_case("Linux %s has no RWF_NOAPPEND", system.release);
    io_prep_pwrite(&scene->second, scene->direct, scene->block, BLOCK, 2 * LONG);
    submit(scene->context, &scene->second);
    must(fcntl(scene->direct, F_SETFL, O_DIRECT | O_APPEND), 0);
    reap(scene->context, 1, &event);
    reap(scene->context, 1, &event);
    expect_block(scene, 2 * LONG, 'B');
    expect_block(scene, 0, 'A');
}

// ---- Writes that are done together ---------------------------------------------------------

// What this process has written so far, by /proc/self/io.
struct written {
    long calls, bytes;
};

static struct written written_so_far(void) {
    char line[64];
    struct written written = {-1, -1};
    FILE *file = fopen("/proc/self/io", "r");
    if (!file) skip_case("/proc/self/io cannot be read here");
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "syscw: %ld", &written.calls);
        sscanf(line, "wchar: %ld", &written.bytes);
    }
    fclose(file);
    return written;
}

// One of the descriptors has O_DSYNC: a call for both would break its promise.
static void adjacent_writes_of_unequal_descriptors_are_two_calls(void) {
    io_context_t context = used_context(16);
    close(patterned_file("file", 1, 0));
    int plain = open_direct("file", O_RDWR), durable = open_direct("file", O_RDWR | O_DSYNC);
    char *block = filled(BLOCK, 'A');
    // They wait behind this one, so that there is something to do together.
    const long before_them = 2 << 20, step = before_them + 2 * BLOCK;
    char *long_block = filled(before_them, 'A');
    for (int round = 0; round < 10; round++) {
        struct iocb requests[3], *pointers[3] = {&requests[0], &requests[1], &requests[2]};
        struct io_event events[3];
        struct written before = written_so_far();
        long end = round * step + before_them;
        io_prep_pwrite(&requests[0], plain, long_block, before_them, round * step);
        io_prep_pwrite(&requests[1], plain, block, BLOCK, end);
        io_prep_pwrite(&requests[2], durable, block, BLOCK, end + BLOCK);
        must(io_submit(context, 3, pointers), 3);
        reap(context, 3, events);
        struct written after = written_so_far();
        // What io_uring or the kernel's AIO writes is not counted.
        expect_that(after.bytes - before.bytes < step || after.calls - before.calls > 2,
            "one call wrote for both descriptors");
    }
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        CASE(a_direct_write_inside_comes_after),
        CASE(a_buffered_write_comes_after),
        CASE(an_append_goes_to_the_new_end),
        CASE(an_append_with_an_offset_goes_to_the_new_end),
        CASE(a_direct_read_sees_the_new_end),
        CASE(a_buffered_read_sees_the_new_end),
        CASE(a_read_of_another_context_sees_the_new_end),
        CASE(a_read_before_a_deferred_write_sees_that_the_file_is_longer),
        CASE(a_child_forked_during_the_wait_returns_from_io_submit),
        CASE(a_handler_on_the_kernels_ring_overtakes_nothing),
        CASE(o_append_set_later_moves_no_write),
        CASE(adjacent_writes_of_unequal_descriptors_are_two_calls),
    };
    return RUN_CASES(argc, argv, cases);
}

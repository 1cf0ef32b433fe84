// Proves that cold buffered reads arrive whole, from the file they were meant for, however they are
// waited for: on a file whose last reads were cold they are handed over untried, and whoever comes to
// wait starts the disk for them.

#include "harness.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>

#define BLOCKS 4096
#define FILE_BYTES ((size_t)BLOCKS * BLOCK)
#define DEPTH 32
#define SEED 11

static int cold_file(const char *name, uint64_t seed) {
    int fd = patterned_file(name, seed, FILE_BYTES);
    make_cold(fd);
    return fd;
}

// Blocks in an order that no readahead guesses, each once.
static long block_of(int number) { return (long)number * 1597 % BLOCKS; }

struct reads {
    struct iocb requests[DEPTH];
    char *buffers;
};

static void submit_reads(io_context_t context, struct reads *reads, int fd, int first, int count) {
    for (int i = 0; i < count; i++) {
        struct iocb *request = &reads->requests[i];
        long offset = block_of(first + i) * BLOCK;
        io_prep_pread(request, fd, reads->buffers + i * BLOCK, BLOCK, offset);
        request->data = (void *)(offset + 1);
        submit(context, request);
    }
}

static void expect_block(const struct io_event *event, uint64_t seed) {
    const struct iocb *request = event->obj;
    uint64_t offset = (uint64_t)(uintptr_t)event->data - 1;
    expect((long)event->res, BLOCK);
    expect_that(
        has_pattern(request->u.c.buf, seed, offset, BLOCK), "wrong data at %llu",
        (unsigned long long)offset);
}

static void reap_reads(io_context_t context, int count, uint64_t seed) {
    struct io_event events[DEPTH];
    reap(context, count, events);
    for (int i = 0; i < count; i++) expect_block(&events[i], seed);
}

// Reads blocks 0 to 511 in batches: enough for the layer to learn that the file is cold. That some are
// not there when io_submit returns tells that they have been.
static void make_known_as_cold(io_context_t context, struct reads *reads, int fd) {
    struct ring *ring = ring_of(context);
    int deferred = 0;
    for (int first = 0; first < 512; first += DEPTH) {
        unsigned before = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        submit_reads(context, reads, fd, first, DEPTH);
        unsigned after = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        deferred += (after + ring->nr - before) % ring->nr < DEPTH;
        reap_reads(context, DEPTH, SEED);
    }
    must_that(!on_layer() || deferred > 0, "no read was cold: $TMPDIR must be on a disk");
}

static struct reads *new_reads(void) {
    struct reads *reads = calloc(1, sizeof *reads);
    reads->buffers = aligned(DEPTH * BLOCK);
    return reads;
}

// ---- Ways to wait --------------------------------------------------------------------------

static void waits(way_to_wait *wait) {
    int fd = cold_file("waits", SEED);
    io_context_t context = new_context(DEPTH * 2);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    int first = 512;
    for (int depth = 1; depth <= DEPTH; depth *= 2) {
        for (int round = 0; round < 8; round++, first += depth) {
            submit_reads(context, reads, fd, first, depth);
            for (int i = 0; i < depth; i++) {
                struct io_event event;
                must(wait(context, &event), 1);
                expect_block(&event, SEED);
            }
        }
    }
    must(io_destroy(context), 0);
}

static void every_read_comes_to_who_waits(void) { waits(by_waiting); }
static void every_read_comes_to_who_polls(void) { waits(by_polling); }
static void every_read_comes_to_who_waits_in_slices(void) { waits(by_slices); }
static void every_read_comes_to_who_waits_with_a_mask(void) { waits(with_a_mask); }

// The daemon was left to io_getevents by the calls that made the file known as cold; none comes any
// more.
static void every_read_comes_to_who_reads_the_ring(void) { waits(by_reading_the_ring); }

static void every_read_is_signalled(void) {
    int fd = cold_file("signalled", SEED), bell = eventfd(0, 0);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    for (int number = 512; number < 768; number++) {
        uint64_t count;
        struct io_event event;
        long offset = block_of(number) * BLOCK;
        io_prep_pread(&reads->requests[0], fd, reads->buffers, BLOCK, offset);
        io_set_eventfd(&reads->requests[0], bell);
        reads->requests[0].data = (void *)(offset + 1);
        submit(context, &reads->requests[0]);
        must(read(bell, &count, sizeof count), sizeof count);
        must(by_reading_the_ring(context, &event), 1);
        expect_block(&event, SEED);
    }
    must(io_destroy(context), 0);
}

// Whatever the number of reads that end together, a program that sleeps in read(2) on its eventfd
// must be told of each exactly once.
static void a_blocking_eventfd_counts_exactly(void) {
    int fd = cold_file("counted", SEED), bell = eventfd(0, 0);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    struct pollfd entry = {.fd = bell, .events = POLLIN};
    for (int first = 0; first + DEPTH <= BLOCKS; first += DEPTH) {
        uint64_t told = 0;
        for (int i = 0; i < DEPTH; i++) {
            struct iocb *request = &reads->requests[i];
            long offset = block_of(first + i) * BLOCK;
            io_prep_pread(request, fd, reads->buffers + i * BLOCK, BLOCK, offset);
            io_set_eventfd(request, bell);
            request->data = (void *)(offset + 1);
            submit(context, request);
        }
        while (told < DEPTH) {
            uint64_t count;
            must_that(poll(&entry, 1, 5000) == 1, "told of %llu events of %d", (unsigned long long)told, DEPTH);
            must(read(bell, &count, sizeof count), sizeof count);
            told += count;
        }
        must(told, DEPTH);
        reap_reads(context, DEPTH, SEED);
    }
    must(io_destroy(context), 0);
    expect(poll(&entry, 1, 0), 0);
}

// ---- The right file ------------------------------------------------------------------------

// What replaces the descriptor after io_submit is read ahead in vain, or cannot be.
static void the_file_is_the_submitted_one(void) {
    int fd = cold_file("mine", SEED), other = cold_file("other", SEED + 1), ends[2];
    must(pipe(ends), 0);
    int kept = dup(fd);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    int replacements[] = {other, ends[0], -1};
    for (int round = 0, first = 512; round < 60; round++, first += DEPTH) {
        int replacement = replacements[round % 3];
        submit_reads(context, reads, fd, first, DEPTH);
        if (replacement < 0) must(close(fd), 0);
        else must(dup2(replacement, fd), fd);
        reap_reads(context, DEPTH, SEED);
        must(dup2(kept, fd), fd);
    }
    must(io_destroy(context), 0);
}

// Two files take turns on one descriptor, so that each read finds what was held for the other.
static void two_files_on_one_descriptor(void) {
    int mine = cold_file("one", SEED), other = cold_file("two", SEED + 1);
    int fd = dup(mine);
    io_context_t context = new_context(DEPTH * 4);
    struct reads *reads[2] = {new_reads(), new_reads()};
    make_known_as_cold(context, reads[0], fd);
    for (int first = 512; first + 8 <= BLOCKS; first += 8) {
        for (int file = 0; file < 2; file++) {
            must(dup2(file ? other : mine, fd), fd);
            submit_reads(context, reads[file], fd, first, 8);
        }
        struct io_event events[16];
        reap(context, 16, events);
        for (int i = 0; i < 16; i++) {
            bool is_mine = events[i].obj >= reads[0]->requests
                && events[i].obj < reads[0]->requests + DEPTH;
            expect_block(&events[i], is_mine ? SEED : SEED + 1);
        }
    }
    must(io_destroy(context), 0);
}

// Another thread lets the descriptor lead elsewhere and back while the reads are under way.
static int flickering, steady, elsewhere;
static atomic_bool flickers, over;

static void *flicker(void *argument) {
    (void)argument;
    while (!over) {
        if (!flickers) continue;
        must(dup2(elsewhere, flickering), flickering);
        must(dup2(steady, flickering), flickering);
    }
    return NULL;
}

static void the_file_stays_though_the_descriptor_flickers(void) {
    pthread_t thread;
    steady = cold_file("steady", SEED);
    elsewhere = cold_file("elsewhere", SEED + 1);
    flickering = dup(steady);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, flickering);
    start_thread(&thread, flicker, NULL);
    for (int first = 512, depth = 1; first + DEPTH <= BLOCKS; first += depth, depth = depth % DEPTH + 1) {
        submit_reads(context, reads, flickering, first, depth);
        flickers = true;
        reap_reads(context, depth, SEED);
        flickers = false;
        // It may be on its way.
        must(dup2(steady, flickering), flickering);
        struct stat status, wanted;
        must(fstat(steady, &wanted), 0);
        do {
            usleep(100);
            must(fstat(flickering, &status), 0);
        } while (status.st_ino != wanted.st_ino);
    }
    over = true;
    pthread_join(thread, NULL);
    must(io_destroy(context), 0);
}

#define LARGE (128u << 10)
#define LARGE_COUNT 960

static void submit_large(io_context_t context, struct iocb *request, int fd, int number) {
    io_prep_pread(request, fd, request->u.c.buf, LARGE, (long)(number * 97 % LARGE_COUNT) * LARGE);
    submit(context, request);
}

// A lock ends with the last reference to its description. Reads go on without a pause on the same file,
// opened again under the same number: they must not keep the first description.
static void a_closed_description_is_given_up(void) {
    int fd = patterned_file("locked", SEED, (size_t)LARGE_COUNT * LARGE);
    make_cold(fd);
    io_context_t context = new_context(DEPTH);
    struct iocb requests[DEPTH];
    must(close(fd), 0);
    must(open(temp_path("locked"), O_RDWR), fd);
    must(flock(fd, LOCK_EX), 0);
    int next = 0, reads = 0;
    for (; next < DEPTH; next++) {
        requests[next].u.c.buf = aligned(LARGE);
        submit_large(context, &requests[next], fd, next);
    }
    must(close(fd), 0);
    must(open(temp_path("locked"), O_RDWR), fd);
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        must(errno, EWOULDBLOCK);
        must_that(reads++ < 24 * DEPTH, "the lock of a closed file was not given up");
        struct io_event event;
        must(io_getevents(context, 1, 1, &event, NULL), 1);
        expect((long)event.res, LARGE);
        submit_large(context, event.obj, fd, next++);
    }
    struct io_event events[DEPTH];
    reap(context, DEPTH, events);
    must(io_destroy(context), 0);
    remark("%d reads later", reads);
}

// ---- Changes of fortune --------------------------------------------------------------------

static void a_file_that_was_cold_becomes_cached(void) {
    int fd = cold_file("warmed", SEED);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    char *all = malloc(FILE_BYTES);
    must(pread(fd, all, FILE_BYTES, 0), FILE_BYTES);
    struct ring *ring = ring_of(context);
    int at_once = 0;
    for (int number = 0; number < 2000; number++) {
        unsigned before = ring->tail;
        submit_reads(context, reads, fd, number, 1);
        at_once += __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) != before;
        reap_reads(context, 1, SEED);
    }
    expect_that(at_once > 1000, "only %d of 2000 cached reads were done in io_submit", at_once);
    must(io_destroy(context), 0);
}

static void the_end_of_the_file_is_found(void) {
    int fd = cold_file("short", SEED);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    must(ftruncate(fd, FILE_BYTES - 100), 0);
    make_cold(fd);
    for (int round = 0; round < 20; round++) {
        struct iocb *request = &reads->requests[0];
        io_prep_pread(request, fd, reads->buffers, BLOCK, FILE_BYTES - BLOCK);
        expect(run_one(context, request), BLOCK - 100);
        io_prep_pread(request, fd, reads->buffers, BLOCK, FILE_BYTES + BLOCK);
        expect(run_one(context, request), 0);
    }
    must(io_destroy(context), 0);
}

static void destroy_awaits_reads_nobody_waited_for(void) {
    int fd = cold_file("destroyed", SEED);
    struct reads *reads = new_reads();
    io_context_t context = new_context(DEPTH);
    make_known_as_cold(context, reads, fd);
    for (int first = 512; first + DEPTH <= BLOCKS; first += DEPTH) {
        submit_reads(context, reads, fd, first, DEPTH);
        must(io_destroy(context), 0);
        for (int i = 0; i < DEPTH; i++) {
            expect_that(
                has_pattern(
                    reads->buffers + i * BLOCK, SEED, (uint64_t)block_of(first + i) * BLOCK, BLOCK),
                "io_destroy returned before a read was done");
        }
        context = new_context(DEPTH);
    }
}

// ---- Threads -------------------------------------------------------------------------------

static int shared_file;

static void *read_all(void *argument) {
    (void)argument;
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    for (int first = 0; first + DEPTH <= BLOCKS; first += DEPTH) {
        submit_reads(context, reads, shared_file, first, DEPTH);
        reap_reads(context, DEPTH, SEED);
    }
    must(io_destroy(context), 0);
    return NULL;
}

static void several_threads_on_one_file(void) {
    pthread_t threads[4];
    shared_file = cold_file("threads", SEED);
    for (int i = 0; i < 4; i++) start_thread(&threads[i], read_all, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

// Each takes what comes, so that reads that one was about to do become the other's.
static io_context_t common_context;
static atomic_int common_taken;
static atomic_int common_counts[BLOCKS];

static void *take_some(void *argument) {
    (void)argument;
    struct io_event events[8];
    struct timespec slice = {.tv_nsec = 50 * 1000 * 1000};
    while (common_taken < BLOCKS) {
        int taken = io_getevents(common_context, 1, 8, events, &slice);
        must_that(taken >= 0, "io_getevents: %d", taken);
        for (int i = 0; i < taken; i++) {
            expect_block(&events[i], SEED);
            common_counts[((uint64_t)(uintptr_t)events[i].data - 1) / BLOCK]++;
        }
        common_taken += taken;
    }
    return NULL;
}

static void two_threads_wait_for_one_context(void) {
    pthread_t threads[2];
    int fd = cold_file("common", SEED);
    struct iocb *requests = calloc(BLOCKS, sizeof *requests);
    char *buffers = aligned(FILE_BYTES);
    common_context = new_context(BLOCKS);
    for (int i = 0; i < 2; i++) start_thread(&threads[i], take_some, NULL);
    for (int number = 0; number < BLOCKS; number++) {
        long offset = block_of(number) * BLOCK;
        io_prep_pread(&requests[number], fd, buffers + offset, BLOCK, offset);
        requests[number].data = (void *)(offset + 1);
        submit(common_context, &requests[number]);
        if (number % DEPTH == 0) {
            while (common_taken + DEPTH < number) usleep(50);
        }
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < BLOCKS; i++) must(common_counts[i], 1);
    must(io_destroy(common_context), 0);
}

// ---- Signals and descriptors of the layer ----------------------------------------------------

static atomic_int alarms;

static void count_alarm(int signal) {
    (void)signal;
    alarms++;
}

// The wait for the disk is none that a signal interrupts, as the kernel's io_submit is not.
static void signals_interrupt_no_read(void) {
    int fd = cold_file("interrupted", SEED);
    io_context_t context = new_context(DEPTH);
    struct reads *reads = new_reads();
    make_known_as_cold(context, reads, fd);
    struct sigaction action = {.sa_handler = count_alarm};
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    must(sigaction(SIGALRM, &action, NULL), 0);
    must(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int first = 512; first + DEPTH <= BLOCKS; first += DEPTH) {
        struct io_event events[DEPTH];
        submit_reads(context, reads, fd, first, DEPTH);
        for (int got = 0; got < DEPTH;) {
            int taken = io_getevents(context, 1, DEPTH, events, NULL);
            if (taken == -EINTR) continue;
            must_that(taken > 0, "io_getevents: %d", taken);
            for (int i = 0; i < taken; i++) expect_block(&events[i], SEED);
            got += taken;
        }
    }
    must(setitimer(ITIMER_REAL, &never, NULL), 0);
    must_that(alarms > 0, "no signal came");
    must(io_destroy(context), 0);
}

// A program that closes what it does not know takes the layer's ring away from it. The end of a ring
// that a thread has entered would interrupt that thread's own calls.
static atomic_bool has_read;
static atomic_int waits_ended;

static void read_512_blocks(void) {
    io_context_t context = new_context(DEPTH);
    make_known_as_cold(context, new_reads(), 900);
    must(io_destroy(context), 0);
    make_cold(900);
}

static void *read_and_wait(void *argument) {
    int set = *(int *)argument;
    read_512_blocks();
    has_read = true;
    while (!over) {
        must(epoll_wait(set, &(struct epoll_event){0}, 1, 50), 0);
        waits_ended++;
    }
    return NULL;
}

static void a_ring_that_ends_interrupts_nobody(void) {
    pthread_t thread;
    int set = 901;
    must(dup2(cold_file("ends", SEED), 900), 900);
    must(dup2(epoll_create1(0), set), set);
    start_thread(&thread, read_and_wait, &set);
    while (!has_read) usleep(1000);
    for (int round = 0; round < 2; round++) {
        must(close_range(3, 899, 0), 0);
        // The layer sees that, and starts again, in the second round in the place of the first. Not
        // before long, for it does not start again and again.
        read_512_blocks();
        usleep(1200 * 1000);
    }
    over = true;
    pthread_join(thread, NULL);
    must_that(waits_ended > 4, "%d waits", waits_ended);
}

static const struct test_case cases[] = {
    CASE(every_read_comes_to_who_waits),
    CASE(every_read_comes_to_who_polls),
    CASE(every_read_comes_to_who_waits_in_slices),
    CASE(every_read_comes_to_who_waits_with_a_mask),
    CASE(every_read_comes_to_who_reads_the_ring),
    CASE(every_read_is_signalled),
    CASE(a_blocking_eventfd_counts_exactly),
    CASE(the_file_is_the_submitted_one),
    CASE(two_files_on_one_descriptor),
    CASE(the_file_stays_though_the_descriptor_flickers),
    CASE(a_closed_description_is_given_up),
    CASE(a_file_that_was_cold_becomes_cached),
    CASE(the_end_of_the_file_is_found),
    CASE(destroy_awaits_reads_nobody_waited_for),
    CASE(several_threads_on_one_file),
    CASE(two_threads_wait_for_one_context),
    CASE(signals_interrupt_no_read),
    CASE(a_ring_that_ends_interrupts_nobody),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

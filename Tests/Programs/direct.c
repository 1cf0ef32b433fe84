// Proves that O_DIRECT on a context that began with buffered requests does what it does on one that
// began with O_DIRECT: whoever waits, however, gets each event once, with the right data.

#include "harness.h"

#include <sys/prctl.h>
#include <sys/time.h>

#define BLOCKS 1024
#define DEPTH 32
#define SEED 5

struct load {
    io_context_t context;
    int fd;
    struct iocb requests[DEPTH];
    char *buffers;
    atomic_bool in_flight[DEPTH];
};

static struct load *new_load(void) {
    struct load *load = calloc(1, sizeof *load);
    close(patterned_file("file", SEED, (size_t)BLOCKS * BLOCK));
    load->fd = open_direct("file", O_RDWR);
    load->context = used_context(DEPTH * 2);
    load->buffers = aligned(DEPTH * BLOCK);
    return load;
}

static void submit_read(struct load *load, int slot, int number) {
    long offset = (long)number * 389 % BLOCKS * BLOCK;
    struct iocb *request = &load->requests[slot];
    memset(load->buffers + slot * BLOCK, 0, BLOCK);
    io_prep_pread(request, load->fd, load->buffers + slot * BLOCK, BLOCK, offset);
    request->data = (void *)(offset + 1);
    must(atomic_load(&load->in_flight[slot]), false);
    atomic_store(&load->in_flight[slot], true);
    submit(load->context, request);
}

// The slot of an event, which must be that of a request in flight, with its data.
static int check(struct load *load, const struct io_event *event) {
    int slot = (int)(event->obj - load->requests);
    must_that(slot >= 0 && slot < DEPTH && atomic_load(&load->in_flight[slot]),
        "an event that nobody waits for");
    expect((long)event->res, BLOCK);
    expect_that(has_pattern(load->buffers + slot * BLOCK, SEED, (uint64_t)(uintptr_t)event->data - 1, BLOCK),
        "wrong data");
    atomic_store(&load->in_flight[slot], false);
    return slot;
}

// ---- Ways to wait --------------------------------------------------------------------------

static void run_reads(struct load *load, way_to_wait *wait, int depth, int count) {
    int submitted = 0;
    for (int slot = 0; slot < depth; slot++) submit_read(load, slot, submitted++);
    for (int done = 0; done < count; done++) {
        struct io_event event;
        must(wait(load->context, &event), 1);
        int slot = check(load, &event);
        if (submitted < count) submit_read(load, slot, submitted++);
    }
}

static void waits(way_to_wait *wait) {
    struct load *load = new_load();
    for (int depth = 1; depth <= DEPTH; depth *= 2) run_reads(load, wait, depth, 256);
    must(io_destroy(load->context), 0);
}

static void who_waits_gets_every_event(void) { waits(by_waiting); }
static void who_polls_gets_every_event(void) { waits(by_polling); }
static void who_polls_without_time_gets_every_event(void) { waits(by_polling_without_time); }
static void who_waits_in_slices_gets_every_event(void) { waits(by_slices); }
static void who_waits_with_a_mask_gets_every_event(void) { waits(with_a_mask); }

// The first of them were left to whoever calls io_getevents, which nobody does any more.
static void who_reads_the_ring_gets_every_event(void) { waits(by_reading_the_ring); }

static void who_waits_for_many_gets_them_at_once(void) {
    struct load *load = new_load();
    for (int round = 0, number = 0; round < 64; round++) {
        struct io_event events[DEPTH];
        for (int slot = 0; slot < DEPTH; slot++) submit_read(load, slot, number++);
        must(io_getevents(load->context, DEPTH, DEPTH, events, NULL), DEPTH);
        for (int i = 0; i < DEPTH; i++) check(load, &events[i]);
    }
    must(io_destroy(load->context), 0);
}

// ---- Others at the same time ---------------------------------------------------------------

// Buffered requests on the same context end in io_submit or with a daemon: whoever sleeps for direct
// ones must hear of them, too.
static void buffered_requests_go_on_beside_them(void) {
    struct load *load = new_load();
    int cold = patterned_file("cold", 9, (size_t)BLOCKS * BLOCK);
    char *buffer = aligned(BLOCK);
    for (int round = 0; round < 400; round++) {
        struct iocb other;
        struct io_event events[2];
        if (round % 64 == 0) make_cold(cold);
        submit_read(load, 0, round);
        io_prep_pread(&other, cold, buffer, BLOCK, (long)round * 7 % BLOCKS * BLOCK);
        submit(load->context, &other);
        must(io_getevents(load->context, 2, 2, events, NULL), 2);
        for (int i = 0; i < 2; i++) {
            if (events[i].obj != &other) check(load, &events[i]);
            else expect((long)events[i].res, BLOCK);
        }
    }
    must(io_destroy(load->context), 0);
}

static void *run_thread(void *argument) {
    struct load *shared = argument, *load = calloc(1, sizeof *load);
    load->fd = shared->fd;
    load->context = used_context(DEPTH);
    load->buffers = aligned(DEPTH * BLOCK);
    run_reads(load, by_waiting, 1, 500);
    run_reads(load, by_waiting, 8, 1000);
    must(io_destroy(load->context), 0);
    return NULL;
}

static void several_contexts_at_once(void) {
    struct load *load = new_load();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) start_thread(&threads[i], run_thread, load);
    run_reads(load, by_waiting, 4, 1000);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    must(io_destroy(load->context), 0);
}

static struct load *split_load;
static atomic_bool stop_submitting;
static atomic_int reaped_elsewhere;

// One thread submits, another waits: it sleeps for what was sent after it fell asleep, too.
static void *reap_elsewhere(void *argument) {
    (void)argument;
    struct timespec second = {1, 0};
    while (!atomic_load(&stop_submitting)) {
        struct io_event event;
        long got = io_getevents(split_load->context, 1, 1, &event, &second);
        must_that(got == 0 || got == 1, "io_getevents answered %ld", got);
        if (got == 1) {
            check(split_load, &event);
            atomic_fetch_add(&reaped_elsewhere, 1);
        }
    }
    return NULL;
}

static void one_thread_submits_and_another_waits(void) {
    pthread_t thread;
    split_load = new_load();
    start_thread(&thread, reap_elsewhere, NULL);
    for (int number = 0; number < 2000; number++) {
        int slot = number % (DEPTH / 2);
        double end = now_seconds() + 5;
        while (atomic_load(&split_load->in_flight[slot]))
            must_that(now_seconds() < end, "%d of %d events", atomic_load(&reaped_elsewhere), number);
        submit_read(split_load, slot, number);
    }
    double end = now_seconds() + 5;
    while (atomic_load(&reaped_elsewhere) < 2000 && now_seconds() < end) sleep_ms(1);
    expect(atomic_load(&reaped_elsewhere), 2000);
    atomic_store(&stop_submitting, true);
    pthread_join(thread, NULL);
    must(io_destroy(split_load->context), 0);
}

// ---- Signals, writes, the end --------------------------------------------------------------

static atomic_int handled;

static void count_signal(int number) {
    (void)number;
    atomic_fetch_add(&handled, 1);
}

static long by_waiting_again(io_context_t context, struct io_event *event) {
    long got;
    while ((got = io_getevents(context, 1, 1, event, NULL)) == -EINTR) {
    }
    return got;
}

static void an_interrupted_wait_loses_no_event(void) {
    struct load *load = new_load();
    struct sigaction action = {.sa_handler = count_signal};
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    must(sigaction(SIGALRM, &action, NULL), 0);
    must(setitimer(ITIMER_REAL, &often, NULL), 0);
    run_reads(load, by_waiting_again, 1, 4000);
    run_reads(load, by_waiting_again, 16, 4000);
    must(setitimer(ITIMER_REAL, &never, NULL), 0);
    must(io_destroy(load->context), 0);
    remark("%d signals", atomic_load(&handled));
}

static void writes_are_read_back(void) {
    struct load *load = new_load();
    struct io_event event;
    for (int number = 0; number < 256; number++) {
        long offset = (long)number * BLOCK;
        struct iocb *request = &load->requests[0];
        fill_pattern(load->buffers, SEED + 1, (uint64_t)offset, BLOCK);
        io_prep_pwrite(request, load->fd, load->buffers, BLOCK, offset);
        submit(load->context, request);
        reap(load->context, 1, &event);
        must((long)event.res, BLOCK);
        memset(load->buffers, 0, BLOCK);
        must(pread(load->fd, load->buffers, BLOCK, offset), BLOCK);
        must_that(has_pattern(load->buffers, SEED + 1, (uint64_t)offset, BLOCK), "wrong data");
    }
    // What the file refuses comes as an event, as on the kernel.
    io_prep_pread(&load->requests[0], load->fd, load->buffers + 1, BLOCK, 0);
    expect(run_one(load->context, &load->requests[0]), -EINVAL);
    io_prep_pread(&load->requests[0], load->fd, load->buffers, BLOCK, (long)BLOCKS * BLOCK);
    expect(run_one(load->context, &load->requests[0]), 0);
    must(io_destroy(load->context), 0);
}

// The later request of the call may run at once, and is for the same bytes.
static void a_write_does_not_overtake_a_read_of_its_call(void) {
    const char *engine = getenv("IOCTX_ENGINE");
    bool may_lack_it = prctl(PR_GET_SECCOMP) != 0 || (engine && strcmp(engine, "auto") != 0);
    if (on_layer() && may_lack_it)
        skip_case("a daemon comes to the read later than the kernel's AIO");
    struct load *load = new_load();
    struct iocb *pair[] = {&load->requests[0], &load->requests[1]};
    char *found = load->buffers, *written = memset(load->buffers + BLOCK, 'w', BLOCK);
    int buffered = open(temp_path("file"), O_RDWR);
    struct io_event events[2];
    for (int number = 0; number < 100; number++) {
        long offset = (long)number * BLOCK;
        io_prep_pread(pair[0], load->fd, found, BLOCK, offset);
        io_prep_pwrite(pair[1], buffered, written, BLOCK, offset);
        must(io_submit(load->context, 2, pair), 2);
        reap(load->context, 2, events);
        must_that(has_pattern(found, SEED, (uint64_t)offset, BLOCK), "the later write was read");
    }
    must(io_destroy(load->context), 0);
}

// What a read beyond the end comes to is settled when it is submitted, also by a daemon's hand (with an
// eventfd), whether the file is then made longer by an append or by a write behind its end.
static void a_read_ends_where_its_file_did(void) {
    enum { BLOCKS_BEFORE = 64, BLOCKS_READ = 36, BLOCKS_FOUND = 29 };
    char *found = aligned(BLOCKS_READ * BLOCK), *written = memset(aligned(BLOCK), 'w', BLOCK);
    int eventfd_number = eventfd(0, 0);
    io_context_t context = used_context(8);
    for (int round = 0; round < 60; round++) {
        bool appends = round % 2 == 0, signals = round / 2 % 2 == 0;
        int fd = patterned_file("longer", SEED, BLOCKS_BEFORE * BLOCK);
        int direct = open_direct("longer", O_RDWR | (appends ? O_APPEND : 0));
        struct iocb read, write, *pair[] = {&read, &write};
        struct io_event events[2];
        io_prep_pread(&read, direct, found, BLOCKS_READ * BLOCK,
            (BLOCKS_BEFORE - BLOCKS_FOUND) * BLOCK);
        if (signals)
            io_set_eventfd(&read, eventfd_number);
        io_prep_pwrite(&write, direct, written, BLOCK, BLOCKS_BEFORE * BLOCK);
        must(io_submit(context, 2, pair), 2);
        reap(context, 2, events);
        for (int i = 0; i < 2; i++)
            must((long)events[i].res, events[i].obj == &read ? BLOCKS_FOUND * BLOCK : BLOCK);
        close(direct);
        close(fd);
    }
    must(io_destroy(context), 0);
}

// The number led to a direct file a moment ago, and leads to something else now.
static void a_number_that_was_a_direct_files_is_looked_at(void) {
    struct load *load = new_load();
    struct iocb *request = &load->requests[0];
    int fd = load->fd, ends[2];
    char *buffer = load->buffers;
    struct io_event event;

    run_reads(load, by_waiting, 1, 20);
    io_prep_pread(request, fd, buffer, BLOCK, -BLOCK);
    expect(io_submit(load->context, 1, &request), -EINVAL);

    must(fcntl(fd, F_SETFL, 0), 0);
    run_reads(load, by_waiting, 1, 20);
    io_prep_pread(request, fd, buffer + 1, BLOCK - 1, BLOCK);
    expect(run_one(load->context, request), BLOCK - 1);
    must(fcntl(fd, F_SETFL, O_DIRECT), 0);
    run_reads(load, by_waiting, 1, 20);

    must(pipe(ends), 0);
    must(dup2(ends[0], fd), fd);
    io_prep_pread(request, fd, buffer, BLOCK, 0);
    // The kernel's io_submit would wait for the bytes.
    if (on_layer()) submit(load->context, request);
    must(write(ends[1], "hello", 5), 5);
    if (!on_layer()) submit(load->context, request);
    must(by_waiting(load->context, &event), 1);
    expect((long)event.res, 5);
    close(fd);
    expect(io_submit(load->context, 1, &request), -EBADF);

    must(open_direct("file", O_RDWR), fd);
    run_reads(load, by_waiting, 1, 20);
    int write_only = open_direct("file", O_WRONLY);
    must(dup2(write_only, fd), fd);
    io_prep_pread(request, fd, buffer, BLOCK, 0);
    expect(io_submit(load->context, 1, &request), -EBADF);
    must(io_destroy(load->context), 0);
}

static void destroy_awaits_what_is_in_flight(void) {
    for (int round = 0; round < 100; round++) {
        struct load *load = new_load();
        for (int slot = 0; slot < DEPTH; slot++) submit_read(load, slot, slot + round);
        must(io_destroy(load->context), 0);
        for (int slot = 0; slot < DEPTH; slot++) {
            uint64_t offset = (uint64_t)(uintptr_t)load->requests[slot].data - 1;
            expect_that(has_pattern(load->buffers + slot * BLOCK, SEED, offset, BLOCK), "wrong data");
        }
        close(load->fd);
        free(load->buffers);
        free(load);
    }
}

// Of one context after another, the first io_submit by another thread.
struct race {
    struct load *load;
    io_context_t context;
    atomic_int turn;   // odd: a context is there
    int rounds;
};

static void *submit_first(void *argument) {
    struct race *race = argument;
    for (int round = 0; round < race->rounds; round++) {
        struct iocb request, *list = &request;
        while (atomic_load(&race->turn) != 2 * round + 1) {}
        io_prep_pread(&request, race->load->fd, race->load->buffers, BLOCK, 0);
        long got = io_submit(race->context, 1, &list);
        expect_that(got == 1 || got == -EINVAL, "io_submit answered %ld", got);
        atomic_store(&race->turn, 2 * round + 2);
    }
    return NULL;
}

// Rings of the kernel's contexts that are mapped.
static int rings(void) {
    char line[512];
    int count = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    must_that(file != NULL, "cannot read /proc/self/maps");
    while (fgets(line, sizeof line, file)) count += strstr(line, "[aio]") != NULL;
    fclose(file);
    return count;
}

static void destroy_meets_the_first_submit(void) {
    struct race race = {.load = new_load(), .rounds = 400};
    uint64_t random = 1;
    pthread_t thread;
    must(io_destroy(race.load->context), 0);
    int before = rings();
    start_thread(&thread, submit_first, &race);
    for (int round = 0; round < race.rounds; round++) {
        race.context = new_context(4);
        atomic_store(&race.turn, 2 * round + 1);
        for (volatile uint64_t left = next_random(&random) % 8000; left > 0; left--) {}
        must(io_destroy(race.context), 0);
        while (atomic_load(&race.turn) != 2 * round + 2) {}
    }
    pthread_join(thread, NULL);
    expect(rings(), before);
}

static const struct test_case cases[] = {
    CASE(who_waits_gets_every_event),
    CASE(who_polls_gets_every_event),
    CASE(who_polls_without_time_gets_every_event),
    CASE(who_waits_in_slices_gets_every_event),
    CASE(who_waits_with_a_mask_gets_every_event),
    CASE(who_reads_the_ring_gets_every_event),
    CASE(who_waits_for_many_gets_them_at_once),
    CASE(buffered_requests_go_on_beside_them),
    CASE(several_contexts_at_once),
    CASE(one_thread_submits_and_another_waits),
    CASE(an_interrupted_wait_loses_no_event),
    CASE(writes_are_read_back),
    CASE(a_write_does_not_overtake_a_read_of_its_call),
    CASE(a_read_ends_where_its_file_did),
    CASE(a_number_that_was_a_direct_files_is_looked_at),
    CASE(destroy_awaits_what_is_in_flight),
    SLOW_CASE(destroy_meets_the_first_submit, 60),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

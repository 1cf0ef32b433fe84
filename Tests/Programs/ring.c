// Proves that the aio_ring and io_getevents deliver every event once: to programs that read the ring
// themselves, to those that wait on an eventfd, and to those that call; and what ends a wait.

#include "harness.h"

#include <poll.h>

// Takes up to `room` events as QEMU, fio and SPDK do: without a call, moving head itself.
static int take_from_ring(struct ring *ring, struct io_event *events, int room) {
    unsigned head = ring->head;
    int count = 0;
    while (count < room && head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
        events[count++] = ring->events[head];
        head = (head + 1) % ring->nr;
    }
    __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
    return count;
}

// ---- Programs that read the ring -----------------------------------------------------------

#define ROUNDS 2000
#define BATCH 40

// Random batches, so that head and tail pass the end of the ring at every possible distance.
static void wrap_the_ring(int fd) {
    io_context_t context = new_context(32);
    struct ring *ring = ring_of(context);
    static unsigned char seen[ROUNDS * BATCH];
    static struct iocb requests[BATCH], *list[BATCH];
    char *buffer = aligned(BATCH * BLOCK);
    uint64_t state = 42;
    long next = 0, taken = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int count = 1 + (int)(next_random(&state) % BATCH);
        for (int i = 0; i < count; i++) {
            io_prep_pread(&requests[i], fd, buffer + i * BLOCK, 512, i * BLOCK);
            requests[i].data = (void *)(next + i);
            list[i] = &requests[i];
        }
        must(io_submit(context, count, list), count);
        next += count;
        double deadline = now_seconds() + 10;
        while (taken < next) {
            struct io_event events[BATCH];
            int got = take_from_ring(ring, events, BATCH);
            for (int i = 0; i < got; i++) {
                must(events[i].res, 512);
                must(events[i].res2, 0);
                must(seen[(long)events[i].data]++, 0);
            }
            taken += got;
            must_that(now_seconds() < deadline, "%ld of %ld events came", taken, next);
        }
        must_that(taken == next, "%ld events came for %ld requests", taken, next);
        must_that(ring->head < ring->nr && ring->tail < ring->nr, "head or tail left the ring");
    }
    must_that(next > 100l * ring->nr, "the ring was not wrapped often");
    expect(ring->head, ring->tail);
    remark("%ld events through %u slots", next, ring->nr);
}

static void ring_reader_wraps_with_cached_reads(void) {
    wrap_the_ring(patterned_file("file", 1, BATCH * BLOCK));
}

static void ring_reader_wraps_with_direct_reads(void) {
    close(patterned_file("file", 1, BATCH * BLOCK));
    wrap_the_ring(open_direct("file", O_RDONLY));
}

// Nobody calls in, so a completion must be published by whoever completes it.
static void events_appear_without_a_call(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK), pipes[2];
    must(pipe(pipes), 0);
    io_context_t context = new_context(256);
    struct ring *ring = ring_of(context);
    char *buffer = aligned(64 * BLOCK);
    static struct iocb requests[66];
    make_cold(fd);
    for (int i = 0; i < 64; i++) {
        io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, (long long)(i * 37 % 64) * BLOCK);
        submit(context, &requests[i]);
    }
    io_prep_fsync(&requests[64], fd);
    submit(context, &requests[64]);
    io_prep_poll(&requests[65], pipes[0], POLLIN);
    submit(context, &requests[65]);
    must(write(pipes[1], "x", 1), 1);
    struct io_event events[66];
    int have = 0;
    double deadline = now_seconds() + 10;
    while (have < 66 && now_seconds() < deadline) {
        have += take_from_ring(ring, events + have, 66 - have);
        sleep_ms(1);
    }
    expect(have, 66);
    for (int i = 0; i < 64; i++)
        expect_that(has_pattern(buffer + i * BLOCK, 1, (uint64_t)(i * 37 % 64) * BLOCK, BLOCK),
            "wrong data in block %d", i);
}

// A full ring takes requests again as soon as its reader has moved head.
static void moving_head_makes_room(void) {
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct ring *ring = ring_of(context);
    char byte;
    struct iocb request, *list[] = {&request};
    io_prep_pread(&request, fd, &byte, 1, 0);
    for (int round = 0; round < 20; round++) {
        long count = 0;
        while (io_submit(context, 1, list) == 1)
            must_that(++count < ring->nr, "more events than slots");
        must_that(count > 0, "round %d: head moved but no slot came free", round);
        struct io_event events[512];
        must(take_from_ring(ring, events, 512), count);
    }
    expect_all_slots(context, fd);
}

// As QEMU does it: sleep on the eventfd, read the ring; the counts must agree at the end.
static void eventfd_counts_what_the_ring_gets(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK), counter = eventfd(0, EFD_NONBLOCK);
    io_context_t context = new_context(128);
    struct ring *ring = ring_of(context);
    char *buffer = aligned(64 * BLOCK);
    static struct iocb requests[64], *list[64];
    uint64_t total = 0, value;
    long taken = 0, sent = 0;
    for (int round = 0; round < 100; round++) {
        if (round % 10 == 0)
            make_cold(fd);
        for (int i = 0; i < 64; i++) {
            long long block = (round * 64 + i * 41) % 256;
            if (i % 16 == 15)
                io_prep_fdsync(&requests[i], fd);
            else
                io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, block * BLOCK);
            io_set_eventfd(&requests[i], counter);
            list[i] = &requests[i];
        }
        must(io_submit(context, 64, list), 64);
        sent += 64;
        while (taken < sent) {
            struct pollfd p = {.fd = counter, .events = POLLIN};
            must_that(poll(&p, 1, 10000) == 1, "the eventfd stays silent at %ld of %ld", taken, sent);
            if (read(counter, &value, sizeof value) == sizeof value)
                total += value;
            struct io_event events[64];
            taken += take_from_ring(ring, events, 64);
        }
    }
    sleep_ms(50);
    if (read(counter, &value, sizeof value) == sizeof value)
        total += value;
    expect(taken, sent);
    expect(total, sent);
}

// A program may scribble on its ring; the calls survive, and a foreign id makes them refuse.
static void scribbled_ring_is_survived(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct ring *ring = ring_of(context);
    char byte;
    struct iocb request, *list[] = {&request};
    struct io_event event;
    struct timespec second = {1, 0};
    io_prep_pread(&request, fd, &byte, 1, 0);
    unsigned id = ring->id;
    ring->id = 4711;
    expect(io_submit(context, 1, list), -EINVAL);
    ring->id = id;
    expect(io_submit(context, 1, list), 1);
    ring->magic = 0;
    expect(io_getevents(context, 1, 1, &event, &second), 1);
    expect(io_submit(context, 1, list), 1);
    reap(context, 1, &event);
    // head counts modulo nr, wherever it points.
    ring->head = ring->tail + 3 * ring->nr;
    expect(io_submit(context, 1, list), 1);
    expect(io_getevents(context, 1, 1, &event, &second), 1);
    expect(event.res, 1);
    expect_that(ring->head < ring->nr, "head was left outside the ring");
    expect(io_destroy(context), 0);
}

static void unmapped_ring_harms_nobody(void) {
    int fd = patterned_file("file", 1, 16 * BLOCK);
    char *buffer = aligned(16 * BLOCK);
    struct iocb request;
    struct io_event event;
    for (int i = 0; i < 20; i++) {
        io_context_t context = new_context(8);
        make_cold(fd);
        io_prep_pread(&request, fd, buffer, 16 * BLOCK, 0);
        submit(context, &request);
        munmap(context, 4096);
        // Which answer comes is for the table of differences; that one comes is proved here.
        struct iocb *list[] = {&request};
        struct timespec soon = {0, 1000000};
        io_submit(context, 1, list);
        call_io_getevents(context, 0, 1, &event, &soon);
        io_destroy(context);
        io_context_t next = new_context(8);
        expect(run_one(next, &request), 16 * BLOCK);
        expect(io_destroy(next), 0);
    }
}

// ---- Waiting -------------------------------------------------------------------------------

struct feeder {
    int fd, count, delay_ms;
};

static void *feed(void *argument) {
    struct feeder *feeder = argument;
    uint64_t one = 1;
    for (int i = 0; i < feeder->count; i++) {
        sleep_ms(feeder->delay_ms);
        must(write(feeder->fd, &one, sizeof one), sizeof one);
    }
    return NULL;
}

// Arms polls on semaphore-like pipes: each byte fed ends one poll.
static void arm(io_context_t context, struct iocb *requests, int (*pipes)[2], int count) {
    for (int i = 0; i < count; i++) {
        must(pipe(pipes[i]), 0);
        io_prep_poll(&requests[i], pipes[i][0], POLLIN);
        submit(context, &requests[i]);
    }
}

static void *feed_one_by_one(void *argument) {
    int (*pipes)[2] = argument;
    for (int i = 0; i < 4; i++) {
        sleep_ms(20);
        must(write(pipes[i][1], "x", 1), 1);
    }
    return NULL;
}

static void min_nr_waits_for_that_many(void) {
    io_context_t context = new_context(8);
    struct iocb requests[4];
    struct io_event events[8];
    int pipes[4][2];
    pthread_t thread;
    arm(context, requests, pipes, 4);
    start_thread(&thread, feed_one_by_one, pipes);
    int first = io_getevents(context, 3, 8, events, NULL);
    expect_that(first == 3 || first == 4, "expected 3 or 4 events got %d", first);
    if (first == 3)
        expect(io_getevents(context, 1, 8, events, NULL), 1);
    pthread_join(thread, NULL);
    expect(io_getevents(context, 0, 8, events, NULL), 0);
}

static void nr_bounds_what_is_returned(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(32);
    struct iocb requests[20];
    struct io_event events[21];
    char bytes[20];
    for (int i = 0; i < 20; i++) {
        io_prep_pread(&requests[i], fd, &bytes[i], 1, i);
        submit(context, &requests[i]);
    }
    memset(events, 0xab, sizeof events);
    expect(io_getevents(context, 0, 7, events, NULL), 7);
    expect_that(events[7].res2 == 0xababababababababul, "an eighth event was written");
    expect(io_getevents(context, 7, 7, events, NULL), 7);
    expect(io_getevents(context, 1, 20, events, NULL), 6);
    expect(io_getevents(context, 0, 20, events, NULL), 0);
}

static void timeout_returns_what_there_is(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct iocb requests[2];
    struct io_event events[8];
    char bytes[2];
    struct timespec wait = {0, 50000000};
    expect(io_getevents(context, 1, 8, events, &wait), 0);
    for (int i = 0; i < 2; i++) {
        io_prep_pread(&requests[i], fd, &bytes[i], 1, i);
        submit(context, &requests[i]);
    }
    double start = now_seconds();
    expect(io_getevents(context, 3, 8, events, &wait), 2);
    expect_that(now_seconds() - start >= 0.049, "it returned before the time-out");
    expect(wait.tv_nsec, 50000000);
    expect(wait.tv_sec, 0);
    struct timespec none = {0, 0};
    for (int i = 0; i < 2; i++)
        submit(context, &requests[i]);
    expect(io_getevents(context, 3, 8, events, &none), 2);
}

// The kernel does not insist on fewer than 10^9 nanoseconds.
static void long_nanoseconds_are_taken(void) {
    io_context_t context = new_context(8);
    struct iocb request;
    struct io_event event;
    int counter = eventfd(0, 0);
    struct feeder feeder = {counter, 1, 1100};
    struct timespec wait = {0, 9000000000};
    pthread_t thread;
    io_prep_poll(&request, counter, POLLIN);
    submit(context, &request);
    start_thread(&thread, feed, &feeder);
    expect(io_getevents(context, 1, 1, &event, &wait), 1);
    pthread_join(thread, NULL);
}

static void negative_timeout_waits_for_an_event(void) {
    io_context_t context = new_context(8);
    struct iocb request;
    struct io_event event;
    int counter = eventfd(0, 0);
    struct feeder feeder = {counter, 1, 100};
    struct timespec wait = {-1, 0};
    pthread_t thread;
    io_prep_poll(&request, counter, POLLIN);
    submit(context, &request);
    start_thread(&thread, feed, &feeder);
    expect(io_getevents(context, 1, 1, &event, &wait), 1);
    pthread_join(thread, NULL);
}

struct sleeper {
    io_context_t context;
    atomic_int asleep;
    long answer;
};

static void *sleep_in_getevents(void *argument) {
    struct sleeper *sleeper = argument;
    struct io_event event;
    atomic_fetch_add(&sleeper->asleep, 1);
    sleeper->answer = call_io_getevents(sleeper->context, 1, 1, &event, NULL);
    return NULL;
}

// MariaDB shuts its reaper down like this and aborts on any other code.
static void destroy_wakes_sleepers(void) {
    for (int round = 0; round < 20; round++) {
        struct sleeper sleepers[2] = {0};
        pthread_t threads[2];
        io_context_t context = new_context(8);
        struct iocb request;
        io_prep_poll(&request, eventfd(0, 0), POLLIN);
        if (round % 2)
            submit(context, &request);
        for (int i = 0; i < 2; i++) {
            sleepers[i].context = context;
            start_thread(&threads[i], sleep_in_getevents, &sleepers[i]);
        }
        while (!atomic_load(&sleepers[0].asleep) || !atomic_load(&sleepers[1].asleep))
            sleep_ms(1);
        sleep_ms(round);
        expect(io_destroy(context), 0);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
            expect(sleepers[i].answer, -EINVAL);
        }
        expect(io_destroy(context), -EINVAL);
    }
}

// Once io_destroy has returned, no buffer is written any more.
static void destroy_waits_for_requests_in_flight(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK);
    char *buffer = aligned(256 * BLOCK), *expected = aligned(256 * BLOCK);
    static struct iocb requests[256], *list[256];
    memset(expected, 0x5a, 256 * BLOCK);
    for (int round = 0; round < 10; round++) {
        io_context_t context = new_context(256);
        make_cold(fd);
        for (int i = 0; i < 256; i++) {
            long long block = i * 41 % 256;
            io_prep_pread(&requests[i], fd, buffer + block * BLOCK, BLOCK, block * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, 256, list), 256);
        must(io_destroy(context), 0);
        memset(buffer, 0x5a, 256 * BLOCK);
        sleep_ms(30);
        must_that(memcmp(buffer, expected, 256 * BLOCK) == 0, "a buffer changed after io_destroy");
    }
}

// ---- POLL and io_cancel --------------------------------------------------------------------

static void every_poll_can_be_cancelled(void) {
    io_context_t context = new_context(128);
    static struct iocb requests[100];
    static struct io_event events[100];
    int counter = eventfd(0, 0), results = eventfd(0, EFD_NONBLOCK);
    for (int i = 0; i < 100; i++) {
        io_prep_poll(&requests[i], counter, POLLIN);
        requests[i].data = (void *)(long)i;
        io_set_eventfd(&requests[i], results);
        submit(context, &requests[i]);
    }
    for (int i = 0; i < 100; i++)
        expect(io_cancel(context, &requests[i * 37 % 100], events), -EINPROGRESS);
    reap(context, 100, events);
    unsigned char seen[100] = {0};
    for (int i = 0; i < 100; i++) {
        expect(events[i].res, 0);
        expect(seen[(long)events[i].data]++, 0);
    }
    // Cancelled, they no longer answer to the file.
    uint64_t value = 1;
    must(write(counter, &value, sizeof value), sizeof value);
    sleep_ms(20);
    expect(io_getevents(context, 0, 100, events, NULL), 0);
    expect(read(results, &value, sizeof value), sizeof value);
    expect(value, 100);
}

static void cancel_takes_the_oldest_of_equals(void) {
    io_context_t context = new_context(8);
    int counter = eventfd(0, 0);
    struct iocb request;
    struct io_event event;
    io_prep_poll(&request, counter, POLLIN);
    request.data = (void *)1;
    submit(context, &request);
    request.data = (void *)2;
    submit(context, &request);
    for (long i = 1; i <= 2; i++) {
        expect(io_cancel(context, &request, &event), -EINPROGRESS);
        reap(context, 1, &event);
        expect((long)event.data, i);
    }
    expect(io_cancel(context, &request, &event), -EINVAL);
}

// The request holds the file, so a poll outlives the descriptor that it was made with.
static void poll_outlives_its_descriptor(void) {
    io_context_t context = new_context(8);
    int pipes[2];
    must(pipe(pipes), 0);
    int other = dup(pipes[0]);
    struct iocb request;
    struct io_event event;
    io_prep_poll(&request, pipes[0], POLLIN);
    submit(context, &request);
    close(pipes[0]);
    expect(io_getevents(context, 0, 1, &event, NULL), 0);
    must(write(pipes[1], "x", 1), 1);
    reap(context, 1, &event);
    expect(event.res & POLLIN, POLLIN);
    close(other);
}

static const struct test_case cases[] = {
    CASE(ring_reader_wraps_with_cached_reads),
    CASE(ring_reader_wraps_with_direct_reads),
    CASE(events_appear_without_a_call),
    CASE(moving_head_makes_room),
    CASE(eventfd_counts_what_the_ring_gets),
    CASE(scribbled_ring_is_survived),
    CASE(unmapped_ring_harms_nobody),
    CASE(min_nr_waits_for_that_many),
    CASE(nr_bounds_what_is_returned),
    CASE(timeout_returns_what_there_is),
    CASE(long_nanoseconds_are_taken),
    CASE(negative_timeout_waits_for_an_event),
    CASE(destroy_wakes_sleepers),
    CASE(destroy_waits_for_requests_in_flight),
    CASE(every_poll_can_be_cancelled),
    CASE(cancel_takes_the_oldest_of_equals),
    CASE(poll_outlives_its_descriptor),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

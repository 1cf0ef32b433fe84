// Proves that requests are kept apart and in the kernel's order when there are many: contexts, threads,
// submitters, overlapping reads and writes, large vectors, files with holes and ends.

#include "harness.h"

#include <sched.h>
#include <sys/socket.h>

// ---- Many contexts and threads -------------------------------------------------------------

#define CONTEXTS 1000
#define EACH 64
#define THREADS 4

static struct {
    int fd;
    io_context_t contexts[CONTEXTS];
    _Atomic unsigned char seen[CONTEXTS][EACH];
    atomic_long total;
} crowd;

static void *run_quarter(void *argument) {
    int first = (int)(long)argument * CONTEXTS / THREADS;
    struct iocb requests[EACH], *list[EACH];
    struct io_event events[EACH];
    char *buffer = aligned(EACH * 512);
    for (int c = first; c < first + CONTEXTS / THREADS; c++) {
        for (int i = 0; i < EACH; i++) {
            io_prep_pread(&requests[i], crowd.fd, buffer + i * 512, 512, (c * EACH + i) % 8192 * 512);
            requests[i].data = (void *)(long)(c * EACH + i);
            list[i] = &requests[i];
        }
        must(io_submit(crowd.contexts[c], EACH, list), EACH);
        reap(crowd.contexts[c], EACH, events);
        for (int i = 0; i < EACH; i++) {
            long number = (long)events[i].data;
            must(number / EACH, c);
            must(events[i].res, 512);
            must(atomic_fetch_add(&crowd.seen[c][number % EACH], 1), 0);
            must_that(has_pattern(events[i].obj->u.c.buf, 1, (uint64_t)(number % 8192 * 512), 512),
                "wrong data for request %ld", number);
        }
        must(io_getevents(crowd.contexts[c], 0, EACH, events, NULL), 0);
        atomic_fetch_add(&crowd.total, EACH);
    }
    return NULL;
}

static void thousand_contexts_keep_their_events_apart(void) {
    pthread_t threads[THREADS];
    crowd.fd = patterned_file("file", 1, 8192 * 512);
    make_cold(crowd.fd);
    for (int c = 0; c < CONTEXTS; c++) {
        crowd.contexts[c] = new_context(EACH);
        must(ring_of(crowd.contexts[c])->id, c);
    }
    for (long i = 0; i < THREADS; i++)
        start_thread(&threads[i], run_quarter, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    expect(crowd.total, CONTEXTS * EACH);
    // The kernel takes 30 ms for each; the process's end takes them all at once.
    if (on_layer())
        for (int c = 0; c < CONTEXTS; c++)
            expect(io_destroy(crowd.contexts[c]), 0);
}

// All in flight before any is reaped: one request in each of the thousand contexts at a time.
static void thousand_contexts_hold_requests_at_once(void) {
    int fd = patterned_file("file", 1, 1024 * BLOCK);
    char *buffer = aligned((size_t)CONTEXTS * BLOCK);
    static struct iocb requests[CONTEXTS];
    make_cold(fd);
    for (int c = 0; c < CONTEXTS; c++) {
        crowd.contexts[c] = new_context(8);
        io_prep_pread(&requests[c], fd, buffer + c * BLOCK, BLOCK, (long long)(c * 41 % 1024) * BLOCK);
        submit(crowd.contexts[c], &requests[c]);
    }
    for (int c = 0; c < CONTEXTS; c++) {
        struct io_event event;
        reap(crowd.contexts[c], 1, &event);
        must_that(event.obj == &requests[c], "context %d has another's event", c);
        must(event.res, BLOCK);
        must_that(has_pattern(buffer + c * BLOCK, 1, (uint64_t)(c * 41 % 1024) * BLOCK, BLOCK),
            "wrong data in context %d", c);
    }
}

// Several threads submit to one context and one or two reap it, over many rings' worth of events.
#define PER_THREAD 20000

static struct {
    io_context_t context;
    int fd;
    _Atomic unsigned char seen[THREADS * PER_THREAD];
    atomic_long reaped;
} shared;

static void *submit_share(void *argument) {
    long share = (long)argument;
    struct iocb requests[16], *list[16];
    static _Thread_local char buffer[16][64];
    uint64_t state = (uint64_t)share;
    for (long done = 0; done < PER_THREAD;) {
        int count = 1 + (int)(next_random(&state) % 16);
        if (count > PER_THREAD - done)
            count = (int)(PER_THREAD - done);
        for (int i = 0; i < count; i++) {
            io_prep_pread(&requests[i], shared.fd, buffer[i], 64, (done + i) % 1024 * 64);
            requests[i].data = (void *)(share * PER_THREAD + done + i);
            list[i] = &requests[i];
        }
        int taken = io_submit(shared.context, count, list);
        if (taken == -EAGAIN)
            sched_yield();
        else
            must_that(taken > 0, "io_submit: %s", strerrorname_np(-taken));
        if (taken > 0)
            done += taken;
    }
    return NULL;
}

static void *reap_share(void *argument) {
    (void)argument;
    struct io_event events[64];
    struct timespec wait = {0, 20000000};
    while (atomic_load(&shared.reaped) < THREADS * PER_THREAD) {
        long got = io_getevents(shared.context, 1, 64, events, &wait);
        must_that(got >= 0, "io_getevents: %ld", got);
        for (long i = 0; i < got; i++) {
            must(events[i].res, 64);
            must(atomic_fetch_add(&shared.seen[(long)events[i].data], 1), 0);
        }
        atomic_fetch_add(&shared.reaped, got);
    }
    return NULL;
}

static void share_one_context(int submitters, int reapers) {
    pthread_t threads[THREADS + 2];
    shared.fd = patterned_file("file", 1, 65536);
    shared.context = new_context(64);
    // The numbers of absent submitters count as reaped.
    atomic_store(&shared.reaped, (THREADS - submitters) * PER_THREAD);
    for (long i = 0; i < submitters; i++)
        start_thread(&threads[i], submit_share, (void *)i);
    for (int i = 0; i < reapers; i++)
        start_thread(&threads[submitters + i], reap_share, NULL);
    for (int i = 0; i < submitters + reapers; i++)
        pthread_join(threads[i], NULL);
    struct io_event event;
    expect(io_getevents(shared.context, 0, 1, &event, NULL), 0);
    for (long i = 0; i < submitters * PER_THREAD; i++)
        must(shared.seen[i], 1);
}

static void two_threads_share_a_context(void) { share_one_context(1, 1); }
static void many_submitters_have_one_reaper(void) { share_one_context(4, 1); }
static void many_submitters_have_two_reapers(void) { share_one_context(3, 2); }

// Contexts come and go while requests of others are under way.
static void *come_and_go(void *argument) {
    uint64_t seed = (uint64_t)(long)argument;
    int fd = open(temp_path("file"), O_RDONLY);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32], *list[32];
    struct io_event events[32];
    for (int round = 0; round < 30; round++) {
        io_context_t context = new_context(32);
        if (round % 4 == 0)
            make_cold(fd);
        for (int i = 0; i < 32; i++) {
            long long block = (long long)(next_random(&seed) % 512);
            io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, block * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, 32, list), 32);
        if (round % 3) {
            reap(context, 32, events);
            for (int i = 0; i < 32; i++)
                must_that(events[i].res == BLOCK && has_pattern(events[i].obj->u.c.buf, 1,
                        (uint64_t)events[i].obj->u.c.offset, BLOCK), "wrong data");
        }
        must(io_destroy(context), 0);
    }
    return NULL;
}

static void contexts_come_and_go_in_threads(void) {
    close(patterned_file("file", 1, 512 * BLOCK));
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        start_thread(&threads[i], come_and_go, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

// ---- Order ---------------------------------------------------------------------------------

// With the kernel's AIO a buffered request is done when io_submit returns, so a later one that overlaps
// sees it or does not disturb it; a layer that defers the first must keep the order.
static void later_write_does_not_change_earlier_read(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK);
    io_context_t context = new_context(16);
    char *old = aligned(4 * BLOCK), *new = aligned(4 * BLOCK), *back = aligned(4 * BLOCK);
    for (int round = 0; round < 64; round++) {
        uint64_t at = (uint64_t)round * 4 * BLOCK;
        struct iocb requests[3], *list[3] = {&requests[0], &requests[1], &requests[2]};
        struct io_event events[3];
        make_cold(fd);
        fill_pattern(new, 2, at, 4 * BLOCK);
        io_prep_pread(&requests[0], fd, old, 4 * BLOCK, (long long)at);
        // Partly overlapping, so that comparing offsets alone is not enough.
        io_prep_pwrite(&requests[1], fd, new + 100, 4 * BLOCK - 100, (long long)at + 100);
        io_prep_pread(&requests[2], fd, back, 4 * BLOCK, (long long)at);
        if (round % 2) {
            must(io_submit(context, 3, list), 3);
        } else {
            for (int i = 0; i < 3; i++)
                submit(context, &requests[i]);
        }
        reap(context, 3, events);
        for (int i = 0; i < 3; i++)
            expect(events[i].res, events[i].obj->u.c.nbytes);
        must_that(has_pattern(old, 1, at, 4 * BLOCK), "round %d: the read saw a later write", round);
        must_that(has_pattern(back, 1, at, 100) && has_pattern(back + 100, 2, at + 100, 4 * BLOCK - 100),
            "round %d: the read missed an earlier write", round);
    }
}

// The same through another descriptor and another context: the order is the file's.
static void order_holds_across_descriptors_and_contexts(void) {
    int one = patterned_file("file", 1, 256 * BLOCK), two = open(temp_path("file"), O_RDWR);
    io_context_t contexts[2] = {new_context(16), new_context(16)};
    char *old = aligned(BLOCK), *new = aligned(BLOCK), *back = aligned(BLOCK);
    for (int round = 0; round < 128; round++) {
        uint64_t at = (uint64_t)round * 2 * BLOCK;
        struct iocb read_old, write_new, read_back;
        struct io_event events[2];
        make_cold(one);
        fill_pattern(new, 2, at, BLOCK);
        io_prep_pread(&read_old, one, old, BLOCK, (long long)at);
        io_prep_pwrite(&write_new, two, new, BLOCK, (long long)at);
        io_prep_pread(&read_back, one, back, BLOCK, (long long)at);
        submit(contexts[0], &read_old);
        submit(contexts[1], &write_new);
        submit(contexts[round % 2], &read_back);
        reap(contexts[0], round % 2 ? 1 : 2, events);
        reap(contexts[1], round % 2 ? 2 : 1, events);
        must_that(has_pattern(old, 1, at, BLOCK), "round %d: the read saw a later write", round);
        must_that(has_pattern(back, 2, at, BLOCK), "round %d: the read missed an earlier write", round);
    }
}

static void direct_read_sees_earlier_buffered_write(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK), direct = open_direct("file", O_RDWR);
    io_context_t context = new_context(16);
    char *new = aligned(BLOCK), *back = aligned(BLOCK);
    for (int round = 0; round < 64; round++) {
        uint64_t at = (uint64_t)round * BLOCK;
        struct iocb requests[2];
        struct io_event events[2];
        fill_pattern(new, 2, at, BLOCK);
        io_prep_pwrite(&requests[0], fd, new, BLOCK, (long long)at);
        io_prep_pread(&requests[1], direct, back, BLOCK, (long long)at);
        submit(context, &requests[0]);
        submit(context, &requests[1]);
        reap(context, 2, events);
        must_that(has_pattern(back, 2, at, BLOCK), "round %d: the direct read missed the write", round);
    }
}

static void fsync_waits_for_earlier_writes(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(128);
    char *new = aligned(64 * BLOCK);
    struct iocb requests[65], *list[65];
    struct io_event events[65];
    for (int i = 0; i < 64; i++) {
        io_prep_pwrite(&requests[i], fd, new + i * BLOCK, BLOCK, i * BLOCK);
        list[i] = &requests[i];
    }
    io_prep_fsync(&requests[64], fd);
    list[64] = &requests[64];
    for (int round = 0; round < 5; round++) {
        must(io_submit(context, 65, list), 65);
        reap(context, 65, events);
        expect_that(events[64].obj == &requests[64], "the fsync was done before a write");
    }
}

// A plain pread of the program comes after the buffered write that io_submit has taken.
static void plain_read_sees_a_submitted_write(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK);
    io_context_t context = new_context(16);
    char *new = aligned(BLOCK), *back = aligned(BLOCK);
    for (int round = 0; round < 64; round++) {
        uint64_t at = (uint64_t)round * 3 * BLOCK;
        struct iocb request;
        struct io_event event;
        if (round % 8 == 0)
            make_cold(fd);
        fill_pattern(new, 2, at, BLOCK);
        io_prep_pwrite(&request, fd, new, BLOCK, (long long)at);
        submit(context, &request);
        must(pread(fd, back, BLOCK, (off_t)at), BLOCK);
        must_that(has_pattern(back, 2, at, BLOCK), "round %d: the write is not there", round);
        reap(context, 1, &event);
    }
}

static void event_is_there_after_a_buffered_submit(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    struct iocb requests[32], *list[32];
    struct io_event events[32];
    for (int round = 0; round < 100; round++) {
        int count = round % 4 ? 1 : 32;
        if (round % 2)
            make_cold(fd);
        for (int i = 0; i < count; i++) {
            long long at = (long long)((round + i * 41) % 256) * BLOCK;
            if (round % 3 == 2)
                io_prep_pwrite(&requests[i], fd, buffer + i * BLOCK, BLOCK, at);
            else
                io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, at);
            list[i] = &requests[i];
        }
        must(io_submit(context, count, list), count);
        // One event at least, and by and by all, without ever an empty answer.
        for (int have = 0; have < count;) {
            int got = io_getevents(context, 0, 32, events, NULL);
            must_that(got > 0, "round %d: min_nr 0 answered %d with %d of %d events", round, got, have,
                count);
            have += got;
        }
    }
}

// ---- Amounts -------------------------------------------------------------------------------

#define PIPES 1000

static void thousand_empty_pipes_are_read(void) {
    need_descriptors(2 * PIPES + 50);
    static struct iocb requests[PIPES];
    static struct io_event events[PIPES];
    static char bytes[PIPES];
    static int pipes[PIPES][2];
    io_context_t context = new_context(PIPES);
    int threads_before = threads_named("");
    for (int i = 0; i < PIPES; i++) {
        must(i % 2 ? pipe(pipes[i]) : socketpair(AF_UNIX, SOCK_STREAM, 0, pipes[i]), 0);
        io_prep_pread(&requests[i], pipes[i][0], &bytes[i], 1, 0);
        requests[i].data = (void *)(long)i;
        submit(context, &requests[i]);
    }
    expect(io_getevents(context, 0, PIPES, events, NULL), 0);
    expect_that(threads_named("") - threads_before <= 32, "%d threads for waiting reads",
        threads_named(""));
    for (int i = 0; i < PIPES; i++) {
        char byte = (char)(i * 37 % 251);
        must(write(pipes[i * 41 % PIPES][1], &byte, 1), 1);
    }
    reap(context, PIPES, events);
    for (int i = 0; i < PIPES; i++)
        must(events[i].res, 1);
    for (int i = 0; i < PIPES; i++)
        must(bytes[i * 41 % PIPES], (char)(i * 37 % 251));
}

static void largest_vectors_work(void) {
    int fd = patterned_file("file", 1, 1024 * 600);
    io_context_t context = new_context(8);
    char *buffer = aligned(1024 * 600), *back = aligned(1024 * 600);
    static struct iovec pieces[1024];
    struct iocb request;
    for (int i = 0; i < 1024; i++)
        pieces[i] = (struct iovec){buffer + i * 600, 600};
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            make_cold(fd);
        memset(buffer, 0, 1024 * 600);
        io_prep_preadv(&request, fd, pieces, 1024, 0);
        expect(run_one(context, &request), 1024 * 600);
        expect_that(has_pattern(buffer, 1, 0, 1024 * 600), "wrong data");
    }
    fill_pattern(buffer, 2, 0, 1024 * 600);
    io_prep_pwritev(&request, fd, pieces, 1024, 0);
    expect(run_one(context, &request), 1024 * 600);
    expect(pread(fd, back, 1024 * 600, 0), 1024 * 600);
    expect_that(has_pattern(back, 2, 0, 1024 * 600), "wrong data written");
}

static void ends_of_files_cut_reads_short(void) {
    int fd = patterned_file("file", 1, 10000);
    io_context_t context = new_context(8);
    char *buffer = aligned(16384);
    struct iocb request;
    for (int cold = 0; cold < 2; cold++) {
        static const struct {
            int at, size, answer;
        } reads[] = {{4096, 8192, 5904}, {0, 16384, 10000}, {9999, 100, 1}, {10000, 100, 0},
            {123456, 100, 0}, {0, 0, 0}, {0, 10000, 10000}};
        for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
            if (cold)
                make_cold(fd);
            memset(buffer, 0, 16384);
            io_prep_pread(&request, fd, buffer, (size_t)reads[i].size, reads[i].at);
            expect(run_one(context, &request), reads[i].answer);
            expect_that(has_pattern(buffer, 1, (uint64_t)reads[i].at, (size_t)reads[i].answer), "wrong data");
            expect(buffer[reads[i].answer], 0);
        }
    }
}

// A short answer from the page cache is not the end of the file: the rest must follow.
static void partly_cached_reads_are_whole(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    io_context_t context = new_context(8);
    char *buffer = aligned(64 * BLOCK), byte;
    for (int round = 0; round < 40; round++) {
        make_cold(fd);
        for (int i = 0; i < 6; i++)
            must(pread(fd, &byte, 1, (off_t)((round * 7 + i * i) % 64) * BLOCK), 1);
        if (round % 4 == 0)
            must(pread(fd, &byte, 1, 0), 1);
        struct iocb request;
        struct iovec pieces[3] = {{buffer, 3 * BLOCK + 5}, {buffer + 3 * BLOCK + 5, 17 * BLOCK},
            {buffer + 20 * BLOCK + 5, 44 * BLOCK - 5}};
        memset(buffer, 0, 64 * BLOCK);
        if (round % 2)
            io_prep_pread(&request, fd, buffer, 64 * BLOCK, 0);
        else
            io_prep_preadv(&request, fd, pieces, 3, 0);
        expect(run_one(context, &request), 64 * BLOCK);
        must_that(has_pattern(buffer, 1, 0, 64 * BLOCK), "round %d: wrong data", round);
    }
}

// A request is copied when it is submitted, so it may lie in its own buffer; that a first try has
// overwritten it when the rest of its data has to be fetched must not matter.
static void requests_may_lie_in_their_own_buffers(void) {
    int fd = patterned_file("file", 1, 16 * BLOCK), counter = eventfd(0, EFD_NONBLOCK);
    io_context_t context = new_context(8);
    char *buffer = aligned(8 * BLOCK), byte;
    for (int round = 0; round < 32; round++) {
        // Whole and cached, whole with some of it cached, and cut short by the end of the file.
        long first = round % 4 == 3 ? 12 : 4, size = round % 4 == 3 ? 4 * BLOCK : 8 * BLOCK;
        struct iocb *request = (struct iocb *)buffer, **list = (struct iocb **)(buffer + 256);
        must(pread(fd, buffer, 8 * BLOCK, first * BLOCK), size);
        if (round % 2 == 0) {
            struct iocb warm;
            io_prep_pread(&warm, fd, buffer, BLOCK, 0);
            expect(run_one(context, &warm), BLOCK);
        }
        if (round % 4 < 2) {
            make_cold(fd);
            must(pread(fd, &byte, 1, first * BLOCK), 1);
        }
        memset(buffer, 0, 8 * BLOCK);
        io_prep_pread(request, fd, buffer, 8 * BLOCK, first * BLOCK);
        request->data = (void *)(long)round;
        if (round >= 16)
            io_set_eventfd(request, counter);
        list[0] = request;
        must(io_submit(context, 1, list), 1);
        struct io_event event;
        reap(context, 1, &event);
        expect(event.res, size);
        expect((long)event.data, round);
        expect_that(event.obj == request, "round %d: the event names another request", round);
        expect_that(has_pattern(buffer, 1, (uint64_t)first * BLOCK, (size_t)size),
            "round %d: wrong data", round);
    }
    uint64_t signals = 0;
    must(read(counter, &signals, sizeof signals), sizeof signals);
    expect(signals, 16);
}

static bool is_zero(const char *buffer, size_t size) {
    return size == 0 || (buffer[0] == 0 && memcmp(buffer, buffer + 1, size - 1) == 0);
}

static void holes_read_as_zeros(void) {
    int fd = open(temp_path("sparse"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    io_context_t context = new_context(8);
    char *buffer = aligned(8 * BLOCK);
    struct iocb request;
    fill_pattern(buffer, 1, 0, BLOCK);
    must(pwrite(fd, buffer, BLOCK, 3 * BLOCK), BLOCK);
    must(ftruncate(fd, 1l << 33), 0);
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            make_cold(fd);
        memset(buffer, 0xee, 8 * BLOCK);
        io_prep_pread(&request, fd, buffer, 8 * BLOCK, 0);
        expect(run_one(context, &request), 8 * BLOCK);
        expect_that(is_zero(buffer, 3 * BLOCK) && has_pattern(buffer + 3 * BLOCK, 1, 0, BLOCK) &&
            is_zero(buffer + 4 * BLOCK, 4 * BLOCK), "wrong data around a hole");
        io_prep_pread(&request, fd, buffer, 8 * BLOCK, (1ll << 33) - 2 * BLOCK);
        expect(run_one(context, &request), 2 * BLOCK);
        expect_that(is_zero(buffer, 2 * BLOCK), "the far hole is not zero");
    }
    // A far write makes the file longer.
    io_prep_pwrite(&request, fd, buffer, BLOCK, 1ll << 34);
    expect(run_one(context, &request), BLOCK);
    struct stat s;
    fstat(fd, &s);
    expect(s.st_size, (1l << 34) + BLOCK);
}

static void other_files_work(void) {
    io_context_t context = new_context(8);
    char *buffer = aligned(64 * 1024);
    struct iocb request;
    int memory = memfd_create("test", 0), zero = open("/dev/zero", O_RDWR);
    int nothing = open("/dev/null", O_RDWR), random = open("/dev/urandom", O_RDONLY);
    int proc = open("/proc/self/stat", O_RDONLY), full = open("/dev/full", O_RDWR);
    fill_pattern(buffer, 1, 0, 64 * 1024);
    io_prep_pwrite(&request, memory, buffer, 64 * 1024, 0);
    expect(run_one(context, &request), 64 * 1024);
    memset(buffer, 0, 64 * 1024);
    io_prep_pread(&request, memory, buffer, 64 * 1024, 0);
    expect(run_one(context, &request), 64 * 1024);
    expect_that(has_pattern(buffer, 1, 0, 64 * 1024), "wrong data from a memfd");
    io_prep_pread(&request, zero, buffer, 64 * 1024, 0);
    expect(run_one(context, &request), 64 * 1024);
    expect_that(is_zero(buffer, 64 * 1024), "wrong data from /dev/zero");
    io_prep_pwrite(&request, zero, buffer, 64 * 1024, 0);
    expect(run_one(context, &request), 64 * 1024);
    io_prep_pread(&request, nothing, buffer, 4096, 0);
    expect(run_one(context, &request), 0);
    io_prep_pwrite(&request, nothing, buffer, 4096, 0);
    expect(run_one(context, &request), 4096);
    io_prep_pread(&request, random, buffer, 4096, 0);
    expect(run_one(context, &request), 4096);
    // Files without read_iter or write_iter the kernel refuses; from outside they look like any other.
    io_prep_pread(&request, proc, buffer, 4096, 0);
    long got = run_one(context, &request);
    expect_that(got == -EINVAL || got > 0, "expected -EINVAL or text got %ld", got);
    io_prep_pwrite(&request, full, buffer, 4096, 0);
    expect_either(run_one(context, &request), -EINVAL, -ENOSPC);
    io_prep_pread(&request, full, buffer, 4096, 0);
    expect(run_one(context, &request), 4096);
}

// With writes left to workers, each burst finds those asleep, looking for work, or on their way from one
// to the other, and so do the events find their waiters: a job that nobody came for would end no wait.

#define BURST 4
#define BURSTS 4000

static void *write_in_bursts(void *argument) {
    long thread = (long)argument;
    uint64_t random = 77 + thread;
    io_context_t context = new_context(BURST);
    struct iocb requests[BURST], *list[BURST];
    struct io_event events[BURST];
    int files[2];
    uint64_t last[2][64] = {{0}};
    char *buffers = aligned(BURST * BLOCK);
    for (int f = 0; f < 2; f++) {
        char name[32];
        snprintf(name, sizeof name, "burst%ld.%d", thread, f);
        files[f] = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
        must_that(files[f] >= 0, "cannot make %s", name);
    }
    for (int burst = 1; burst <= BURSTS; burst++) {
        int count = 1 + next_random(&random) % BURST;
        for (int i = 0; i < count; i++) {
            int f = next_random(&random) % 2, block = next_random(&random) % 64;
            last[f][block] = burst * BURST + i;
            fill_pattern(buffers + i * BLOCK, last[f][block], 0, BLOCK);
            io_prep_pwrite(&requests[i], files[f], buffers + i * BLOCK, BLOCK, block * BLOCK);
            list[i] = &requests[i];
        }
        must(io_submit(context, count, list), count);
        // Some waits begin when all is done.
        if (next_random(&random) % 4 == 0) usleep(next_random(&random) % 100);
        must(io_getevents(context, count, BURST, events, NULL), count);
        for (int i = 0; i < count; i++)
            must(events[i].res, BLOCK);
        // The workers' patience ends within pauses of this kind.
        if (next_random(&random) % 2 == 0) usleep(next_random(&random) % 120);
    }
    char *found = aligned(BLOCK);
    for (int f = 0; f < 2; f++)
        for (int block = 0; block < 64; block++)
            if (last[f][block] != 0) {
                must(pread(files[f], found, BLOCK, block * BLOCK), BLOCK);
                must_that(has_pattern(found, last[f][block], 0, BLOCK),
                    "block %d of file %d is not what was written last", block, f);
            }
    expect(io_destroy(context), 0);
    return NULL;
}

static void bursts_of_writes_all_end(void) {
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        start_thread(&threads[i], write_in_bursts, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static const struct test_case cases[] = {
    SLOW_CASE(thousand_contexts_keep_their_events_apart, 60),
    SLOW_CASE(thousand_contexts_hold_requests_at_once, 60),
    SLOW_CASE(two_threads_share_a_context, 40),
    SLOW_CASE(many_submitters_have_one_reaper, 40),
    SLOW_CASE(many_submitters_have_two_reapers, 40),
    SLOW_CASE(contexts_come_and_go_in_threads, 60),
    CASE(later_write_does_not_change_earlier_read),
    CASE(order_holds_across_descriptors_and_contexts),
    CASE(direct_read_sees_earlier_buffered_write),
    CASE(fsync_waits_for_earlier_writes),
    CASE(plain_read_sees_a_submitted_write),
    CASE(event_is_there_after_a_buffered_submit),
    SLOW_CASE(bursts_of_writes_all_end, 60),
    LAYER_CASE(thousand_empty_pipes_are_read, 30, "the kernel's io_submit blocks on an empty pipe"),
    CASE(largest_vectors_work),
    CASE(ends_of_files_cut_reads_short),
    CASE(partly_cached_reads_are_whole),
    CASE(requests_may_lie_in_their_own_buffers),
    CASE(holes_read_as_zeros),
    CASE(other_files_work),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

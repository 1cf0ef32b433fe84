// Proves that signals and the layer keep out of each other's way: what interrupts a wait, what a mask
// holds back, what a handler may call, and that no signal or EINTR comes which the kernel's AIO would
// not have caused.

#include "harness.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>

static atomic_int delivered;

static void count_signal(int number) {
    (void)number;
    atomic_fetch_add(&delivered, 1);
}

static void catch_signal(int number, int flags) {
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    must(sigaction(number, &action, NULL), 0);
    atomic_store(&delivered, 0);
}

// Keeps sending until told to stop, so that a signal sent before the wait began is no lost chance.
struct sender {
    pthread_t target;
    atomic_bool stop;
};

static void *send_signals(void *argument) {
    struct sender *sender = argument;
    while (!atomic_load(&sender->stop)) {
        sleep_ms(20);
        pthread_kill(sender->target, SIGUSR1);
    }
    return NULL;
}

static void start_sender(struct sender *sender, pthread_t *thread) {
    sender->target = pthread_self();
    atomic_store(&sender->stop, false);
    // The sender's own mask does not matter: it signals one thread by name.
    start_thread(thread, send_signals, sender);
}

static void stop_sender(struct sender *sender, pthread_t thread) {
    atomic_store(&sender->stop, true);
    pthread_join(thread, NULL);
}

// ---- Waits ---------------------------------------------------------------------------------

static void signal_ends_a_wait(void) {
    static const int flags[] = {0, SA_RESTART};
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct io_event events[4];
    struct timespec forever = {-1, 0}, ten = {10, 0};
    for (int i = 0; i < 2; i++) {
        struct sender sender;
        pthread_t thread;
        catch_signal(SIGUSR1, flags[i]);
        start_sender(&sender, &thread);
        expect(io_getevents(context, 1, 4, events, NULL), -EINTR);
        expect(io_getevents(context, 1, 4, events, &ten), -EINTR);
        expect(io_getevents(context, 1, 4, events, &forever), -EINTR);
        expect(io_pgetevents(context, 1, 4, events, &ten, NULL), -EINTR);
        // What has come already is returned instead.
        char byte;
        struct iocb request;
        io_prep_pread(&request, fd, &byte, 1, 0);
        submit(context, &request);
        expect(io_getevents(context, 2, 4, events, NULL), 1);
        stop_sender(&sender, thread);
        expect_that(atomic_load(&delivered) >= 5, "the handler ran %d times", atomic_load(&delivered));
    }
}

static void mask_lets_a_pending_signal_in(void) {
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(8);
    struct io_event event;
    struct timespec ten = {10, 0}, none = {0, 0};
    sigset_t blocked, open;
    sigemptyset(&open);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    catch_signal(SIGUSR1, SA_RESTART);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    expect(delivered, 0);
    expect(io_pgetevents(context, 1, 1, &event, &ten, &open), -EINTR);
    expect(delivered, 1);
    raise(SIGUSR1);
    expect(call_io_pgetevents(context, 1, 1, &event, &none, &open), -EINTR);
    expect(delivered, 2);
    // Events that are there come first; the handler runs all the same.
    char byte;
    struct iocb request;
    io_prep_pread(&request, fd, &byte, 1, 0);
    submit(context, &request);
    raise(SIGUSR1);
    expect(io_pgetevents(context, 1, 1, &event, &ten, &open), 1);
    expect(delivered, 3);
    sigset_t after;
    sigprocmask(SIG_SETMASK, NULL, &after);
    expect(sigismember(&after, SIGUSR1), 1);
}

static void mask_lets_a_signal_in_during_the_wait(void) {
    io_context_t context = new_context(8);
    struct io_event event;
    struct timespec ten = {10, 0};
    sigset_t blocked, open;
    sigemptyset(&open);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    catch_signal(SIGUSR1, 0);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    struct sender sender;
    pthread_t thread;
    start_sender(&sender, &thread);
    for (int i = 0; i < 5; i++)
        expect(io_pgetevents(context, 1, 1, &event, &ten, &open), -EINTR);
    stop_sender(&sender, thread);
    expect_that(delivered >= 5, "the handler ran %d times", delivered);
}

static void mask_holds_a_signal_back(void) {
    io_context_t context = new_context(8);
    struct io_event event;
    struct timespec wait = {0, 200000000};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGALRM);
    catch_signal(SIGUSR1, 0);
    catch_signal(SIGALRM, 0);
    struct itimerval soon = {.it_value = {0, 50000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    expect(io_pgetevents(context, 1, 1, &event, &wait, &blocked), 0);
    // By now the mask is gone and the signal in.
    expect(delivered, 1);
}

// ---- Handlers that call in -----------------------------------------------------------------

#define STORM_REQUESTS 3000000
#define SLOTS 64

// One storm: the main flow and a SIGALRM handler both submit to and reap from one context.
static struct {
    io_context_t context;
    int fd;
    size_t size;
    struct iocb requests[2][SLOTS];     // by flow: 0 the main one, 1 the handler's
    volatile sig_atomic_t busy[2][SLOTS];
    char *buffers[2];
    unsigned char seen[STORM_REQUESTS]; // events per request number
    atomic_long next, reaped;
    volatile sig_atomic_t in_submit, in_getevents;
    volatile long handled, during_submit, during_getevents, refused, odd;
} storm;

static int free_slot(int flow) {
    for (int i = 0; i < SLOTS; i++)
        if (!storm.busy[flow][i])
            return i;
    return -1;
}

// Takes a request number only once the request is taken, so every number below next has an event.
static int storm_submit(int flow) {
    int slot = free_slot(flow);
    if (slot < 0 || atomic_load(&storm.next) >= STORM_REQUESTS)
        return 0;
    struct iocb *request = &storm.requests[flow][slot], *list[] = {request};
    long number = atomic_fetch_add(&storm.next, 1);
    char *buffer = storm.buffers[flow] + (size_t)slot * BLOCK;
    io_prep_pread(request, storm.fd, buffer, storm.size, number % 16 * BLOCK);
    request->data = (void *)number;
    storm.busy[flow][slot] = 1;
    int answer = io_submit(storm.context, 1, list);
    if (answer != 1) {
        // The number stays unused; mark it so that the account comes out even.
        storm.busy[flow][slot] = 0;
        storm.seen[number] = 1;
        atomic_fetch_add(&storm.reaped, 1);
    }
    return answer;
}

static long storm_reap(long min_nr, struct timespec *timeout) {
    struct io_event events[8];
    long got = call_io_getevents(storm.context, min_nr, 8, events, timeout);
    for (long i = 0; i < got; i++) {
        struct iocb *request = events[i].obj;
        long number = (long)events[i].data;
        if (number < 0 || number >= STORM_REQUESTS || events[i].res != storm.size) {
            storm.odd++;
            continue;
        }
        storm.seen[number]++;
        int flow = request >= storm.requests[1];
        storm.busy[flow][request - storm.requests[flow]] = 0;
    }
    if (got > 0)
        atomic_fetch_add(&storm.reaped, got);
    return got;
}

static void arm_timer(void) {
    static uint64_t state = 7;
    // A varying delay, so that the interruptions fall on every part of the calls.
    struct itimerval soon = {.it_value = {0, 20 + (long)(next_random(&state) % 100)}};
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void on_alarm(int number) {
    (void)number;
    int saved = errno;
    struct timespec none = {0, 0};
    storm.handled++;
    if (storm.in_submit)
        storm.during_submit++;
    if (storm.in_getevents)
        storm.during_getevents++;
    int answer = storm_submit(1);
    if (answer == -EAGAIN)
        storm.refused++;
    else if (answer < 0)
        storm.odd++;
    long got = storm_reap(0, &none);
    if (got < 0 && got != -EAGAIN && got != -EINTR)
        storm.odd++;
    arm_timer();
    errno = saved;
}

// Runs until the handler has interrupted both calls a thousand times, bounded by time and requests.
static void run_storm(int fd, size_t size) {
    storm.fd = fd;
    storm.size = size;
    storm.context = new_context(256);
    for (int flow = 0; flow < 2; flow++)
        storm.buffers[flow] = aligned(SLOTS * BLOCK);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    must(sigaction(SIGALRM, &action, NULL), 0);
    arm_timer();
    struct timespec wait = {0, 5000000}, none = {0, 0};
    double deadline = now_seconds() + 10;
    while (now_seconds() < deadline && atomic_load(&storm.next) < STORM_REQUESTS &&
        (storm.during_submit < 1000 || storm.during_getevents < 1000)) {
        for (int i = 0; i < 16; i++) {
            storm.in_submit = 1;
            int answer = storm_submit(0);
            storm.in_submit = 0;
            if (answer < 0 && answer != -EAGAIN)
                storm.odd++;
        }
        storm.in_getevents = 1;
        long got = storm_reap(1, &wait);
        for (int i = 0; i < 32 && got >= 0; i++)
            got = storm_reap(0, NULL);
        storm.in_getevents = 0;
        if (got < 0 && got != -EINTR)
            storm.odd++;
    }
    struct itimerval off = {0};
    setitimer(ITIMER_REAL, &off, NULL);
    signal(SIGALRM, SIG_IGN);
    deadline = now_seconds() + 5;
    while (atomic_load(&storm.reaped) < atomic_load(&storm.next) && now_seconds() < deadline)
        storm_reap(1, &wait);
    storm_reap(0, &none);
    long sent = atomic_load(&storm.next), lost = 0, doubled = 0;
    for (long i = 0; i < sent; i++) {
        lost += storm.seen[i] == 0;
        doubled += storm.seen[i] > 1;
    }
    expect(lost, 0);
    expect(doubled, 0);
    expect(storm.odd, 0);
    expect_that(storm.during_submit > 100, "io_submit interrupted %ld times", storm.during_submit);
    expect_that(storm.during_getevents > 100, "io_getevents interrupted %ld times",
        storm.during_getevents);
    remark("%ld signals, %ld in io_submit, %ld in io_getevents, %ld requests, %ld refused",
        storm.handled, storm.during_submit, storm.during_getevents, sent, storm.refused);
}

static void handler_calls_in_with_cached_reads(void) {
    run_storm(patterned_file("file", 1, 16 * BLOCK), 512);
}

static void handler_calls_in_with_direct_reads(void) {
    close(patterned_file("file", 1, 16 * BLOCK));
    run_storm(open_direct("file", O_RDONLY), BLOCK);
}

// A device without RWF_NOWAIT trouble and without a page cache: the shortest way through io_submit.
static void handler_calls_in_with_device_reads(void) { run_storm(open("/dev/zero", O_RDONLY), 64); }

// A handler may destroy the very context that the interrupted call is busy with, and must not wait for
// that call.
static io_context_t doomed;
static atomic_bool is_destroyed;

static void destroy_doomed(int number) {
    (void)number;
    int answer = io_destroy(doomed);
    if (answer == -EAGAIN)
        arm_timer();
    else
        atomic_store(&is_destroyed, true);
    storm.odd += answer != 0 && answer != -EAGAIN;
}

static void destroy_in_use(int size) {
    int fd = patterned_file("file", 1, 16 * BLOCK), other = patterned_file("other", 2, 16 * BLOCK);
    char *buffer = aligned(16 * BLOCK), byte;
    struct sigaction action = {.sa_handler = destroy_doomed, .sa_flags = SA_RESTART};
    must(sigaction(SIGALRM, &action, NULL), 0);
    struct iocb requests[16], *list[16];
    struct io_event events[16];
    io_context_t bystander = new_context(8);
    long rounds = 0, submitted = 0;
    must(pread(other, &byte, 1, 0), 1);
    for (double deadline = now_seconds() + 2.5; now_seconds() < deadline; rounds++) {
        doomed = new_context(size);
        atomic_store(&is_destroyed, false);
        for (int i = 0; i < 16; i++) {
            io_prep_pread(&requests[i], i == 15 && rounds % 2 ? other : fd, buffer + i * BLOCK, 512,
                i * BLOCK);
            list[i] = &requests[i];
        }
        arm_timer();
        while (!atomic_load(&is_destroyed)) {
            struct timespec none = {0, 0};
            int answer = io_submit(doomed, 1 + rounds % 16, list);
            storm.odd += answer < 0 && answer != -EINVAL && answer != -EAGAIN;
            submitted += answer > 0 ? answer : 0;
            long got = call_io_getevents(doomed, 0, 16, events, &none);
            storm.odd += got < 0 && got != -EINVAL;
            // Nor may the call be taken for one on another context.
            must(io_submit(bystander, 1, list), 1);
            must(io_getevents(bystander, 1, 1, events, NULL), 1);
        }
        if (rounds % 16 == 0)
            make_cold(other);
    }
    expect(storm.odd, 0);
    expect_that(submitted > rounds, "only %ld requests were submitted", submitted);
    remark("%ld contexts, %ld requests", rounds, submitted);
}

static void handler_destroys_the_context_in_use(void) { destroy_in_use(64); }

// The ring of such a context goes with it.
static void handler_destroys_a_large_context_in_use(void) { destroy_in_use(20000); }

// A handler that interrupts malloc may submit: whoever allocates there, or starts a thread, waits for
// malloc's lock, which the interrupted thread holds.
static io_context_t context_of_handler;
static struct iocb request_of_handler;
static atomic_int accepted_in_handler;

static void submit_in_handler(int number) {
    (void)number;
    struct iocb *list[1] = {&request_of_handler};
    atomic_store(&accepted_in_handler, (int)io_submit(context_of_handler, 1, list));
}

static void *do_nothing(void *argument) {
    pause();
    return argument;
}

static void submit_amid_malloc(int fd, int round) {
    struct sigaction action = {.sa_handler = submit_in_handler};
    struct itimerval soon = {{0, 0}, {0, 2000 + round * 37}};
    struct io_event event;
    void *kept[256] = {NULL};
    uint64_t random = 1;
    pthread_t other;
    // With a second thread, malloc has a lock.
    start_thread(&other, do_nothing, NULL);
    context_of_handler = new_context(8);
    io_prep_pread(&request_of_handler, fd, aligned(BLOCK), BLOCK, (long)round * BLOCK);
    atomic_store(&accepted_in_handler, 0);
    must(sigaction(SIGALRM, &action, NULL), 0);
    must(setitimer(ITIMER_REAL, &soon, NULL), 0);
    while (atomic_load(&accepted_in_handler) == 0) {
        int place = (int)(next_random(&random) % 256);
        free(kept[place]);
        kept[place] = malloc(next_random(&random) % 5000);
    }
    must(atomic_load(&accepted_in_handler), 1);
    reap(context_of_handler, 1, &event);
    expect((long)event.res, BLOCK);
}

static void handler_submits_amid_malloc(void) {
    int fd = patterned_file("file", 1, 64 * BLOCK);
    for (int round = 0; round < 64; round++) {
        make_cold(fd);
        pid_t child = fork();
        if (child == 0) {
            submit_amid_malloc(fd, round);
            _exit(0);
        }
        must_that(wait_for(child, 5) == 0, "round %d: child failed", round);
    }
}

// Programs that read their signals from a descriptor block them, perhaps after io_setup: that is no
// handler, and a request that must wait is accepted, whether a daemon runs at the moment or not.
static void who_blocks_signals_has_daemons(void) {
    setenv("IOCTX_AIOD_LIFETIME", "1", 1);
    setenv("IOCTX_AIOD_TIMEOUT", "1", 1);
    int fd = patterned_file("file", 1, BLOCK), ends[2];
    io_context_t context = new_context(8);
    struct iocb request;
    struct io_event event;
    sigset_t blocked;
    char byte;
    must(pipe(ends), 0);
    io_prep_pread(&request, fd, &byte, 1, 0);
    must(run_one(context, &request), 1);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (int round = 0; round < 5; round++) {
        sleep_ms(30);
        io_prep_poll(&request, ends[0], POLLIN);
        submit(context, &request);
        must(write(ends[1], "x", 1), 1);
        reap(context, 1, &event);
        expect((long)event.res & POLLIN, POLLIN);
        must(read(ends[0], &byte, 1), 1);
    }
}

static void take_no_notice(int signal) { (void)signal; }

// A look at a file that does not wait can be interrupted all the same; the kernel's io_submit cannot.
static void a_storm_interrupts_no_io_submit(void) {
    struct sigaction action = {.sa_handler = take_no_notice, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 60}, {0, 60}}, never = {{0, 0}, {0, 0}};
    int counter = eventfd(0, 0);
    uint64_t one = 1;
    io_context_t context = used_context(8);
    struct iocb request;
    struct io_event event;
    sigaction(SIGALRM, &action, NULL);
    must(setitimer(ITIMER_REAL, &often, NULL), 0);
    double deadline = now_seconds() + 2;
    while (now_seconds() < deadline) {
        io_prep_poll(&request, counter, POLLIN);
        submit(context, &request);
        while (write(counter, &one, sizeof one) != sizeof one) {}
        reap(context, 1, &event);
        while (read(counter, &one, sizeof one) != sizeof one) {}
    }
    must(setitimer(ITIMER_REAL, &never, NULL), 0);
}

// ---- Signals that nobody sent --------------------------------------------------------------

// io_uring interrupts the thread that submitted to it; kernel AIO does not, and epoll users rely on it.
static void submitting_thread_sees_no_eintr(void) {
    int fd = patterned_file("file", 1, 1024 * BLOCK), counter = eventfd(0, EFD_NONBLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(32 * BLOCK);
    int epoll = epoll_create1(0), interrupted = 0, rounds = 0;
    struct epoll_event interest = {.events = EPOLLIN}, ready;
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &interest), 0);
    static struct iocb requests[32], *list[32];
    for (int round = 0; round < 320; round++) {
        if (round % 32 == 0)
            make_cold(fd);
        int count = round % 3 == 0 ? 1 : 32;
        for (int i = 0; i < count; i++) {
            long long block = (round % 32 * 32 + i) * 389 % 1024;
            io_prep_pread(&requests[i], fd, buffer + i * BLOCK, BLOCK, block * BLOCK);
            io_set_eventfd(&requests[i], counter);
            list[i] = &requests[i];
        }
        must(io_submit(context, count, list), count);
        int have = 0;
        double deadline = now_seconds() + 10;
        while (have < count && now_seconds() < deadline) {
            int got = epoll_wait(epoll, &ready, 1, 1000);
            rounds++;
            interrupted += got < 0 && errno == EINTR;
            uint64_t value;
            if (got > 0 && read(counter, &value, sizeof value) == sizeof value)
                have += (int)value;
        }
        must(have, count);
        struct io_event events[32];
        must(io_getevents(context, count, count, events, NULL), count);
    }
    expect(interrupted, 0);
    remark("%d epoll_wait calls", rounds);
}

// No signal of the program may end up in one of the library's threads and stay unnoticed there.
static void process_signals_reach_the_program(void) {
    int fd = patterned_file("file", 1, 256 * BLOCK);
    io_context_t context = new_context(64);
    char *buffer = aligned(BLOCK);
    struct iocb request;
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR2);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    catch_signal(SIGUSR2, 0);
    make_cold(fd);
    for (int i = 0; i < 100; i++) {
        io_prep_pread(&request, fd, buffer, BLOCK, (long long)(i * 41 % 256) * BLOCK);
        submit(context, &request);
        must(kill(getpid(), SIGUSR2), 0);
        struct timespec ten = {10, 0};
        must(sigtimedwait(&wanted, NULL, &ten), SIGUSR2);
        struct io_event event;
        reap(context, 1, &event);
    }
    expect(delivered, 0);
}

static void wait_for_signals(int count) {
    double deadline = now_seconds() + 5;
    while (atomic_load(&delivered) < count && now_seconds() < deadline)
        sleep_ms(2);
}

// The kernel raises SIGPIPE and SIGXFSZ in the submitter; a program may count on dying of them.
static void sigpipe_is_raised(void) {
    io_context_t context = new_context(8);
    int pipes[2];
    must(pipe(pipes), 0);
    close(pipes[0]);
    catch_signal(SIGPIPE, 0);
    struct iocb request;
    io_prep_pwrite(&request, pipes[1], pipes, 4, 0);
    expect(run_one(context, &request), -EPIPE);
    wait_for_signals(1);
    expect(delivered, 1);
}

static void sigxfsz_is_raised(void) {
    int fd = patterned_file("file", 1, 65536);
    io_context_t context = new_context(8);
    char *buffer = aligned(BLOCK);
    struct rlimit limit = {65536 + 100, 65536 + 100};
    must(setrlimit(RLIMIT_FSIZE, &limit), 0);
    catch_signal(SIGXFSZ, 0);
    struct iocb request;
    io_prep_pwrite(&request, fd, buffer, BLOCK, 65536);
    expect(run_one(context, &request), 100);
    expect(delivered, 0);
    io_prep_pwrite(&request, fd, buffer, BLOCK, 65536 + 100);
    expect(run_one(context, &request), -EFBIG);
    wait_for_signals(1);
    expect(delivered, 1);
}

static const struct test_case cases[] = {
    CASE(signal_ends_a_wait),
    CASE(mask_lets_a_pending_signal_in),
    CASE(mask_lets_a_signal_in_during_the_wait),
    CASE(mask_holds_a_signal_back),
    SLOW_CASE(handler_calls_in_with_cached_reads, 40),
    SLOW_CASE(handler_calls_in_with_direct_reads, 40),
    SLOW_CASE(handler_calls_in_with_device_reads, 40),
    CASE(handler_destroys_the_context_in_use),
    CASE(handler_destroys_a_large_context_in_use),
    CASE(handler_submits_amid_malloc),
    CASE(who_blocks_signals_has_daemons),
    CASE(a_storm_interrupts_no_io_submit),
    SLOW_CASE(submitting_thread_sees_no_eintr, 60),
    CASE(process_signals_reach_the_program),
    CASE(sigpipe_is_raised),
    CASE(sigxfsz_is_raised),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

// Proves what becomes of requests on pipes and terminals that are done in parts: that no part is denied
// or forgotten, and that nobody else waits for them.

#include "harness.h"

#include <aio.h>
#include <arpa/inet.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#define BIG 200000
#define WAITS "on the kernel io_submit itself waits for the other end"

static int waiting_bytes(int fd) {
    int bytes = 0;
    must(ioctl(fd, FIONREAD, &bytes), 0);
    return bytes;
}

// ---- A socket that always has something to say ------------------------------------------------

// Connected to a port where nobody listens, with the refusal in its error queue: poll() reports POLLERR
// for as long as nobody takes that, while a read finds nothing.
static int socket_with_error_queue(struct sockaddr_in *own) {
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof *own, error_size = sizeof(int);
    int on = 1, error, closed = socket(AF_INET, SOCK_DGRAM, 0), fd = socket(AF_INET, SOCK_DGRAM, 0);
    must(bind(closed, (struct sockaddr *)&nowhere, sizeof nowhere), 0);
    must(getsockname(closed, (struct sockaddr *)&nowhere, &size), 0);
    must(connect(fd, (struct sockaddr *)&nowhere, sizeof nowhere), 0);
    must(getsockname(fd, (struct sockaddr *)own, &size), 0);
    must(setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on), 0);
    close(closed);
    must(send(fd, "x", 1, 0), 1);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 1000), 1);
    must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size), 0);
    must(error, ECONNREFUSED);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 1);
    return fd;
}

static void a_read_of_a_socket_with_an_error_queue_waits_asleep(void) {
    struct sockaddr_in own;
    struct iocb request;
    struct io_event event;
    char buffer[16] = "";
    int fd = socket_with_error_queue(&own), sender = socket(AF_INET, SOCK_DGRAM, 0);
    io_context_t context = new_context(8);
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    must(getpeername(fd, (struct sockaddr *)&peer, &size), 0);
    must(bind(sender, (struct sockaddr *)&peer, sizeof peer), 0);
    io_prep_pread(&request, fd, buffer, sizeof buffer, 0);
    for (int round = 0; round < 2; round++) {
        submit(context, &request);
        sleep_ms(100);
        double before = processor_seconds();
        sleep_ms(400);
        expect_that(processor_seconds() - before < 0.1, "used %.3f s of processor time while it waited",
            processor_seconds() - before);
        must(sendto(sender, "hello", 5, 0, (struct sockaddr *)&own, sizeof own), 5);
        reap(context, 1, &event);
        expect((long)event.res, 5);
    }
    io_destroy(context);
}

// ---- Cancelled in the middle ---------------------------------------------------------------

static void a_cancelled_write_tells_what_went_through(void) {
    char *data = calloc(1, BIG);
    io_context_t context = new_context(8);
    for (int round = 0; round < 100; round++) {
        int ends[2];
        struct iocb request;
        struct io_event event;
        must(pipe(ends), 0);
        io_prep_pwrite(&request, ends[1], data, BIG, 0);
        submit(context, &request);
        expect_either(io_cancel(context, &request, &event), -EINPROGRESS, -EINVAL);
        int arrived = waiting_bytes(ends[0]);
        close(ends[0]);
        reap(context, 1, &event);
        expect((long)event.res, arrived > 0 ? arrived : -ECANCELED);
        close(ends[1]);
    }
}

static void aio_cancel_takes_back_no_write_that_has_begun(void) {
    char *data = calloc(1, BIG);
    signal(SIGPIPE, SIG_IGN);
    for (int round = 0; round < 100; round++) {
        int ends[2];
        must(pipe(ends), 0);
        struct aiocb block = {
            .aio_fildes = ends[1], .aio_buf = data, .aio_nbytes = BIG,
            .aio_sigevent.sigev_notify = SIGEV_NONE};
        const struct aiocb *list[] = {&block};
        must(aio_write(&block), 0);
        int answer = aio_cancel(ends[1], &block), arrived = waiting_bytes(ends[0]);
        if (answer == AIO_CANCELED) expect(arrived, 0);
        close(ends[0]);
        while (aio_error(&block) == EINPROGRESS) aio_suspend(list, 1, NULL);
        if (answer == AIO_CANCELED) expect(aio_error(&block), ECANCELED);
        close(ends[1]);
    }
}

// ---- A reader that goes away ---------------------------------------------------------------

static atomic_int pipe_signals;

static void count_signal(int signal) {
    (void)signal;
    atomic_fetch_add(&pipe_signals, 1);
}

static void *close_soon(void *fd) {
    sleep_ms(100);
    close(*(int *)fd);
    return NULL;
}

static void a_write_that_loses_its_reader_tells_its_part_and_signals(void) {
    char *data = calloc(1, BIG);
    pthread_t closer;
    struct iocb request;
    struct io_event event;
    int ends[2];
    io_context_t context = new_context(8);
    must(pipe(ends), 0);
    signal(SIGPIPE, count_signal);
    io_prep_pwrite(&request, ends[1], data, BIG, 0);
    start_thread(&closer, close_soon, &ends[0]);
    submit(context, &request);
    reap(context, 1, &event);
    expect((long)event.res, 65536);
    pthread_join(closer, NULL);
    for (int wait = 0; wait < 100 && atomic_load(&pipe_signals) == 0; wait++) sleep_ms(10);
    expect(atomic_load(&pipe_signals), 1);
}

static ssize_t write_some(int fd, const char *data) { return write(fd, data, 4096); }

#define NO_SIGNAL 0x100  // RWF_NOSIGNAL, since Linux 6.18

static void a_write_that_wants_no_signal_brings_none(void) {
    char *data = calloc(1, BIG);
    struct iocb write, probe;
    struct io_event event;
    int ends[2], zero = open("/dev/zero", O_RDONLY);
    char byte;
    io_context_t context = new_context(8);
    io_prep_pread(&probe, zero, &byte, 1, 0);
    probe.aio_rw_flags = NO_SIGNAL;
    if (run_one(context, &probe) != 1) skip_case("this kernel has no RWF_NOSIGNAL");
    signal(SIGPIPE, count_signal);
    for (int part = 0; part < 2; part++) {
        must(pipe(ends), 0);
        // With the pipe full nothing of it goes through, otherwise a part.
        if (part == 0) must(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
        while (part == 0 && write_some(ends[1], data) > 0) {}
        must(fcntl(ends[1], F_SETFL, 0), 0);
        io_prep_pwrite(&write, ends[1], data, BIG, 0);
        write.aio_rw_flags = NO_SIGNAL;
        submit(context, &write);
        sleep_ms(50);
        int arrived = part == 0 ? -EPIPE : waiting_bytes(ends[0]);
        close(ends[0]);
        reap(context, 1, &event);
        expect((long)event.res, arrived);
        close(ends[1]);
    }
    expect(atomic_load(&pipe_signals), 0);
}

// ---- A socket whose peer goes away amid a write ----------------------------------------------

#define HUGE (8 << 20)

static void connect_over_tcp(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    must(listen(listener, 1), 0);
    must(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(ends[0], (struct sockaddr *)&address, sizeof address), 0);
    ends[1] = accept(listener, NULL, NULL);
    must_that(ends[1] >= 0, "accept: %s", strerror(errno));
    close(listener);
}

static void *read_some_and_close(void *fd) {
    char bytes[4096];
    sleep_ms(100);
    must(read(*(int *)fd, bytes, sizeof bytes), sizeof bytes);
    sleep_ms(20);
    close(*(int *)fd);
    return NULL;
}

// With what went through as the result, and no signal: the error is the next write's.
static void a_socket_tells_its_error_to_the_next_write(void) {
    char *data = calloc(1, HUGE);
    io_context_t context = new_context(8);
    signal(SIGPIPE, count_signal);
    for (int tcp = 0; tcp < 2; tcp++) {
        struct iocb request;
        pthread_t closer;
        int ends[2];
        if (tcp) connect_over_tcp(ends);
        else must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        io_prep_pwrite(&request, ends[0], data, HUGE, 0);
        start_thread(&closer, read_some_and_close, &ends[1]);
        long sent = run_one(context, &request);
        expect_that(sent > 0 && sent < HUGE, "%ld bytes went through", sent);
        pthread_join(closer, NULL);
        expect(atomic_load(&pipe_signals), 0);
        if (tcp) expect(run_one(context, &request), -ECONNRESET);
        close(ends[0]);
    }
    expect(atomic_load(&pipe_signals), 0);
}

static void *stop_sending_soon(void *fd) {
    sleep_ms(100);
    shutdown(*(int *)fd, SHUT_WR);
    return NULL;
}

// Who waits for room in a local socket gets no signal.
static void a_local_socket_that_is_shut_down_brings_no_signal(void) {
    static char data[4096];
    const char *engine = getenv("IOCTX_ENGINE");
    struct iocb request;
    pthread_t thread;
    int ends[2];
    if (on_layer() && ((engine && strcmp(engine, "threads") == 0) || getenv("IO_URING_FORBIDDEN")))
        skip_case("epoll does not tell of it: README.md");
    signal(SIGPIPE, count_signal);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    must(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    while (write_some(ends[0], data) > 0) {}
    must(fcntl(ends[0], F_SETFL, 0), 0);
    io_prep_pwrite(&request, ends[0], data, sizeof data, 0);
    start_thread(&thread, stop_sending_soon, &ends[0]);
    expect(run_one(new_context(8), &request), -EPIPE);
    pthread_join(thread, NULL);
    expect(atomic_load(&pipe_signals), 0);
}

static void *read_all_slowly(void *fd) {
    static char bytes[1 << 16];
    sleep_ms(100);
    while (read(*(int *)fd, bytes, sizeof bytes) > 0) {}
    return NULL;
}

// The socket has something in its error queue: poll() reports POLLERR, and nothing is wrong.
static void a_socket_with_an_error_queue_takes_a_write_whole(void) {
    enum { TX_SOFTWARE = 1 << 1, SOFTWARE = 1 << 4, OPT_ID = 1 << 7, TX_ACK = 1 << 9, OPT_TSONLY = 1 << 11 };
    int ends[2], stamps = TX_SOFTWARE | SOFTWARE | OPT_ID | TX_ACK | OPT_TSONLY;
    char *data = calloc(1, HUGE);
    struct iocb request;
    pthread_t reader;
    io_context_t context = new_context(8);
    connect_over_tcp(ends);
    must(setsockopt(ends[0], SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps), 0);
    start_thread(&reader, read_all_slowly, &ends[1]);
    io_prep_pwrite(&request, ends[0], data, HUGE, 0);
    expect(run_one(context, &request), HUGE);
    close(ends[0]);
    pthread_join(reader, NULL);
}

// The rest of a write waits for room while the peer, which will send no more, does not read.
static void a_write_to_half_of_a_peer_waits_asleep(void) {
    static char bytes[1 << 16];
    int ends[2], small = 4096;
    char *data = calloc(1, HUGE);
    struct iocb request;
    struct io_event event;
    io_context_t context = new_context(8);
    connect_over_tcp(ends);
    must(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    must(shutdown(ends[1], SHUT_WR), 0);
    io_prep_pwrite(&request, ends[0], data, HUGE, 0);
    submit(context, &request);
    sleep_ms(100);
    double before = processor_seconds();
    sleep_ms(500);
    double used = processor_seconds() - before;
    expect_that(used < 0.1, "%.3f s of a processor in 0.5 s", used);
    for (long left = HUGE; left > 0;) {
        ssize_t got = read(ends[1], bytes, sizeof bytes);
        must_that(got > 0, "read: %s", strerror(errno));
        left -= got;
    }
    reap(context, 1, &event);
    expect((long)event.res, HUGE);
    close(ends[0]);
    close(ends[1]);
}

// There is room for the second write, though less than poll(2) tells of.
static void a_parked_write_is_tried_before_it_waits(void) {
    static char bytes[4096];
    int ends[2];
    struct iocb requests[2], *list[] = {&requests[0], &requests[1]};
    struct io_event events[2];
    io_context_t context = new_context(8);
    must(pipe(ends), 0);
    must(fcntl(ends[1], F_SETPIPE_SZ, 4096), 4096);
    must(write(ends[1], bytes, 4096), 4096);
    for (int i = 0; i < 2; i++) io_prep_pwrite(list[i], ends[1], bytes, 10, 0);
    must(io_submit(context, 2, list), 2);
    must(read(ends[0], bytes, 4096), 4096);
    reap(context, 2, events);
    must(io_destroy(context), 0);
}

// The peer will send no more, which is not what the poll is about.
static void a_poll_for_room_outlives_half_of_its_peer(void) {
    struct timespec soon = {0, 50000000};
    static char data[4096];
    int counter = eventfd(0, EFD_NONBLOCK);
    eventfd_t count;
    io_context_t context = used_context(8);
    struct io_event event;
    struct iocb request;
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        int ends[2];
        must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        must(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        while (write_some(ends[0], data) > 0) {}
        io_prep_poll(&request, ends[0], POLLOUT);
        io_set_eventfd(&request, counter);
        submit(context, &request);
        sleep_ms(20);
        must(shutdown(ends[1], SHUT_WR), 0);
        expect(io_getevents(context, 1, 1, &event, &soon), 0);
        if (cancelled) {
            must(io_cancel(context, &request, &event), -EINPROGRESS);
            reap(context, 1, &event);
            expect((long)event.res, 0);
        } else {
            must(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
            while (read(ends[1], data, sizeof data) > 0) {}
            reap(context, 1, &event);
            expect((long)event.res & POLLOUT, POLLOUT);
        }
        close(ends[1]);
        expect(io_getevents(context, 1, 1, &event, &soon), 0);
        must(eventfd_read(counter, &count), 0);
        expect(count, 1);
        close(ends[0]);
    }
    must(io_destroy(context), 0);
}

// ---- A daemon that is lost -------------------------------------------------------------------

// Closes what is not the program's own: sockets and rings with numbers from `first` on.
static void close_strangers(int first) {
    char path[64], name[64];
    for (int fd = first; fd < 100; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, name, sizeof name - 1);
        if (length <= 0) continue;
        name[length] = 0;
        if (strstr(name, "socket:") || strstr(name, "io_uring")) close(fd);
    }
}

// Two daemons have a read each, and the second one's waits for the first one's.
static void a_read_behind_one_of_a_lost_daemon_ends_with_it(void) {
    setenv("IOCTX_AIOD_LIFETIME", "60000", 1);
    struct iocb first, second;
    struct io_event events[2];
    char bytes[2];
    int ends[2];
    must(pipe(ends), 0);
    io_context_t context = new_context(8);
    io_prep_pread(&first, ends[0], &bytes[0], 1, 0);
    io_prep_pread(&second, ends[0], &bytes[1], 1, 0);
    submit(context, &first);
    close_strangers(ends[1] + 1);
    submit(context, &second);
    sleep_ms(50);
    must(write(ends[1], "xy", 2), 2);
    reap(context, 2, events);
    expect((long)events[0].res + (long)events[1].res, 2);
}

// ---- A terminal that nobody reads ----------------------------------------------------------

// Its other end is at `other`.
static int raw_terminal(int *other) {
    struct termios settings;
    *other = posix_openpt(O_RDWR | O_NOCTTY);
    if (*other < 0) skip_case("no pseudo-terminal is to be had here");
    must(grantpt(*other), 0);
    must(unlockpt(*other), 0);
    int terminal = open(ptsname(*other), O_RDWR | O_NOCTTY);
    must_that(terminal >= 0, "the terminal cannot be opened: errno %d", errno);
    must(tcgetattr(terminal, &settings), 0);
    cfmakeraw(&settings);
    must(tcsetattr(terminal, TCSANOW, &settings), 0);
    return terminal;
}

static void read_all(int fd, int bytes) {
    char buffer[4096];
    while (bytes > 0) {
        ssize_t count = read(fd, buffer, sizeof buffer);
        must_that(count > 0, "the other end cannot be read: errno %d", errno);
        bytes -= (int)count;
    }
}

static void a_terminal_that_nobody_reads_keeps_nobody_waiting(void) {
    int other, terminal = raw_terminal(&other);
    int fd = patterned_file("file", 1, 64 * BLOCK);
    char *data = calloc(1, BIG), *block = aligned(BLOCK);
    io_context_t of_terminal = new_context(8), of_file = new_context(8);
    struct iocb write, read;
    struct io_event event;
    io_prep_pwrite(&write, terminal, data, BIG, 0);
    submit(of_terminal, &write);
    for (int number = 0; number < 8; number++) {
        make_cold(fd);
        io_prep_pread(&read, fd, block, BLOCK, number * 7 * BLOCK);
        must(run_one(of_file, &read), BLOCK);
    }
    struct timespec none = {0, 0};
    expect(io_getevents(of_terminal, 0, 1, &event, &none), 0);
    read_all(other, BIG);
    reap(of_terminal, 1, &event);
    expect((long)event.res, BIG);
}

static void *read_all_later(void *other) {
    sleep_ms(400);
    read_all(*(int *)other, BIG);
    return NULL;
}

// io_destroy waits for what has begun; a handler that interrupts it may fork.
static void a_child_forked_amid_io_destroy_returns_from_it(void) {
    int other, terminal = raw_terminal(&other);
    struct iocb write;
    pthread_t reader;
    io_context_t context = new_context(8);
    io_prep_pwrite(&write, terminal, calloc(1, BIG), BIG, 0);
    submit(context, &write);
    start_thread(&reader, read_all_later, &other);
    fork_in_handler_after(100000);
    expect(io_destroy(context), 0);
    if (forked_child == 0) _exit(io_setup(8, &(io_context_t){NULL}) == 0 ? 0 : 1);
    expect_clean_exit(forked_child, 5);
    pthread_join(reader, NULL);
}

// More than there is room for; nobody but the caller reads it, at `other`, and he does so afterwards.
static void expect_aio_write_to_return(int fd, int other) {
    struct aiocb block = {
        .aio_fildes = fd, .aio_buf = calloc(1, BIG), .aio_nbytes = BIG,
        .aio_sigevent.sigev_notify = SIGEV_NONE};
    const struct aiocb *list[] = {&block};
    must(aio_write(&block), 0);
    expect(aio_error(&block), EINPROGRESS);
    read_all(other, BIG);
    while (aio_error(&block) == EINPROGRESS) aio_suspend(list, 1, NULL);
    expect(aio_return(&block), BIG);
}

static void aio_write_to_a_terminal_that_nobody_reads_returns(void) {
    int other, terminal = raw_terminal(&other);
    expect_aio_write_to_return(terminal, other);
}

// ---- Pipes that were opened by a path -------------------------------------------------------

// They cannot be told not to wait (RWF_NOWAIT), and are ready for a write when a page has room.
static int fifo(const char *name, int *reader) {
    const char *path = temp_path(name);
    must(mkfifo(path, 0600), 0);
    *reader = open(path, O_RDONLY | O_NONBLOCK);
    int writer = open(path, O_WRONLY);
    must_that(*reader >= 0 && writer >= 0, "the fifo cannot be opened: errno %d", errno);
    must(fcntl(*reader, F_SETFL, 0), 0);
    return writer;
}

static void a_fifo_with_too_little_room_keeps_nobody_waiting(void) {
    int reader, writer = fifo("fifo", &reader), pipes[2];
    char *data = calloc(1, BIG), buffer[16];
    io_context_t of_fifo = new_context(8), of_pipe = new_context(8);
    struct iocb write_request, read_request;
    struct io_event event;
    must(pipe(pipes), 0);
    io_prep_pwrite(&write_request, writer, data, BIG, 0);
    submit(of_fifo, &write_request);
    io_prep_pread(&read_request, pipes[0], buffer, sizeof buffer, 0);
    submit(of_pipe, &read_request);
    // Room for a page, and no more.
    read_all(reader, 4096);
    sleep_ms(50);
    must(write(pipes[1], "hello", 5), 5);
    reap(of_pipe, 1, &event);
    expect((long)event.res, 5);
    read_all(reader, BIG - 4096);
    reap(of_fifo, 1, &event);
    expect((long)event.res, BIG);
    io_destroy(of_fifo);
    io_destroy(of_pipe);
}

static void aio_write_to_a_fifo_with_too_little_room_returns(void) {
    int reader, writer = fifo("posix-fifo", &reader);
    expect_aio_write_to_return(writer, reader);
}

// Nobody has opened it for writing: the end of the file, which poll() does not report.
static void a_fifo_without_writers_is_at_its_end(void) {
    const char *path = temp_path("lone-fifo");
    char byte;
    struct iocb request;
    must(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    io_context_t context = new_context(8);
    io_prep_pread(&request, reader, &byte, 1, 0);
    expect(run_one(context, &request), 0);
    io_destroy(context);
}

// ---- The end of a stream -------------------------------------------------------------------------

// Without waiting, such a socket says that there is nothing now; who waits is told that there never will be.
static void a_socket_that_was_shut_down_is_at_its_end(void) {
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
    struct iocb request;
    struct io_event event;
    char buffer[16];
    io_context_t context = new_context(8);
    for (int i = 0; i < 3; i++) {
        int pair[2], later[2];
        must(socketpair(AF_UNIX, types[i], 0, pair), 0);
        must(shutdown(pair[0], SHUT_RD), 0);
        io_prep_pread(&request, pair[0], buffer, sizeof buffer, 0);
        expect(run_one(context, &request), 0);
        if (!on_layer())
            continue;
        must(socketpair(AF_UNIX, types[i], 0, later), 0);
        io_prep_pread(&request, later[0], buffer, sizeof buffer, 0);
        submit(context, &request);
        sleep_ms(20);
        must(shutdown(later[0], SHUT_RD), 0);
        reap(context, 1, &event);
        expect((long)event.res, 0);
    }
}

static void the_last_write_lets_go_of_its_pipe_before_its_event(void) {
    static char bytes[4096], found[65536 + sizeof bytes];
    io_context_t context = new_context(8);
    struct io_event event;
    for (int round = 0; round < 200; round++) {
        int ends[2];
        struct iocb request;
        must(pipe(ends), 0);
        must(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        for (int i = 0; i < 16; i++)
            must(write(ends[1], bytes, sizeof bytes), sizeof bytes);
        io_prep_pwrite(&request, ends[1], bytes, sizeof bytes, 0);
        submit(context, &request);
        must(close(ends[1]), 0);
        must(read(ends[0], found, 65536), 65536);
        reap(context, 1, &event);
        must((long)event.res, sizeof bytes);
        must(read(ends[0], found, sizeof found), sizeof bytes);
        must(read(ends[0], found, sizeof found), 0);
        close(ends[0]);
    }
}

int main(int argc, char **argv) {
    static const struct test_case cases[] = {
        LAYER_CASE(a_read_of_a_socket_with_an_error_queue_waits_asleep, 20, WAITS),
        LAYER_CASE(a_cancelled_write_tells_what_went_through, 20, WAITS),
        CASE(aio_cancel_takes_back_no_write_that_has_begun),
        CASE(a_write_that_loses_its_reader_tells_its_part_and_signals),
        LAYER_CASE(a_write_that_wants_no_signal_brings_none, 20, WAITS),
        LAYER_CASE(a_terminal_that_nobody_reads_keeps_nobody_waiting, 20, WAITS),
        LAYER_CASE(a_child_forked_amid_io_destroy_returns_from_it, 20, WAITS),
        CASE(aio_write_to_a_terminal_that_nobody_reads_returns),
        LAYER_CASE(a_fifo_with_too_little_room_keeps_nobody_waiting, 20, WAITS),
        CASE(aio_write_to_a_fifo_with_too_little_room_returns),
        CASE(a_fifo_without_writers_is_at_its_end),
        CASE(a_socket_that_was_shut_down_is_at_its_end),
        CASE(a_socket_tells_its_error_to_the_next_write),
        CASE(a_local_socket_that_is_shut_down_brings_no_signal),
        CASE(a_socket_with_an_error_queue_takes_a_write_whole),
        LAYER_CASE(a_write_to_half_of_a_peer_waits_asleep, 20, WAITS),
        LAYER_CASE(a_parked_write_is_tried_before_it_waits, 20, WAITS),
        CASE(a_poll_for_room_outlives_half_of_its_peer),
        LAYER_CASE(a_read_behind_one_of_a_lost_daemon_ends_with_it, 20, WAITS),
        LAYER_CASE(the_last_write_lets_go_of_its_pipe_before_its_event, 20, WAITS),
    };
    return RUN_CASES(argc, argv, cases);
}

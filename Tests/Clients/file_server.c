/*
 * A file server with nginx's pattern: one thread, epoll with EPOLLET, completions counted by an eventfd,
 * raw system calls, and io_getevents(1, 64, {0}) when it fires. nginx's own file AIO is left out of
 * the distribution's build.
 *
 *     file_server PORT FOLDER     serves HTTP/1.1 GET of the files in FOLDER, with keep-alive;
 *                                 prints its process's number
 *
 * Each file is read as a whole by one request for each 64 KiB, buffered and so, when it is not in
 * the page cache, where the kernel's io_submit blocks.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CONNECTIONS = 1024, EVENTS = 64, REQUESTS = 1024, CHUNK = 65536, REQUEST_BYTES = 1024 };

struct connection {
    int socket, file;
    char request[REQUEST_BYTES + 1];
    size_t received;
    long size, read_at, sent, ready; /* bytes of the file: its length, asked for, sent, at hand */
    char head[160];
    size_t head_sent, head_length;
    int is_busy, is_reading, wants_close;
    struct iocb iocb;
    char buffer[CHUNK];
};

static int epoll, notifier, folder;
static aio_context_t context;

static void fatal(const char *what) {
    perror(what);
    exit(1);
}

static void finish(struct connection *c) {
    if (c->file >= 0)
        close(c->file);
    close(c->socket);
    free(c);
}

/* Asks for the next part of the file; the answer comes by the eventfd. */
static void read_on(struct connection *c) {
    struct iocb *list[] = {&c->iocb};
    long left = c->size - c->read_at;

    memset(&c->iocb, 0, sizeof c->iocb);
    c->iocb.aio_data = (uint64_t)(uintptr_t)c;
    c->iocb.aio_lio_opcode = IOCB_CMD_PREAD;
    c->iocb.aio_fildes = (uint32_t)c->file;
    c->iocb.aio_buf = (uint64_t)(uintptr_t)c->buffer;
    c->iocb.aio_nbytes = (uint64_t)(left < CHUNK ? left : CHUNK);
    c->iocb.aio_offset = c->read_at;
    c->iocb.aio_flags = IOCB_FLAG_RESFD;
    c->iocb.aio_resfd = (uint32_t)notifier;
    if (syscall(SYS_io_submit, context, 1L, list) != 1)
        fatal("io_submit");
    c->is_reading = 1;
}

static void send_on(struct connection *c);

/* One request after the other: the next begins when the last has been sent. */
static void begin(struct connection *c) {
    char *end = strstr(c->request, "\r\n\r\n"), name[256];
    struct stat status;

    if (!end || c->is_busy)
        return;
    if (sscanf(c->request, "GET /%255[^ ] ", name) != 1 || strstr(name, "..")) {
        c->wants_close = 1;
        return;
    }
    c->file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (c->file < 0 || fstat(c->file, &status) < 0 || !S_ISREG(status.st_mode)) {
        c->size = 0;
        c->head_length = (size_t)snprintf(c->head, sizeof c->head,
                                          "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    } else {
        c->size = status.st_size;
        c->head_length = (size_t)snprintf(c->head, sizeof c->head,
                                          "HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", c->size);
    }
    c->received -= (size_t)(end + 4 - c->request);
    memmove(c->request, end + 4, c->received + 1);
    c->head_sent = 0, c->read_at = c->sent = c->ready = 0, c->is_busy = 1;
    if (c->size > 0)
        read_on(c);
    else
        send_on(c);
}

/* Sends what is at hand, the head and the first bytes of the file in one call. */
static void send_on(struct connection *c) {
    while (c->is_busy && !c->is_reading && !c->wants_close) {
        size_t head = c->head_length - c->head_sent;
        long length = c->ready - (c->sent - c->read_at);

        if (head > 0 || length > 0) {
            struct iovec parts[] = {{c->head + c->head_sent, head},
                                    {c->buffer + (c->sent - c->read_at), (size_t)length}};
            struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
            ssize_t sent = sendmsg(c->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

            if (sent < 0) {
                c->wants_close = errno != EAGAIN;
                return;
            }
            c->head_sent += (size_t)sent < head ? (size_t)sent : head;
            c->sent += (size_t)sent < head ? 0 : sent - (ssize_t)head;
        } else if (c->sent < c->size) {
            c->read_at = c->sent, c->ready = 0;
            read_on(c);
        } else {
            if (c->file >= 0)
                close(c->file);
            c->file = -1, c->is_busy = 0;
            begin(c);
        }
    }
}

static void reap(void) {
    struct io_event events[EVENTS];
    struct timespec none = {0, 0};
    uint64_t count;

    if (read(notifier, &count, sizeof count) != sizeof count)
        return;
    /* As nginx does: until as many came as the eventfd counted, 64 at a time. */
    while (count > 0) {
        long got = syscall(SYS_io_getevents, context, 1L, (long)EVENTS, events, &none);

        if (got < 0)
            fatal("io_getevents");
        /* Some were taken before the eventfd counted them. */
        if (got == 0)
            return;
        count -= (uint64_t)got < count ? (uint64_t)got : count;
        for (long i = 0; i < got; i++) {
            struct connection *c = (struct connection *)(uintptr_t)events[i].data;

            if (events[i].res <= 0) {
                fprintf(stderr, "a read answered %lld\n", (long long)events[i].res);
                exit(1);
            }
            c->is_reading = 0;
            c->ready = (long)events[i].res;
            send_on(c);
            if (c->wants_close)
                finish(c);
        }
    }
}

static void receive(struct connection *c) {
    for (;;) {
        size_t room = REQUEST_BYTES - c->received;
        ssize_t got = recv(c->socket, c->request + c->received, room, MSG_DONTWAIT);

        if (got < 0 && errno == EAGAIN)
            break;
        if (got <= 0) {
            c->wants_close = 1;
            break;
        }
        c->received += (size_t)got;
        c->request[c->received] = 0;
        /* Less than there was room for: no more is there, and an edge will tell of the next. */
        if ((size_t)got < room)
            break;
    }
    if (!c->wants_close)
        begin(c);
}

static void accept_all(int listener) {
    for (;;) {
        int one = 1, socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct connection *c;

        if (socket < 0)
            return;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c = calloc(1, sizeof *c);
        c->socket = socket, c->file = -1;
        struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
    }
}

static void stop(int number) {
    (void)number;
    _exit(0);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (argc != 3)
        return 64;
    if (syscall(SYS_io_setup, (long)REQUESTS, &context) != 0)
        fatal("io_setup");
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    folder = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 512) < 0)
        fatal("cannot serve");
    signal(SIGTERM, stop);
    printf("%d\n", getpid());
    fflush(stdout);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    notifier = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.ptr = &listener}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event = (struct epoll_event){EPOLLIN | EPOLLET, {.ptr = &notifier}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, notifier, &event);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);

        /* No handler returns here: an interrupted wait is somebody else's doing. */
        if (count < 0)
            fatal("epoll_wait");
        for (int i = 0; i < count; i++) {
            void *who = events[i].data.ptr;

            if (who == &listener) {
                accept_all(listener);
            } else if (who != &notifier) {
                struct connection *c = who;

                if (events[i].events & EPOLLIN)
                    receive(c);
                if (events[i].events & EPOLLOUT)
                    send_on(c);
                /* A read under way still names the connection: its event ends it. */
                if (c->wants_close && !c->is_reading)
                    finish(c);
            }
        }
        /* Last, so that a connection that ends here is not in this round's list. */
        reap();
    }
}

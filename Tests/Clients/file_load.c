/*
 * The other side of file_server.c:
 *
 *     file_load make FOLDER FILES BYTES          writes files whose contents their names tell
 *     file_load cold FOLDER FILES                drops them from the page cache
 *     file_load get PORT FILES BYTES CONNECTIONS fetches each once, on connections that are kept, and
 *                                                compares every byte; prints requests per second
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long files, bytes;
static int port;
static atomic_long next_file, failures;

/* No two files, and no two places of a file, have the same words. */
static void fill(uint64_t *words, long file) {
    for (long i = 0; i < bytes / 8; i++) {
        uint64_t z = ((uint64_t)file << 32 | (uint64_t)i) + 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        words[i] = z ^ (z >> 27);
    }
}

static void path_of(char *path, size_t room, const char *folder, long file) {
    snprintf(path, room, "%s/%05ld", folder, file);
}

static int make(const char *folder) {
    uint64_t *words = malloc((size_t)bytes);
    char path[512];

    for (long file = 0; file < files; file++) {
        path_of(path, sizeof path, folder, file);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        fill(words, file);
        if (fd < 0 || write(fd, words, (size_t)bytes) != bytes || fdatasync(fd) < 0)
            return perror(path), 1;
        close(fd);
    }
    free(words);
    return 0;
}

static int cold(const char *folder) {
    char path[512];

    for (long file = 0; file < files; file++) {
        path_of(path, sizeof path, folder, file);
        int fd = open(path, O_RDONLY);
        if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
            return perror(path), 1;
        close(fd);
    }
    return 0;
}

/* Receives a head and a body of `bytes` bytes. */
static int fetch(int socket, long file, char *got, const uint64_t *expected) {
    char request[128];
    int length = snprintf(request, sizeof request, "GET /%05ld HTTP/1.1\r\nHost: x\r\n\r\n", file);
    long received = 0, head = 0, stated = -1;

    if (send(socket, request, (size_t)length, MSG_NOSIGNAL) != length)
        return 0;
    while (head == 0 || received < head + bytes) {
        ssize_t part = recv(socket, got + received, (size_t)(bytes + 1024 - received), 0);
        char *end;

        if (part <= 0)
            return 0;
        received += part;
        got[received] = 0;
        if (head == 0 && (end = strstr(got, "\r\n\r\n"))) {
            head = end + 4 - got;
            if (sscanf(got, "HTTP/1.1 200 OK\r\nContent-Length: %ld", &stated) != 1 ||
                stated != bytes)
                return 0;
        }
    }
    return received == head + bytes && memcmp(got + head, expected, (size_t)bytes) == 0;
}

static void *client(void *unused) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, socket_fd = socket(AF_INET, SOCK_STREAM, 0);
    char *got = malloc((size_t)bytes + 1025);
    uint64_t *expected = malloc((size_t)bytes);
    long file;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(socket_fd, (struct sockaddr *)&address, sizeof address) < 0) {
        atomic_fetch_add(&failures, 1);
        return unused;
    }
    while ((file = atomic_fetch_add(&next_file, 1)) < files) {
        /* Spread over the disk, not in the order of creation. */
        long which = file * 7919 % files;

        fill(expected, which);
        if (!fetch(socket_fd, which, got, expected)) {
            fprintf(stderr, "file %ld came wrong or not at all\n", which);
            atomic_fetch_add(&failures, 1);
            break;
        }
    }
    close(socket_fd);
    free(got);
    free(expected);
    return unused;
}

static double seconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc >= 4) {
        files = atol(argv[3]);
        bytes = argc >= 5 ? atol(argv[4]) / 8 * 8 : 0;
        if (argc == 5 && strcmp(argv[1], "make") == 0)
            return make(argv[2]);
        if (argc == 4 && strcmp(argv[1], "cold") == 0)
            return cold(argv[2]);
    }
    if (argc != 6 || strcmp(argv[1], "get") != 0)
        return 64;
    port = atoi(argv[2]);
    int connections = atoi(argv[5]);
    pthread_t *threads = calloc((size_t)connections, sizeof *threads);
    double start = seconds();

    for (int i = 0; i < connections; i++)
        pthread_create(&threads[i], NULL, client, NULL);
    for (int i = 0; i < connections; i++)
        pthread_join(threads[i], NULL);
    printf("%.0f\n", (double)files / (seconds() - start));
    return atomic_load(&failures) != 0;
}

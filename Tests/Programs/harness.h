// What the test programs share: a table of cases, each run in a forked child with a time limit, and
// expectations that report what was expected and what came.
//
// A program prints one line per case (`ok NAME`, `FAIL NAME: …`, `skip NAME: reason`) and ends with
// 0 when nothing failed. `prog NAME…` runs only the named cases, `prog --list` names them, and
// `prog --here NAME` runs one in the program's own process, for a debugger or strace.

#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---- The table -----------------------------------------------------------------------------

struct test_case {
    const char *name;
    void (*run)(void);
    int seconds;              // time limit; 0 means DEFAULT_SECONDS
    const char *layer_only;   // why the kernel's own AIO cannot run it, or NULL
};

#define DEFAULT_SECONDS 20
#define CASE(function) {#function, function, 0, NULL}
#define SLOW_CASE(function, seconds) {#function, function, seconds, NULL}
#define LAYER_CASE(function, seconds, reason) {#function, function, seconds, reason}
#define RUN_CASES(argc, argv, table) run_cases(argc, argv, table, (int)(sizeof(table) / sizeof *(table)))

int run_cases(int argc, char **argv, const struct test_case *cases, int count);

// True when io_setup resolves to this project's library, false when to the system's libaio, judging by
// where the file lies. AIO_UNDER_TEST=kernel says so instead, and a library's path insists on that file,
// so that a library which could not be preloaded is not mistaken for one that passes.
bool on_layer(void);

// ---- Expectations --------------------------------------------------------------------------
// `expect…` records a mismatch and goes on; `must…` ends the case. Both work in any thread and in
// any descendant of the case, because the report lies in shared memory.

#define expect(got, want) expect_at(__FILE__, __LINE__, #got, (long)(got), (long)(want))
#define expect_either(got, one, other) \
    expect_either_at(__FILE__, __LINE__, #got, (long)(got), (long)(one), (long)(other))
#define expect_that(condition, ...) expect_that_at(__FILE__, __LINE__, (condition), __VA_ARGS__)
#define must(got, want) must_at(__FILE__, __LINE__, #got, (long)(got), (long)(want))
#define must_that(condition, ...) must_that_at(__FILE__, __LINE__, (condition), __VA_ARGS__)

void expect_at(const char *file, int line, const char *what, long got, long want);
void expect_either_at(const char *file, int line, const char *what, long got, long one, long other);
void expect_that_at(const char *file, int line, bool holds, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void must_at(const char *file, int line, const char *what, long got, long want);
void must_that_at(const char *file, int line, bool holds, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// Ends the case as skipped.
void skip_case(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

// Appends a remark to the case's line when it passes ("ok NAME (4100 signals)").
void remark(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- Files ---------------------------------------------------------------------------------
// Temporary files lie in one directory per program, under $TMPDIR or else the current directory,
// which must be on a disk for O_DIRECT and cold reads to mean anything.

#define BLOCK 4096

const char *temp_path(const char *name);

// Creates a file whose every 8-byte word is pattern_word(seed, offset), synced to disk.
int patterned_file(const char *name, uint64_t seed, size_t size);
uint64_t pattern_word(uint64_t seed, uint64_t offset);
void fill_pattern(void *buffer, uint64_t seed, uint64_t offset, size_t size);
bool has_pattern(const void *buffer, uint64_t seed, uint64_t offset, size_t size);

// Opens a temporary file with O_DIRECT, or skips the case where the file system refuses.
int open_direct(const char *name, int flags);

// Drops the file's pages from the page cache, as far as the file system allows.
void make_cold(int fd);

void *aligned(size_t size);

// ---- Requests ------------------------------------------------------------------------------

struct ring {
    unsigned id, nr, head, tail, magic, compat, incompat, header_length;
    struct io_event events[];
};

static inline struct ring *ring_of(io_context_t context) { return (struct ring *)context; }

io_context_t new_context(int events);

// Submits one request that must be taken.
void submit(io_context_t context, struct iocb *request);

// Waits for exactly `count` events, bounded in time.
void reap(io_context_t context, int count, struct io_event *events);

// Submits one request and returns its event's result, or the error of io_submit.
long run_one(io_context_t context, struct iocb *request);

// A context whose ring stays ours, for its first request was a buffered one, and whose program is known to
// call io_getevents. The file stays open: what is known of its descriptor is not for the next file.
io_context_t used_context(int events);

// libaio's wrapper peeks into the ring before it calls the kernel and crashes on some arguments
// that the kernel answers with an errno. On the reference these go straight to the kernel.
long call_io_getevents(
    io_context_t context, long min_nr, long nr, struct io_event *events, struct timespec *timeout);
long call_io_pgetevents(io_context_t context, long min_nr, long nr, struct io_event *events,
    struct timespec *timeout, sigset_t *mask);

unsigned possible_cpus(void);

// The kernel keeps free slots per CPU; on one CPU their number is exact.
void stay_on_one_cpu(void);

// Takes published events without reaping until the context is full, and then reaps them. A full ring
// is nr - 1 requests, or on the kernel that rounded down to its per-CPU batches.
void expect_all_slots(io_context_t context, int fd);

// ---- Ways to wait --------------------------------------------------------------------------
// Each takes one event, in its own manner; what io_getevents answered, or 0 when nothing came.

typedef long way_to_wait(io_context_t context, struct io_event *event);

way_to_wait by_waiting, by_waiting_for_more, by_polling, by_polling_without_time, by_slices,
    with_a_mask, by_reading_the_ring;

// ---- Odds and ends -------------------------------------------------------------------------

void start_thread(pthread_t *thread, void *(*body)(void *), void *argument);
void sleep_ms(int ms);
double now_seconds(void);
double processor_seconds(void);  // of all threads of the process
uint64_t next_random(uint64_t *state);
bool readable(int fd);

// Has a handler of SIGALRM, without SA_RESTART, called once after so many microseconds.
void handle_alarm_after(int microseconds, void (*handler)(int));

// Has such a handler fork. In it and its child, `forked_child` is what fork() answered.
extern pid_t forked_child;
void fork_in_handler_after(int microseconds);

// Waits for a child of the case, bounded in time, and returns its wait status.
int wait_for(pid_t child, int seconds);

// Expects that the child ended by itself with 0.
#define expect_clean_exit(child, seconds) expect_that(wait_for(child, seconds) == 0, "child failed")

// Descriptors up to `count` must be allowed: raises the soft limit, or skips the case.
void need_descriptors(int count);

// Number of this process's threads whose name begins with `prefix`.
int threads_named(const char *prefix);

// The number of one of them, or 0.
int thread_named(const char *prefix);

#define KERNEL_HALF ((void *)0xffff800000000000ul)

#endif

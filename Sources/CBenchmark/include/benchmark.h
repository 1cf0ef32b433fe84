/*
 * What the benchmark needs from C: the clock and the ring without a call in between, the kernel's
 * AIO without a library, the page cache's residents, and a tracer that counts system calls.
 *
 * Calls that can fail return a negated errno.
 */
#ifndef BENCHMARK_H
#define BENCHMARK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <libaio_abi.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <time.h>

struct benchmark_slot {
    struct iocb iocb; /* first: the event's obj is the slot's address */
    uint64_t buffer;
    uint64_t start_ns; /* when io_submit was called for it; 0 where nobody wants to know */
};

static inline uint64_t benchmark_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Moves at most `most` events from the ring at `context` to `events`, as programs do that do not
 * call io_getevents.
 */
static inline uint32_t benchmark_take(uintptr_t context, struct io_event *events, uint32_t most)
{
    struct aio_ring *ring = (struct aio_ring *)context;
    const struct io_event *ring_events = (const struct io_event *)(ring + 1);
    uint32_t head = ring->head;
    /* Pairs with the release of whoever stored the tail after the events. */
    uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    uint32_t count = 0;

    while (head != tail && count < most) {
        events[count++] = ring_events[head];
        head = head + 1 == ring->nr ? 0 : head + 1;
    }
    /* The events are copied before their places are given away. */
    __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
    return count;
}

/* The kernel's AIO where there is no libaio. */
int benchmark_raw_setup(int maxevents, uintptr_t *context);
int benchmark_raw_destroy(uintptr_t context);
int benchmark_raw_submit(uintptr_t context, long count, struct iocb **list);
int benchmark_raw_getevents(uintptr_t context, long least, long most, struct io_event *events,
                            struct timespec *timeout);

/* Bytes of the file's first `bytes` that are in the page cache. */
ssize_t benchmark_resident_bytes(int fd, size_t bytes);

/* A signal when the thread that started this process ends, so that it ends as well. */
void benchmark_die_with_parent(void);

/* ---- Counting system calls ---- */

enum { BENCHMARK_CALLS_MAX = 512 };

struct benchmark_calls {
    uint64_t count[BENCHMARK_CALLS_MAX]; /* by number */
};

/* In the traced process: what is called between the two is counted. */
void benchmark_mark(int begins);

/*
 * Traces `child`, which stops itself by SIGSTOP first, until it ends, and counts the calls of all
 * of its threads between its marks; its wait status. Asks `is_interrupted` now and then, and kills the child then:
 * -EINTR.
 */
int benchmark_trace(pid_t child, struct benchmark_calls *calls, int (*is_interrupted)(void *),
                    void *argument);

#endif

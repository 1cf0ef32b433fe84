/*
 * What the layer counts, for readers outside the process.
 *
 * The block is one page of private memory, named by the file that it was mapped from: in
 * /proc/PID/maps its line ends in "/memfd:ioctx (deleted)". Read it, and the records of the contexts
 * to which it leads, from /proc/PID/mem. It exists from the first io_setup or POSIX AIO request on.
 * A forked child does not have its parent's, and makes its own at its own first call.
 *
 * Every number is written by relaxed atomic stores. A counter only grows, but for `daemon`, which has an
 * fsync that io_submit refuses for that moment; a gauge says how many there are now, and how many there
 * were at most. A request is counted by its path before it can be counted as finished, so whoever reads
 * `finished` first never finds more finished than made.
 *
 * Counters.swift and Context.swift lay their records out in this way; JobTableTests and LinuxAIOTests
 * compare them with this header.
 */
#ifndef IOCTX_COUNTERS_H
#define IOCTX_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/* "ioctxcnt" in memory; stored last, when the rest of the block is valid. */
#define IOCTX_COUNTERS_MAGIC 0x746e637874636f69
/* Counts up when a field changes its place or its meaning. */
enum { IOCTX_COUNTERS_VERSION = 1 };
#define IOCTX_COUNTERS_NAME "ioctx"

struct ioctx_gauge {
    uint64_t now;
    uint64_t most;
};

/* Accepted requests of Linux AIO by their path, and what became of them. */
struct ioctx_linux_counts {
    uint64_t inlined;   /* done in io_submit; they are finished, too */
    uint64_t readiness; /* left to wait for a pipe, socket, terminal or POLL */
    uint64_t daemon;    /* left to a daemon, or to the kernel's AIO beside others (num_buf_aio); or done in
                         * io_submit, when neither could be reached */
    uint64_t adopted;   /* taken by the kernel, on its own ring; it does not tell which are finished */
    uint64_t finished;  /* of `readiness` and `daemon`: their event is there, or about to be */
    uint64_t cancelled; /* of the finished: taken back or ended by io_cancel or io_destroy */
};

enum {
    IOCTX_CONTEXT_DYING = 1,   /* io_destroy was called */
    IOCTX_CONTEXT_ADOPTED = 2, /* the ring is the kernel's */
    IOCTX_CONTEXT_FRESH = 4,   /* may still become the kernel's: no io_submit yet */
};

/* The beginning of a context's record. */
struct ioctx_context_counts {
    uint64_t address;  /* the context's name; 0: the record is free */
    uint32_t events;   /* io_setup's argument */
    uint8_t state;     /* IOCTX_CONTEXT_* */
    uint8_t unused[3];
    struct ioctx_linux_counts counts; /* written under the context's lock, but for `adopted` */
};

struct ioctx_counters {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /* of this struct */
    int32_t pid;    /* in the process's own PID namespace */

    /* The effective limits: Limits.swift. */
    uint32_t max_aio_procs;
    uint32_t target_aio_procs;
    uint32_t max_aio_queue_per_proc;
    uint32_t max_buf_aio;
    uint32_t aiod_lifetime;
    uint32_t aiod_timeout;
    uint32_t aio_max_nr;

    /* The contexts' records: `contexts_used` of them were ever used. 0 without Linux AIO. */
    uint64_t contexts_address;
    uint32_t contexts_stride;
    uint32_t contexts_used;

    /* Contexts that io_setup made and io_destroy has not ended, and the sum of their events. */
    struct ioctx_gauge contexts;
    struct ioctx_gauge aio_nr;
    /* Odd while the counts of a context that is gone move to `gone`: whoever finds it odd, or
     * changed since he began to read, reads again. It is read before everything else and, by a read
     * of its own, after everything else. */
    uint64_t moves;
    uint64_t linux_eagain; /* calls of io_submit that answered EAGAIN */
    uint64_t unused[2];

    /* What contexts counted that are gone: all of Linux AIO is this and the records. */
    struct ioctx_linux_counts gone;
    /* The daemons, of all kinds, and the threads that call the program's functions. */
    struct ioctx_gauge daemons;

    /* The ancestor's names. Workers among the daemons. */
    struct ioctx_gauge num_aio_procs;
    /* Jobs in the table: requests left to readiness, a daemon or the kernel's AIO, from before they
     * are counted by their path until after they are finished; and one or two for each thread asleep
     * in io_pgetevents, one for each list with an eventfd. */
    struct ioctx_gauge num_queue_count;
    /* Requests that share one context of the kernel's: direct ones, and an fsync that is alone. */
    struct ioctx_gauge num_buf_aio;
    uint64_t unused_too[2];

    /* Accepted requests of POSIX AIO. */
    uint64_t posix_inlined;   /* done in the call; they are finished, too */
    uint64_t posix_readiness; /* as above */
    uint64_t posix_daemon;    /* as above */
    uint64_t posix_native;    /* left to the kernel's AIO */
    uint64_t posix_finished;  /* of those not done in the call: told to be done, or about to be */
    uint64_t posix_cancelled; /* of the finished: by aio_cancel */
    uint64_t posix_eagain;    /* requests, or whole calls of lio_listio, refused with EAGAIN */
};

_Static_assert(sizeof(struct ioctx_context_counts) == 64, "one cache line for each context");
_Static_assert(offsetof(struct ioctx_counters, contexts_address) == 48, "no holes");
_Static_assert(offsetof(struct ioctx_counters, contexts) == 64, "a line for the Linux face's lock");
_Static_assert(offsetof(struct ioctx_counters, gone) == 128, "a line for contexts that end");
_Static_assert(offsetof(struct ioctx_counters, num_aio_procs) == 192, "a line for the job table");
_Static_assert(offsetof(struct ioctx_counters, posix_inlined) == 256, "a line for POSIX AIO");
_Static_assert(sizeof(struct ioctx_counters) == 312, "version 1");

#endif

/*
 * The binary interface of libaio 0.3.113 and of the kernel's aio_ring.
 *
 * struct iocb is written without the unions of <libaio.h>, so that Swift sees plain fields;
 * libaio_abi.c pins every size and offset against <linux/aio_abi.h>.
 */
#ifndef LIBAIO_ABI_H
#define LIBAIO_ABI_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

/* The address of the program's view of an aio_ring; never dereferenced through this type. */
typedef struct io_context *io_context_t;

/* One request, 64 bytes. Read once, in io_submit; the kernel's field names. */
struct iocb {
    uint64_t aio_data;       /* handed back in the event */
    uint32_t aio_key;        /* 0 after io_submit, checked by io_cancel */
    int32_t aio_rw_flags;    /* RWF_* */
    uint16_t aio_lio_opcode; /* IOCB_CMD_* */
    int16_t aio_reqprio;     /* an ioprio value, used with IOCB_FLAG_IOPRIO */
    int32_t aio_fildes;
    uint64_t aio_buf;        /* buffer, iovec array, or poll events */
    uint64_t aio_nbytes;     /* bytes, or number of iovecs */
    int64_t aio_offset;
    uint64_t aio_reserved2;  /* must be 0 */
    uint32_t aio_flags;      /* IOCB_FLAG_* */
    int32_t aio_resfd;       /* eventfd, used with IOCB_FLAG_RESFD */
};

enum {
    IOCTX_AIO_KEY_OFFSET = offsetof(struct iocb, aio_key),
    /* Of aio_buf and aio_nbytes, which lie as a struct iovec does. */
    IOCTX_AIO_BUF_OFFSET = offsetof(struct iocb, aio_buf),
};

/* One completion, 32 bytes. */
struct io_event {
    uint64_t data;
    uint64_t obj;
    int64_t res;
    int64_t res2;
};

/* The ring that programs read themselves: fs/aio.c, struct aio_ring; events follow the header. */
struct aio_ring {
    uint32_t id;
    uint32_t nr;   /* number of io_event slots */
    uint32_t head; /* written by whoever consumes, the program included */
    uint32_t tail; /* written by the layer only */
    uint32_t magic;
    uint32_t compat_features;
    uint32_t incompat_features;
    uint32_t header_length;
};

enum {
    AIO_RING_MAGIC = 0xa10a10a1u,
    AIO_RING_COMPAT_FEATURES = 1,
    AIO_RING_INCOMPAT_FEATURES = 0,
};

enum {
    IOCB_CMD_PREAD = 0,
    IOCB_CMD_PWRITE = 1,
    IOCB_CMD_FSYNC = 2,
    IOCB_CMD_FDSYNC = 3,
    IOCB_CMD_POLL = 5,
    IOCB_CMD_PREADV = 7,
    IOCB_CMD_PWRITEV = 8,

    IOCB_FLAG_RESFD = 1,
    IOCB_FLAG_IOPRIO = 2,
};

typedef void (*io_callback_t)(io_context_t context, struct iocb *iocb, long res, long res2);

int io_setup(int maxevents, io_context_t *contextp);
int io_destroy(io_context_t context);
int io_submit(io_context_t context, long nr, struct iocb **iocbpp);
int io_cancel(io_context_t context, struct iocb *iocb, struct io_event *result);
int io_getevents(io_context_t context, long min_nr, long nr, struct io_event *events,
                 struct timespec *timeout);
int io_pgetevents(io_context_t context, long min_nr, long nr, struct io_event *events,
                  struct timespec *timeout, sigset_t *sigmask);
int io_queue_init(int maxevents, io_context_t *contextp);
int io_queue_release(io_context_t context);
int io_queue_run(io_context_t context);
int io_queue_wait(io_context_t context, struct timespec *timeout);

/* What the thunks of the double-versioned names in versioned.c call. */
int ioctx_cancel(io_context_t context, struct iocb *iocb, struct io_event *result);
int ioctx_getevents(io_context_t context, long min_nr, long nr, struct io_event *events,
                    struct timespec *timeout);

/* The system call io_pgetevents, whose last argument points to a mask's address and size. */
int ioctx_pgetevents(io_context_t context, long min_nr, long nr, struct io_event *events,
                     struct timespec *timeout, const void *sigset);

/* Calls the io_callback_t in the event's data, which Swift cannot spell from an integer. */
static inline void ioctx_run_callback(io_context_t context, const struct io_event *event)
{
    ((io_callback_t)(uintptr_t)event->data)(context, (struct iocb *)(uintptr_t)event->obj,
                                            event->res, event->res2);
}

/* Awaits accepted writes when the process exits; called by the destructor in versioned.c. */
void ioctx_rundown(void);

#endif

/*
 * The three names that libaio exports in two versions, LIBAIO_0.1 and LIBAIO_0.4.
 *
 * Only C can attach symbol versions (.symver), and only when both versions are thunks do all
 * linkers keep both. Outside the drop-in the 0.4 functions are exported under their plain names.
 */
#include "libaio_abi.h"

#ifdef IOCTX_DROPIN
#define VERSIONED(alias, name) __asm__(".symver " #alias "," #name)
#define NAME(name) name##_0_4
#else
#define VERSIONED(alias, name)
#define NAME(name) name
#endif

int NAME(io_cancel)(io_context_t context, struct iocb *iocb, struct io_event *result)
{
    return ioctx_cancel(context, iocb, result);
}

int NAME(io_getevents)(io_context_t context, long min_nr, long nr, struct io_event *events,
                       struct timespec *timeout)
{
    return ioctx_getevents(context, min_nr, nr, events, timeout);
}

/* libaio's io_queue_wait asks for no event at all, so it never waits. */
int NAME(io_queue_wait)(io_context_t context, struct timespec *timeout)
{
    return ioctx_getevents(context, 0, 0, 0, timeout);
}

#ifdef IOCTX_DROPIN
VERSIONED(io_cancel_0_4, io_cancel@@LIBAIO_0.4);
VERSIONED(io_getevents_0_4, io_getevents@@LIBAIO_0.4);
VERSIONED(io_queue_wait_0_4, io_queue_wait@@LIBAIO_0.4);

int io_cancel_0_1(io_context_t context, struct iocb *iocb);
int io_getevents_0_1(io_context_t context, long nr, struct io_event *events,
                     const struct timespec *timeout);
int io_queue_wait_0_1(io_context_t context, const struct timespec *timeout);

/* The 0.1 io_cancel has no result argument and discards the event. */
int io_cancel_0_1(io_context_t context, struct iocb *iocb)
{
    struct io_event event;

    return ioctx_cancel(context, iocb, &event);
}
VERSIONED(io_cancel_0_1, io_cancel@LIBAIO_0.1);

/* The 0.1 io_getevents has no min_nr: it waits for one event. */
int io_getevents_0_1(io_context_t context, long nr, struct io_event *events,
                     const struct timespec *timeout)
{
    return ioctx_getevents(context, 1, nr, events, (struct timespec *)timeout);
}
VERSIONED(io_getevents_0_1, io_getevents@LIBAIO_0.1);

int io_queue_wait_0_1(io_context_t context, const struct timespec *timeout)
{
    return ioctx_getevents(context, 0, 0, 0, (struct timespec *)timeout);
}
VERSIONED(io_queue_wait_0_1, io_queue_wait@LIBAIO_0.1);
#endif

/* exit() runs this; _exit(), exec and signals end the process without it. */
__attribute__((destructor)) static void run_down(void)
{
    ioctx_rundown();
}

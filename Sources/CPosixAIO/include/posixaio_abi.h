/*
 * What the POSIX AIO face needs from C: the names and their versions (exports.c), and what only
 * the C library can do with a thread.
 *
 * The functions of the face return a value or a negated errno; exports.c turns that into -1 and
 * errno.
 */
#ifndef POSIXAIO_ABI_H
#define POSIXAIO_ABI_H

#include <stddef.h>
#include <stdint.h>

/* The C library's values, which Swift does not see through its macros. */
enum {
    IOCTX_LIO_READ = 0,
    IOCTX_LIO_WRITE = 1,
    IOCTX_LIO_NOP = 2,
    IOCTX_LIO_WAIT = 0,
    IOCTX_LIO_NOWAIT = 1,
    IOCTX_AIO_CANCELED = 0,
    IOCTX_AIO_NOTCANCELED = 1,
    IOCTX_AIO_ALLDONE = 2,
    IOCTX_AIO_PRIO_DELTA_MAX = 20,
    IOCTX_SIGEV_SIGNAL = 0,
    IOCTX_SIGEV_NONE = 1,
    IOCTX_SIGEV_THREAD = 2,
    IOCTX_SIGEV_EVENTFD = 0x65766664,
    IOCTX_SI_ASYNCIO = -4,
    /* Of the `which` argument of ioctx_aio_start. */
    IOCTX_AIO_READ = 0,
    IOCTX_AIO_WRITE = 1,
    IOCTX_AIO_READV = 2,
    IOCTX_AIO_WRITEV = 3,
};

/* The offsets in struct aiocb, for the test that pins the layout. */
extern const size_t ioctx_aiocb_offsets[11];

/* ---- Implemented by the face (LibPosixAIO) ---- */
int ioctx_aio_start(void *block, int which);
int ioctx_aio_fsync(int operation, void *block);
int ioctx_aio_error(const void *block);
intptr_t ioctx_aio_return(void *block);
int ioctx_aio_suspend(const void *list, int count, const void *timeout);
int ioctx_aio_cancel(int descriptor, void *block);
intptr_t ioctx_aio_waitcomplete(void *block, const void *timeout);
int ioctx_lio_listio(int mode, const void *list, int count, const void *event,
                     int individually);
/*
 * Awaits accepted writes when the process exits; called by the destructor in exports.c, whose frame is at
 * `frame`.
 */
void ioctx_posix_rundown(uintptr_t frame);

/* ---- Threads (threads.c) ---- */

/*
 * Calls the function of a SIGEV_THREAD with no signal blocked. `leave(argument)` is called when
 * the function ends the thread (pthread_exit, pthread_cancel) instead of returning.
 */
void ioctx_call_notification(uintptr_t function, uintptr_t value, void (*leave)(void *),
                             void *argument);

/* Room for a pthread_attr_t. */
enum { IOCTX_ATTRIBUTES_BYTES = 64 };

/*
 * Makes a copy of the program's thread attributes at `to`: they are the program's again before the thread is
 * made. 0 or a positive errno. The copy's signal mask is the default: a function runs with no signal blocked.
 */
int ioctx_copy_attributes(uintptr_t to, uintptr_t from);

/* Ends a copy. */
void ioctx_drop_attributes(uintptr_t copy);

/* Calls it in a thread of its own with such attributes. 0 or a positive errno. */
int ioctx_notify_in_thread(uintptr_t function, uintptr_t value, uintptr_t attributes);

#endif

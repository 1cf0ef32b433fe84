/*
 * The names of POSIX AIO. Each name of the C library's is there for both sizes of off_t, which
 * are one on 64-bit machines, and in two versions: the present one, given by the version script,
 * and that of the time when librt had it, given here.
 *
 * Only in the drop-in: the tool and the tests have no use for names that hide the C library's.
 * The parameters are untyped, for <aio.h> declares the names with types of its own.
 */
#ifdef IOCTX_DROPIN
#include "posixaio_abi.h"
#include "system.h"

#include <errno.h>
#include <pthread.h>

static inline intptr_t answer(intptr_t result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

/*
 * The same for a call in which the thread may have been ended: see system.h. That goes on here, in the
 * frame that the program has called.
 */
static inline intptr_t answer_or_end(intptr_t result)
{
    if (result == -IOCTX_THREAD_CANCELLED) {
        __pthread_unwind_buf_t here;

        __pthread_register_cancel(&here);
        __pthread_unwind_next(&here);
    }
    return answer(result);
}

/*
 * <aio.h> says that it throws nothing, so it is no cancellation point. Since glibc 2.41 a thread gets
 * pthread_cancel's signal unless it has disabled that, and it would interrupt the wait.
 */
static int list(int mode, const void *blocks, int count, const void *event, int individually)
{
    int state, result;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    result = (int)answer(ioctx_lio_listio(mode, blocks, count, event, individually));
    pthread_setcancelstate(state, NULL);
    return result;
}

#define ALIAS(other, name) extern __typeof__(name) other __attribute__((alias(#name)))
#define VERSION(other, name, version) __asm__(".symver " #other "," #name "@" version)
#define OLD(name, of, version)                                                               \
    ALIAS(name##_old, of);                                                                   \
    VERSION(name##_old, name, version)
#define BOTH_SIZES(name)                                                                     \
    ALIAS(name##64, name);                                                                   \
    OLD(name, name, "GLIBC_2.2.5");                                                          \
    OLD(name##64, name, "GLIBC_2.2.5")

int aio_read(void *block)
{
    return (int)answer(ioctx_aio_start(block, IOCTX_AIO_READ));
}
BOTH_SIZES(aio_read);

int aio_write(void *block)
{
    return (int)answer(ioctx_aio_start(block, IOCTX_AIO_WRITE));
}
BOTH_SIZES(aio_write);

int aio_readv(void *block)
{
    return (int)answer(ioctx_aio_start(block, IOCTX_AIO_READV));
}

int aio_writev(void *block)
{
    return (int)answer(ioctx_aio_start(block, IOCTX_AIO_WRITEV));
}

int aio_fsync(int operation, void *block)
{
    return (int)answer(ioctx_aio_fsync(operation, block));
}
BOTH_SIZES(aio_fsync);

/* The request's own errno is the value; one of this call is told by -1. */
int aio_error(const void *block)
{
    return (int)answer(ioctx_aio_error(block));
}
BOTH_SIZES(aio_error);

intptr_t aio_return(void *block)
{
    intptr_t result = ioctx_aio_return(block);

    /* A failed request is no failure of this call: errno stays. */
    return result == -1 ? -1 : answer(result);
}
BOTH_SIZES(aio_return);

int aio_suspend(const void *list, int count, const void *timeout)
{
    return (int)answer_or_end(ioctx_aio_suspend(list, count, timeout));
}
BOTH_SIZES(aio_suspend);

int aio_cancel(int descriptor, void *block)
{
    return (int)answer(ioctx_aio_cancel(descriptor, block));
}
BOTH_SIZES(aio_cancel);

intptr_t aio_waitcomplete(void *block, const void *timeout)
{
    return answer_or_end(ioctx_aio_waitcomplete(block, timeout));
}

int lio_listio(int mode, const void *blocks, int count, const void *event)
{
    return list(mode, blocks, count, event, 1);
}
ALIAS(lio_listio64, lio_listio);
OLD(lio_listio, lio_listio, "GLIBC_2.4");
OLD(lio_listio64, lio_listio, "GLIBC_2.4");

/* Before 2.4 the requests of a list gave no notification of their own. */
int lio_listio_2_2(int mode, const void *blocks, int count, const void *event)
{
    return list(mode, blocks, count, event, 0);
}
ALIAS(lio_listio64_2_2, lio_listio_2_2);
VERSION(lio_listio_2_2, lio_listio, "GLIBC_2.2.5");
VERSION(lio_listio64_2_2, lio_listio64, "GLIBC_2.2.5");

/* Hints for the C library's threads, of which there are none. */
void aio_init(const void *hints)
{
    (void)hints;
}
OLD(aio_init, aio_init, "GLIBC_2.2.5");

/* exit() runs this; _exit(), exec and signals end the process without it. */
__attribute__((destructor)) static void run_down(void)
{
    ioctx_posix_rundown((uintptr_t)__builtin_frame_address(0));
}
#endif

/*
 * POSIX AIO beyond the C library's <aio.h>: what this implementation adds to it.
 *
 * Link with -lposixaio, or run the program with libioctx.so preloaded. Everything that <aio.h>
 * declares comes from the same library.
 */
#ifndef POSIXAIO_H
#define POSIXAIO_H

#include <aio.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A value for sigev_notify: the completion adds 1 to the eventfd whose descriptor is in
 * sigev_value.sival_int. In an epoll set, one wait covers sockets and AIO. The request fails with
 * EBADF or EINVAL when the descriptor is not open or is no eventfd.
 */
#define SIGEV_EVENTFD 0x65766664

/* The fields of struct aiocb as aio_readv and aio_writev take them (FreeBSD's names). */
#define aio_iov aio_buf      /* address of an array of struct iovec, copied at the call */
#define aio_iovcnt aio_nbytes /* its length, at most 1024 */

/* As aio_read and aio_write, with an array of buffers. */
int aio_readv(struct aiocb *iocb);
int aio_writev(struct aiocb *iocb);

/*
 * Waits for a request that is done and has not been collected by aio_return or this function,
 * and collects it: those done first come first. Returns what aio_return would, and sets *iocbp
 * to the request; -1 and errno is the request's own error if *iocbp is not NULL, else EAGAIN
 * (nothing within `timeout`, or no request was ever made), EINTR or EINVAL. Without a timeout
 * (NULL) it waits for ever. Of requests that nobody collects, the last 16384 are remembered.
 */
ssize_t aio_waitcomplete(struct aiocb **iocbp, const struct timespec *timeout);

#ifdef __cplusplus
}
#endif

#endif

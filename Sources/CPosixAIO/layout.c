/* Pins what Swift believes of struct aiocb and of the C library's constants. */
#define _GNU_SOURCE
#include <aio.h>
#include <signal.h>

#include "posixaio_abi.h"

_Static_assert(sizeof(struct aiocb) == 168 && sizeof(struct aiocb64) == 168, "struct aiocb");
_Static_assert((int)LIO_READ == IOCTX_LIO_READ && (int)LIO_WRITE == IOCTX_LIO_WRITE &&
                   (int)LIO_NOP == IOCTX_LIO_NOP && (int)LIO_WAIT == IOCTX_LIO_WAIT &&
                   (int)LIO_NOWAIT == IOCTX_LIO_NOWAIT,
               "lio_listio's values");
_Static_assert((int)AIO_CANCELED == IOCTX_AIO_CANCELED &&
                   (int)AIO_NOTCANCELED == IOCTX_AIO_NOTCANCELED &&
                   (int)AIO_ALLDONE == IOCTX_AIO_ALLDONE,
               "aio_cancel's values");
_Static_assert((int)SIGEV_SIGNAL == IOCTX_SIGEV_SIGNAL &&
                   (int)SIGEV_NONE == IOCTX_SIGEV_NONE &&
                   (int)SIGEV_THREAD == IOCTX_SIGEV_THREAD &&
                   (int)SI_ASYNCIO == IOCTX_SI_ASYNCIO,
               "the notifications");

#define AT(field) offsetof(struct aiocb, field)

const size_t ioctx_aiocb_offsets[11] = {
    AT(aio_fildes),
    AT(aio_lio_opcode),
    AT(aio_reqprio),
    AT(aio_buf),
    AT(aio_nbytes),
    AT(aio_sigevent),
    AT(__next_prio),
    AT(__abs_prio),
    AT(__error_code),
    AT(__return_value),
    AT(aio_offset),
};

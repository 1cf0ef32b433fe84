/* Pins the layouts of libaio_abi.h and of the Swift-visible records to the kernel's headers. */
#define iocb kernel_iocb
#define io_event kernel_io_event
#include <linux/aio_abi.h>
#undef iocb
#undef io_event
enum {
    KERNEL_PREADV = IOCB_CMD_PREADV,
    KERNEL_PWRITEV = IOCB_CMD_PWRITEV,
    KERNEL_POLL = IOCB_CMD_POLL,
    KERNEL_IOPRIO = IOCB_FLAG_IOPRIO,
};
/* The kernel has its flags as macros; ours of the same names are constants that Swift sees. */
#undef IOCB_FLAG_RESFD
#undef IOCB_FLAG_IOPRIO
#define IOCB_CMD_PREAD OURS_PREAD
#define IOCB_CMD_PWRITE OURS_PWRITE
#define IOCB_CMD_FSYNC OURS_FSYNC
#define IOCB_CMD_FDSYNC OURS_FDSYNC
#define IOCB_CMD_POLL OURS_POLL
#define IOCB_CMD_PREADV OURS_PREADV
#define IOCB_CMD_PWRITEV OURS_PWRITEV
#include "libaio_abi.h"

_Static_assert((int)OURS_PREADV == KERNEL_PREADV && (int)OURS_PWRITEV == KERNEL_PWRITEV &&
                   (int)OURS_POLL == KERNEL_POLL && IOCB_FLAG_IOPRIO == KERNEL_IOPRIO,
               "opcodes and flags");

#define SAME(field)                                                                        \
    _Static_assert(offsetof(struct iocb, field) == offsetof(struct kernel_iocb, field),   \
                   "struct iocb differs from the kernel's in " #field)

_Static_assert(sizeof(struct iocb) == 64 && sizeof(struct kernel_iocb) == 64, "iocb size");
_Static_assert(sizeof(struct io_event) == 32 && sizeof(struct kernel_io_event) == 32,
               "io_event size");
_Static_assert(sizeof(struct aio_ring) == 32, "aio_ring header size");
SAME(aio_data);
SAME(aio_key);
SAME(aio_rw_flags);
SAME(aio_lio_opcode);
SAME(aio_reqprio);
SAME(aio_fildes);
SAME(aio_buf);
SAME(aio_nbytes);
SAME(aio_offset);
SAME(aio_reserved2);
SAME(aio_flags);
SAME(aio_resfd);

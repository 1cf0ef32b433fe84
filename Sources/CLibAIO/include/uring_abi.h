/*
 * The part of io_uring's interface that the daemon uses, with numbers of its own so that the
 * layer builds against older kernel headers. Source: include/uapi/linux/io_uring.h.
 */
#ifndef IOCTX_URING_ABI_H
#define IOCTX_URING_ABI_H

#include <stdint.h>

/* A submission entry without its unions: each name is what the layer stores there. */
struct uring_sqe {
    uint8_t opcode;
    uint8_t flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t offset;      /* file offset; MSG_RING: the target's user_data; FUTEX: value */
    uint64_t address;     /* buffer, iovecs, or command */
    uint32_t length;
    uint32_t op_flags;    /* rw_flags, fsync_flags, poll events, cancel flags, msg_ring flags */
    uint64_t user_data;
    uint16_t buffer_index;
    uint16_t personality;
    uint32_t file_index;  /* MSG_RING: target slot + 1; CLOSE: slot + 1 */
    uint64_t address3;    /* MSG_RING: source slot; FUTEX: mask */
    uint64_t pad;
};
_Static_assert(sizeof(struct uring_sqe) == 64, "io_uring_sqe is 64 bytes");

struct uring_cqe {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
};

struct uring_sq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
    uint64_t user_address;
};

struct uring_cq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
    uint64_t user_address;
};

struct uring_params {
    uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
    uint32_t resv[3];
    struct uring_sq_offsets sq;
    struct uring_cq_offsets cq;
};
_Static_assert(sizeof(struct uring_params) == 120, "io_uring_params is 120 bytes");

struct uring_wait_argument {
    uint64_t sigmask;
    uint32_t sigmask_size;
    uint32_t min_wait_us;
    uint64_t timespec;
};

/* io_uring_register(FILES_UPDATE) and (RING_FDS) */
struct uring_files_update {
    uint32_t offset, resv;
    uint64_t fds;
};

struct uring_resource_register {
    uint32_t nr, flags;
    uint64_t resv2, data, tags;
};

struct uring_resource_update {
    uint32_t offset, resv;
    uint64_t data;
};

struct uring_probe_op {
    uint8_t op, resv;
    uint16_t flags;
    uint32_t resv2;
};

struct uring_probe {
    uint8_t last_op, ops_len;
    uint16_t resv;
    uint32_t resv2[3];
    struct uring_probe_op ops[64];
};

enum {
    URING_SETUP_CQSIZE = 1u << 3,
    URING_SETUP_CLAMP = 1u << 4,
    URING_SETUP_SUBMIT_ALL = 1u << 7,
    URING_SETUP_SINGLE_ISSUER = 1u << 12,
    URING_SETUP_DEFER_TASKRUN = 1u << 13,

    URING_FEATURE_SINGLE_MMAP = 1u << 0,

    URING_ENTER_GETEVENTS = 1u << 0,
    URING_ENTER_EXT_ARG = 1u << 3,
    URING_ENTER_REGISTERED_RING = 1u << 4,

    URING_UNREGISTER_FILES = 3,
    URING_REGISTER_FILES_UPDATE = 6,
    URING_REGISTER_PROBE = 8,
    URING_REGISTER_FILES2 = 13,
    URING_REGISTER_IOWQ_MAX_WORKERS = 19,
    URING_REGISTER_RING_FDS = 20,
    URING_RESOURCE_REGISTER_SPARSE = 1,

    URING_OP_NOP = 0,
    URING_OP_READV = 1,
    URING_OP_WRITEV = 2,
    URING_OP_FSYNC = 3,
    URING_OP_POLL_ADD = 6,
    URING_OP_ASYNC_CANCEL = 14,
    URING_OP_CLOSE = 19,
    URING_OP_READ = 22,
    URING_OP_WRITE = 23,
    URING_OP_MSG_RING = 40,
    URING_OP_FUTEX_WAIT = 51,
    URING_OP_FIXED_FD_INSTALL = 54,

    URING_SQE_FIXED_FILE = 1u << 0,
    URING_SQE_ASYNC = 1u << 4,
    URING_FSYNC_DATASYNC = 1u << 0,
    URING_POLL_ADD_MULTI = 1u << 0,
    URING_CQE_MORE = 1u << 1,
    URING_MSG_SEND_FD = 1,
    URING_MSG_CQE_SKIP = 1u << 0,
    URING_OP_SUPPORTED = 1u << 0,

    URING_OFFSET_SQ_RING = 0,
    URING_OFFSET_SQES = 0x10000000,

    FUTEX2_SIZE_U32_PRIVATE = 0x02 | 128,
};

/* Apart, so that the others stay signed in Swift. */
enum { URING_REGISTER_BY_HANDLE = 1u << 31 };

#endif

/*
 * The filter, and its installation when the program starts.
 *
 * A filter cannot be taken back: it survives fork and exec, and so reaches programs that have no
 * handler. It traps the six numbers, whatever address they come from, for addresses move at exec;
 * the layer's own calls are told by their sixth argument, which five of the calls do not use.
 * (io_pgetevents uses it. The layer does not make that call under a filter.)
 */
#include "trap.h"

#include "../CLibAIO/include/system.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + 4)
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define IF_LESS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(value), no, yes)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)

_Static_assert(SYS_io_cancel - SYS_io_setup == 4, "five of the numbers are one range");

static struct sock_filter instructions[] = {
    /*  0 */ LOAD(arch),
    /*  1 */ IF_EQUAL(AUDIT_ARCH_X86_64, 0, 9),
    /*  2 */ LOAD(nr),
    /*  3 */ IF_EQUAL(SYS_io_pgetevents, 2, 0),
    /*  4 */ IF_LESS(SYS_io_setup, 6, 0),
    /*  5 */ IF_LESS(SYS_io_cancel + 1, 0, 5),
    /*  6 */ LOAD(args[5]),
    /*  7 */ IF_EQUAL(IOCTX_EXEMPT & 0xffffffff, 0, 2),
    /*  8 */ LOAD_HIGH(args[5]),
    /*  9 */ IF_EQUAL((uint64_t)IOCTX_EXEMPT >> 32, 1, 0),
    /* 10 */ RETURN(SECCOMP_RET_TRAP | TRAP_DATA),
    /* 11 */ RETURN(SECCOMP_RET_ALLOW),
};

static void make_a_call(void *unused)
{
    uint64_t traps = UINT64_C(1) << (SIGSYS - 1);

    (void)unused;
    ioctx_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (intptr_t)&traps, 0, 8, 0, 0);
    ioctx_syscall(SYS_io_destroy, 0, 0, 0, 0, 0, 0);
    ioctx_syscall(SYS_exit_group, traps_seen != 0, 0, 0, 0, 0, 0);
}

/*
 * True when the filter is there, from before an exec. A second one would be in vain and cost every
 * call. The trial runs in a child, for another filter may kill whoever makes it.
 */
static int is_installed(void)
{
    int status;

    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0)
        return 0;
    status = ioctx_run_in_child(make_a_call, NULL);
    return status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/*
 * Where the kernel refuses it, the calls go on to the kernel, and nothing is said: descriptor 2 may be
 * anybody's file. `ioctx run` has tried before.
 */
__attribute__((constructor)) static void start(void)
{
    struct sock_fprog program = {sizeof instructions / sizeof *instructions, instructions};
    /* Without SPEC_ALLOW, older kernels make the whole process slower. */
    long flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW;

    install_handler();
    if (!is_installed() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        ioctx_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, (intptr_t)&program, 0, 0, 0);
}

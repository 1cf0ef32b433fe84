/*
 * The way into the layer for programs that bypass libaio: syscall(3), put in front of the C
 * library's by LD_PRELOAD. Only libioctx.so exports it (libioctx.map).
 *
 * The six io_* numbers go to the layer, everything else to the kernel as the C library would have
 * sent it. Both ways are async-signal-safe. On the way to the kernel the function has no frame,
 * so that even calls that return twice or on another stack do what they do in the C library.
 */
#include "libaio_abi.h"
#include "system.h"

#if defined(IOCTX_DROPIN) && defined(__x86_64__)
#include <unistd.h>

#ifndef SYS_io_pgetevents
#error "the headers of Linux 4.18 or newer are needed"
#endif

/* One of the six calls, with the kernel's conventions: a result, or a negated errno. */
long ioctx_aio_call(long number, long a, long b, long c, long d, long e, long f)
{
    io_context_t context = (io_context_t)a;

    switch ((int)number) {
    case SYS_io_setup:
        return io_setup((int)a, (io_context_t *)b);
    case SYS_io_destroy:
        return io_destroy(context);
    case SYS_io_submit:
        return io_submit(context, b, (struct iocb **)c);
    case SYS_io_cancel:
        return ioctx_cancel(context, (struct iocb *)b, (struct io_event *)c);
    case SYS_io_getevents:
        return ioctx_getevents(context, b, c, (struct io_event *)d, (struct timespec *)e);
    case SYS_io_pgetevents:
        return ioctx_pgetevents(context, b, c, (struct io_event *)d, (struct timespec *)e,
                                (const void *)f);
    default:
        return -ENOSYS;
    }
}

static long with_errno(long result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

static long serve(long number, long a, long b, long c, long d, long e, long f)
{
    return with_errno(ioctx_aio_call(number, a, b, c, d, e, f));
}

_Static_assert(SYS_io_destroy - SYS_io_setup == 1 && SYS_io_getevents - SYS_io_setup == 2 &&
                   SYS_io_submit - SYS_io_setup == 3 && SYS_io_cancel - SYS_io_setup == 4,
               "five of the numbers are one range");

/*
 * Variable arguments arrive where those of a plain function do, so `serve` finds all seven in
 * place. Only the lower half of the number is compared: it is all that the kernel looks at.
 */
__attribute__((naked)) long syscall(__attribute__((unused)) long number, ...)
{
    __asm__("lea    -%c[setup](%%rdi), %%eax\n\t"
            "cmp    $5, %%eax\n\t"
            "jb     %P[serve]\n\t"
            "cmp    %[pgetevents], %%edi\n\t"
            "je     %P[serve]\n\t"
            "mov    %%rdi, %%rax\n\t"
            "mov    %%rsi, %%rdi\n\t"
            "mov    %%rdx, %%rsi\n\t"
            "mov    %%rcx, %%rdx\n\t"
            "mov    %%r8, %%r10\n\t"
            "mov    %%r9, %%r8\n\t"
            "mov    8(%%rsp), %%r9\n\t"
            "syscall\n\t"
            "cmp    $-4095, %%rax\n\t"
            "jae    1f\n\t"
            "ret\n"
            "1:\n\t"
            "mov    %%rax, %%rdi\n\t"
            "jmp    %P[with_errno]"
            :
            : [setup] "i"(SYS_io_setup), [pgetevents] "i"(SYS_io_pgetevents), [serve] "i"(serve),
              [with_errno] "i"(with_errno));
}

/* For libioctx-seccomp.so, which has a syscall of its own in front of this one. */
long ioctx_syscall_function(long number, ...) __attribute__((alias("syscall")));
#endif

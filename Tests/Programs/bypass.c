// libaio's functions as programs that bypass libaio make them: by syscall(3), or with INLINE by the
// instruction itself. Preloaded in front of a test program's libaio, it turns every case into one
// about raw system calls: build makes libbypass.so and libbypass_inline.so of it.

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long raw_call(long number, long a, long b, long c, long d, long e, long f) {
#ifdef INLINE
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
#else
    // errno is a libaio caller's own.
    int before = errno;
    long result = syscall(number, a, b, c, d, e, f);
    if (result == -1) {
        result = -errno;
        errno = before;
    }
    return result;
#endif
}

#define CALL(number, ...) PASS(number, __VA_ARGS__, 0, 0, 0, 0, 0)
#define PASS(number, a, b, c, d, e, f, ...) \
    (int)raw_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

int io_setup(int events, void **context) { return CALL(SYS_io_setup, events, context); }

int io_destroy(void *context) { return CALL(SYS_io_destroy, context); }

int io_submit(void *context, long count, void **requests) {
    return CALL(SYS_io_submit, context, count, requests);
}

int io_cancel(void *context, void *request, void *event) {
    return CALL(SYS_io_cancel, context, request, event);
}

int io_getevents(void *context, long min, long max, void *events, struct timespec *timeout) {
    return CALL(SYS_io_getevents, context, min, max, events, timeout);
}

int io_pgetevents(
    void *context, long min, long max, void *events, struct timespec *timeout, sigset_t *mask) {
    struct {
        const sigset_t *mask;
        size_t size;
    } argument = {mask, 8};
    return CALL(SYS_io_pgetevents, context, min, max, events, timeout, &argument);
}

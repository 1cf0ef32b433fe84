// Proves that syscall(3) does with the six io_* numbers what the kernel does, errno and -1 included,
// that libaio's calls and raw ones may be mixed, and that all other calls are left as they are.

#include "harness.h"

#include <sys/syscall.h>

static io_context_t raw_context(unsigned events) {
    io_context_t context = NULL;
    must(syscall(SYS_io_setup, events, &context), 0);
    return context;
}

// -1 and errno as one value.
#define RAW(...) (syscall(__VA_ARGS__) == -1 ? -errno : 0)

static void raw_calls_do_the_work(void) {
    int fd = patterned_file("file", 1, 4 * BLOCK);
    char buffer[BLOCK];
    struct iocb request, *list[] = {&request};
    struct io_event event;
    io_context_t context = raw_context(4);
    expect(ring_of(context)->magic, 0xa10a10a1u);
    for (int block = 0; block < 4; block++) {
        memset(buffer, 0, sizeof buffer);
        io_prep_pread(&request, fd, buffer, BLOCK, block * BLOCK);
        errno = 7;
        must(syscall(SYS_io_submit, context, 1L, list), 1);
        must(syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL), 1);
        expect(errno, 7);
        expect(event.res, BLOCK);
        expect_that(event.obj == &request, "the event names another iocb");
        expect_that(has_pattern(buffer, 1, (uint64_t)block * BLOCK, BLOCK), "wrong data");
    }
    expect(syscall(SYS_io_getevents, context, 0L, 1L, &event, NULL), 0);
    expect(syscall(SYS_io_destroy, context), 0);
    expect(RAW(SYS_io_destroy, context), -EINVAL);
}

// MariaDB sets up and submits by libaio and reaps by the system call; io_destroy wakes it.
static void *reap_raw(void *argument) {
    struct io_event events[8];
    long *got = argument, taken;
    io_context_t context = (io_context_t)got[0];
    got[1] = 0;
    while ((taken = syscall(SYS_io_getevents, context, 1L, 8L, events, NULL)) > 0)
        got[1] += taken;
    got[2] = -errno;
    return NULL;
}

static void libaio_and_raw_calls_mix(void) {
    int fd = patterned_file("file", 2, 64 * BLOCK);
    static char buffers[64][BLOCK];
    static struct iocb requests[64];
    io_context_t context = new_context(64);
    long reaped[3] = {(long)context};
    pthread_t thread;
    start_thread(&thread, reap_raw, reaped);
    make_cold(fd);
    for (int i = 0; i < 64; i++) {
        io_prep_pread(&requests[i], fd, buffers[i], BLOCK, i * BLOCK);
        submit(context, &requests[i]);
    }
    double deadline = now_seconds() + 10;
    while (*(volatile long *)&reaped[1] < 64 && now_seconds() < deadline)
        sleep_ms(1);
    expect(io_destroy(context), 0);
    pthread_join(thread, NULL);
    expect(reaped[1], 64);
    expect(reaped[2], -EINVAL);
    for (int i = 0; i < 64; i++)
        expect_that(has_pattern(buffers[i], 2, (uint64_t)i * BLOCK, BLOCK), "wrong data in %d", i);
}

static void errors_come_through_errno(void) {
    io_context_t context = NULL, some = raw_context(1);
    struct iocb request, *list[] = {&request};
    struct io_event event;
    expect(RAW(SYS_io_setup, 0, &context), -EINVAL);
    expect(RAW(SYS_io_setup, 1, NULL), -EFAULT);
    expect(RAW(SYS_io_setup, 1, &some), -EINVAL);
    expect(RAW(SYS_io_submit, NULL, 1L, list), -EINVAL);
    expect(RAW(SYS_io_submit, some, -1L, list), -EINVAL);
    expect(RAW(SYS_io_submit, some, 1L, KERNEL_HALF), -EFAULT);
    expect(RAW(SYS_io_getevents, some, 2L, 1L, &event, NULL), -EINVAL);
    expect(RAW(SYS_io_getevents, some, 0L, 1L, &event, KERNEL_HALF), -EFAULT);
    io_prep_pread(&request, -1, NULL, 0, 0);
    expect(RAW(SYS_io_submit, some, 1L, list), -EBADF);
    request.key = 0;
    expect(RAW(SYS_io_cancel, some, &request, &event), -EINVAL);
    expect(RAW(SYS_io_cancel, some, KERNEL_HALF, &event), -EFAULT);
    expect(RAW(SYS_io_destroy, NULL), -EINVAL);
    expect(syscall(SYS_io_destroy, some), 0);
}

static void on_alarm(int number) { (void)number; }

// The system call's last argument is a pair, unlike libaio's.
static void pgetevents_takes_address_and_size_of_a_mask(void) {
    struct {
        const sigset_t *mask;
        size_t size;
    } pair = {NULL, 0};
    sigset_t none, alarm_only;
    struct io_event event;
    struct timespec soon = {0, 20000000}, zero = {0, 0};
    io_context_t context = raw_context(1);
    expect(syscall(SYS_io_pgetevents, context, 1L, 1L, &event, &soon, NULL), 0);
    expect(syscall(SYS_io_pgetevents, context, 0L, 1L, &event, &zero, &pair), 0);
    expect(RAW(SYS_io_pgetevents, context, 0L, 1L, &event, &zero, KERNEL_HALF), -EFAULT);
    sigemptyset(&none);
    pair.mask = &none, pair.size = 4;
    expect(RAW(SYS_io_pgetevents, context, 0L, 1L, &event, &zero, &pair), -EINVAL);
    pair.mask = KERNEL_HALF, pair.size = 8;
    expect(RAW(SYS_io_pgetevents, context, 0L, 1L, &event, &zero, &pair), -EFAULT);

    // A signal that only the call's mask lets in.
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, NULL);
    pair.mask = &none;
    raise(SIGALRM);
    expect(RAW(SYS_io_pgetevents, context, 1L, 1L, &event, NULL, &pair), -EINTR);
    expect(syscall(SYS_io_destroy, context), 0);
}

static void waiting_is_interrupted(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct io_event event;
    io_context_t context = raw_context(1);
    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    expect(RAW(SYS_io_getevents, context, 1L, 1L, &event, NULL), -EINTR);
    expect(syscall(SYS_io_destroy, context), 0);
}

// All six arguments, the result, errors, and a call that returns twice.
static void other_calls_are_untouched(void) {
    int fd = patterned_file("file", 3, 2 * BLOCK);
    char *page = (char *)syscall(SYS_mmap, NULL, (long)BLOCK, (long)PROT_READ, (long)MAP_PRIVATE,
        (long)fd, (long)BLOCK);
    must_that(page != MAP_FAILED, "mmap: %s", strerror(errno));
    expect_that(has_pattern(page, 3, BLOCK, BLOCK), "mmap took other arguments");
    expect(syscall(SYS_getpid), getpid());
    expect(RAW(SYS_close, -1), -EBADF);
    expect(RAW(4095), -ENOSYS);
    expect(RAW(-1L), -ENOSYS);
    errno = 7;
    expect(syscall(SYS_getppid), getppid());
    expect(errno, 7);
    // Large results are no errors.
    expect_that(syscall(SYS_mmap, NULL, (long)BLOCK, 0L, (long)(MAP_PRIVATE | MAP_ANONYMOUS), -1L,
                    0L) > (long)BLOCK, "an address was taken for an error");
    long child = syscall(SYS_fork);
    if (child == 0)
        _exit(3);
    expect(WEXITSTATUS(wait_for((pid_t)child, 5)), 3);
}

#if defined(__x86_64__)
// Calls syscall(number, 0) with the callee's registers set to values[0..5], and stores them again.
__attribute__((naked)) static void call_with_registers(long number, long *values) {
    (void)number, (void)values;
    __asm__("push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rsi\n\t"
            "mov 0(%rsi), %rbx; mov 8(%rsi), %rbp; mov 16(%rsi), %r12\n\t"
            "mov 24(%rsi), %r13; mov 32(%rsi), %r14; mov 40(%rsi), %r15\n\t"
            "xor %esi, %esi; xor %eax, %eax\n\t"
            "call syscall@PLT\n\t"
            "pop %rsi\n\t"
            "mov %rbx, 0(%rsi); mov %rbp, 8(%rsi); mov %r12, 16(%rsi)\n\t"
            "mov %r13, 24(%rsi); mov %r14, 32(%rsi); mov %r15, 40(%rsi)\n\t"
            "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret");
}

static void registers_are_kept(void) {
    const long numbers[] = {SYS_getpid, SYS_io_destroy, 4095};
    for (int which = 0; which < 3; which++) {
        long values[6] = {1, 2, 3, 4, 5, 6};
        call_with_registers(numbers[which], values);
        for (int i = 0; i < 6; i++)
            expect(values[i], i + 1);
    }
}
#endif

static const struct test_case cases[] = {
    CASE(raw_calls_do_the_work),
    CASE(libaio_and_raw_calls_mix),
    CASE(errors_come_through_errno),
    CASE(pgetevents_takes_address_and_size_of_a_mask),
    CASE(waiting_is_interrupted),
    CASE(other_calls_are_untouched),
#if defined(__x86_64__)
    CASE(registers_are_kept),
#endif
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

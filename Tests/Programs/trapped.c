// Proves that io_* calls made by the instruction itself reach the layer through the filter of
// libioctx-seccomp.so, that nothing a program does to its signals through the C library keeps them from
// it, and that a SIGSYS which is not ours is the program's as before.

#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static long instruction(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

// A context by the instruction, which io_destroy of the library must know, too.
static io_context_t trapped_context(void) {
    io_context_t context = NULL;
    must(instruction(SYS_io_setup, 8, (long)&context, 0, 0, 0, 0), 0);
    must_that(io_destroy(context) == 0, "the context is not the layer's");
    context = NULL;
    must(instruction(SYS_io_setup, 8, (long)&context, 0, 0, 0, 0), 0);
    return context;
}

// One read by the instruction, its data checked.
static void read_something(void) {
    int fd = patterned_file("file", 1, BLOCK);
    char buffer[BLOCK];
    struct iocb request, *list[] = {&request};
    struct io_event event;
    io_context_t context = trapped_context();
    io_prep_pread(&request, fd, buffer, BLOCK, 0);
    must(instruction(SYS_io_submit, (long)context, 1, (long)list, 0, 0, 0), 1);
    must(instruction(SYS_io_getevents, (long)context, 1, 1, (long)&event, 0, 0), 1);
    expect(event.res, BLOCK);
    expect_that(has_pattern(buffer, 1, 0, BLOCK), "wrong data");
    must(instruction(SYS_io_destroy, (long)context, 0, 0, 0, 0, 0), 0);
    expect(instruction(SYS_io_destroy, (long)context, 0, 0, 0, 0, 0), -EINVAL);
    close(fd);
}

static void instructions_reach_the_layer(void) {
    errno = 7;
    read_something();
    expect(errno, 7);
    expect(instruction(SYS_io_setup, 1, 0, 0, 0, 0, 0), -EFAULT);
    expect(instruction(SYS_getpid, 0, 0, 0, 0, 0, 0), getpid());
}

// What the kernel's instruction leaves alone, the trap leaves alone, vector registers too.
static void registers_are_kept(void) {
    unsigned long out[4], result = SYS_io_destroy;
    double vector = 0;
    __asm__ volatile("mov $0x1111, %%edi\n\tmov $0x2222, %%esi\n\tmov $0x3333, %%edx\n\t"
                     "mov $0x4444, %%r10d\n\tcvtsi2sd %%rdx, %%xmm7\n\t"
                     "syscall\n\t"
                     "mov %%rdi, 0(%[out])\n\tmov %%rsi, 8(%[out])\n\tmov %%rdx, 16(%[out])\n\t"
                     "mov %%r10, 24(%[out])\n\tmovsd %%xmm7, %[vector]"
                     : "+a"(result), [vector] "=m"(vector)
                     : [out] "r"(out)
                     : "rdi", "rsi", "rdx", "r10", "rcx", "r11", "xmm7", "memory");
    expect(result, -EINVAL);
    for (int i = 0; i < 4; i++)
        expect(out[i], 0x1111 * (i + 1));
    expect((long)vector, 0x3333);
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

// The functions of other times and standards: signal() of ISO C is one of them.
static void older_functions_do_not_block_it(void) {
    extern __sighandler_t __sysv_signal(int, __sighandler_t);
    expect(__sysv_signal(SIGSYS, SIG_IGN) == SIG_DFL, true);
    read_something();
    expect(sigset(SIGSYS, SIG_DFL) == SIG_IGN, true);
    expect(sigset(SIGSYS, SIG_HOLD) == SIG_DFL, true);
    read_something();
    expect(sighold(SIGSYS), 0);
    expect(sigignore(SIGSYS), 0);
    read_something();
    expect(sigblock(-1), 0);
    sigsetmask(-1);
    read_something();
    // Of others they are what they were.
    sigsetmask(0);
    expect(sigset(SIGUSR1, SIG_HOLD) == SIG_DFL, true);
    expect(sigblock(0), 1 << (SIGUSR1 - 1));
    expect(sigset(SIGUSR1, SIG_IGN) == SIG_HOLD, true);
    expect(sigblock(0), 0);
    expect(__sysv_signal(SIGUSR1, SIG_DFL) == SIG_IGN, true);
    expect(sighold(0), -1);
}

static atomic_bool must_stop;

static void *set_actions(void *unused) {
    while (!atomic_load(&must_stop)) signal(SIGSYS, SIG_IGN);
    return unused;
}

static void a_child_forked_amid_a_change_may_change_it_again(void) {
    pthread_t thread;
    start_thread(&thread, set_actions, NULL);
    for (int round = 0; round < 200; round++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGSYS, SIG_DFL);
            _exit(0);
        }
        must_that(wait_for(child, 5) == 0, "round %d: child failed", round);
    }
    atomic_store(&must_stop, true);
    pthread_join(thread, NULL);
}

static void *read_in_thread(void *unused) {
    read_something();
    return unused;
}

static void masks_do_not_block_it(void) {
    sigset_t all, now;
    unsigned long bits = ~0ul;
    pthread_t thread;
    sigfillset(&all);
    must(sigprocmask(SIG_SETMASK, &all, NULL), 0);
    read_something();
    must(pthread_sigmask(SIG_BLOCK, &all, &now), 0);
    read_something();
    expect(sigismember(&now, SIGUSR1), 1);
    must(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &bits, NULL, 8L), 0);
    read_something();
    start_thread(&thread, read_in_thread, NULL);
    pthread_join(thread, NULL);
}

static void read_in_handler(int number) {
    (void)number;
    read_something();
}

static void handlers_that_block_everything_may_call(void) {
    struct sigaction action = {.sa_handler = read_in_handler};
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } raw;
    sigfillset(&action.sa_mask);
    must(sigaction(SIGUSR1, &action, NULL), 0);
    raise(SIGUSR1);
    must(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &raw, 8L), 0);
    raw.mask = ~0ul;
    must(syscall(SYS_rt_sigaction, SIGUSR1, &raw, NULL, 8L), 0);
    raise(SIGUSR1);
}

static volatile int own_signals, own_call, own_masked;

static void own_handler(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    own_masked = sigismember(&mask, SIGUSR2);
    own_signals++;
    own_call = info->si_code > 0 ? info->si_syscall : 0;
}

static void simple_handler(int number) { own_signals += number == SIGSYS; }

static void the_programs_handler_is_its_own(void) {
    struct sigaction action = {.sa_sigaction = own_handler, .sa_flags = SA_SIGINFO}, before;
    sigset_t mask;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    must(sigaction(SIGSYS, &action, &before), 0);
    expect_that(before.sa_handler == SIG_DFL, "there was a handler before");
    raise(SIGSYS);
    expect(own_signals, 1);
    expect(own_masked, 1);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    expect(sigismember(&mask, SIGUSR2), 0);
    read_something();
    expect(own_signals, 1);

    // A filter of the program's own, that traps another call.
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {4, code};
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
    syscall(SYS_getppid);
    expect(own_signals, 2);
    expect(own_call, SYS_getppid);
    read_something();
    expect(own_signals, 2);

    must(sigaction(SIGSYS, NULL, &before), 0);
    expect_that(before.sa_sigaction == own_handler, "another handler is reported");
    expect_that((void *)signal(SIGSYS, simple_handler) == (void *)own_handler, "signal() differs");
    raise(SIGSYS);
    expect(own_signals, 3);
    signal(SIGSYS, SIG_IGN);
    raise(SIGSYS);
    read_something();
    expect(own_signals, 3);
}

static void unhandled_it_is_deadly(void) {
    pid_t child = fork();
    if (child == 0) {
        read_something();
        raise(SIGSYS);
        _exit(0);
    }
    int status = wait_for(child, 5);
    expect_that(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "wait status %x", status);
}

static void children_are_served(void) {
    pid_t child = fork();
    if (child == 0) {
        read_something();
        _exit(0);
    }
    expect_clean_exit(child, 5);
}

static int filters(void) {
    char line[256];
    int count = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        sscanf(line, "Seccomp_filters: %d", &count);
    if (status)
        fclose(status);
    return count;
}

// A filter survives exec, a handler does not. Blocked and ignored signals survive it, too.
static void after_exec_it_is_there_once(void) {
    unsigned long bit = 1ul << (SIGSYS - 1);
    pid_t child = fork();
    if (child == 0) {
        instruction(SYS_rt_sigprocmask, SIG_BLOCK, (long)&bit, 0, 8, 0, 0);
        execl("/proc/self/exe", "trapped", "--here", "filters_are", NULL);
        _exit(1);
    }
    expect_clean_exit(child, 10);
}

static void filters_are(void) {
    expect_either(filters(), 1, -1);
    read_something();
}

static void on_alarm(int number) { (void)number; }

static void waiting_is_interrupted(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct io_event event;
    io_context_t context = trapped_context();
    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    expect(instruction(SYS_io_getevents, (long)context, 1, 1, (long)&event, 0, 0), -EINTR);
}

// io_pgetevents on a context whose ring is the kernel's: the layer may not make that call itself.
static void masked_waits_work_on_the_kernels_ring(void) {
    patterned_file("file", 4, 4 * BLOCK);
    int fd = open_direct("file", O_RDONLY);
    char *buffer = aligned(BLOCK);
    struct iocb request, *list[] = {&request};
    struct io_event events[2];
    sigset_t none, alarm_only;
    struct timespec soon = {0, 30000000};
    struct {
        const sigset_t *mask;
        size_t size;
    } pair = {&none, 8};
    io_context_t context = trapped_context();
    sigemptyset(&none);
    io_prep_pread(&request, fd, buffer, BLOCK, BLOCK);
    must(instruction(SYS_io_submit, (long)context, 1, (long)list, 0, 0, 0), 1);
    must(instruction(SYS_io_pgetevents, (long)context, 1, 2, (long)events, 0, (long)&pair), 1);
    expect(events[0].res, BLOCK);
    expect_that(has_pattern(buffer, 4, BLOCK, BLOCK), "wrong data");
    expect(instruction(SYS_io_pgetevents, (long)context, 1, 2, (long)events, (long)&soon,
               (long)&pair), 0);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, NULL);
    alarm(1);
    expect(instruction(SYS_io_pgetevents, (long)context, 1, 2, (long)events, 0, (long)&pair),
        -EINTR);
}

#define UNTRAPPED "only the filter traps the instruction"
#define TRAPPED(function) LAYER_CASE(function, 0, UNTRAPPED)

static const struct test_case cases[] = {
    TRAPPED(instructions_reach_the_layer),
    TRAPPED(registers_are_kept),
    TRAPPED(masks_do_not_block_it),
    TRAPPED(older_functions_do_not_block_it),
    TRAPPED(a_child_forked_amid_a_change_may_change_it_again),
    TRAPPED(handlers_that_block_everything_may_call),
    TRAPPED(the_programs_handler_is_its_own),
    TRAPPED(unhandled_it_is_deadly),
    TRAPPED(children_are_served),
    TRAPPED(after_exec_it_is_there_once),
    TRAPPED(filters_are),
    TRAPPED(waiting_is_interrupted),
    TRAPPED(masked_waits_work_on_the_kernels_ring),
};

int main(int argc, char **argv) { return RUN_CASES(argc, argv, cases); }

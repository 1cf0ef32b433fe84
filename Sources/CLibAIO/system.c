/* The thread-local record, thread start and the probing child: see system.h. */
#include "system.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/prctl.h>

__thread struct ioctx_thread ioctx_thread_local;

/*
 * Only by the C library's functions does ThreadSanitizer learn that memory at an address is not what
 * was there before, and that its user does not race with the last one's.
 */

intptr_t ioctx_map(size_t bytes, int protection, int flags, int file)
{
#if __has_feature(thread_sanitizer)
    void *address = mmap(NULL, bytes, protection, flags, file, 0);

    return address == MAP_FAILED ? -errno : (intptr_t)address;
#else
    return ioctx_syscall(SYS_mmap, 0, (intptr_t)bytes, protection, flags, file, 0);
#endif
}

intptr_t ioctx_unmap(uintptr_t address, size_t bytes)
{
#if __has_feature(thread_sanitizer)
    return munmap((void *)address, bytes);
#else
    return ioctx_syscall(SYS_munmap, (intptr_t)address, (intptr_t)bytes, 0, 0, 0, 0);
#endif
}

int ioctx_processor(void)
{
#if defined(__x86_64__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* The process that first might have had threads of ours: this one or an ancestor. */
static _Atomic(pid_t) first_starter;

/* True when it is this process, which it becomes if there was none. */
static bool is_first_starter(void)
{
    pid_t process = (pid_t)ioctx_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    pid_t starter = 0;

    return atomic_compare_exchange_strong(&first_starter, &starter, process) || starter == process;
}

void ioctx_note_starter(void)
{
    if (atomic_load(&first_starter) == 0)
        is_first_starter();
}

/*
 * True in a child that was made without the C library's knowledge, by clone or vfork, of a process in
 * which we had threads. Locks of the library's that they held stay held in a child with memory of
 * its own; in one that shares its parent's, a new thread would end with the child. The library takes
 * such a child for its parent, and so records the parent's number as that of a mutex's owner.
 */
static bool is_unknown_child(void)
{
    pthread_mutex_t probe = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    int owner;

    if (is_first_starter())
        return false;
    pthread_mutex_lock(&probe);
    owner = probe.__data.__owner;
    pthread_mutex_unlock(&probe);
    return owner != (int)ioctx_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

/*
 * What pthread_create takes of a stack for itself and for the thread-local variables of all that was
 * loaded at the start, which may be more than a daemon needs: the C library tells other run-time libraries
 * by a function without a declaration. Looked up before there are threads, for dlsym waits for dlopen;
 * later only where another library's constructor starts a daemon before ours has run.
 */
static size_t (*taken_of_stack)(const pthread_attr_t *);

__attribute__((constructor)) static void look_up_taken_of_stack(void)
{
    *(void **)&taken_of_stack = dlsym(RTLD_DEFAULT, "__pthread_get_minstack");
}

int ioctx_thread_start(void *(*body)(void *), void *argument, size_t stack_bytes)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int error = is_unknown_child() ? EAGAIN : pthread_attr_init(&attributes);

    if (error)
        return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_bytes > 0) {
        if (!taken_of_stack)
            look_up_taken_of_stack();
        pthread_attr_setstacksize(
            &attributes, stack_bytes + (taken_of_stack ? taken_of_stack(&attributes) : 0));
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int ioctx_run_in_child(void (*body)(void *), void *argument)
{
    /* All but the C library's own two; in this process not SIGSYS either: a filter may trap what follows. */
    uint64_t all = ~(UINT64_C(3) << 31), all_but_traps = all & ~(UINT64_C(1) << (SIGSYS - 1)), before;
    int status = 0;
    intptr_t pid;

    ioctx_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (intptr_t)&all_but_traps, (intptr_t)&before, 8, 0, 0);
    /* Exit signal 0: the program's SIGCHLD handler and its wait() calls never see this child. */
    pid = ioctx_syscall(SYS_clone, 0, 0, 0, 0, 0, 0);
    if (pid == 0) {
        /* No handler of the program's runs here, and nobody is to find the program's core. */
        ioctx_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (intptr_t)&all, 0, 8, 0, 0);
        ioctx_syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
        body(argument);
        ioctx_syscall(SYS_exit_group, 0, 0, 0, 0, 0, 0);
        __builtin_unreachable();
    }
    ioctx_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (intptr_t)&before, 0, 8, 0, 0);
    if (pid < 0)
        return (int)pid;
    for (;;) {
        intptr_t reaped = ioctx_syscall(SYS_wait4, pid, (intptr_t)&status, __WALL, 0, 0, 0);

        if (reaped == pid)
            return status;
        if (reaped != -EINTR)
            return (int)reaped;
    }
}

/*
 * One system call during which the thread may be cancelled. It holds no lock here, so that it may be
 * stopped at any instruction; what pthread_cleanup_push would do is done by hand, for its handlers cannot
 * go back.
 */
static int cancellable_syscall(long number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e,
                               intptr_t f)
{
    __pthread_unwind_buf_t here;
    int type, result, before;

    if (__sigsetjmp((struct __jmp_buf_tag *)(void *)here.__cancel_jmp_buf, 0)) {
        __pthread_unregister_cancel(&here);
        return -IOCTX_THREAD_CANCELLED;
    }
    __pthread_register_cancel(&here);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    result = (int)ioctx_syscall(number, a, b, c, d, e, f);
    pthread_setcanceltype(type, NULL);
    /*
     * A cancellation point of the library's: up to glibc 2.40 a thread that was chosen to be cancelled just
     * now has its signal yet to come, which would spoil the result of a thread that ends by itself. Such a
     * point waits for it. A read of no file is one that no sandbox forbids. Nobody else here touches errno.
     */
    before = errno;
    if (read(-1, NULL, 0) < 0) {}
    errno = before;
    __pthread_unregister_cancel(&here);
    return result;
}

int ioctx_cancellable_wait(const uint32_t *word, uint32_t expected, uint32_t bits, const void *deadline)
{
    return cancellable_syscall(SYS_futex, (intptr_t)word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                               (intptr_t)deadline, 0, bits);
}

int ioctx_await_event(uintptr_t context, uint64_t ns, int is_cancellable)
{
    struct timespec timeout = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    /*
     * fs/aio.c, aio_read_events_ring: an event that cannot be stored is not taken. Were it taken, it would
     * be lost with a thread that is cancelled, or a handler that does not return. No event can be stored
     * at an address of the kernel's.
     */
    return is_cancellable
        ? cancellable_syscall(SYS_io_getevents, (intptr_t)context, 1, 1, -4096, (intptr_t)&timeout,
                              IOCTX_EXEMPT)
        : (int)ioctx_syscall(SYS_io_getevents, (intptr_t)context, 1, 1, -4096, (intptr_t)&timeout,
                             IOCTX_EXEMPT);
}

void ioctx_open_memory_keys(void)
{
#if defined(__x86_64__)
    unsigned a, b, features, d;

    /* OSPKE: the kernel has protection keys on. Then WRPKRU, with all bits 0. */
    if (__get_cpuid_count(7, 0, &a, &b, &features, &d) && features & 1u << 4)
        __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(0), "c"(0), "d"(0) : "memory");
#endif
}

/* The thread-local record, thread start and the probing child: see system.h. */
#include "system.h"

#include <pthread.h>

__thread struct ioctx_thread ioctx_thread_local;

int ioctx_thread_start(void *(*body)(void *), void *argument, size_t stack_bytes)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);

    if (error)
        return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_bytes > 0)
        pthread_attr_setstacksize(&attributes, stack_bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int ioctx_run_in_child(void (*body)(void *), void *argument)
{
    int status = 0;
    /* Exit signal 0: the program's SIGCHLD handler and its wait() calls never see this child. */
    intptr_t pid = ioctx_syscall(SYS_clone, 0, 0, 0, 0, 0, 0);

    if (pid < 0)
        return (int)pid;
    if (pid == 0) {
        body(argument);
        ioctx_syscall(SYS_exit_group, 0, 0, 0, 0, 0, 0);
        __builtin_unreachable();
    }
    for (;;) {
        intptr_t reaped = ioctx_syscall(SYS_wait4, pid, (intptr_t)&status, __WALL, 0, 0, 0);

        if (reaped == pid)
            return status;
        if (reaped != -EINTR)
            return (int)reaped;
    }
}

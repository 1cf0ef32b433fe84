/* Threads that run the program's functions. */
#include "posixaio_abi.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* As in the C library's own notification threads. */
static void block_no_signal(void)
{
    sigset_t none;

    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static void call(uintptr_t function, uintptr_t value)
{
    union sigval argument = {.sival_ptr = (void *)value};

    ((void (*)(union sigval))function)(argument);
}

void ioctx_call_notification(uintptr_t function, uintptr_t value, void (*leave)(void *),
                             void *argument)
{
    sigset_t all;

    pthread_cleanup_push(leave, argument);
    block_no_signal();
    call(function, value);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    pthread_cleanup_pop(0);
}

struct notification {
    uintptr_t function;
    uintptr_t value;
};

static void *run_notification(void *argument)
{
    struct notification notification = *(struct notification *)argument;

    free(argument);
    block_no_signal();
    call(notification.function, notification.value);
    return NULL;
}

int ioctx_notify_in_thread(uintptr_t function, uintptr_t value, uintptr_t attributes)
{
    /* In a thread of ours, not on the way of a request. */
    struct notification *notification = malloc(sizeof *notification);
    pthread_t thread;
    int error;

    if (!notification)
        return ENOMEM;
    *notification = (struct notification){function, value};
    error = pthread_create(&thread, (const pthread_attr_t *)attributes, run_notification,
                           notification);
    if (error)
        free(notification);
    return error;
}

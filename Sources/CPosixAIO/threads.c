/* Threads that run the program's functions. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
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

_Static_assert(sizeof(pthread_attr_t) <= IOCTX_ATTRIBUTES_BYTES, "room for a pthread_attr_t");

/* Those of attributes without a set are all processors there may be. */
static int copy_processors(pthread_attr_t *to, const pthread_attr_t *from)
{
    cpu_set_t processors;

    if (pthread_attr_getaffinity_np(from, sizeof processors, &processors) != 0 ||
        CPU_COUNT(&processors) == CPU_SETSIZE)
        return 0;
    return pthread_attr_setaffinity_np(to, sizeof processors, &processors);
}

int ioctx_copy_attributes(uintptr_t copy, uintptr_t attributes)
{
    pthread_attr_t *to = (pthread_attr_t *)copy;
    const pthread_attr_t *from = (const pthread_attr_t *)attributes;
    struct sched_param parameter;
    void *stack;
    size_t bytes;
    int value;
    int error = pthread_attr_init(to);

    if (error)
        return error;
    if (pthread_attr_getdetachstate(from, &value) == 0)
        pthread_attr_setdetachstate(to, value);
    if (pthread_attr_getinheritsched(from, &value) == 0)
        pthread_attr_setinheritsched(to, value);
    if (pthread_attr_getschedpolicy(from, &value) == 0)
        pthread_attr_setschedpolicy(to, value);
    if (pthread_attr_getschedparam(from, &parameter) == 0)
        pthread_attr_setschedparam(to, &parameter);
    if (pthread_attr_getscope(from, &value) == 0)
        pthread_attr_setscope(to, value);
    if (pthread_attr_getguardsize(from, &bytes) == 0)
        pthread_attr_setguardsize(to, bytes);
    /* Where none was given, the stack's end is address 0. */
    if (pthread_attr_getstack(from, &stack, &bytes) == 0 && (uintptr_t)stack + bytes != 0)
        pthread_attr_setstack(to, stack, bytes);
    else if (pthread_attr_getstacksize(from, &bytes) == 0)
        pthread_attr_setstacksize(to, bytes);
    error = copy_processors(to, from);
    if (error)
        pthread_attr_destroy(to);
    return error;
}

void ioctx_drop_attributes(uintptr_t copy)
{
    pthread_attr_destroy((pthread_attr_t *)copy);
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

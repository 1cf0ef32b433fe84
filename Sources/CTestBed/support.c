/* See testbed.h. */
#include "testbed.h"

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

int testbed_fork(void)
{
    int pid = fork();

    return pid < 0 ? -errno : pid;
}

int testbed_vfork(int (*body)(void *), void *argument)
{
    int pid = vfork();

    if (pid == 0)
        _exit(body(argument));
    return pid < 0 ? -errno : pid;
}

enum { CHILD_STACK_BYTES = 256 * 1024 };

int testbed_clone_vm(int (*body)(void *), void *argument)
{
    /* The child may still be on its stack when this function is long over: never freed. */
    char *stack = malloc(CHILD_STACK_BYTES);
    int pid = clone(body, stack + CHILD_STACK_BYTES, CLONE_VM | SIGCHLD, argument);

    return pid < 0 ? -errno : pid;
}

static atomic_int caught;
static void (*handler_body)(void *);
static void *handler_argument;

static void on_signal(int number)
{
    int saved = errno;

    (void)number;
    atomic_fetch_add(&caught, 1);
    if (handler_body)
        handler_body(handler_argument);
    errno = saved;
}

void testbed_on_signal(int number, int flags, void (*body)(void *), void *argument)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};

    sigemptyset(&action.sa_mask);
    handler_body = body;
    handler_argument = argument;
    sigaction(number, &action, NULL);
}

void testbed_catch(int number, int flags)
{
    testbed_on_signal(number, flags, NULL, NULL);
}

int testbed_caught(void)
{
    return atomic_load(&caught);
}

_Static_assert(sizeof(struct testbed_aiocb) == sizeof(struct aiocb) &&
                   offsetof(struct testbed_aiocb, aio_sigevent) ==
                       offsetof(struct aiocb, aio_sigevent) &&
                   offsetof(struct testbed_aiocb, aio_offset) ==
                       offsetof(struct aiocb, aio_offset),
               "struct aiocb");

void testbed_notify(void *target, int kind, int signal, int value)
{
    struct sigevent *event = target;

    memset(event, 0, sizeof *event);
    event->sigev_notify = kind;
    event->sigev_signo = signal;
    event->sigev_value.sival_int = value;
}

static void (*notified[64])(int);

static void on_notification(union sigval value)
{
    notified[value.sival_int & 63](value.sival_int);
}

enum { OWN_STACK_BYTES = 1 << 20 };

void testbed_notify_thread(void *target, void (*body)(int), int value, int own_stack)
{
    struct sigevent *event = target;
    pthread_attr_t *attributes;

    testbed_notify(event, SIGEV_THREAD, 0, value);
    notified[value & 63] = body;
    event->sigev_notify_function = on_notification;
    if (own_stack) {
        attributes = malloc(sizeof *attributes);
        pthread_attr_init(attributes);
        pthread_attr_setstacksize(attributes, OWN_STACK_BYTES);
        pthread_attr_setdetachstate(attributes, PTHREAD_CREATE_DETACHED);
        event->sigev_notify_attributes = attributes;
    }
}

void testbed_end_attributes(void *target)
{
    struct sigevent *event = target;
    pthread_attr_t *attributes = event->sigev_notify_attributes;

    pthread_attr_destroy(attributes);
    memset(attributes, 0xff, sizeof *attributes);
    free(attributes);
}

static atomic_int caught_code;
static atomic_ulong caught_values;

static void on_value(int number, siginfo_t *information, void *context)
{
    (void)number;
    (void)context;
    atomic_store(&caught_code, information->si_code);
    atomic_fetch_or(&caught_values, 1ul << (information->si_value.sival_int & 63));
    atomic_fetch_add(&caught, 1);
}

void testbed_catch_values(int signal, int flags)
{
    struct sigaction action = {.sa_sigaction = on_value, .sa_flags = flags | SA_SIGINFO};

    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

int testbed_caught_code(void)
{
    return atomic_load(&caught_code);
}

unsigned long testbed_caught_values(void)
{
    return atomic_load(&caught_values);
}

int testbed_signals_blocked(void)
{
    sigset_t set;
    int count = 0;

    pthread_sigmask(SIG_SETMASK, NULL, &set);
    for (int number = 1; number <= SIGRTMAX; number++)
        count += sigismember(&set, number) == 1;
    return count;
}

int testbed_is_detached(void)
{
    pthread_attr_t attributes;
    int state = 0;

    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getdetachstate(&attributes, &state);
    pthread_attr_destroy(&attributes);
    return state == PTHREAD_CREATE_DETACHED;
}

size_t testbed_stack_size(void)
{
    pthread_attr_t attributes;
    size_t size = 0;

    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstacksize(&attributes, &size);
    pthread_attr_destroy(&attributes);
    return size;
}

static uint8_t pattern_byte(uint32_t seed, uint64_t offset)
{
    uint64_t word = (offset >> 3) * 0x9e3779b97f4a7c15u + seed * 0xff51afd7ed558ccdu;

    word ^= word >> 29;
    return (uint8_t)(word >> ((offset & 7) * 8));
}

void testbed_fill(void *bytes, size_t length, uint32_t seed, uint64_t offset)
{
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)bytes)[i] = pattern_byte(seed, offset + i);
}

int testbed_has_pattern(const void *bytes, size_t length, uint32_t seed, uint64_t offset)
{
    for (size_t i = 0; i < length; i++)
        if (((const uint8_t *)bytes)[i] != pattern_byte(seed, offset + i))
            return 0;
    return 1;
}

uint32_t testbed_hash(const void *bytes, size_t length)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    return hash;
}

uint32_t testbed_load(const void *address)
{
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_ACQUIRE);
}

void testbed_store(void *address, uint32_t value)
{
    __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELEASE);
}

int testbed_forbid(int what, int error)
{
    uint32_t answer = error ? SECCOMP_RET_ERRNO | (uint32_t)error : SECCOMP_RET_KILL_PROCESS;
    struct sock_filter filter[32];
    unsigned short count = 0;
    static const struct {
        int what;
        uint32_t number;
    } calls[] = {
        {TESTBED_FORBID_URING, 425},
        {TESTBED_FORBID_URING, 426},
        {TESTBED_FORBID_URING, 427},
        {TESTBED_FORBID_KERNEL_AIO, SYS_io_setup},
        {TESTBED_FORBID_KERNEL_AIO, SYS_io_submit},
        {TESTBED_FORBID_KERNEL_AIO, SYS_io_getevents},
        {TESTBED_FORBID_CLONE, SYS_clone},
        {TESTBED_FORBID_CLONE, SYS_clone3},
    };

    filter[count++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (!(what & calls[i].what))
            continue;
        filter[count++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
        filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer);
    }
    filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = count, .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -errno;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return -errno;
    return 0;
}

/* Between LOOP_CTL_GET_FREE and LOOP_SET_FD another process may take the device. */
enum { LOOP_ATTEMPTS = 20 };

int testbed_loop(int fd, char *path, size_t size)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), error = EBUSY;

    if (control < 0)
        return -errno;
    for (int attempt = 0; attempt < LOOP_ATTEMPTS && error == EBUSY; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE), device;

        if (number < 0) {
            error = errno;
            break;
        }
        snprintf(path, size, "/dev/loop%d", number);
        device = open(path, O_RDWR | O_CLOEXEC);
        if (device < 0) {
            error = errno;
            break;
        }
        struct loop_config config = {.fd = (uint32_t)fd, .info.lo_flags = LO_FLAGS_AUTOCLEAR};

        if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return device;
        }
        error = errno;
        close(device);
    }
    close(control);
    return -error;
}

int testbed_private_mounts(void)
{
    if (unshare(CLONE_NEWNS))
        return -errno;
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

int testbed_mount(const char *source, const char *target, const char *type, const char *data)
{
    return mount(source, target, type, 0, data) ? -errno : 0;
}

int testbed_set_nonblocking(int fd, int on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) ? -errno : 0;
}

int testbed_bytes_readable(int fd)
{
    int count = 0;

    return ioctl(fd, FIONREAD, &count) ? -errno : count;
}

int testbed_spawn(const char *path, char *const arguments[], int input, int output)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int error;

    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_init(&actions);
    if (input < 0)
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    else
        posix_spawn_file_actions_adddup2(&actions, input, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    error = posix_spawn(&child, path, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error ? -error : child;
}

int testbed_set_limit(enum testbed_limit limit, unsigned long value)
{
    static const int resources[] = {
        [TESTBED_LIMIT_FSIZE] = RLIMIT_FSIZE,
        [TESTBED_LIMIT_NOFILE] = RLIMIT_NOFILE,
        [TESTBED_LIMIT_MEMLOCK] = RLIMIT_MEMLOCK,
        [TESTBED_LIMIT_NPROC] = RLIMIT_NPROC,
    };
    struct rlimit both = {value, value};

    return setrlimit(resources[limit], &both) ? -errno : 0;
}

void testbed_alarm_every(long us)
{
    struct itimerval interval = {{0, us}, {0, us}};

    setitimer(ITIMER_REAL, &interval, NULL);
}

int testbed_memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

int testbed_pipe(int ends[2], int flags)
{
    return pipe2(ends, flags) ? -errno : 0;
}

int testbed_join(pthread_t thread, double seconds)
{
    struct timespec until;
    long long ns;

    clock_gettime(CLOCK_REALTIME, &until);
    ns = until.tv_nsec + (long long)(seconds * 1e9);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    return -pthread_timedjoin_np(thread, NULL, &until);
}

_Static_assert(TESTBED_DEEPBIND == RTLD_DEEPBIND, "as the C library has it");

void *testbed_symbol(void *library, const char *name, const char *version)
{
    void *found = version ? dlvsym(library, name, version) : dlsym(library, name);
    struct link_map *map;
    Dl_info info;

    if (!found || dlinfo(library, RTLD_DI_LINKMAP, &map) || !dladdr(found, &info) ||
        (uintptr_t)info.dli_fbase != map->l_addr)
        return NULL;
    return found;
}

const char *testbed_errno_name(int error)
{
    return strerrorname_np(error);
}

const char *testbed_signal_name(int number)
{
    return sigabbrev_np(number);
}

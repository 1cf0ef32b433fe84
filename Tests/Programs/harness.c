// The runner and the helpers that harness.h declares.

#include "harness.h"

#include <dirent.h>
#include <dlfcn.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

// ---- The report ----------------------------------------------------------------------------

struct report {
    atomic_int failures;
    atomic_uint used;
    atomic_bool skipped;
    char text[4096];
    char reason[512];
    char remark[256];
};

static struct report *report;
static char directory[4096];

// Mismatches of one case share one line, so that a line is a case.
static void record(const char *format, va_list arguments) {
    char message[1024];
    int length = vsnprintf(message, sizeof message - 3, format, arguments);
    if (length > (int)sizeof message - 4)
        length = (int)sizeof message - 4;
    for (int i = 0; i < length; i++)
        if (message[i] == '\n')
            message[i] = ' ';
    memcpy(message + length, "; ", 3);
    length += 2;
    unsigned at = atomic_fetch_add(&report->used, (unsigned)length);
    if (at + (unsigned)length < sizeof report->text)
        memcpy(report->text + at, message, (size_t)length);
    atomic_fetch_add(&report->failures, 1);
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    record(format, arguments);
    va_end(arguments);
}

static const char *readable_value(long value, char *room, size_t size) {
    const char *name = value < 0 && value > -4096 ? strerrorname_np((int)-value) : NULL;
    if (name)
        snprintf(room, size, "-%s", name);
    else
        snprintf(room, size, "%ld", value);
    return room;
}

static void report_mismatch(const char *file, int line, const char *what, long got, long want) {
    char a[32], b[32];
    const char *slash = strrchr(file, '/');
    fail("expected %s got %s from %s (%s:%d)", readable_value(want, a, sizeof a),
        readable_value(got, b, sizeof b), what, slash ? slash + 1 : file, line);
}

void expect_at(const char *file, int line, const char *what, long got, long want) {
    if (got != want)
        report_mismatch(file, line, what, got, want);
}

void expect_either_at(
    const char *file, int line, const char *what, long got, long one, long other) {
    if (got != one && got != other)
        report_mismatch(file, line, what, got, one);
}

void must_at(const char *file, int line, const char *what, long got, long want) {
    if (got == want)
        return;
    report_mismatch(file, line, what, got, want);
    _exit(1);
}

static void fail_at(const char *file, int line, const char *format, va_list arguments) {
    char message[768];
    vsnprintf(message, sizeof message, format, arguments);
    const char *slash = strrchr(file, '/');
    fail("%s (%s:%d)", message, slash ? slash + 1 : file, line);
}

void expect_that_at(const char *file, int line, bool holds, const char *format, ...) {
    if (holds)
        return;
    va_list arguments;
    va_start(arguments, format);
    fail_at(file, line, format, arguments);
    va_end(arguments);
}

void must_that_at(const char *file, int line, bool holds, const char *format, ...) {
    if (holds)
        return;
    va_list arguments;
    va_start(arguments, format);
    fail_at(file, line, format, arguments);
    va_end(arguments);
    _exit(1);
}

void skip_case(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->reason, sizeof report->reason, format, arguments);
    va_end(arguments);
    atomic_store(&report->skipped, true);
    _exit(0);
}

void remark(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->remark, sizeof report->remark, format, arguments);
    va_end(arguments);
}

// ---- The runner ----------------------------------------------------------------------------

static bool look_up_layer(void) {
    const char *wanted = getenv("AIO_UNDER_TEST");
    Dl_info info;
    void *symbol = dlsym(RTLD_DEFAULT, "io_setup");
    if (!symbol || !dladdr(symbol, &info) || !info.dli_fname) {
        fprintf(stderr, "there is no io_setup\n");
        exit(1);
    }
    bool system_library = strncmp(info.dli_fname, "/lib", 4) == 0 ||
        strncmp(info.dli_fname, "/usr/lib", 8) == 0;
    if (!wanted)
        return !system_library;
    if (strcmp(wanted, "kernel") == 0)
        return false;
    struct stat ours, theirs;
    if (stat(wanted, &ours) < 0 || stat(info.dli_fname, &theirs) < 0 ||
        ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev) {
        fprintf(stderr, "%s is to be tested, but io_setup comes from %s\n", wanted, info.dli_fname);
        exit(1);
    }
    return true;
}

// Looked up once, by the runner: the dynamic linker's lock must not be taken in a signal handler.
bool on_layer(void) {
    static int answer = -1;
    if (answer < 0)
        answer = look_up_layer();
    return answer != 0;
}

static int time_limit(const struct test_case *c) {
    const char *patience = getenv("TEST_PATIENCE");
    int factor = patience ? atoi(patience) : 1;
    return (c->seconds ? c->seconds : DEFAULT_SECONDS) * (factor > 0 ? factor : 1);
}

// Runs one case in its own process group, so that whatever it leaves behind goes with it.
static bool run_case(const struct test_case *c) {
    memset(report, 0, sizeof *report);
    if (c->layer_only && !on_layer()) {
        printf("skip %s: only on the layer: %s\n", c->name, c->layer_only);
        fflush(stdout);
        return true;
    }
    pid_t child = fork();
    if (child < 0) {
        printf("FAIL %s: expected a child got errno %d from fork\n", c->name, errno);
        return false;
    }
    if (child == 0) {
        setpgid(0, 0);
        c->run();
        _exit(0);
    }
    setpgid(child, child);
    int limit = time_limit(c), status = 0;
    double deadline = now_seconds() + limit;
    bool ended = false;
    while (!(ended = waitpid(child, &status, WNOHANG) == child) && now_seconds() < deadline)
        sleep_ms(2);
    kill(-child, SIGKILL);
    if (!ended) {
        fail("expected an end within %d s got none", limit);
        waitpid(child, &status, 0);
    } else if (WIFSIGNALED(status)) {
        fail("expected an exit got signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0 && atomic_load(&report->failures) == 0) {
        fail("expected exit status 0 got %d", WEXITSTATUS(status));
    }
    bool passed = atomic_load(&report->failures) == 0;
    report->text[sizeof report->text - 1] = 0;
    if (!passed)
        printf("FAIL %s: %s\n", c->name, report->text);
    else if (atomic_load(&report->skipped))
        printf("skip %s: %s\n", c->name, report->reason);
    else if (report->remark[0])
        printf("ok %s (%s)\n", c->name, report->remark);
    else
        printf("ok %s\n", c->name);
    fflush(stdout);
    return passed;
}

static int remove_entry(const char *path, const struct stat *s, int kind, struct FTW *f) {
    (void)s, (void)kind, (void)f;
    remove(path);
    return 0;
}

static void make_directory(void) {
    const char *parent = getenv("TMPDIR");
    char here[2048];
    if (!parent || !*parent)
        parent = getcwd(here, sizeof here) ? here : ".";
    snprintf(directory, sizeof directory, "%s/aio-test-XXXXXX", parent);
    if (!mkdtemp(directory)) {
        fprintf(stderr, "cannot make a directory in %s: %s\n", parent, strerror(errno));
        exit(1);
    }
    chmod(directory, 0777);
}

static bool chosen(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int run_cases(int argc, char **argv, const struct test_case *cases, int count) {
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED)
        return 1;
    bool here = argc > 1 && strcmp(argv[1], "--here") == 0;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        for (int i = 0; i < count; i++)
            puts(cases[i].name);
        return 0;
    }
    (void)on_layer();
    make_directory();
    int failed = 0, run = 0;
    for (int i = 0; i < count; i++) {
        if (!chosen(cases[i].name, argc, argv))
            continue;
        run++;
        if (here) {
            cases[i].run();
            failed += atomic_load(&report->failures) != 0;
            fprintf(stderr, "%s: %s\n", cases[i].name, report->text);
        } else {
            failed += !run_case(&cases[i]);
        }
    }
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (run == 0) {
        fprintf(stderr, "no such case; --list names them\n");
        return 1;
    }
    return failed ? 1 : 0;
}

// ---- Files ---------------------------------------------------------------------------------

const char *temp_path(const char *name) {
    static _Thread_local char path[8192];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

// splitmix64 of the offset: any word tells which file and which place it belongs to.
uint64_t pattern_word(uint64_t seed, uint64_t offset) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + offset / 8;
    return next_random(&z);
}

static uint64_t pattern_at(uint64_t seed, uint64_t offset, size_t size) {
    uint64_t word = pattern_word(seed, offset & ~7ul) >> (8 * (offset & 7));
    return size >= 8 ? word : word & ((1ul << (8 * size)) - 1);
}

void fill_pattern(void *buffer, uint64_t seed, uint64_t offset, size_t size) {
    char *to = buffer;
    while (size > 0) {
        size_t step = 8 - (offset & 7);
        if (step > size)
            step = size;
        uint64_t word = pattern_at(seed, offset, step);
        memcpy(to, &word, step);
        to += step, offset += step, size -= step;
    }
}

bool has_pattern(const void *buffer, uint64_t seed, uint64_t offset, size_t size) {
    const char *from = buffer;
    while (size > 0) {
        size_t step = 8 - (offset & 7);
        if (step > size)
            step = size;
        uint64_t word = pattern_at(seed, offset, step);
        if (memcmp(from, &word, step) != 0)
            return false;
        from += step, offset += step, size -= step;
    }
    return true;
}

int patterned_file(const char *name, uint64_t seed, size_t size) {
    int fd = open(temp_path(name), O_RDWR | O_CREAT | O_TRUNC, 0666);
    must_that(fd >= 0, "cannot create %s: %s", name, strerror(errno));
    size_t chunk = 1 << 20;
    char *buffer = malloc(chunk);
    for (size_t at = 0; at < size; at += chunk) {
        size_t length = size - at < chunk ? size - at : chunk;
        fill_pattern(buffer, seed, at, length);
        must(pwrite(fd, buffer, length, (off_t)at), length);
    }
    free(buffer);
    must(fsync(fd), 0);
    return fd;
}

int open_direct(const char *name, int flags) {
    int fd = open(temp_path(name), flags | O_DIRECT, 0666);
    if (fd < 0 && errno == EINVAL)
        skip_case("O_DIRECT is refused by the file system of %s", directory);
    must_that(fd >= 0, "cannot open %s with O_DIRECT: %s", name, strerror(errno));
    return fd;
}

void make_cold(int fd) {
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    // Read-ahead would warm the neighbours of the first block that is read.
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

void *aligned(size_t size) {
    void *memory = NULL;
    must(posix_memalign(&memory, BLOCK, size), 0);
    memset(memory, 0xee, size);
    return memory;
}

// ---- Requests ------------------------------------------------------------------------------

io_context_t new_context(int events) {
    io_context_t context = NULL;
    int answer = io_setup(events, &context);
    // The kernel's quota is the whole machine's, and others may be using it for the moment.
    for (int i = 0; i < 50 && answer == -EAGAIN && !on_layer(); i++) {
        sleep_ms(100);
        answer = io_setup(events, &context);
    }
    must_that(answer == 0, "io_setup(%d): expected 0 got %s", events, strerrorname_np(-answer));
    return context;
}

void submit(io_context_t context, struct iocb *request) {
    must(io_submit(context, 1, &request), 1);
}

void reap(io_context_t context, int count, struct io_event *events) {
    int have = 0;
    double deadline = now_seconds() + 15;
    while (have < count && now_seconds() < deadline) {
        struct timespec wait = {1, 0};
        long got = io_getevents(context, 1, count - have, events + have, &wait);
        if (got == -EINTR)
            continue;
        must_that(got >= 0, "io_getevents: %s", strerrorname_np((int)-got));
        have += (int)got;
    }
    must_that(have == count, "expected %d events got %d", count, have);
}

long run_one(io_context_t context, struct iocb *request) {
    int taken = io_submit(context, 1, &request);
    if (taken < 0)
        return taken;
    must(taken, 1);
    struct io_event event;
    reap(context, 1, &event);
    must_that(event.obj == request, "the event names another iocb");
    must_that(event.data == request->data, "the event carries other data");
    must(event.res2, 0);
    return (long)event.res;
}

io_context_t used_context(int events) {
    int fd = memfd_create("used", 0);
    io_context_t context = new_context(events);
    struct timespec none = {0, 0};
    struct iocb request;
    struct io_event event;
    char byte;
    must(ftruncate(fd, 1), 0);
    io_prep_pread(&request, fd, &byte, 1, 0);
    must(run_one(context, &request), 1);
    must(io_getevents(context, 1, 1, &event, &none), 0);
    return context;
}

long call_io_getevents(
    io_context_t context, long min_nr, long nr, struct io_event *events, struct timespec *timeout) {
    if (on_layer())
        return io_getevents(context, min_nr, nr, events, timeout);
    long result = syscall(SYS_io_getevents, context, min_nr, nr, events, timeout);
    return result < 0 ? -errno : result;
}

long call_io_pgetevents(io_context_t context, long min_nr, long nr, struct io_event *events,
    struct timespec *timeout, sigset_t *mask) {
    if (on_layer())
        return io_pgetevents(context, min_nr, nr, events, timeout, mask);
    struct {
        const sigset_t *mask;
        size_t size;
    } argument = {mask, 8};
    long result = syscall(SYS_io_pgetevents, context, min_nr, nr, events, timeout, &argument);
    return result < 0 ? -errno : result;
}

unsigned possible_cpus(void) {
    unsigned first = 0, last = 0;
    FILE *file = fopen("/sys/devices/system/cpu/possible", "r");
    must_that(file != NULL, "cannot read the possible CPUs");
    int fields = fscanf(file, "%u-%u", &first, &last);
    fclose(file);
    return fields == 2 ? last + 1 : 1;
}

void expect_all_slots(io_context_t context, int fd) {
    unsigned nr = ring_of(context)->nr;
    long batch = (nr - 1) / (4 * possible_cpus()), whole = nr - 1;
    if (batch == 0)
        batch = 1;
    char byte;
    struct iocb request, *list[] = {&request};
    long count = 0;
    int answer;
    io_prep_pread(&request, fd, &byte, 1, 0);
    while ((answer = io_submit(context, 1, list)) == 1 && count <= whole)
        count++;
    expect(answer, -EAGAIN);
    expect_either(count, whole, whole / batch * batch);
    struct io_event *events = calloc((size_t)count + 1, sizeof *events);
    reap(context, (int)count, events);
    for (long i = 0; i < count; i++)
        must(events[i].res, 1);
    expect(io_getevents(context, 0, 1, events, NULL), 0);
    must(io_submit(context, 1, list), 1);
    reap(context, 1, events);
    free(events);
}

void stay_on_one_cpu(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
}

// ---- Ways to wait --------------------------------------------------------------------------

long by_waiting(io_context_t context, struct io_event *event) {
    return io_getevents(context, 1, 1, event, NULL);
}

long by_waiting_for_more(io_context_t context, struct io_event *event) {
    struct timespec second = {1, 0};
    return io_getevents(context, 1, 4, event, &second);
}

long by_polling(io_context_t context, struct io_event *event) {
    long got;
    while ((got = io_getevents(context, 0, 1, event, NULL)) == 0) {
    }
    return got;
}

long by_polling_without_time(io_context_t context, struct io_event *event) {
    struct timespec none = {0, 0};
    long got;
    while ((got = io_getevents(context, 1, 1, event, &none)) == 0) {
    }
    return got;
}

long by_slices(io_context_t context, struct io_event *event) {
    struct timespec slice = {0, 20000};
    long got;
    while ((got = io_getevents(context, 1, 1, event, &slice)) == 0) {
    }
    return got;
}

long with_a_mask(io_context_t context, struct io_event *event) {
    sigset_t mask;
    sigemptyset(&mask);
    return io_pgetevents(context, 1, 1, event, NULL, &mask);
}

long by_reading_the_ring(io_context_t context, struct io_event *event) {
    struct ring *ring = ring_of(context);
    double end = now_seconds() + 10;
    while (__atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == ring->head) {
        if (now_seconds() > end) return 0;
    }
    *event = ring->events[ring->head];
    __atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
    return 1;
}

// ---- Odds and ends -------------------------------------------------------------------------

void start_thread(pthread_t *thread, void *(*body)(void *), void *argument) {
    must(pthread_create(thread, NULL, body, argument), 0);
}

void sleep_ms(int ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double processor_seconds(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

pid_t forked_child = -1;

static void fork_here(int signal) {
    (void)signal;
    forked_child = fork();
}

void handle_alarm_after(int microseconds, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    struct itimerval soon = {.it_value = {0, microseconds}};
    sigaction(SIGALRM, &action, NULL);
    must(setitimer(ITIMER_REAL, &soon, NULL), 0);
}

void fork_in_handler_after(int microseconds) { handle_alarm_after(microseconds, fork_here); }

uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

int wait_for(pid_t child, int seconds) {
    double deadline = now_seconds() + seconds;
    int status = 0;
    while (now_seconds() < deadline) {
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        sleep_ms(2);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    must_that(false, "expected the child to end within %d s got none", seconds);
    return status;
}

void need_descriptors(int count) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= (rlim_t)count)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max < (rlim_t)count || setrlimit(RLIMIT_NOFILE, &limit) < 0)
        skip_case("%d descriptors are needed, the limit is %lu", count, (long)limit.rlim_max);
}

// How many there are; `*last` becomes the number of one of them.
static int look_for_threads(const char *prefix, int *last) {
    DIR *tasks = opendir("/proc/self/task");
    must_that(tasks != NULL, "cannot read /proc/self/task");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        char path[300], name[64] = "";
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        if (fgets(name, sizeof name, file) && strncmp(name, prefix, strlen(prefix)) == 0) {
            count++;
            *last = atoi(entry->d_name);
        }
        fclose(file);
    }
    closedir(tasks);
    return count;
}

int threads_named(const char *prefix) {
    int last;
    return look_for_threads(prefix, &last);
}

int thread_named(const char *prefix) {
    int last = 0;
    look_for_threads(prefix, &last);
    return last;
}

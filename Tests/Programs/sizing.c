// Proves that rings, capacities and the quota of events have the kernel's numbers.

#include "harness.h"

static unsigned ring_size(unsigned events) {
    unsigned floor = 4 * possible_cpus();
    unsigned slots = (events > floor ? events : floor) * 2 + 2;
    unsigned pages = (32 + 32 * slots + 4095) / 4096;
    return (pages * 4096 - 32) / 32;
}

static void ring_has_the_kernels_size(void) {
    static const unsigned events[] = {1, 2, 16, 32, 63, 64, 100, 127, 128, 256, 1000, 1024};
    static const unsigned with_2_cpus[] = {127, 127, 127, 127, 255, 255, 255, 383, 383, 639, 2047, 2175};
    for (int i = 0; i < 12; i++) {
        io_context_t context = new_context((int)events[i]);
        expect(ring_of(context)->nr, ring_size(events[i]));
        if (possible_cpus() == 2)
            expect(ring_of(context)->nr, with_2_cpus[i]);
        expect(ring_of(context)->head, 0);
        expect(ring_of(context)->tail, 0);
        expect(io_destroy(context), 0);
    }
}

static void ring_takes_as_many_as_it_has_slots(void) {
    stay_on_one_cpu();
    static const int events[] = {1, 64, 128, 1024};
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK);
    for (int i = 0; i < 4; i++) {
        io_context_t context = new_context(events[i]);
        expect_all_slots(context, fd);
        expect_all_slots(context, fd);
    }
}

static void one_batch_is_clamped_to_the_ring(void) {
    stay_on_one_cpu();
    int fd = patterned_file("file", 1, BLOCK);
    io_context_t context = new_context(4);
    char bytes[5000];
    static struct iocb requests[5000], *list[5000];
    for (int i = 0; i < 5000; i++) {
        io_prep_pread(&requests[i], fd, &bytes[i], 1, i % BLOCK);
        list[i] = &requests[i];
    }
    long slots = ring_of(context)->nr - 1, batch = slots / (4 * possible_cpus());
    long taken = io_submit(context, 5000, list);
    expect_either(taken, slots, slots / batch * batch);
    expect(io_submit(context, 5000, list), -EAGAIN);
    struct io_event events[256];
    reap(context, (int)taken, events);
    expect(io_submit(context, 7, list), 7);
}

static long number_in(const char *path) {
    long number = -1;
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%ld", &number) != 1)
        number = -1;
    if (file)
        fclose(file);
    return number;
}

// IOCTX_AIO_MAX_NR gives the layer the quota that the kernel has by default; main() sets it.
static void need_default_quota(void) {
    long limit = number_in("/proc/sys/fs/aio-max-nr");
    if (!on_layer() && limit != 65536)
        skip_case("fs.aio-max-nr is %ld; the case is about 65536", limit);
}

static void refused_sizes_have_the_kernels_errno(void) {
    need_default_quota();
    static const struct {
        unsigned events;
        int answer;
    } edges[] = {{65537, -EAGAIN}, {4194304, -EAGAIN}, {4194305, -EINVAL}, {0x7fffffff, -EINVAL},
        {0x80000000u, -EAGAIN}, {0xffffffffu, -EINVAL}, {0, -EINVAL}};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        io_context_t context = NULL;
        int got = io_setup((int)edges[i].events, &context);
        expect_that(got == edges[i].answer && context == NULL, "io_setup(%u): expected %d got %d",
            edges[i].events, edges[i].answer, got);
    }
}

// Contexts that together use the quota up exactly: it is counted as asked for, not as rounded up.
static const struct quota_step {
    int events, answer;
} quota_steps[] = {{32768, 0}, {32767, 0}, {2, -EAGAIN}, {1, 0}, {1, -EAGAIN}};
#define STEPS (int)(sizeof quota_steps / sizeof *quota_steps)

static bool use_up_quota(int *answers, int *whole) {
    io_context_t contexts[STEPS] = {NULL}, all = NULL;
    bool right = true;
    for (int i = 0; i < STEPS; i++) {
        answers[i] = io_setup(quota_steps[i].events, &contexts[i]);
        right &= answers[i] == quota_steps[i].answer;
    }
    for (int i = 0; i < STEPS; i++)
        if (contexts[i])
            must(io_destroy(contexts[i]), 0);
    // Destroyed, they have given all of it back.
    *whole = io_setup(65536, &all);
    if (*whole == 0) {
        right &= ring_of(all)->nr == ring_size(65536);
        must(io_destroy(all), 0);
    }
    return right && *whole == 0;
}

static void quota_is_exact(void) {
    need_default_quota();
    int answers[STEPS], whole;
    bool right = use_up_quota(answers, &whole);
    // The kernel's quota is the whole machine's: wait for a moment in which nobody else uses it.
    for (int i = 0; i < 50 && !right && !on_layer(); i++) {
        sleep_ms(100);
        right = use_up_quota(answers, &whole);
    }
    long others = number_in("/proc/sys/fs/aio-nr");
    if (!right && !on_layer() && others != 0)
        skip_case("other programs are using %ld of the machine's quota", others);
    for (int i = 0; i < STEPS; i++)
        expect_that(answers[i] == quota_steps[i].answer, "io_setup(%d): expected %d got %d",
            quota_steps[i].events, quota_steps[i].answer, answers[i]);
    expect(whole, 0);
    expect_that(right, "the largest ring has another size");
}

static const struct test_case cases[] = {
    CASE(ring_has_the_kernels_size),
    CASE(ring_takes_as_many_as_it_has_slots),
    CASE(one_batch_is_clamped_to_the_ring),
    CASE(refused_sizes_have_the_kernels_errno),
    CASE(quota_is_exact),
};

int main(int argc, char **argv) {
    setenv("IOCTX_AIO_MAX_NR", "65536", 1);
    return RUN_CASES(argc, argv, cases);
}

/* The runtime: sizes, memory, processors, instruction sets, and above all the thread pool. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "minitest.h"
#include "runtime.h"
#include "table.h"

enum { WATCHDOG_SECONDS = 300 }; /* a hang is the bug to expect: SIGALRM then ends the run */

/* ---- sizes ---- */

static void test_sizes(void)
{
    static const size_t grid[] = {0,
                                  1,
                                  2,
                                  3,
                                  63,
                                  64,
                                  65,
                                  (size_t)INT32_MAX - 1,
                                  (size_t)INT32_MAX,
                                  (size_t)INT32_MAX + 1,
                                  UINT32_MAX - 1,
                                  UINT32_MAX,
                                  (size_t)UINT32_MAX + 1,
                                  (size_t)1 << 62,
                                  ((size_t)1 << 62) + 1,
                                  SIZE_MAX / 2,
                                  SIZE_MAX / 2 + 1,
                                  SIZE_MAX - 63,
                                  SIZE_MAX - 1,
                                  SIZE_MAX};
    enum { COUNT = sizeof grid / sizeof *grid };
    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; j < COUNT; j++) {
            size_t a = grid[i], b = grid[j], result = 42;
            unsigned __int128 product = (unsigned __int128)a * b, sum = (unsigned __int128)a + b;
            CHECK(fnn_size_multiply(&result, a, b) == (product <= SIZE_MAX));
            CHECK(result == (product <= SIZE_MAX ? (size_t)product : 42));
            result = 42;
            CHECK(fnn_size_add(&result, a, b) == (sum <= SIZE_MAX));
            CHECK(result == (sum <= SIZE_MAX ? (size_t)sum : 42));
            if (b == 0)
                continue;
            unsigned __int128 rounded = ((unsigned __int128)a + b - 1) / b * b;
            result = 42;
            CHECK(fnn_size_round_up(&result, a, b) == (rounded <= SIZE_MAX));
            CHECK(result == (rounded <= SIZE_MAX ? (size_t)rounded : 42));
        }
    }
}

/* ---- memory ---- */

static void test_memory_is_aligned_zeroed_and_staggered(void)
{
    enum { COUNT = 130 };
    char *blocks[COUNT];
    uint64_t before = fnn_allocation_count();
    for (int i = 0; i < COUNT; i++) {
        size_t bytes = (size_t)i * 97; /* 0 among them */
        blocks[i] = fnn_allocate(bytes);
        CHECK(blocks[i] != NULL);
        CHECK((uintptr_t)blocks[i] % 64 == 0);
        for (size_t j = 0; j < bytes; j++)
            CHECK(blocks[i][j] == 0);
        memset(blocks[i], 0xa5, bytes); /* what is handed out again must be zeroed again */
        if (i > 0)
            CHECK(((uintptr_t)blocks[i] - (uintptr_t)blocks[i - 1]) % 4096 == 320);
        if (i % 3 == 2) {
            fnn_release(blocks[i - 1]);
            blocks[i - 1] = NULL;
        }
    }
    CHECK(fnn_allocation_count() - before == COUNT);
    for (int i = 0; i < COUNT; i++)
        fnn_release(blocks[i]);
}

static int n_allocator_calls;

static void *no_memory(size_t alignment, size_t bytes)
{
    (void)alignment;
    (void)bytes;
    n_allocator_calls++;
    return NULL;
}

static void test_memory_runs_out(void)
{
    fnn_memory_functions saved = fnn_memory;
    fnn_memory.allocate = no_memory;
    CHECK(fnn_allocate(100) == NULL);
    CHECK(n_allocator_calls == 1);
    fnn_memory = saved;

    void *filler = fnn_allocate(1); /* at most one block in a row lies at offset 0, where SIZE_MAX does not overflow */
    void *huge[2] = {fnn_allocate(SIZE_MAX), fnn_allocate(SIZE_MAX - 63)};
    CHECK(huge[0] == NULL && huge[1] == NULL);
    fnn_release(filler);
    fnn_release(NULL);
}

/* ---- status ---- */

static void test_status_texts(void)
{
    for (int status = FNN_OK; status <= FNN_ENOISA; status++) {
        CHECK(strcmp(fnn_status_text((fnn_status)status), "unknown status") != 0);
        for (int other = FNN_OK; other < status; other++)
            CHECK(strcmp(fnn_status_text((fnn_status)status), fnn_status_text((fnn_status)other)) != 0);
    }
    CHECK(strcmp(fnn_status_text((fnn_status)99), "unknown status") == 0);
    CHECK(strcmp(fnn_version(), FNN_VERSION_STRING) == 0);
}

/* ---- processors ---- */

static void write_file(const char *root, const char *path, const char *text)
{
    char full[PATH_MAX];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        CHECK(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    CHECK(file != NULL);
    if (file != NULL) {
        fputs(text, file);
        fclose(file);
    }
}

#ifdef __linux__
static void test_cgroup_quota(void)
{
    char root[] = "/tmp/fnn_cgroup_XXXXXX", command[64];
    CHECK(mkdtemp(root) != NULL);
    CHECK(fnn_cgroup_limit(root) == INT_MAX);

    write_file(root, "/proc/self/cgroup", "0::/outer/inner\n"); /* version 2 */
    CHECK(fnn_cgroup_limit(root) == INT_MAX);
    write_file(root, "/sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
    CHECK(fnn_cgroup_limit(root) == INT_MAX);
    write_file(root, "/sys/fs/cgroup/outer/cpu.max", "350000 100000\n");
    CHECK(fnn_cgroup_limit(root) == 4);
    write_file(root, "/sys/fs/cgroup/outer/inner/cpu.max", "100000 100000\n");
    CHECK(fnn_cgroup_limit(root) == 1);
    write_file(root, "/sys/fs/cgroup/outer/inner/cpu.max", "600000 100000\n");
    CHECK(fnn_cgroup_limit(root) == 4);
    write_file(root, "/sys/fs/cgroup/outer/cpu.max", "nonsense\n");
    CHECK(fnn_cgroup_limit(root) == 6);
    write_file(root, "/proc/self/cgroup", "0::/not/mounted/here\n"); /* a container that sees the host's path */
    write_file(root, "/sys/fs/cgroup/cpu.max", "20000 100000\n");
    CHECK(fnn_cgroup_limit(root) == 1);
    write_file(root, "/sys/fs/cgroup/cpu.max", "100001 100000\n");
    CHECK(fnn_cgroup_limit(root) == 2);

    write_file(root, "/proc/self/cgroup", "5:cpuset:/a\n4:cpuacct,cpu:/a\n1:name=x:/a\nbroken\n"); /* version 1 */
    write_file(root, "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
    write_file(root, "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    CHECK(fnn_cgroup_limit(root) == INT_MAX);
    write_file(root, "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "250000\n");
    CHECK(fnn_cgroup_limit(root) == 3);
    write_file(root, "/proc/self/cgroup", "5:cpuset:/a\n");
    CHECK(fnn_cgroup_limit(root) == INT_MAX);

    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK(system(command) == 0);
}

static void test_affinity(void)
{
    cpu_set_t before, one;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CHECK(fnn_cpu_count() >= 1 && fnn_cpu_count() <= CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(fnn_cpu_count() == 1);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}
#endif

static int threads_with(const char *fastnn, const char *omp)
{
    unsetenv("FASTNN_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
    if (fastnn != NULL)
        setenv("FASTNN_NUM_THREADS", fastnn, 1);
    if (omp != NULL)
        setenv("OMP_NUM_THREADS", omp, 1);
    fnn_set_num_threads(0);
    return fnn_get_num_threads();
}

static void test_number_of_threads(void)
{
    int processors = fnn_cpu_count(), n = processors + 3;
    char text[16], list[16];
    snprintf(text, sizeof text, "%d", n);
    snprintf(list, sizeof list, " %d ,2", n);
    CHECK(threads_with(NULL, NULL) == processors);
    CHECK(threads_with(text, NULL) == n);
    CHECK(threads_with(NULL, list) == n);
    CHECK(threads_with(text, "1") == n);
    static const char *const invalid[] = {"", "0", "-2", "two", "2x", "1.5", ","};
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        CHECK(threads_with(invalid[i], NULL) == processors);
        CHECK(threads_with(invalid[i], text) == n);
    }
    CHECK(threads_with("99999999999999999999", NULL) == FNN_MAX_THREADS);
    CHECK(fnn_set_num_threads(3) == FNN_OK && fnn_get_num_threads() == 3);
    CHECK(fnn_set_num_threads(-1) == FNN_EINVAL && fnn_get_num_threads() == 3);
    CHECK(threads_with(NULL, NULL) == processors);
}

/* ---- instruction sets ---- */

static bool child_succeeded(pid_t child)
{
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* In a process that has not chosen yet: does FASTNN_ISA=wanted give what it must? */
static bool isa_is_obeyed(const char *wanted, bool runnable)
{
    const char *name = NULL;
    setenv("FASTNN_ISA", wanted, 1);
    fnn_status status = fnn_isa_name(&name);
    if (!runnable)
        return status == FNN_ENOISA && strcmp(name, wanted) == 0 && fnn_dispatch(FNN_FLOAT32) == NULL;
    if (status != FNN_OK || (*wanted != '\0' && strcmp(name, wanted) != 0))
        return false;
    setenv("FASTNN_ISA", "no such set", 1); /* too late */
    return fnn_dispatch(FNN_FLOAT32) == fnn_kernels_of(name, FNN_FLOAT32) &&
           fnn_dispatch(FNN_FLOAT64) == fnn_kernels_of(name, FNN_FLOAT64) &&
           strcmp(fnn_dispatch(FNN_FLOAT64)->isa, name) == 0;
}

static void test_dispatch(void)
{
    static const char *const names[] = {"baseline", "avx2", "avx512", "neon", "sse9", "AVX2", "avx", "baseline "};
    CHECK(fnn_kernels_of("baseline", FNN_FLOAT32) != NULL);
    CHECK(fnn_kernels_of("sse9", FNN_FLOAT32) == NULL && fnn_kernels_of(NULL, FNN_FLOAT32) == NULL);
    CHECK(fnn_kernels_of("avx512", FNN_FLOAT32) == NULL || (fnn_cpu_features() & FNN_CPU_AVX512));
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
        const char *name = i == 0 ? "" : names[i - 1];
        bool runnable = i == 0 || fnn_kernels_of(name, FNN_FLOAT32) != NULL;
        pid_t child = fork();
        if (child == 0)
            _exit(!isa_is_obeyed(name, runnable));
        CHECK(child_succeeded(child));
    }
}

/* ---- the thread pool ---- */

enum { STAGES = 3, MOST_THREADS = 64 };

/* Every stage, each thread adds up what all threads wrote in the stage before: wrong if one passes a barrier early. */
typedef struct relay {
    int written[STAGES + 1][MOST_THREADS];
    atomic_int n_wrong;
    atomic_int n_ran;
} relay;

static void run_relay(void *argument, int thread, int n_threads)
{
    relay *r = argument;
    atomic_fetch_add_explicit(&r->n_ran, 1, memory_order_relaxed);
    r->written[0][thread] = thread + 1;
    for (int stage = 1; stage <= STAGES; stage++) {
        fnn_barrier(n_threads);
        int sum = 0, expected = 0;
        for (int i = 0; i < n_threads; i++) {
            sum += r->written[stage - 1][i];
            expected += (i + 1) * stage;
        }
        if (sum != expected)
            atomic_fetch_add(&r->n_wrong, 1);
        r->written[stage][thread] = (thread + 1) * (stage + 1);
    }
}

static int relay_threads(int n_threads)
{
    relay r = {.n_wrong = 0};
    int ran = fnn_pool_run(run_relay, &r, n_threads);
    return r.n_wrong == 0 && r.n_ran == ran ? ran : -1;
}

static void test_jobs_and_barriers(void)
{
    static const int counts[][2] = {{1, 10000}, {2, 10000}, {3, 10000}, {4, 10000}, {8, 10000}, {17, 300}, {64, 100}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int n = 0; n < counts[i][1]; n++)
            CHECK(relay_threads(counts[i][0]) == counts[i][0]);
    for (int n = 0; n < 2000; n++) /* the number changes from job to job */
        CHECK(relay_threads(1 + n * 7 % 8) == 1 + n * 7 % 8);
    CHECK(relay_threads(0) == 1);
    CHECK(relay_threads(-5) == 1);
}

static void test_sleeping_workers_wake_up(void)
{
    for (int n = 0; n < 200; n++) {
        usleep(500);
        CHECK(relay_threads(2 + n % 3) == 2 + n % 3);
    }
}

static void run_nested(void *argument, int thread, int n_threads)
{
    (void)n_threads;
    ((int *)argument)[thread] = relay_threads(4);
}

static void test_a_job_inside_a_job_runs_alone(void)
{
    int ran[2] = {0, 0};
    CHECK(fnn_pool_run(run_nested, ran, 2) == 2);
    CHECK(ran[0] == 1 && ran[1] == 1);
}

static atomic_int n_wrong_callers;

static void *call_many_times(void *argument)
{
    (void)argument;
    for (int n = 0; n < 2000; n++) {
        int ran = relay_threads(3);
        if (ran != 1 && ran != 3)
            atomic_fetch_add(&n_wrong_callers, 1);
    }
    return NULL;
}

static void test_concurrent_callers(void)
{
    pthread_t callers[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&callers[i], NULL, call_many_times, NULL) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i], NULL);
    CHECK(n_wrong_callers == 0);
}

static int n_creations, n_creations_allowed;
static fnn_thread_functions system_threads;

static int create_some(pthread_t *thread, void *(*start)(void *), void *argument)
{
    return n_creations++ < n_creations_allowed ? system_threads.create(thread, start, argument) : EAGAIN;
}

/* In a child, because the pool must be empty to begin with. */
static bool lives_with_refusals(int allowed)
{
    system_threads = fnn_threads;
    fnn_threads.create = create_some;
    n_creations = 0;
    n_creations_allowed = allowed;
    bool right = true;
    for (int n = 0; n < 100; n++)
        right = right && relay_threads(6) == (allowed < 5 ? allowed + 1 : 6);
    right = right && n_creations == (allowed < 5 ? allowed + 1 : 5);
    right = right && fnn_thread_failures() == (allowed < 5);
    right = right && relay_threads(2) == (allowed > 0 ? 2 : 1);
    n_creations_allowed = INT_MAX; /* more threads are wanted: worth another try */
    return right && relay_threads(7) == 7 && relay_threads(6) == 6;
}

static void test_thread_creation_fails(void)
{
    for (int allowed = 0; allowed <= 6; allowed++) {
        pid_t child = fork();
        if (child == 0)
            _exit(!lives_with_refusals(allowed));
        CHECK(child_succeeded(child));
    }
}

static bool signals_blocked[4];

static void look_at_signals(void *argument, int thread, int n_threads)
{
    (void)argument;
    (void)n_threads;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    signals_blocked[thread] = sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1 &&
                              sigismember(&mask, SIGALRM) == 1 && sigismember(&mask, SIGSEGV) == 0;
}

static void test_workers_take_no_signals(void)
{
    CHECK(fnn_pool_run(look_at_signals, NULL, 4) == 4);
    CHECK(!signals_blocked[0]);
    CHECK(signals_blocked[1] && signals_blocked[2] && signals_blocked[3]);
}

#ifdef __x86_64__
static unsigned float_modes[4];

static void look_at_float_mode(void *argument, int thread, int n_threads)
{
    (void)argument;
    (void)n_threads;
    float_modes[thread] = _mm_getcsr();
}

static void test_workers_have_the_callers_float_mode(void)
{
    enum { FLUSH_TO_ZERO = 0x8000, ROUND_DOWN = 0x2000, CONTROL = 0xffc0 };
    unsigned before = _mm_getcsr();
    const unsigned modes[] = {before, before | FLUSH_TO_ZERO, before | ROUND_DOWN, before};
    for (int i = 0; i < 4; i++) {
        _mm_setcsr(modes[i]);
        fnn_pool_run(look_at_float_mode, NULL, 4);
        _mm_setcsr(before);
        for (int thread = 0; thread < 4; thread++)
            CHECK((float_modes[thread] & CONTROL) == (modes[i] & CONTROL));
    }
}
#endif

/* ---- fork ---- */

static bool child_works(unsigned generation)
{
    alarm(30);
    return fnn_fork_generation() == generation + 1 && relay_threads(2) == 2 && relay_threads(3) == 3;
}

static void fork_many_times(int count, int jobs_between)
{
    unsigned generation = fnn_fork_generation();
    for (int n = 0; n < count; n++) {
        for (int job = 0; job < jobs_between; job++)
            CHECK(relay_threads(2) == 2);
        pid_t child = fork();
        if (child == 0)
            _exit(!child_works(generation));
        CHECK(child_succeeded(child));
    }
    CHECK(fnn_fork_generation() == generation);
}

static void test_fork_after_use(void)
{
    fork_many_times(100, 2);
    CHECK(relay_threads(4) == 4);
}

static atomic_bool stop_jobs;

static void *run_jobs_until_stopped(void *argument)
{
    int *n_together = argument;
    while (!atomic_load(&stop_jobs)) {
        int ran = relay_threads(3);
        if (ran != 1 && ran != 3)
            atomic_fetch_add(&n_wrong_callers, 1);
        *n_together += ran == 3;
    }
    return NULL;
}

static void test_fork_while_jobs_run(void)
{
    int n_together = 0;
    pthread_t runner;
    atomic_store(&stop_jobs, false);
    CHECK(pthread_create(&runner, NULL, run_jobs_until_stopped, &n_together) == 0);
    fork_many_times(1000, 0);
    atomic_store(&stop_jobs, true);
    pthread_join(runner, NULL);
    CHECK(n_wrong_callers == 0);
    CHECK(n_together > 0);
}

static void test_generation_counts_grandchildren(void)
{
    unsigned generation = fnn_fork_generation();
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0)
            _exit(fnn_fork_generation() != generation + 2);
        _exit(!child_succeeded(grandchild));
    }
    CHECK(child_succeeded(child));
}

void run_runtime_tests(void)
{
    alarm(WATCHDOG_SECONDS);
    RUN(test_sizes);
    RUN(test_memory_is_aligned_zeroed_and_staggered);
    RUN(test_memory_runs_out);
    RUN(test_status_texts);
#ifdef __linux__
    RUN(test_cgroup_quota);
    RUN(test_affinity);
#endif
    RUN(test_number_of_threads);
    RUN(test_dispatch);
    RUN(test_thread_creation_fails);
    RUN(test_jobs_and_barriers);
    RUN(test_sleeping_workers_wake_up);
    RUN(test_a_job_inside_a_job_runs_alone);
    RUN(test_concurrent_callers);
    RUN(test_workers_take_no_signals);
#ifdef __x86_64__
    RUN(test_workers_have_the_callers_float_mode);
#endif
    RUN(test_fork_after_use);
    RUN(test_fork_while_jobs_run);
    RUN(test_generation_counts_grandchildren);
    alarm(0);
}

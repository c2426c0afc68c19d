/* The thread pool: one per process, its workers started on demand and kept.
 *
 * A caller that has the pool's lock fills in the job, posts it to the workers it needs, takes part as thread 0 and
 * waits for the others. Everything that waits spins for a moment and then sleeps, so that a program which shares its
 * processors loses microseconds and not time slices.
 *
 * Before a fork all workers end. No thread is then lost in the child, no lock is left held by one, and the child's
 * pool is simply empty; both processes start workers again when they need some. A job must not fork. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "runtime.h"

/* ---- floating-point mode: rounding and treatment of subnormal numbers, which decide bits ---- */

#if defined(__x86_64__)
#include <xmmintrin.h>

typedef unsigned float_mode;

static float_mode get_float_mode(void)
{
    return _mm_getcsr();
}

static void set_float_mode(float_mode mode)
{
    _mm_setcsr(mode);
}
#elif defined(__aarch64__)
typedef uint64_t float_mode;

static float_mode get_float_mode(void)
{
    float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}

static void set_float_mode(float_mode mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
#else
typedef int float_mode;

static float_mode get_float_mode(void)
{
    return 0;
}

static void set_float_mode(float_mode mode)
{
    (void)mode;
}
#endif

/* ---- events: a number that one thread advances and others wait for ---- */

enum { CACHE_LINE = 64, POLLS_PER_CLOCK = 32 };
/* Linux likes to wake a thread on the processor of the thread that woke it. If that one then spins, the two take turns
 * and a job costs two full spins: 105 us with 50 us, 45 us with 20 us. Calling sched_yield while spinning gave 15 us on
 * a quiet machine, but beside a busy process it can give away whole time slices (median 5.8 ms in one run of two). */
static const double SPIN_SECONDS = 20e-6;

typedef struct event {
    _Alignas(CACHE_LINE) atomic_uint number;
    atomic_int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t advanced;
} event;

static void relax_processor(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* "yield" takes no time on most cores */
#endif
}

/* Did the number leave `old` within the time that is worth spinning for? */
static bool event_spin(event *e, unsigned old)
{
    double end = 0.0;
    for (;;) {
        for (int i = 0; i < POLLS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&e->number, memory_order_acquire) != old)
                return true;
            relax_processor();
        }
        double now = fnn_clock();
        if (end == 0.0)
            end = now + SPIN_SECONDS;
        else if (now > end)
            return false;
    }
}

/* A sleeper announces itself before it looks at the number, and the number advances before the announcements are looked
 * at: in sequentially consistent order one of the two sees the other. */
static void event_sleep(event *e, unsigned old)
{
    atomic_fetch_add(&e->sleepers, 1);
    pthread_mutex_lock(&e->mutex);
    while (atomic_load(&e->number) == old)
        pthread_cond_wait(&e->advanced, &e->mutex);
    pthread_mutex_unlock(&e->mutex);
    atomic_fetch_sub(&e->sleepers, 1);
}

static void event_wait(event *e, unsigned old, bool spin)
{
    if (!spin || !event_spin(e, old))
        event_sleep(e, old);
}

static void event_advance(event *e)
{
    atomic_fetch_add(&e->number, 1);
    if (atomic_load(&e->sleepers) > 0) {
        /* Passing through the mutex: a sleeper that has seen the old number is inside pthread_cond_wait by then. */
        pthread_mutex_lock(&e->mutex);
        pthread_mutex_unlock(&e->mutex);
        pthread_cond_broadcast(&e->advanced);
    }
}

/* ---- state ---- */

typedef struct posted_job {
    fnn_job function; /* NULL: end the worker */
    void *argument;
    int n_threads;
    bool spin;
    float_mode mode;
} posted_job;

typedef struct worker {
    event posted; /* advanced once for every job that this worker takes part in */
    pthread_t thread;
    int index; /* 1 .. FNN_MAX_THREADS - 1 */
} worker;

/* lock guards what follows it; the workers of the posted job read `job` while its caller holds the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static posted_job job;
static worker workers[FNN_MAX_THREADS]; /* [0] stands for the caller and is not used */
static int n_started = 1;               /* threads that can take part, the caller included */
static int n_refused;                   /* number of threads for which the system had none left */
static int n_processors;

static event phase = {.mutex = PTHREAD_MUTEX_INITIALIZER, .advanced = PTHREAD_COND_INITIALIZER};
static _Alignas(CACHE_LINE) atomic_int n_arrived;

static atomic_int n_failures;
static atomic_int n_forking; /* threads that want the lock for a fork */
static atomic_int n_steps;   /* steps in flight */
static atomic_uint fork_generation;

/* ---- barrier ---- */

/* True for the last of the threads, which has then let the others go. */
static bool arrive(int n_threads)
{
    if (atomic_fetch_add_explicit(&n_arrived, 1, memory_order_acq_rel) + 1 < n_threads)
        return false;
    atomic_store_explicit(&n_arrived, 0, memory_order_relaxed);
    event_advance(&phase);
    return true;
}

void fnn_barrier(int n_threads)
{
    if (n_threads <= 1)
        return;
    unsigned before = atomic_load_explicit(&phase.number, memory_order_relaxed);
    if (!arrive(n_threads))
        event_wait(&phase, before, job.spin);
}

/* ---- workers ---- */

static void *work(void *argument)
{
    worker *self = argument;
    bool spin = false;
    for (unsigned done = 0;; done++) {
        event_wait(&self->posted, done, spin);
        posted_job current = job; /* after the last thread has arrived it may change */
        if (current.function == NULL)
            return NULL;
        set_float_mode(current.mode);
        current.function(current.argument, self->index, current.n_threads);
        arrive(current.n_threads);
        spin = current.spin;
    }
}

static bool start_worker(int index)
{
    worker *self = &workers[index];
    self->index = index;
    atomic_store(&self->posted.number, 0);
    pthread_mutex_init(&self->posted.mutex, NULL);
    pthread_cond_init(&self->posted.advanced, NULL);
    if (fnn_threads.create(&self->thread, work, self) == 0)
        return true;
    pthread_cond_destroy(&self->posted.advanced);
    pthread_mutex_destroy(&self->posted.mutex);
    return false;
}

/* Start workers for a job of n_threads, and return how many threads it can have. A refusal is not questioned
 * again until more threads are wanted: at every call it would cost a failing system call. */
static int start_workers(int n_threads)
{
    if (n_started == 1)
        n_processors = fnn_cpu_count();
    while (n_started < n_threads && n_threads > n_refused) {
        if (start_worker(n_started)) {
            n_started++;
        } else {
            n_refused = n_threads;
            atomic_fetch_add_explicit(&n_failures, 1, memory_order_relaxed);
        }
    }
    return n_started < n_threads ? n_started : n_threads;
}

static void end_workers(void)
{
    job = (posted_job){.function = NULL};
    for (int i = 1; i < n_started; i++)
        event_advance(&workers[i].posted);
    for (int i = 1; i < n_started; i++) {
        pthread_join(workers[i].thread, NULL);
        pthread_cond_destroy(&workers[i].posted.advanced);
        pthread_mutex_destroy(&workers[i].posted.mutex);
    }
    n_started = 1;
    n_refused = 0;
}

int fnn_thread_failures(void)
{
    return atomic_load_explicit(&n_failures, memory_order_relaxed);
}

/* ---- fork and exit ---- */

static void before_fork(void)
{
    /* A caller that runs one job after the other would otherwise take the lock again before the fork gets it. */
    atomic_fetch_add(&n_forking, 1);
    pthread_mutex_lock(&lock);
    while (atomic_load(&n_steps) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
    end_workers();
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
    atomic_fetch_sub(&n_forking, 1);
}

static void after_fork_in_child(void)
{
    pthread_mutex_unlock(&lock);
    atomic_store(&n_forking, 0); /* other threads that were about to fork, or to begin a step, do not exist here */
    atomic_store(&n_steps, 0);
    atomic_fetch_add(&fork_generation, 1);
}

bool fnn_fork_waits(void)
{
    return atomic_load_explicit(&n_forking, memory_order_relaxed) > 0;
}

static bool survives_fork;

static void install_fork_handlers(void)
{
    survives_fork = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
}

static bool fork_handlers_installed(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_fork_handlers);
    return survives_fork;
}

unsigned fnn_fork_generation(void)
{
    fork_handlers_installed();
    return atomic_load(&fork_generation);
}

/* Also runs when the library is unloaded, where a sleeping worker would wake up in code that is gone. */
__attribute__((destructor)) static void end_workers_at_exit(void)
{
    if (pthread_mutex_trylock(&lock) == 0) {
        end_workers();
        pthread_mutex_unlock(&lock);
    }
}

/* ---- running a job ---- */

static void run_together(fnn_job function, void *argument, int n_threads)
{
    job = (posted_job){function, argument, n_threads, n_threads <= n_processors, get_float_mode()};
    for (int i = 1; i < n_threads; i++)
        event_advance(&workers[i].posted);
    function(argument, 0, n_threads);
    fnn_barrier(n_threads); /* the workers arrive at it, too, but have nothing to wait for */
}

int fnn_pool_run(fnn_job function, void *argument, int n_threads)
{
    n_threads = n_threads < FNN_MAX_THREADS ? n_threads : FNN_MAX_THREADS;
    if (n_threads > 1 && fork_handlers_installed() && atomic_load(&n_forking) == 0 &&
        pthread_mutex_trylock(&lock) == 0) {
        n_threads = start_workers(n_threads);
        if (n_threads > 1)
            run_together(function, argument, n_threads);
        pthread_mutex_unlock(&lock);
        if (n_threads > 1)
            return n_threads;
    }
    function(argument, 0, 1);
    return 1;
}

/* A step announces itself before it looks for forks, and a fork before it looks for steps: one of the two sees the
 * other. */
static void begin_step(void)
{
    atomic_fetch_add(&n_steps, 1);
    while (atomic_load(&n_forking) > 0) {
        atomic_fetch_sub(&n_steps, 1);
        pthread_mutex_lock(&lock); /* until the fork is over */
        pthread_mutex_unlock(&lock);
        atomic_fetch_add(&n_steps, 1);
    }
}

int fnn_pool_run_step(fnn_job function, void *argument, int n_threads)
{
    fork_handlers_installed();
    begin_step();
    n_threads = fnn_pool_run(function, argument, n_threads);
    atomic_fetch_sub(&n_steps, 1);
    return n_threads;
}

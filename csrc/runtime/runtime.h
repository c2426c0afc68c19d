/* What the operating system gives: memory, files, processors, threads, time. Knows no layer and no kernel but the
 * chosen table's address. Allocation, file I/O and thread creation go through tables of functions so that tests can
 * fail the n-th call. */
#ifndef FNN_RUNTIME_H
#define FNN_RUNTIME_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "fastnn.h"
#include "size.h"

/* ---- function tables (runtime/system.c) ---- */

typedef struct fnn_memory_functions {
    void *(*allocate)(size_t alignment, size_t bytes);
    void (*release)(void *memory);
} fnn_memory_functions;

typedef struct fnn_file_functions {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*read)(int file, void *buffer, size_t bytes);
    ssize_t (*write)(int file, const void *buffer, size_t bytes);
    int (*sync)(int file);
    int (*close)(int file);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*file_status)(int file, struct stat *about);
    int (*path_status)(const char *path, struct stat *about);
} fnn_file_functions;

typedef struct fnn_thread_functions {
    int (*create)(pthread_t *thread, void *(*start)(void *), void *argument); /* joinable; 0, or an errno value */
} fnn_thread_functions;

extern fnn_memory_functions fnn_memory;
extern fnn_file_functions fnn_files;
extern fnn_thread_functions fnn_threads;

/* 64-byte aligned and zeroed, at a different offset within 4 KiB than the call before: arrays at equal offsets evict
 * each other from the first-level cache and make loads wait for unrelated stores. NULL when there is no memory.
 * bytes may be 0. */
void *fnn_allocate(size_t bytes);
void fnn_release(void *memory);      /* NULL is allowed */
uint64_t fnn_allocation_count(void); /* calls of fnn_allocate so far, for the tests that count them */

/* ---- the machine (runtime/cpu.c) ---- */

enum { FNN_CPU_AVX2 = 1, FNN_CPU_AVX512 = 2, FNN_CPU_NEON = 4 };
/* Instruction sets that the processor has *and* the operating system saves the registers of. */
unsigned fnn_cpu_features(void);
/* Processors this process may use: affinity and cgroup quota, at least 1. Reads files: tens of microseconds. */
int fnn_cpu_count(void);
/* The cgroup's processor quota (versions 1 and 2), rounded up; INT_MAX for none. root is put before /proc and /sys: ""
 * but in tests. */
int fnn_cgroup_limit(const char *root);
/* Seconds of a steady clock. */
double fnn_clock(void);

/* ---- dispatch (runtime/dispatch.c, the only file that names the tables) ---- */

struct fnn_kernels;
/* The table of the live instruction set; NULL where FASTNN_ISA asks for one that cannot run. Chosen once, atomically.
 * dtype is FNN_FLOAT32 or FNN_FLOAT64. */
const struct fnn_kernels *fnn_dispatch(fnn_dtype dtype);
/* The table of a given instruction set, or NULL if it is not built in or cannot run here (tests, show_config). */
const struct fnn_kernels *fnn_kernels_of(const char *isa, fnn_dtype dtype);
/* Name of the index-th instruction set that is built in and can run here, best first; NULL after the last. */
const char *fnn_runnable_isa(size_t index);
const char *fnn_compiler(void); /* that built this library (runtime/status.c) */

/* ---- the thread pool (runtime/pool.c; runtime/threads.c holds fnn_get_num_threads) ---- */

enum { FNN_MAX_THREADS = 256 };

/* A job runs as job(argument, thread, n_threads) once for each thread 0..n_threads-1, thread 0 being the caller. */
typedef void (*fnn_job)(void *argument, int thread, int n_threads);
/* Run the job on up to n_threads threads and return when all are done; returns the number that ran. Fewer run when
 * threads cannot be created; one when another caller has the pool or a fork waits for it: results never depend on it.
 * Workers start lazily, spin briefly, then sleep; they have the caller's floating-point mode and take no signals. A job
 * must not fork and must not wait for another thread of the program: a fork waits for the job in flight. */
int fnn_pool_run(fnn_job job, void *argument, int n_threads);
/* The same for a job that changes a net: a fork waits for it even where it runs on one thread, so that no child sees it
 * half done. */
int fnn_pool_run_step(fnn_job job, void *argument, int n_threads);
/* Does a fork wait for the jobs in flight? Long ones look and end early. */
bool fnn_fork_waits(void);
/* Inside a job: wait until all of its threads are here. Nothing at one thread. */
void fnn_barrier(int n_threads);
/* Rises by one in every child forked after its first call: state held by threads that do not exist there is recognised
 * by it. */
unsigned fnn_fork_generation(void);
/* Number of times the system refused a thread so far (show_config and the one warning of the binding). */
int fnn_thread_failures(void);

/* ---- faults on demand (runtime/faults.c) ---- */

/* For tests: the n-th allocation (thread start) from now fails, once or from then on; n = 0 ends it. */
void fnn_fail_allocation(uint64_t n, int from_then_on);
void fnn_fail_thread_start(uint64_t n, int from_then_on);
/* The same for any function of fnn_files, which fails with `error`; a write may instead take half of its bytes (error
 * 0). close closes all the same. */
void fnn_fail_io(uint64_t n, int from_then_on, int error);

#endif

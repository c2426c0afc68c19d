/* The operating system behind tables of functions, with POSIX as the default. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime.h"

/* ---- memory ---- */

static void *posix_allocate(size_t alignment, size_t bytes)
{
    void *memory = NULL;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

fnn_memory_functions fnn_memory = {.allocate = posix_allocate, .release = free};

/* Blocks lie on a page boundary plus a multiple of 320 bytes: five cache lines, so that 64 blocks in a row start at 64
 * different lines of the page. The start of the page is what was allocated, and the block's end is its end: a sanitizer
 * still sees the first byte past it. */
enum { PAGE = 4096, STAGGER = 320 };

static atomic_size_t next_offset;
static _Atomic uint64_t allocation_count;

void *fnn_allocate(size_t bytes)
{
    atomic_fetch_add_explicit(&allocation_count, 1, memory_order_relaxed);
    size_t offset = atomic_fetch_add_explicit(&next_offset, STAGGER, memory_order_relaxed) % PAGE;
    size_t total;
    if (!fnn_size_add(&total, bytes > 0 ? bytes : 1, offset))
        return NULL;
    char *page = fnn_memory.allocate(PAGE, total);
    if (page == NULL)
        return NULL;
    return memset(page + offset, 0, total - offset);
}

void fnn_release(void *memory)
{
    if (memory != NULL)
        fnn_memory.release((char *)memory - (uintptr_t)memory % PAGE);
}

uint64_t fnn_allocation_count(void)
{
    return atomic_load_explicit(&allocation_count, memory_order_relaxed);
}

/* ---- files ---- */

static int posix_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags | O_CLOEXEC, mode);
}

static int posix_sync(int file)
{
#ifdef F_FULLFSYNC
    /* fsync of macOS leaves the data in the drive's cache. */
    if (fcntl(file, F_FULLFSYNC) == 0)
        return 0;
#endif
    return fsync(file);
}

fnn_file_functions fnn_files = {
    .open = posix_open,
    .read = read,
    .write = write,
    .sync = posix_sync,
    .close = close,
    .rename = rename,
    .unlink = unlink,
    .file_status = fstat,
    .path_status = stat,
};

/* ---- threads ---- */

/* Fixed, because the default differs a lot (8 MiB with glibc, 128 KiB with musl). */
enum { STACK_BYTES = 2 << 20 };

/* Signals belong to the threads of the program. The exception are those that report a fault of the thread itself:
 * blocked, they would end the process without a word from the crash handler. */
static void worker_signals(sigset_t *blocked)
{
    sigfillset(blocked);
    sigdelset(blocked, SIGSEGV);
    sigdelset(blocked, SIGBUS);
    sigdelset(blocked, SIGFPE);
    sigdelset(blocked, SIGILL);
}

static int posix_create(pthread_t *thread, void *(*start)(void *), void *argument)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0) {
        /* A thread inherits the mask: blocking here leaves no moment in which a signal could reach it. */
        sigset_t blocked, before;
        worker_signals(&blocked);
        pthread_sigmask(SIG_SETMASK, &blocked, &before);
        error = pthread_create(thread, &attributes, start, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return error;
}

fnn_thread_functions fnn_threads = {.create = posix_create};

/* ---- time ---- */

double fnn_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Faults on demand, for tests: the n-th allocation, thread start or I/O call from now fails. They sit in front of
 * whatever the function tables held, and step aside when n is 0. */
#include <errno.h>
#include <stdatomic.h>

#include "runtime.h"

typedef struct fault {
    _Atomic uint64_t countdown; /* calls until the failing one; 0: none */
    atomic_bool from_then_on;
} fault;

static fault memory_fault, thread_fault, io_fault;
static fnn_memory_functions real_memory;
static fnn_thread_functions real_threads;
static fnn_file_functions real_files;
static _Atomic int io_error; /* of the failing I/O call; 0: a short write */

static bool strikes(fault *f)
{
    uint64_t left = atomic_load(&f->countdown);
    while (left > 1)
        if (atomic_compare_exchange_weak(&f->countdown, &left, left - 1))
            return false;
    if (left == 1 && !atomic_load(&f->from_then_on))
        atomic_store(&f->countdown, 0);
    return left == 1;
}

static void set_fault(fault *f, uint64_t n, int from_then_on)
{
    atomic_store(&f->from_then_on, from_then_on != 0);
    atomic_store(&f->countdown, n);
}

static void *faulty_allocate(size_t alignment, size_t bytes)
{
    return strikes(&memory_fault) ? NULL : real_memory.allocate(alignment, bytes);
}

static int faulty_create(pthread_t *thread, void *(*start)(void *), void *argument)
{
    return strikes(&thread_fault) ? EAGAIN : real_threads.create(thread, start, argument);
}

void fnn_fail_allocation(uint64_t n, int from_then_on)
{
    if (fnn_memory.allocate != faulty_allocate) {
        real_memory = fnn_memory;
        fnn_memory.allocate = faulty_allocate;
    }
    set_fault(&memory_fault, n, from_then_on);
}

void fnn_fail_thread_start(uint64_t n, int from_then_on)
{
    if (fnn_threads.create != faulty_create) {
        real_threads = fnn_threads;
        fnn_threads.create = faulty_create;
    }
    set_fault(&thread_fault, n, from_then_on);
}

/* ---- I/O ---- */

/* Should this call fail? Then errno says why. */
static bool fails(void)
{
    if (!strikes(&io_fault))
        return false;
    errno = atomic_load(&io_error);
    return errno != 0;
}

static int faulty_open(const char *path, int flags, mode_t mode)
{
    return fails() ? -1 : real_files.open(path, flags, mode);
}

static ssize_t faulty_read(int file, void *buffer, size_t bytes)
{
    return fails() ? -1 : real_files.read(file, buffer, bytes);
}

static ssize_t faulty_write(int file, const void *buffer, size_t bytes)
{
    bool strike = strikes(&io_fault);
    errno = strike ? atomic_load(&io_error) : 0;
    if (errno != 0)
        return -1;
    return real_files.write(file, buffer, strike && bytes > 1 ? bytes / 2 : bytes);
}

static int faulty_sync(int file)
{
    return fails() ? -1 : real_files.sync(file);
}

static int faulty_close(int file)
{
    bool failure = fails();
    int error = errno, closed = real_files.close(file);
    if (failure)
        errno = error;
    return failure ? -1 : closed;
}

static int faulty_rename(const char *from, const char *to)
{
    return fails() ? -1 : real_files.rename(from, to);
}

static int faulty_unlink(const char *path)
{
    return fails() ? -1 : real_files.unlink(path);
}

static int faulty_file_status(int file, struct stat *about)
{
    return fails() ? -1 : real_files.file_status(file, about);
}

static int faulty_path_status(const char *path, struct stat *about)
{
    return fails() ? -1 : real_files.path_status(path, about);
}

void fnn_fail_io(uint64_t n, int from_then_on, int error)
{
    if (fnn_files.open != faulty_open) {
        real_files = fnn_files;
        fnn_files = (fnn_file_functions){.open = faulty_open,
                                         .read = faulty_read,
                                         .write = faulty_write,
                                         .sync = faulty_sync,
                                         .close = faulty_close,
                                         .rename = faulty_rename,
                                         .unlink = faulty_unlink,
                                         .file_status = faulty_file_status,
                                         .path_status = faulty_path_status};
    }
    atomic_store(&io_error, error);
    set_fault(&io_fault, n, from_then_on);
}

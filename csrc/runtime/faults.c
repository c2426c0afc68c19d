/* Faults on demand, for tests: the n-th allocation or thread start from now fails. They sit in front of whatever the
 * function tables held, and step aside when n is 0. */
#include <errno.h>
#include <stdatomic.h>

#include "runtime.h"

typedef struct fault {
    _Atomic uint64_t countdown; /* calls until the failing one; 0: none */
    atomic_bool from_then_on;
} fault;

static fault memory_fault, thread_fault;
static fnn_memory_functions real_memory;
static fnn_thread_functions real_threads;

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

/* How many threads are used where a call does not say. */
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "runtime.h"

static atomic_int chosen; /* by fnn_set_num_threads; 0: none */
/* Looked up once, because reading the cgroup's files takes longer than a small prediction; 0: not yet. */
static atomic_int default_count;

/* The value of a variable like "4" or "4,2" (OpenMP: one number per nesting level), or 0 if it is not a count. */
static int count_from_environment(const char *variable)
{
    const char *text = getenv(variable);
    if (text == NULL)
        return 0;
    char *end;
    long count = strtol(text, &end, 10);
    while (*end == ' ' || *end == '\t')
        end++;
    if (end == text || (*end != '\0' && *end != ',') || count < 1)
        return 0;
    return count < INT_MAX ? (int)count : INT_MAX;
}

static int find_default(void)
{
    int count = count_from_environment("FASTNN_NUM_THREADS");
    if (count == 0)
        count = count_from_environment("OMP_NUM_THREADS");
    return count != 0 ? count : fnn_cpu_count();
}

int fnn_get_num_threads(void)
{
    int count = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (count == 0)
        count = atomic_load_explicit(&default_count, memory_order_relaxed);
    if (count == 0) {
        count = find_default();
        atomic_store_explicit(&default_count, count, memory_order_relaxed);
    }
    return count < FNN_MAX_THREADS ? count : FNN_MAX_THREADS;
}

fnn_status fnn_set_num_threads(int n)
{
    if (n < 0)
        return FNN_EINVAL;
    atomic_store_explicit(&default_count, 0, memory_order_relaxed);
    atomic_store_explicit(&chosen, n, memory_order_relaxed);
    return FNN_OK;
}

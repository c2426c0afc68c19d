/* Memory that counts itself, for the table fnn_memory. */
#ifndef COUNTED_MEMORY_H
#define COUNTED_MEMORY_H

#include <stdlib.h>
#ifdef __APPLE__
#include <malloc/malloc.h>
#define malloc_usable_size malloc_size
#else
#include <malloc.h>
#endif

#include "runtime.h"

static _Atomic size_t live_bytes, peak_bytes, live_blocks;

/* Nobody's file needs more. */
#define MOST_OF_A_BLOCK ((size_t)1 << 32)

static void *counted_allocate(size_t alignment, size_t bytes)
{
    void *memory = NULL;
    if (bytes > MOST_OF_A_BLOCK || posix_memalign(&memory, alignment, bytes) != 0)
        return NULL;
    live_blocks++;
    live_bytes += malloc_usable_size(memory);
    if (live_bytes > peak_bytes)
        peak_bytes = live_bytes;
    return memory;
}

static void counted_release(void *memory)
{
    live_blocks--;
    live_bytes -= malloc_usable_size(memory);
    free(memory);
}

static const fnn_memory_functions counted_memory = {counted_allocate, counted_release};

#endif

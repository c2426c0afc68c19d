/* Which instruction set computes: the best one that is built in and can run, or the one that FASTNN_ISA names. */
#if defined(__AVX__) && !defined(FNN_ALLOW_NATIVE)
/* For a library that never leaves this machine, define FNN_ALLOW_NATIVE. */
#error "dispatch.c runs before it is known which instructions may: compile it without -march or -mavx flags"
#endif

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"
#include "table.h"

typedef struct instruction_set {
    const char *name;
    unsigned features; /* all needed */
    const fnn_kernels *float32, *float64;
} instruction_set;

/* Best first. The build says which tables exist. */
static const instruction_set instruction_sets[] = {
#ifdef FNN_HAVE_AVX512
    {"avx512", FNN_CPU_AVX2 | FNN_CPU_AVX512, &fnn_kernels_avx512_f32, &fnn_kernels_avx512_f64},
#endif
#ifdef FNN_HAVE_AVX2
    {"avx2", FNN_CPU_AVX2, &fnn_kernels_avx2_f32, &fnn_kernels_avx2_f64},
#endif
#ifdef FNN_HAVE_NEON
    {"neon", FNN_CPU_NEON, &fnn_kernels_neon_f32, &fnn_kernels_neon_f64},
#endif
    {"baseline", 0, &fnn_kernels_baseline_f32, &fnn_kernels_baseline_f64},
};

/* The index-th of the runnable instruction sets; NULL after the last. */
static const instruction_set *runnable(size_t index)
{
    unsigned features = fnn_cpu_features();
    for (size_t i = 0; i < sizeof instruction_sets / sizeof *instruction_sets; i++)
        if ((features & instruction_sets[i].features) == instruction_sets[i].features && index-- == 0)
            return &instruction_sets[i];
    return NULL;
}

/* The best runnable instruction set, or the one of that name; NULL if there is none. */
static const instruction_set *find(const char *name)
{
    const instruction_set *set;
    for (size_t i = 0; (set = runnable(i)) != NULL; i++)
        if (name == NULL || strcmp(name, set->name) == 0)
            return set;
    return NULL;
}

static const char *wanted_name(void)
{
    const char *name = getenv("FASTNN_ISA");
    return name != NULL && *name != '\0' ? name : NULL;
}

/* Chosen once: the tables of one process never change under a running net. A wrong name is not remembered. */
static const instruction_set *live(void)
{
    static _Atomic(const instruction_set *) chosen;
    const instruction_set *set = atomic_load_explicit(&chosen, memory_order_acquire);
    if (set == NULL) {
        const instruction_set *found = find(wanted_name());
        if (atomic_compare_exchange_strong(&chosen, &set, found))
            set = found;
    }
    return set;
}

static const fnn_kernels *table_of(const instruction_set *set, fnn_dtype dtype)
{
    if (set == NULL)
        return NULL;
    return dtype == FNN_FLOAT64 ? set->float64 : set->float32;
}

const fnn_kernels *fnn_dispatch(fnn_dtype dtype)
{
    return table_of(live(), dtype);
}

const fnn_kernels *fnn_kernels_of(const char *isa, fnn_dtype dtype)
{
    return isa != NULL ? table_of(find(isa), dtype) : NULL;
}

const char *fnn_runnable_isa(size_t index)
{
    const instruction_set *set = runnable(index);
    return set != NULL ? set->name : NULL;
}

fnn_status fnn_isa_name(const char **name)
{
    const instruction_set *set = live();
    if (name == NULL)
        return FNN_EINVAL;
    *name = set != NULL ? set->name : wanted_name();
    return set != NULL ? FNN_OK : FNN_ENOISA;
}

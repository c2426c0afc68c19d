/* What one core can do at most: multiply-adds in registers, and reading. Compiled once per instruction set, named
 * FNN_ISA, with the flags of csrc/isa.flags; without FMA a multiply-add is two instructions. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FNN_EXPORT __attribute__((visibility("default")))
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

/* Independent sums: more than latency times throughput of an FMA (4 cycles, 2 per cycle), fewer than 16 registers. */
enum { SUMS = 12 };

/* At least `flops` floating-point operations (a multiply-add is two); `start` is anything, and so is what comes out. */
#define FNN_FMA(name, real)                                                          \
    FNN_EXPORT real JOIN(name, FNN_ISA)(size_t flops, real start);                   \
    real JOIN(name, FNN_ISA)(size_t flops, real start)                               \
    {                                                                                \
        typedef real vector __attribute__((vector_size(VECTOR_BYTES)));              \
        const size_t per_round = 2 * SUMS * sizeof(vector) / sizeof(real);           \
        vector sum[SUMS], total = {0}, factor = (vector){0} + (real)0.5;             \
        for (int i = 0; i < SUMS; i++)                                               \
            sum[i] = (vector){0} + start + (real)i;                                  \
        for (size_t round = 0; round < (flops + per_round - 1) / per_round; round++) \
            for (int i = 0; i < SUMS; i++)                                           \
                sum[i] = sum[i] * factor + factor;                                   \
        for (int i = 0; i < SUMS; i++)                                               \
            total += sum[i];                                                         \
        return total[0];                                                             \
    }

FNN_FMA(fnn_bench_fma_f32_, float)
FNN_FMA(fnn_bench_fma_f64_, double)

/* Reads `bytes` (a multiple of 512) at `data`, `repeats` times; returns the exclusive or of what was read. */
FNN_EXPORT uint64_t JOIN(fnn_bench_read_, FNN_ISA)(const char *data, size_t bytes, size_t repeats);
uint64_t JOIN(fnn_bench_read_, FNN_ISA)(const char *data, size_t bytes, size_t repeats)
{
    typedef uint64_t vector __attribute__((vector_size(VECTOR_BYTES)));
    enum { STREAMS = 8 };
    vector seen[STREAMS] = {{0}}, all = {0};
    for (size_t repeat = 0; repeat < repeats; repeat++) {
        for (size_t at = 0; at < bytes; at += STREAMS * sizeof(vector))
            for (size_t i = 0; i < STREAMS; i++) {
                vector v;
                memcpy(&v, data + at + i * sizeof v, sizeof v);
                seen[i] ^= v;
            }
        __asm__ volatile("" ::: "memory"); /* else reading twice may be seen to cancel out */
    }
    for (int i = 0; i < STREAMS; i++)
        all ^= seen[i];
    return all[0];
}

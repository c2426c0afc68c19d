/* Vectors of `real` in GCC/Clang vector extensions: one source for every instruction set. FNN_VBYTES is the width of a
 * register in bytes; a target without vectors still compiles (the compiler then works element by element).
 *
 * Write whole-vector expressions. A per-lane subscript in a hot loop spills to the stack (about 9 times slower with GCC
 * 12), and a vector type wider than the target's register does as well. */
#ifndef FNN_VBYTES
#error "kernel headers are reached through isa_*.c alone, which set the vector width"
#endif

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if FNN_REAL_BITS == 32
typedef float real;
typedef int32_t real_int;
typedef uint32_t real_uint;
#elif FNN_REAL_BITS == 64
typedef double real;
typedef int64_t real_int;
typedef uint64_t real_uint;
#else
#error "FNN_REAL_BITS is 32 or 64"
#endif

typedef real vreal __attribute__((vector_size(FNN_VBYTES)));
typedef real_int vint __attribute__((vector_size(FNN_VBYTES))); /* comparison results: 0 or -1 per lane */
typedef real_uint vuint __attribute__((vector_size(FNN_VBYTES)));
typedef double vdouble __attribute__((vector_size(FNN_VBYTES)));
typedef uint64_t vu64 __attribute__((vector_size(FNN_VBYTES)));

enum {
    VW = FNN_VBYTES / sizeof(real),   /* lanes of a vreal */
    VD = FNN_VBYTES / sizeof(double), /* lanes of a vdouble */
    LANES = 16,                       /* every reduction has this many lanes, whatever the width */
    PAD = 64 / sizeof(real)           /* leading dimensions of padded matrices are multiples of this */
};

#define FNN_INLINE static inline __attribute__((always_inline))

#ifdef __clang__
#define FNN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FNN_UNROLL _Pragma("GCC unroll 16")
#endif

FNN_INLINE vreal vload(const real *p)
{
    vreal v;
    memcpy(&v, p, sizeof v);
    return v;
}

FNN_INLINE void vstore(real *p, vreal v)
{
    memcpy(p, &v, sizeof v);
}

/* -1 in the first n lanes, 0 in the others. */
FNN_INLINE vint vfirst(size_t n)
{
    static const real_int lane[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vint v;
    memcpy(&v, lane, sizeof v);
    return v < (real_int)n;
}

/* The first n < VW elements; the other lanes are 0 and are not read. */
FNN_INLINE vreal vload_partial(const real *p, size_t n)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vreal)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif FNN_VBYTES == 64
    return (vreal)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vreal)_mm256_maskload_ps(p, (__m256i)vfirst(n));
#elif FNN_VBYTES == 32
    return (vreal)_mm256_maskload_pd(p, (__m256i)vfirst(n));
#else
    vreal v = {0};
    memcpy(&v, p, n * sizeof(real));
    return v;
#endif
}

FNN_INLINE void vstore_partial(real *p, vreal v, size_t n)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif FNN_VBYTES == 64
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    _mm256_maskstore_ps(p, (__m256i)vfirst(n), (__m256)v);
#elif FNN_VBYTES == 32
    _mm256_maskstore_pd(p, (__m256i)vfirst(n), (__m256d)v);
#else
    memcpy(p, &v, n * sizeof(real));
#endif
}

FNN_INLINE vreal vsplat(real a)
{
    return a - (vreal){0};
}

/* a * b + c, rounded once where the instruction set has it: the only place where products and sums fuse. */
FNN_INLINE vreal vfma(vreal a, vreal b, vreal c)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vreal)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FNN_VBYTES == 64
    return (vreal)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vreal)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif FNN_VBYTES == 32
    return (vreal)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(FNN_NEON) && FNN_REAL_BITS == 32
    return (vreal)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(FNN_NEON)
    return (vreal)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

/* mask ? a : b, lane by lane; mask comes from a comparison. */
FNN_INLINE vreal vselect(vint mask, vreal a, vreal b)
{
    return (vreal)((mask & (vint)a) | (~mask & (vint)b));
}

/* a > b ? a : b, and a < b ? a : b below: of equal numbers (zeros of either sign) and where one is NaN, b. */
FNN_INLINE vreal vmax(vreal a, vreal b)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vreal)_mm512_max_ps((__m512)a, (__m512)b);
#elif FNN_VBYTES == 64
    return (vreal)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vreal)_mm256_max_ps((__m256)a, (__m256)b);
#elif FNN_VBYTES == 32
    return (vreal)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return vselect(a > b, a, b);
#endif
}

FNN_INLINE vreal vmin(vreal a, vreal b)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vreal)_mm512_min_ps((__m512)a, (__m512)b);
#elif FNN_VBYTES == 64
    return (vreal)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vreal)_mm256_min_ps((__m256)a, (__m256)b);
#elif FNN_VBYTES == 32
    return (vreal)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return vselect(a < b, a, b);
#endif
}

FNN_INLINE vreal vabs(vreal a)
{
    return (vreal)((vuint)a & ~((real_uint)1 << (FNN_REAL_BITS - 1)));
}

FNN_INLINE vreal vsqrt(vreal a)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vreal)_mm512_sqrt_ps((__m512)a);
#elif FNN_VBYTES == 64
    return (vreal)_mm512_sqrt_pd((__m512d)a);
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vreal)_mm256_sqrt_ps((__m256)a);
#elif FNN_VBYTES == 32
    return (vreal)_mm256_sqrt_pd((__m256d)a);
#elif defined(FNN_NEON) && FNN_REAL_BITS == 32
    return (vreal)vsqrtq_f32((float32x4_t)a);
#elif defined(FNN_NEON)
    return (vreal)vsqrtq_f64((float64x2_t)a);
#elif defined(__SSE2__) && FNN_REAL_BITS == 32
    return (vreal)_mm_sqrt_ps((__m128)a);
#elif defined(__SSE2__)
    return (vreal)_mm_sqrt_pd((__m128d)a);
#else
    for (int i = 0; i < VW; i++)
        a[i] = FNN_REAL_BITS == 32 ? (real)__builtin_sqrtf((float)a[i]) : (real)__builtin_sqrt((double)a[i]);
    return a;
#endif
}

/* The sum of 16 lanes, folded 8, 4, 2, 1 whatever the register width, so that every width gives the same bits. */
typedef struct lanes {
    vreal v[LANES / VW];
} lanes;

FNN_INLINE real lanes_sum(lanes a)
{
    real x[LANES];
    memcpy(x, &a, sizeof x);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

/* Up to n elements: a whole vector where n >= VW, else a partial one. */
FNN_INLINE vreal vload_first(const real *p, size_t n)
{
    return n >= VW ? vload(p) : vload_partial(p, n);
}

FNN_INLINE void vstore_first(real *p, vreal v, size_t n)
{
    if (n >= VW)
        vstore(p, v);
    else
        vstore_partial(p, v, n);
}

/* memcpy for rows that are often short: copies of known size, the last one overlapping, take a third of the time of a
 * call, let alone of the string instruction that GCC chooses where it knows a bound. */
FNN_INLINE void copy_short(void *to, const void *from, size_t bytes)
{
    unsigned char *t = (unsigned char *)to;
    const unsigned char *f = (const unsigned char *)from;
    if (bytes >= 64) {
        for (size_t at = 0; at + FNN_VBYTES <= bytes; at += FNN_VBYTES)
            memcpy(t + at, f + at, FNN_VBYTES);
        memcpy(t + bytes - FNN_VBYTES, f + bytes - FNN_VBYTES, FNN_VBYTES);
    } else if (bytes >= 32) {
        memcpy(t, f, 32);
        memcpy(t + bytes - 32, f + bytes - 32, 32);
    } else if (bytes >= 16) {
        memcpy(t, f, 16);
        memcpy(t + bytes - 16, f + bytes - 16, 16);
    } else if (bytes >= 8) {
        memcpy(t, f, 8);
        memcpy(t + bytes - 8, f + bytes - 8, 8);
    } else if (bytes >= 4) {
        memcpy(t, f, 4);
        memcpy(t + bytes - 4, f + bytes - 4, 4);
    } else if (bytes) {
        t[0] = f[0];
        t[bytes / 2] = f[bytes / 2];
        t[bytes - 1] = f[bytes - 1];
    }
}

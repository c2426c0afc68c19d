/* Reductions to one number: 16 lanes of double, element i in lane i mod 16, folded 8, 4, 2, 1. Products and sums stay
 * apart, so the bits are the same on every instruction set, with or without fused multiply-add. */

typedef struct wide_lanes {
    vdouble v[LANES / VD];
} wide_lanes;

/* VD elements as double, converted straight from memory: that needs no shuffle. GCC 12 splits the general form in two
 * and joins the halves again, hence the intrinsics. */
FNN_INLINE vdouble widen_vector(const real *x)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vdouble)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vdouble)_mm256_cvtps_pd(_mm_loadu_ps(x));
#else
    typedef real narrow __attribute__((vector_size(FNN_VBYTES / sizeof(double) * sizeof(real))));
    narrow part;
    memcpy(&part, x, sizeof part);
    return __builtin_convertvector(part, vdouble);
#endif
}

FNN_INLINE wide_lanes widen(const real x[LANES])
{
    wide_lanes wide;
    for (int k = 0; k < LANES / VD; k++)
        wide.v[k] = widen_vector(x + k * VD);
    return wide;
}

/* The same of lanes that were computed. */
FNN_INLINE wide_lanes widen_lanes(lanes x)
{
    wide_lanes wide;
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    wide.v[0] = (vdouble)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x.v[0]));
    wide.v[1] = (vdouble)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x.v[0], 1));
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    FNN_UNROLL
    for (int k = 0; k < LANES / VW; k++) {
        wide.v[2 * k] = (vdouble)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x.v[k]));
        wide.v[2 * k + 1] = (vdouble)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x.v[k], 1));
    }
#else
    real values[LANES];
    memcpy(values, &x, sizeof values);
    wide = widen(values);
#endif
    return wide;
}

FNN_INLINE wide_lanes wide_load(const double x[LANES])
{
    wide_lanes wide;
    memcpy(&wide, x, sizeof wide);
    return wide;
}

FNN_INLINE wide_lanes wide_add(wide_lanes a, wide_lanes b)
{
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] += b.v[k];
    return a;
}

FNN_INLINE wide_lanes wide_multiply(wide_lanes a, wide_lanes b)
{
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] *= b.v[k];
    return a;
}

FNN_INLINE wide_lanes wide_abs(wide_lanes a)
{
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] = (vdouble)((vu64)a.v[k] & ~((uint64_t)1 << 63));
    return a;
}

FNN_INLINE double wide_sum(wide_lanes a)
{
    FNN_FOLD(a.v, VD, FNN_UPPER_DOUBLES, FNN_PLUS);
    return a.v[0][0];
}

static double weighted_sum(const double *values, const double *weights, size_t count)
{
    wide_lanes sum = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        wide_lanes terms = wide_load(values + i);
        sum = wide_add(sum, weights ? wide_multiply(terms, wide_load(weights + i)) : terms);
    }
    double rest[LANES] = {0};
    for (size_t j = 0; i + j < count; j++)
        rest[j] = weights ? values[i + j] * weights[i + j] : values[i + j];
    return wide_sum(wide_add(sum, wide_load(rest)));
}

FNN_INLINE wide_lanes penalized_gradient(const real g[LANES], const real p[LANES], vreal l1, vreal l2)
{
    real terms[LANES];
    for (int k = 0; k < LANES; k += VW) {
        vreal w = vload(p + k);
        vreal slope = vselect(w > 0, l1, vselect(w < 0, -l1, vsplat(0)));
        vstore(terms + k, vload(g + k) + slope + (l2 + l2) * w);
    }
    return widen(terms);
}

static double square_norm(const void *g_, const void *p_, double l1, double l2, size_t count)
{
    const real *g = g_, *p = p_;
    const int penalized = l1 != 0 || l2 != 0;
    const vreal slope = vsplat((real)l1), curvature = vsplat((real)l2);
    wide_lanes sum = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        wide_lanes terms = penalized ? penalized_gradient(g + i, p + i, slope, curvature) : widen(g + i);
        sum = wide_add(sum, wide_multiply(terms, terms));
    }
    if (i < count) {
        real g_rest[LANES] = {0}, p_rest[LANES] = {0};
        memcpy(g_rest, g + i, (count - i) * sizeof(real));
        if (penalized)
            memcpy(p_rest, p + i, (count - i) * sizeof(real));
        wide_lanes terms = penalized ? penalized_gradient(g_rest, p_rest, slope, curvature) : widen(g_rest);
        sum = wide_add(sum, wide_multiply(terms, terms));
    }
    return wide_sum(sum);
}

static double penalty(const void *p_, double l1, double l2, size_t count)
{
    const real *p = p_;
    const size_t whole = count - count % LANES;
    real rest[LANES] = {0};
    memcpy(rest, p + whole, (count - whole) * sizeof(real));
    wide_lanes magnitudes = {0}, squares = {0};
    for (size_t i = 0; i <= whole; i += LANES) {
        wide_lanes terms = widen(i < whole ? p + i : rest);
        magnitudes = wide_add(magnitudes, wide_abs(terms));
        squares = wide_add(squares, wide_multiply(terms, terms));
    }
    /* An absent penalty contributes nothing, even where its sum overflows. */
    return (l1 != 0 ? l1 * wide_sum(magnitudes) : 0) + (l2 != 0 ? l2 * wide_sum(squares) : 0);
}

static ptrdiff_t first_nonfinite(const void *x_, size_t count)
{
    enum { BLOCK = 8 * LANES };
    const real *x = x_;
    size_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        vuint found = {0};
        for (size_t k = 0; k < BLOCK; k += VW) {
            vreal v = vload(x + i + k);
            found |= (vuint)(v - v); /* +0 where v is finite, else NaN */
        }
        real_uint lanes_found[VW], any = 0;
        memcpy(lanes_found, &found, sizeof found);
        for (int k = 0; k < VW; k++)
            any |= lanes_found[k];
        if (any)
            break;
    }
    for (; i < count; i++) {
        real v;
        memcpy(&v, x + i, sizeof v); /* a user's array may be unaligned */
        if (v - v != 0)
            return (ptrdiff_t)i;
    }
    return -1;
}

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
    FNN_UNROLL
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
    FNN_UNROLL
    for (int k = 0; k < LANES / VD; k++)
        memcpy(&wide.v[k], x + k * VD, sizeof(vdouble));
    return wide;
}

FNN_INLINE wide_lanes wide_add(wide_lanes a, wide_lanes b)
{
    FNN_UNROLL
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] += b.v[k];
    return a;
}

FNN_INLINE wide_lanes wide_multiply(wide_lanes a, wide_lanes b)
{
    FNN_UNROLL
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] *= b.v[k];
    return a;
}

FNN_INLINE wide_lanes wide_abs(wide_lanes a)
{
    FNN_UNROLL
    for (int k = 0; k < LANES / VD; k++)
        a.v[k] = (vdouble)((vu64)a.v[k] & ~((uint64_t)1 << 63));
    return a;
}

FNN_INLINE double wide_sum(wide_lanes a)
{
    FNN_FOLD(a.v, VD, FNN_UPPER_DOUBLES, FNN_PLUS);
    return a.v[0][0];
}

/* weights may be NULL. */
static double weighted_sum(const double *values, const double *weights, size_t count)
{
    wide_lanes sum = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const wide_lanes terms = wide_load(values + i);
        sum = wide_add(sum, weights ? wide_multiply(terms, wide_load(weights + i)) : terms);
    }
    double rest[LANES] = {0};
    for (size_t j = 0; i + j < count; j++)
        rest[j] = weights ? values[i + j] * weights[i + j] : values[i + j];
    return wide_sum(wide_add(sum, wide_load(rest)));
}

/* g + l1 sign(p) + 2 l2 p */
FNN_INLINE vreal penalized(vreal g, vreal p, real l1, real twice_l2)
{
    if (l1 != 0)
        g += vselect(p == 0, vsplat(0), vwith_sign(vsplat(l1), p));
    return g + twice_l2 * p;
}

enum sum_kind { SUM_MAGNITUDES, SUM_SQUARES, SUM_PENALIZED_SQUARES };

/* One block's terms: |x|, x^2, or (x + l1 sign(p) + 2 l2 p)^2. */
FNN_INLINE wide_lanes sum_block(enum sum_kind kind, const real *x, const real *p, real l1, real twice_l2)
{
    if (kind == SUM_MAGNITUDES)
        return wide_abs(widen(x));
    wide_lanes terms;
    if (kind == SUM_SQUARES) {
        terms = widen(x);
    } else {
        lanes gradient;
        FNN_UNROLL
        for (int k = 0; k < LANES; k += VW)
            gradient.v[k / VW] = penalized(vload(x + k), vload(p + k), l1, twice_l2);
        terms = widen_lanes(gradient);
    }
    return wide_multiply(terms, terms);
}

/* With AVX2 the conversions bound the sum of squares, one vector a cycle: more lanes would gain nothing (Zen 3). */
FNN_INLINE double sum_of(enum sum_kind kind, const real *x, const real *p, real l1, real twice_l2, size_t count)
{
    wide_lanes sum = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        sum = wide_add(sum, sum_block(kind, x + i, p + i, l1, twice_l2));
    if (i < count) {
        real x_rest[LANES] = {0}, p_rest[LANES] = {0};
        memcpy(x_rest, x + i, (count - i) * sizeof(real));
        if (kind == SUM_PENALIZED_SQUARES)
            memcpy(p_rest, p + i, (count - i) * sizeof(real));
        sum = wide_add(sum, sum_block(kind, x_rest, p_rest, l1, twice_l2));
    }
    return wide_sum(sum);
}

static double square_norm(const void *g, const void *p, double l1, double l2, size_t count)
{
    if (l1 == 0 && l2 == 0)
        return sum_of(SUM_SQUARES, g, g, 0, 0, count);
    return sum_of(SUM_PENALIZED_SQUARES, g, p, (real)l1, 2 * (real)l2, count);
}

/* An absent penalty contributes nothing, even where its sum overflows. */
static double penalty(const void *p, double l1, double l2, size_t count)
{
    return (l1 != 0 ? l1 * sum_of(SUM_MAGNITUDES, p, p, 0, 0, count) : 0) +
           (l2 != 0 ? l2 * sum_of(SUM_SQUARES, p, p, 0, 0, count) : 0);
}

static int any_outside(const void *g_, const void *p_, double l1, double l2, double low, double high, size_t count)
{
    const real *g = g_, *p = p_;
    const vreal least = vsplat((real)low), most = vsplat((real)high);
    vuint found = {0};
    for (size_t i = 0; i < count; i += VW) {
        real g_rest[VW] = {0}, p_rest[VW] = {0};
        const int whole = i + VW <= count;
        if (!whole) {
            memcpy(g_rest, g + i, (count - i) * sizeof(real));
            memcpy(p_rest, p + i, (count - i) * sizeof(real));
        }
        const vreal v = penalized(vload(whole ? g + i : g_rest), vload(whole ? p + i : p_rest), (real)l1, 2 * (real)l2);
        found |= (vuint)(v < least) | (vuint)(v > most);
    }
    real_uint lanes_found[VW], any = 0;
    memcpy(lanes_found, &found, sizeof found);
    for (int k = 0; k < VW; k++)
        any |= lanes_found[k];
    return any != 0;
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

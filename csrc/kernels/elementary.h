/* Elementary functions on whole vectors, without tables, branches or libm: the same bits for every vector width, within
 * 3 ulp (GELU and SiLU: 4). Polynomials are minimax fits (Remez exchange, 50 digits) of the function named beside them;
 * "err" is the largest relative error before rounding. A number becomes the exponent of another when it is added to
 * 1.5 * 2^23 (1.5 * 2^52), whose last bits then are the integer: every instruction set can do that. */

#if FNN_REAL_BITS == 32

enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127, HALF_RANGE = 64 };
static const real_uint SIGN_BIT = 0x80000000u, SQRT_HALF_BITS = 0x3f3504f3u;
static const real_uint UPPER_HALF = 0xfffff000u; /* of a mantissa: its square is exact */
static const real ROUND_TO_INTEGER = 0x1.8p23f, TWO_TO_MANTISSA = 0x1p23f, SMALLEST_NORMAL = 0x1p-126f,
                  TWO_TO_MINUS_HALF_RANGE = 0x1p-64f;

/* ln 2 = HIGH + LOW; HIGH has 9 bits, so that its product with an exponent is exact. */
static const real LOG2_E = 0x1.715476p0f, LN2_HIGH = 0x1.63p-1f, LN2_LOW = -0x1.bd0106p-13f, LN2 = 0x1.62e43p-1f;

/* Beyond these the result no longer changes: 0 or inf for exp, -1 for expm1, 1 for tanh and erf, x or 0 for GELU, 0 for
 * SiLU. */
static const real EXP_MIN = -104, EXP_MAX = 89, EXPM1_MIN = -20, TANH_MAX = 9.5, ERF_MAX = 4, GELU_MAX = 14.5,
                  SILU_MIN = -109;

/* (e^r - 1 - r) / r^2, |r| <= ln(2) / 2: err 2^-26.2 of e^r - 1 */
static const real EXP_POLYNOMIAL[] = {0.4999999814f, 0.1666654319f, 0.0416672015f, 0.008366578816f, 0.001388252699f};

/* (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, |s| <= (sqrt 2 - 1) / (sqrt 2 + 1): err 2^-37.6 of the log */
static const real LOG_POLYNOMIAL[] = {0.6666666565f, 0.4000033518f, 0.2853730876f, 0.2358215042f};

/* erf(x) / x - 1 in x^2, |x| <= 3/4: err 2^-29.4 of erf */
static const real ERF_POLYNOMIAL[] = {0.1283791655f,   -0.3761261875f, 0.1128337654f,
                                      -0.02683462293f, 0.00511434244f, -0.0006749492751f};

/* e^(a^2 / 2) Phi(-a) / (1 - q) in q = (a - center) / (a + center), 0 <= a <= 14.6: err 2^-26.8 */
static const real TAIL_POLYNOMIAL[] = {0.09441064192f,  -0.07598707332f,  0.04839211299f,   -0.02331543574f,
                                       0.007550470616f, -9.406255283e-4f, -4.390098653e-4f, 1.961988216e-4f,
                                       2.229664193e-5f, -1.655411115e-5f};

#else

enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023, HALF_RANGE = 512 };
static const real_uint SIGN_BIT = 0x8000000000000000u, SQRT_HALF_BITS = 0x3fe6a09e667f3bcdu;
static const real_uint UPPER_HALF = 0xfffffffff8000000u;
static const real ROUND_TO_INTEGER = 0x1.8p52, TWO_TO_MANTISSA = 0x1p52, SMALLEST_NORMAL = 0x1p-1022,
                  TWO_TO_MINUS_HALF_RANGE = 0x1p-512;

static const real LOG2_E = 0x1.71547652b82fep0, LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33,
                  LN2 = 0x1.62e42fefa39efp-1;

static const real EXP_MIN = -746, EXP_MAX = 710, EXPM1_MIN = -40, TANH_MAX = 20, ERF_MAX = 6, GELU_MAX = 39,
                  SILU_MIN = -752;

/* As above: err 2^-55.6 of e^r - 1 */
static const real EXP_POLYNOMIAL[] = {0.50000000000000052271,     0.16666666666666588626,   0.041666666666576100693,
                                      0.0083333333333899293565,   0.0013888888931796761412, 0.00019841269718405947852,
                                      0.000024801504977284966091, 2.7557407808784983918e-6, 2.7626161915351580544e-7,
                                      2.5053793720195195023e-8};

/* err 2^-59.5 of the log */
static const real LOG_POLYNOMIAL[] = {0.66666666666667344082, 0.39999999999414709824, 0.28571428742379895049,
                                      0.22222198574033159486, 0.18183564279449035602, 0.15314051808710609485,
                                      0.14795936525305172793};

/* err 2^-60.1 of erf */
static const real ERF_POLYNOMIAL[] = {0.12837916709551257301,    -0.37612638903183714927,     0.11283791670952480411,
                                      -0.026866170644402416924,  0.0052239776151216851604,    -0.0008548326169056378156,
                                      0.00012055288775977779943, -0.000014924176609518388406, 1.6430387842356577081e-6,
                                      -1.5937597220992661021e-7, 1.1463748894838496928e-8};

/* 0 <= a <= 39.1: err 2^-59.3 */
static const real TAIL_POLYNOMIAL[] = {
    0.094410641301968936547,    -0.075987080246486511879,    0.048392175092776855655,    -0.023315232244957329101,
    0.0075495718613649262606,   -0.00094252362083536864419,  -0.00043496154587683289421, 0.00020385230712169340217,
    0.000016668038511123647862, -0.000028886866329642212589, -2.385286924882236623e-7,   4.393083430988919961e-6,
    8.9568077693301149417e-8,   -7.4001659261277941569e-7,   -7.8670702597937364015e-8,  1.2769062245651819822e-7,
    3.3902849112970785494e-8,   -1.9378728863997980902e-8,   -1.0596235273682555254e-8,  1.682077981832300728e-9,
    2.4027014138303401926e-9,   2.1935008958056039973e-10,   -3.0181696247321544177e-10, -8.3746974282132991284e-11};

#endif

static const real ERF_SMALL = 0.75; /* below it erf by its own polynomial, above by erfc */
static const real TAIL_CENTER = 4;  /* a power of two: products with it are exact */
static const real SQRT_2 = (real)1.41421356237309504880, INVERSE_SQRT_2PI = (real)0.39894228040143267794;

#define POLYNOMIAL(x, coefficients) polynomial(x, coefficients, sizeof(coefficients) / sizeof(real))

/* Horner's rule in x^2 over pairs of coefficients. One operation more than in x but half the latency, which is what
 * counts: a processor looks ahead over a few vectors of a loop only. */
FNN_INLINE vreal polynomial(vreal x, const real *coefficients, size_t n)
{
    const vreal square = x * x;
    size_t i = (n - 1) / 2 * 2;
    vreal sum = vsplat(coefficients[i]);
    if (i + 1 < n)
        sum = vfma(vsplat(coefficients[i + 1]), x, sum);
#pragma GCC unroll 32
    while (i > 0) {
        i -= 2;
        sum = vfma(sum, square, vfma(vsplat(coefficients[i + 1]), x, vsplat(coefficients[i])));
    }
    return sum;
}

/* |a| with the sign of b, where a is not negative. */
FNN_INLINE vreal vwith_sign(vreal a, vreal b)
{
    return (vreal)((vuint)a | ((vuint)b & SIGN_BIT));
}

/* x = (n - bias) ln 2 + r, |r| <= ln(2) / 2; only the last bits of n are the integer. */
typedef struct exp_reduced {
    vuint n;
    vreal r;
} exp_reduced;

/* Of high - low, where low is small and mends the rounding of high. */
FNN_INLINE exp_reduced exp_reduce(vreal high, vreal low, int bias)
{
    const vreal round = vsplat(ROUND_TO_INTEGER + (real)bias);
    const vreal shifted = vfma(high - low, vsplat(LOG2_E), round);
    const vreal n = shifted - round;
    const vreal r = vfma(n, vsplat(-LN2_HIGH), high) - low;
    return (exp_reduced){(vuint)shifted, vfma(n, vsplat(-LN2_LOW), r)};
}

/* e^r - 1, |r| <= ln(2) / 2. The minus signs become those of the fused multiply-add and keep a zero's sign. */
FNN_INLINE vreal expm1_polynomial(vreal r)
{
    return -vfma(r * r, -POLYNOMIAL(r, EXP_POLYNOMIAL), -r);
}

/* a 2^(n - 2 EXPONENT_BIAS). In two steps, the first of them exact: 2^n itself may be out of range. */
FNN_INLINE vreal scale_by_power(vreal a, vuint n)
{
    const vuint half = n >> 1;
    return a * (vreal)(half << MANTISSA_BITS) * (vreal)((n - half) << MANTISSA_BITS);
}

FNN_INLINE vreal vexp(vreal x)
{
    const vreal clamped = vmin(vsplat(EXP_MAX), vmax(vsplat(EXP_MIN), x)); /* in this order a NaN stays */
    const exp_reduced e = exp_reduce(clamped, vsplat(0), 2 * EXPONENT_BIAS);
    return scale_by_power(1 + expm1_polynomial(e.r), e.n);
}

/* e^x - 1 for x in EXPM1_MIN..EXP_MAX. Half of it is formed, since 2^n alone may overflow; where x is so small that
 * the half could be denormal, and for the sign of zero, x itself is the result. */
FNN_INLINE vreal expm1_clamped(vreal x)
{
    const exp_reduced e = exp_reduce(x, vsplat(0), EXPONENT_BIAS - 1);
    const vreal power = (vreal)(e.n << MANTISSA_BITS);
    const vreal half = vfma(expm1_polynomial(e.r), power, power - (real)0.5);
    return vselect(vabs(x) < vsplat((real)0.25 / TWO_TO_MANTISSA), x, half + half);
}

FNN_INLINE vreal vexpm1(vreal x)
{
    return expm1_clamped(vmin(vsplat(EXP_MAX), vmax(vsplat(EXPM1_MIN), x)));
}

/* e^x for x <= 0, the same bits as vexp: the range of its results leaves room for a power that is out by a constant. */
FNN_INLINE vreal vexp_negative(vreal x)
{
    const exp_reduced e = exp_reduce(vmax(vsplat(EXP_MIN), x), vsplat(0), EXPONENT_BIAS + HALF_RANGE);
    return (1 + expm1_polynomial(e.r)) * (vreal)(e.n << MANTISSA_BITS) * TWO_TO_MINUS_HALF_RANGE;
}

/* (e^2x - 1) / (e^2x + 1). Only at 0 must e^2x - 1 keep all its digits, and there 2^n is 1: one constant for ln 2 is
 * enough. A quotient of two polynomials would save three operations but was up to 6 ulp wrong near 1. */
FNN_INLINE vreal vtanh(vreal x)
{
    const vreal round = vsplat(ROUND_TO_INTEGER + EXPONENT_BIAS);
    const vreal twice = vmin(vsplat(2 * TANH_MAX), vmax(vsplat(-2 * TANH_MAX), x + x)); /* in this order a NaN stays */
    const vreal shifted = vfma(twice, vsplat(LOG2_E), round);
    const vreal r = vfma(shifted - round, vsplat(-LN2), twice);
    const vreal power = (vreal)((vuint)shifted << MANTISSA_BITS);
    const vreal e = vfma(expm1_polynomial(r), power, -(1 - power)); /* likewise */
    return e / (2 + e);
}

/* 1 / (1 + e^-x), the quotient of two numbers 2^HALF_RANGE times smaller: e^-x alone may overflow. */
FNN_INLINE vreal vsigmoid(vreal x)
{
    const vreal clamped = vmin(vsplat(-EXP_MIN), vmax(vsplat(EXPM1_MIN), -x));
    const exp_reduced e = exp_reduce(clamped, vsplat(0), EXPONENT_BIAS - HALF_RANGE);
    const vreal power = (vreal)(e.n << MANTISSA_BITS), one = vsplat(TWO_TO_MINUS_HALF_RANGE);
    return one / vfma(1 + expm1_polynomial(e.r), power, one);
}

/* x sigmoid(x). Left of 0 as x e^x / (1 + e^x), x e^x formed before the power of two is put to it: e^x alone is
 * denormal where x e^x is not. */
FNN_INLINE vreal vsilu(vreal x)
{
    const vreal min = vsplat(SILU_MIN);
    const exp_reduced e = exp_reduce(vmax(min, -vabs(x)), vsplat(0), 2 * EXPONENT_BIAS);
    const vreal mantissa = 1 + expm1_polynomial(e.r);
    const vreal left = scale_by_power(vmax(min, x) * mantissa, e.n);
    return vselect(x < vsplat(0), left, x) / (1 + scale_by_power(mantissa, e.n));
}

/* x = 2^(exponent - EXPONENT_BIAS) * mantissa, mantissa in sqrt(1/2)..sqrt(2). */
typedef struct log_reduced {
    vuint exponent;
    vreal mantissa;
} log_reduced;

FNN_INLINE log_reduced log_reduce(vreal x)
{
    const real_uint one = (real_uint)EXPONENT_BIAS << MANTISSA_BITS;
    const vuint shifted = (vuint)x + (one - SQRT_HALF_BITS);
    const vuint fraction = shifted & (((real_uint)1 << MANTISSA_BITS) - 1);
    return (log_reduced){shifted >> MANTISSA_BITS, (vreal)(fraction + SQRT_HALF_BITS)};
}

/* (exponent - EXPONENT_BIAS - shift) ln 2 + log(1 + f), f in sqrt(1/2) - 1..sqrt(2) - 1, as fdlibm sums it. */
FNN_INLINE vreal log_combine(vuint exponent, vreal shift, vreal f)
{
    const real_uint two_to_mantissa = (real_uint)(EXPONENT_BIAS + MANTISSA_BITS) << MANTISSA_BITS;
    const vreal k = (vreal)(exponent | two_to_mantissa) - (TWO_TO_MANTISSA + EXPONENT_BIAS) - shift;
    const vreal s = f / (2 + f), z = s * s;
    const vreal half_square = (real)0.5 * f * f;
    const vreal series = vfma(z, POLYNOMIAL(z, LOG_POLYNOMIAL), half_square);
    return k * LN2_HIGH - ((half_square - vfma(s, series, k * LN2_LOW)) - f);
}

/* y, the logarithm of an a that is positive and finite, or what the other a give. */
FNN_INLINE vreal log_special(vreal y, vreal a, vreal x)
{
    y = vselect(x < vsplat((real)__builtin_inf()), y, x);
    y = vselect(a == vsplat(0), vsplat((real)-__builtin_inf()), y);
    return vselect(a < vsplat(0), vsplat((real)__builtin_nan("")), y);
}

FNN_INLINE vreal vlog(vreal x)
{
    const vint denormal = x < vsplat(SMALLEST_NORMAL);
    const log_reduced l = log_reduce(vselect(denormal, x * TWO_TO_MANTISSA, x));
    const vreal shift = vselect(denormal, vsplat(MANTISSA_BITS), vsplat(0));
    return log_special(log_combine(l.exponent, shift, l.mantissa - 1), x, x);
}

/* With 1 + x = 2^k m, f = m - 1 = 2^-k x + (2^-k - 1) keeps the digits of x that 1 + x loses. Where 2^-k could be
 * denormal there are none to keep. */
FNN_INLINE vreal vlog1p(vreal x)
{
    const vreal u = 1 + x;
    const log_reduced l = log_reduce(u);
    const vreal power = (vreal)((2 * (real_uint)EXPONENT_BIAS - l.exponent) << MANTISSA_BITS);
    const vreal f = vselect(x < vsplat(TWO_TO_MANTISSA * 4), vfma(x, power, power - 1), l.mantissa - 1);
    const vreal y = log_combine(l.exponent, vsplat(0), f);
    return log_special(vwith_sign(y, x), u, x);
}

/* factor * x^2 = high + low with high exact: e^-(x^2) would multiply the rounding of x^2 by x^2. factor is a power of
 * two. */
FNN_INLINE exp_reduced gaussian_reduce(vreal x, real factor, int bias)
{
    const vreal upper = (vreal)((vuint)x & UPPER_HALF);
    return exp_reduce(-factor * upper * upper, factor * (x - upper) * (x + upper), bias);
}

/* high + low, where low is what high has lost by rounding, so far as that is known. */
typedef struct normal_tail_parts {
    vreal high, low;
} normal_tail_parts;

/* factor e^(a^2 / 2) Phi(-a), a >= 0, as factor d P(q) with d = 1 - q = 2 center / (a + center). In `low` are the
 * errors of d and of the last step of P; those of the products would cost a tenth of GELU's time and are not needed. */
FNN_INLINE normal_tail_parts normal_tail(vreal a, vreal factor)
{
    const vreal center = vsplat(TAIL_CENTER);
    const vreal d = 2 * center / (a + center);
    const vreal residual = vfma(-d, a, (2 - d) * center); /* 2 center - d (a + center) */
    const vreal d_low = residual * (d * ((real)0.5 / TAIL_CENTER));
    const vreal q = 1 - d - d_low;
    const vreal slope = polynomial(q, TAIL_POLYNOMIAL + 1, sizeof(TAIL_POLYNOMIAL) / sizeof(real) - 1);
    const vreal p = vfma(q, slope, vsplat(TAIL_POLYNOMIAL[0]));
    const vreal p_low = vfma(q, slope, TAIL_POLYNOMIAL[0] - p);
    const vreal scaled = factor * d;
    return (normal_tail_parts){scaled * p, vfma(scaled, p_low, factor * d_low * p)};
}

FNN_INLINE vreal verf(vreal x)
{
    const vreal a = vmin(vsplat(ERF_MAX), vabs(x));
    const exp_reduced e = gaussian_reduce(a, 1, EXPONENT_BIAS);
    const vreal gaussian = (1 + expm1_polynomial(e.r)) * (vreal)(e.n << MANTISSA_BITS);
    const vreal large = vwith_sign(1 - 2 * gaussian * normal_tail(a * SQRT_2, vsplat(1)).high, x);
    return vselect(a < vsplat(ERF_SMALL), vfma(x, POLYNOMIAL(x * x, ERF_POLYNOMIAL), x), large);
}

/* x Phi(x) = max(x, 0) - |x| Phi(-|x|), where Phi(-a), unlike 1 - Phi(a), keeps its digits down the tail. The power
 * of two comes last, so that only the result itself can be denormal. */
FNN_INLINE vreal vgelu(vreal x)
{
    const vreal a = vmin(vsplat(GELU_MAX), vabs(x));
    const exp_reduced e = gaussian_reduce(a, (real)0.5, 2 * EXPONENT_BIAS);
    const normal_tail_parts scaled = normal_tail(a, a);
    const vreal tail = scaled.high + vfma(scaled.high, expm1_polynomial(e.r), scaled.low);
    return vmax(vsplat(-0.0), x) - scale_by_power(tail, e.n); /* in this order NaN and the sign of zero stay */
}

/* Phi(x) + x phi(x) */
FNN_INLINE vreal vgelu_derivative(vreal x)
{
    const vreal a = vmin(vsplat(GELU_MAX), vabs(x));
    const exp_reduced e = gaussian_reduce(a, (real)0.5, 2 * EXPONENT_BIAS);
    const vreal gaussian = scale_by_power(1 + expm1_polynomial(e.r), e.n);
    const vreal tail = gaussian * normal_tail(a, vsplat(1)).high;
    const vreal phi_x = INVERSE_SQRT_2PI * gaussian * a;
    return vselect(x < vsplat(0), tail - phi_x, 1 - tail + phi_x);
}

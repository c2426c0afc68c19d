/* Random draws for initial weights and shuffles. In double, with plain products and sums, and rounded to real once:
 * the same on every instruction set, so that a seed gives the same network everywhere. */

/* out = low + (high - low) u. In float32 the final rounding may reach `high` itself, with probability 2^-25. */
static void draw_uniform(void *out, double low, double high, const fnn_random *random, uint64_t first, size_t count)
{
    philox_words words = philox(random, first / 2);
    for (size_t i = 0; i < count; i++) {
        uint64_t element = first + i;
        if (element % 2 == 0)
            words = philox(random, element / 2);
        double u = (double)(philox_u64(&words, element) >> 11) * 0x1p-53;
        ((real *)out)[i] = (real)(low + (high - low) * u);
    }
}

/* Natural logarithm of a positive normal number, error below 1 ulp: x = 2^e (1 + f) with 1 + f in [sqrt 1/2, sqrt 2],
 * s = f / (2 + f), log(1 + f) = 2 atanh s = f - s (f - r) with r = 2 (s^2/3 + s^4/5 + ...). */
static double log_for_draws(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int64_t sqrt_half = 0x3fe6a09e667f3bcd;
    int64_t e = (bits - sqrt_half) >> 52;
    bits -= e * ((int64_t)1 << 52);
    memcpy(&x, &bits, sizeof bits);
    double f = x - 1, s = f / (2 + f), s2 = s * s, r = 0;
    for (int k = 23; k >= 3; k -= 2)
        r = s2 * (2.0 / k + r);
    const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33; /* e * ln2_high is exact */
    return (double)e * ln2_high - ((s * (f - r) - (double)e * ln2_low) - f);
}

FNN_INLINE double horner(const double *coefficients, double x)
{
    double sum = coefficients[7];
    for (int i = 6; i >= 0; i--)
        sum = sum * x + coefficients[i];
    return sum;
}

/* The normal deviate with the probability 1/2 + q below it, |q| < 1/2: algorithm AS 241 (PPND16) of M. J. Wichura,
 * Applied Statistics 37 (1988) 477-484, relative error about 1e-16. Taking q spares the cancellation of 1 - u. */
static double inverse_normal(double q)
{
    static const double central[2][8] = {
        {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
         4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3},
        {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3, 2.1213794301586595867e+4,
         3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3}};
    static const double middle[2][8] = {
        {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
         1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
        {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
         1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
    static const double far[2][8] = {
        {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
         2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
        {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
         7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
    double distance = q < 0 ? -q : q;
    if (distance <= 0.425) {
        double r = 0.180625 - q * q;
        return q * horner(central[0], r) / horner(central[1], r);
    }
    double r = __builtin_sqrt(-log_for_draws(0.5 - distance));
    const double (*tail)[8] = r <= 5 ? middle : far;
    r -= r <= 5 ? 1.6 : 5;
    double z = horner(tail[0], r) / horner(tail[1], r);
    return q < 0 ? -z : z;
}

/* u = (k + 1/2) 2^-53 needs one bit more than a double has; u - 1/2 does not. */
static void draw_normal(void *out, double sigma, const fnn_random *random, uint64_t first, size_t count)
{
    philox_words words = philox(random, first / 2);
    for (size_t i = 0; i < count; i++) {
        uint64_t element = first + i;
        if (element % 2 == 0)
            words = philox(random, element / 2);
        int64_t k = (int64_t)(philox_u64(&words, element) >> 11);
        ((real *)out)[i] = (real)(sigma * inverse_normal((double)(2 * k + 1 - ((int64_t)1 << 53)) * 0x1p-54));
    }
}

/* Fisher-Yates from the top; swap s uses the 64 bits of element s, scaled by a high product (D. Lemire, "Fast random
 * integer generation in an interval", 2019) without its rejection step: the bias is below count / 2^64. */
static void draw_permutation(int64_t *order, const fnn_random *random, size_t count)
{
    for (size_t i = 0; i < count; i++)
        order[i] = (int64_t)i;
    philox_words words = {{0}};
    for (size_t swap = 0; swap + 1 < count; swap++) {
        if (swap % 2 == 0)
            words = philox(random, swap / 2);
        size_t last = count - 1 - swap;
        size_t chosen = (size_t)((unsigned __int128)philox_u64(&words, swap) * (last + 1) >> 64);
        int64_t moved = order[last];
        order[last] = order[chosen];
        order[chosen] = moved;
    }
}

/* Each row loses its part along every row before it, twice (once leaves an error that grows with the condition
 * number), and is normalised. A row that vanishes stays zero. */
static void orthonormalize(double *a, size_t rows, size_t columns)
{
    for (size_t i = 0; i < rows; i++) {
        double *restrict row = a + i * columns;
        for (int pass = 0; pass < 2; pass++) {
            for (size_t before = 0; before < i; before++) {
                const double *restrict unit = a + before * columns;
                double part = weighted_sum(row, unit, columns);
                for (size_t j = 0; j < columns; j++)
                    row[j] -= part * unit[j];
            }
        }
        double norm = __builtin_sqrt(weighted_sum(row, row, columns));
        for (size_t j = 0; j < columns && norm > 0; j++)
            row[j] /= norm;
    }
}

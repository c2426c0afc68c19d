/* Losses by rows: the value in double, summed in 16 lanes; the gradient in real. Rows are read in whole vectors as far
 * as ld allows, and lanes beyond the n columns are masked. */

/* Every bit of lane i is set where i < n. */
FNN_INLINE vint first_lanes(size_t n)
{
    static const real_int numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vint lane;
    memcpy(&lane, numbers, sizeof lane);
    return lane < (real_int)(n < VW ? n : VW);
}

/* ---- losses that are sums over elements ---- */

enum elementwise_loss { LOSS_BINARY_CROSS_ENTROPY, LOSS_MSE, LOSS_MAE, LOSS_HUBER, LOSS_POISSON };

typedef struct loss_terms {
    vreal value; /* for MSE its root: squared in double, where it cannot overflow */
    vreal gradient;
} loss_terms;

FNN_INLINE loss_terms loss_of(enum elementwise_loss kind, vreal y, vreal t, real delta)
{
    const vreal zero = vsplat(0), one = vsplat(1), error = y - t;
    switch (kind) {
    case LOSS_BINARY_CROSS_ENTROPY: {
        vreal e = vexp_negative(-vabs(y));
        vreal sigmoid = vselect(y < 0, e, one) / (one + e);
        return (loss_terms){vfma(-y, t, vmax(y, zero)) + vlog1p(e), sigmoid - t};
    }
    case LOSS_MAE:
        /* error - error is 0, or NaN where the error is not finite. */
        return (loss_terms){vabs(error), vselect(error > 0, one, vselect(error < 0, -one, error - error))};
    case LOSS_HUBER: {
        /* vmin and vmax return their second argument where it is NaN. */
        vreal size = vabs(error), inner = vmin(vsplat(delta), size);
        return (loss_terms){inner * (size - inner / 2), vmax(vsplat(-delta), vmin(vsplat(delta), error))};
    }
    case LOSS_POISSON: {
        vreal rate = vexp(y);
        return (loss_terms){vfma(-y, t, rate), rate - t};
    }
    default:
        return (loss_terms){error, error + error};
    }
}

/* Columns of one block of lanes: n of them count, ld exist. */
FNN_INLINE wide_lanes elementwise_block(real *dy, const real *y, const real *t, enum elementwise_loss kind, real delta,
                                        real weight, size_t n, size_t ld)
{
    real values[LANES];
    for (size_t k = 0; k < LANES; k += VW) {
        if (k >= n) {
            vstore(values + k, vsplat(0));
            continue;
        }
        loss_terms terms = loss_of(kind, vload_first(y + k, ld - k), vload_first(t + k, ld - k), delta);
        const vint counted = first_lanes(n - k);
        vstore(values + k, (vreal)((vint)terms.value & counted));
        if (dy)
            vstore_first(dy + k, (vreal)((vint)(terms.gradient * weight) & counted), ld - k);
    }
    const wide_lanes wide = widen(values);
    return kind == LOSS_MSE ? wide_multiply(wide, wide) : wide;
}

FNN_INLINE void elementwise_rows(double *loss, real *dy, const real *y, const real *t, const double *row_weight,
                                 enum elementwise_loss kind, double delta, size_t m, size_t n, size_t ld)
{
    for (size_t i = 0; i < m; i++, y += ld, t += ld) {
        const real weight = dy ? (real)(row_weight[i] / (double)n) : 0;
        wide_lanes sum = {0};
        size_t j = 0;
        for (; j + LANES <= n; j += LANES) {
            real *gradient = dy ? dy + j : NULL;
            sum = wide_add(sum, elementwise_block(gradient, y + j, t + j, kind, (real)delta, weight, LANES, LANES));
        }
        if (j < n) {
            real *gradient = dy ? dy + j : NULL;
            sum = wide_add(sum, elementwise_block(gradient, y + j, t + j, kind, (real)delta, weight, n - j, ld - j));
        }
        loss[i] = wide_sum(sum) / (double)n;
        if (dy) {
            memset(dy + n, 0, (ld - n) * sizeof(real));
            dy += ld;
        }
    }
}

static void loss_binary_cross_entropy(double *loss, void *dz, const void *z, const void *t, const double *row_weight,
                                      double unused, size_t m, size_t n, size_t ld)
{
    elementwise_rows(loss, dz, z, t, row_weight, LOSS_BINARY_CROSS_ENTROPY, unused, m, n, ld);
}

static void loss_mse(double *loss, void *dy, const void *y, const void *t, const double *row_weight, double unused,
                     size_t m, size_t n, size_t ld)
{
    elementwise_rows(loss, dy, y, t, row_weight, LOSS_MSE, unused, m, n, ld);
}

static void loss_mae(double *loss, void *dy, const void *y, const void *t, const double *row_weight, double unused,
                     size_t m, size_t n, size_t ld)
{
    elementwise_rows(loss, dy, y, t, row_weight, LOSS_MAE, unused, m, n, ld);
}

static void loss_huber(double *loss, void *dy, const void *y, const void *t, const double *row_weight, double delta,
                       size_t m, size_t n, size_t ld)
{
    elementwise_rows(loss, dy, y, t, row_weight, LOSS_HUBER, delta, m, n, ld);
}

static void loss_poisson(double *loss, void *dy, const void *y, const void *t, const double *row_weight, double unused,
                         size_t m, size_t n, size_t ld)
{
    elementwise_rows(loss, dy, y, t, row_weight, LOSS_POISSON, unused, m, n, ld);
}

/* ---- cross-entropy ----
 * -log softmax(z)_j = log_sum + (max - z_j), both terms >= 0: nothing overflows and nothing cancels. A target t_j
 * becomes keep t_j + floor by label smoothing. */

FNN_INLINE vreal smoothed(const real *t, size_t columns, real keep, real floor)
{
    return t ? vload_first(t, columns) * keep + floor : vsplat(floor);
}

/* *mass = sum_j t_j, *cross = sum_j t_j (max - z_j) of the smoothed targets; with t = NULL every target is floor. */
FNN_INLINE void target_sums(double *mass, double *cross, const real *z, const real *t, real max, real keep, real floor,
                            size_t n, size_t ld)
{
    wide_lanes masses = {0}, crosses = {0};
    for (size_t j = 0; j < n; j += LANES) {
        real targets[LANES] = {0}, terms[LANES] = {0};
        for (size_t k = 0; k < LANES && j + k < n; k += VW) {
            const size_t column = j + k;
            vreal target = smoothed(t ? t + column : NULL, ld - column, keep, floor);
            vreal term = target * (max - vload_first(z + column, ld - column));
            const vint counted = first_lanes(n - column);
            vstore(targets + k, (vreal)((vint)target & counted));
            /* A target of 0 adds 0 even where its logit is -inf. */
            vstore(terms + k, (vreal)((vint)term & counted & (target != 0)));
        }
        masses = wide_add(masses, widen(targets));
        crosses = wide_add(crosses, widen(terms));
    }
    *mass = wide_sum(masses);
    *cross = wide_sum(crosses);
}

/* dz holds e_j = exp(z_j - max) and becomes weight (ratio e_j - t_j); ratio = mass / sum of e. */
FNN_INLINE void cross_entropy_gradient(real *dz, const real *t, real ratio, real weight, real keep, real floor,
                                       size_t n, size_t ld)
{
    for (size_t j = 0; j < n; j += VW) {
        vreal target = smoothed(t ? t + j : NULL, ld - j, keep, floor);
        vreal gradient = (vload_first(dz + j, ld - j) * ratio - target) * weight;
        vstore_first(dz + j, (vreal)((vint)gradient & first_lanes(n - j)), ld - j);
    }
    memset(dz + n, 0, (ld - n) * sizeof(real));
}

static void loss_cross_entropy_labels(double *loss, void *dz_, const void *z_, const int32_t *labels,
                                      const double *row_weight, double smoothing, size_t m, size_t n, size_t ld)
{
    const real keep = (real)(1 - smoothing), floor = (real)(smoothing / (double)n);
    for (size_t i = 0; i < m; i++) {
        const real *z = (const real *)z_ + i * ld;
        real *dz = dz_ ? (real *)dz_ + i * ld : NULL;
        const size_t label = (size_t)labels[i];
        const real max = row_max(z, n);
        const double margin = (double)max - (double)z[label];
        double mass, cross = 0;
        if (smoothing != 0)
            target_sums(&mass, &cross, z, NULL, max, keep, floor, n, ld);
        const real sum = row_exp_sum(dz, z, max, n);
        loss[i] = (double)vlog(vsplat(sum))[0] + (1 - smoothing) * margin + cross;
        if (dz) {
            const real ratio = (real)(1 / (double)sum), weight = (real)row_weight[i];
            const real of_label = (dz[label] * ratio - (keep + floor)) * weight;
            cross_entropy_gradient(dz, NULL, ratio, weight, keep, floor, n, ld);
            dz[label] = of_label;
        }
    }
}

static void loss_cross_entropy(double *loss, void *dz_, const void *z_, const void *t_, const double *row_weight,
                               double smoothing, size_t m, size_t n, size_t ld)
{
    const real keep = (real)(1 - smoothing), floor = (real)(smoothing / (double)n);
    for (size_t i = 0; i < m; i++) {
        const real *z = (const real *)z_ + i * ld, *t = (const real *)t_ + i * ld;
        real *dz = dz_ ? (real *)dz_ + i * ld : NULL;
        const real max = row_max(z, n);
        double mass, cross;
        target_sums(&mass, &cross, z, t, max, keep, floor, n, ld);
        const real sum = row_exp_sum(dz, z, max, n);
        loss[i] = mass * (double)vlog(vsplat(sum))[0] + cross;
        if (dz)
            cross_entropy_gradient(dz, t, (real)(mass / (double)sum), (real)row_weight[i], keep, floor, n, ld);
    }
}

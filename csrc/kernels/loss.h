/* Losses by rows: the value in double, summed in 16 lanes; the gradient in real. Rows are read in whole vectors as far
 * as ld allows, and lanes beyond the n columns are masked. */

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

/* One block of lanes: n of its columns count, ld have room. */
FNN_INLINE wide_lanes elementwise_block(real *dy, const real *y, const real *t, enum elementwise_loss kind, real delta,
                                        real weight, size_t n, size_t ld)
{
    lanes values = {0};
    FNN_UNROLL
    for (size_t k = 0; k < LANES; k += VW) {
        if (k < n) {
            const loss_terms terms = loss_of(kind, vload_first(y + k, ld - k), vload_first(t + k, ld - k), delta);
            values.v[k / VW] = vkeep_first(terms.value, n - k);
            if (dy)
                row_store(dy, k, n, ld, terms.gradient * weight);
        }
    }
    const wide_lanes wide = widen_lanes(values);
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
            row_clear(dy, n, ld);
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

FNN_INLINE vreal smoothed(const real *t, size_t j, size_t n, size_t ld, real keep, real floor)
{
    return t ? row_load(t, j, n, ld, 0) * keep + floor : vsplat(floor);
}

/* *mass = sum_j t_j, *cross = sum_j t_j (max - z_j) of the smoothed targets; with t = NULL every target is floor. */
FNN_INLINE void target_sums(double *mass, double *cross, const real *z, const real *t, real max, real keep, real floor,
                            size_t n, size_t ld)
{
    wide_lanes masses = {0}, crosses = {0};
    for (size_t j = 0; j < n; j += LANES) {
        lanes targets = {0}, terms = {0};
        FNN_UNROLL
        for (size_t k = 0; k < LANES; k += VW) {
            if (j + k < n) {
                const vreal target = vkeep_first(smoothed(t, j + k, n, ld, keep, floor), n - j - k);
                const vreal term = target * (max - row_load(z, j + k, n, ld, 0));
                targets.v[k / VW] = target;
                /* A target of 0 adds 0 even where its logit is -inf. */
                terms.v[k / VW] = (vreal)((vint)term & (target != 0));
            }
        }
        masses = wide_add(masses, widen_lanes(targets));
        crosses = wide_add(crosses, widen_lanes(terms));
    }
    *mass = wide_sum(masses);
    *cross = wide_sum(crosses);
}

/* dz holds e_j = exp(z_j - max) and becomes weight (ratio e_j - t_j); ratio = mass / sum of e. */
FNN_INLINE void cross_entropy_gradient(real *dz, const real *t, real ratio, real weight, real keep, real floor,
                                       size_t n, size_t ld)
{
    for (size_t j = 0; j < n; j += VW) {
        const vreal target = smoothed(t, j, n, ld, keep, floor);
        const vreal gradient = (row_load(dz, j, n, ld, 0) * ratio - target) * weight;
        row_store(dz, j, n, ld, gradient);
    }
    row_clear(dz, n, ld);
}

/* labels or t is NULL. What needs z comes first: dz may be z. */
FNN_INLINE void cross_entropy_rows(double *loss, real *dz, const real *z, const int32_t *labels, const real *t,
                                   const double *row_weight, double smoothing, size_t m, size_t n, size_t ld)
{
    const real keep = (real)(1 - smoothing), floor = (real)(smoothing / (double)n);
    for (size_t start = 0; start < m; start += ROW_BLOCK) {
        const size_t rows = m - start < ROW_BLOCK ? m - start : ROW_BLOCK;
        real max[ROW_BLOCK], sum[ROW_BLOCK], log_sum[ROW_BLOCK];
        double mass[ROW_BLOCK], rest[ROW_BLOCK]; /* loss = mass log_sum + rest */
        for (size_t i = 0; i < rows; i++)
            max[i] = row_max(z + i * ld, n, ld);
        for (size_t i = 0; i < rows; i++) {
            rest[i] = 0;
            if (t || smoothing != 0)
                target_sums(&mass[i], &rest[i], z + i * ld, t ? t + i * ld : NULL, max[i], keep, floor, n, ld);
            if (labels) {
                mass[i] = 1;
                rest[i] += (1 - smoothing) * ((double)max[i] - (double)z[i * ld + (size_t)labels[start + i]]);
            }
        }
        for (size_t i = 0; i < rows; i++)
            sum[i] = row_exp_sum(dz ? dz + i * ld : NULL, z + i * ld, max[i], n, ld);
        for (size_t i = rows; i < ROW_BLOCK; i++)
            sum[i] = 1;
        for (size_t i = 0; i < ROW_BLOCK; i += VW)
            vstore(log_sum + i, vlog(vload(sum + i)));
        for (size_t i = 0; i < rows; i++)
            loss[start + i] = mass[i] * (double)log_sum[i] + rest[i];
        for (size_t i = 0; dz && i < rows; i++) {
            real *row = dz + i * ld;
            const real ratio = (real)(mass[i] / (double)sum[i]), weight = (real)row_weight[start + i];
            const size_t label = labels ? (size_t)labels[start + i] : 0;
            const real of_label = (row[label] * ratio - (keep + floor)) * weight;
            cross_entropy_gradient(row, t ? t + i * ld : NULL, ratio, weight, keep, floor, n, ld);
            if (labels)
                row[label] = of_label;
        }
        z += rows * ld;
        t = t ? t + rows * ld : NULL;
        dz = dz ? dz + rows * ld : NULL;
    }
}

static void loss_cross_entropy_labels(double *loss, void *dz, const void *z, const int32_t *labels,
                                      const double *row_weight, double smoothing, size_t m, size_t n, size_t ld)
{
    cross_entropy_rows(loss, dz, z, labels, NULL, row_weight, smoothing, m, n, ld);
}

static void loss_cross_entropy(double *loss, void *dz, const void *z, const void *t, const double *row_weight,
                               double smoothing, size_t m, size_t n, size_t ld)
{
    cross_entropy_rows(loss, dz, z, NULL, t, row_weight, smoothing, m, n, ld);
}

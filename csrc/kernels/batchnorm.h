/* Batch normalisation over the rows of a matrix, column by column. Every sum over rows runs through chunks of fixed
 * length in row order, one accumulator per column, so the bits depend neither on the vector width nor on how the
 * columns are split between calls. */

enum {
    BATCHNORM_CHUNK = 32,   /* rows: a block of columns stays in the first-level cache for the second pass */
    BATCHNORM_VECTORS = 4,  /* columns summed at once, in vectors: hides the latency of an addition */
    BATCHNORM_COLUMNS = 512 /* columns whose parameters are kept ready while the rows stream by */
};

FNN_INLINE vreal inverse_std(vreal var, double eps)
{
    return 1 / vsqrt(var + (real)eps);
}

/* *sum += term by Kahan's summation; *excess is what rounding added too much. */
FNN_INLINE void compensated_add(vreal *sum, vreal *excess, vreal term)
{
    const vreal corrected = term - *excess, next = *sum + corrected;
    *excess = (next - *sum) - corrected;
    *sum = next;
}

/* Chunks are merged by Chan's formula. Deviations are taken from the first row: a constant column then has variance 0
 * exactly, and means are rounded relative to the spread. The merged sums are compensated: over thousands of chunks a
 * trend in the data would otherwise add up more rounding than the promised 1e-5 (3e-5 at 100,000 rows). */
FNN_INLINE void statistics_block(real *mean, real *var, const real *x, size_t m, size_t ldx, const int vectors,
                                 size_t columns)
{
    vreal origin[BATCHNORM_VECTORS], offset[BATCHNORM_VECTORS];
    vreal squares[BATCHNORM_VECTORS], offset_excess[BATCHNORM_VECTORS], squares_excess[BATCHNORM_VECTORS];
    for (int v = 0; v < vectors; v++) {
        origin[v] = vload_first(x + v * VW, columns);
        offset[v] = squares[v] = offset_excess[v] = squares_excess[v] = vsplat(0);
    }
    for (size_t start = 0; start < m; start += BATCHNORM_CHUNK) {
        const size_t rows = m - start < BATCHNORM_CHUNK ? m - start : BATCHNORM_CHUNK;
        const real *chunk = x + start * ldx;
        vreal chunk_offset[BATCHNORM_VECTORS], chunk_squares[BATCHNORM_VECTORS];
        for (int v = 0; v < vectors; v++)
            chunk_offset[v] = chunk_squares[v] = vsplat(0);
        for (size_t i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++)
                chunk_offset[v] += vload_first(chunk + i * ldx + v * VW, columns) - origin[v];
        for (int v = 0; v < vectors; v++)
            chunk_offset[v] /= (real)rows;
        for (size_t i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++) {
                vreal deviation = vload_first(chunk + i * ldx + v * VW, columns) - origin[v] - chunk_offset[v];
                chunk_squares[v] = vfma(deviation, deviation, chunk_squares[v]);
            }
        const double share = (double)rows / (double)(start + rows);
        const vreal offset_weight = vsplat((real)share), squares_weight = vsplat((real)(share * (double)start));
        for (int v = 0; v < vectors; v++) {
            vreal delta = chunk_offset[v] - offset[v];
            compensated_add(&offset[v], &offset_excess[v], delta * offset_weight);
            compensated_add(&squares[v], &squares_excess[v], vfma(delta * squares_weight, delta, chunk_squares[v]));
        }
    }
    for (int v = 0; v < vectors; v++) {
        vstore_first(mean + v * VW, origin[v] + offset[v], columns);
        vstore_first(var + v * VW, squares[v] / (real)m, columns);
    }
}

static void batchnorm_statistics(void *mean_, void *var_, const void *x_, size_t m, size_t n, size_t ldx)
{
    const size_t block = BATCHNORM_VECTORS * VW;
    real *mean = mean_, *var = var_;
    const real *x = x_;
    size_t j = 0;
    for (; j + block <= n; j += block)
        statistics_block(mean + j, var + j, x + j, m, ldx, BATCHNORM_VECTORS, VW);
    for (; j < n; j += VW)
        statistics_block(mean + j, var + j, x + j, m, ldx, 1, n - j);
}

/* Of n elements, VW (a literal) or fewer; center, factor and shift have room for a vector. */
FNN_INLINE void forward_vector(real *y, const real *x, const real *center, const real *factor, const real *shift,
                               size_t n)
{
    const vreal deviation = vload_first(x, n) - vload(center);
    vstore_first(y, vfma(deviation, vload(factor), vload(shift)), n);
}

static void batchnorm_forward(void *y_, const void *x_, const void *mean_, const void *var_, const void *gamma_,
                              const void *beta_, double eps, size_t m, size_t n, size_t ld)
{
    const real *mean = mean_, *var = var_, *gamma = gamma_, *beta = beta_;
    real center[BATCHNORM_COLUMNS], factor[BATCHNORM_COLUMNS], shift[BATCHNORM_COLUMNS];
    for (size_t first = 0; first < n; first += BATCHNORM_COLUMNS) {
        const size_t columns = n - first < BATCHNORM_COLUMNS ? n - first : BATCHNORM_COLUMNS;
        for (size_t j = 0; j < columns; j += VW) {
            const size_t column = first + j, left = columns - j;
            vstore(center + j, vload_first(mean + column, left));
            vstore(factor + j, inverse_std(vload_first(var + column, left), eps) * vload_first(gamma + column, left));
            vstore(shift + j, vload_first(beta + column, left));
        }
        for (size_t i = 0; i < m; i++) {
            const real *x = (const real *)x_ + i * ld + first;
            real *y = (real *)y_ + i * ld + first;
            size_t j = 0;
            for (; j + VW <= columns; j += VW)
                forward_vector(y + j, x + j, center + j, factor + j, shift + j, VW);
            if (j < columns)
                forward_vector(y + j, x + j, center + j, factor + j, shift + j, columns - j);
        }
    }
}

FNN_INLINE void backward_sums_block(real *dgamma, real *dbeta, const real *dy, const real *x, const real *mean,
                                    const real *var, double eps, size_t m, size_t ld, const int vectors, size_t columns)
{
    vreal center[BATCHNORM_VECTORS], inverse[BATCHNORM_VECTORS];
    vreal gamma_sum[BATCHNORM_VECTORS], beta_sum[BATCHNORM_VECTORS];
    for (int v = 0; v < vectors; v++) {
        center[v] = vload_first(mean + v * VW, columns);
        inverse[v] = inverse_std(vload_first(var + v * VW, columns), eps);
        gamma_sum[v] = beta_sum[v] = vsplat(0);
    }
    for (size_t start = 0; start < m; start += BATCHNORM_CHUNK) {
        const size_t end = m - start < BATCHNORM_CHUNK ? m : start + BATCHNORM_CHUNK;
        vreal gamma_chunk[BATCHNORM_VECTORS], beta_chunk[BATCHNORM_VECTORS];
        for (int v = 0; v < vectors; v++)
            gamma_chunk[v] = beta_chunk[v] = vsplat(0);
        for (size_t i = start; i < end; i++)
            for (int v = 0; v < vectors; v++) {
                vreal gradient = vload_first(dy + i * ld + v * VW, columns);
                vreal xhat = (vload_first(x + i * ld + v * VW, columns) - center[v]) * inverse[v];
                gamma_chunk[v] = vfma(gradient, xhat, gamma_chunk[v]);
                beta_chunk[v] += gradient;
            }
        for (int v = 0; v < vectors; v++) {
            gamma_sum[v] += gamma_chunk[v];
            beta_sum[v] += beta_chunk[v];
        }
    }
    for (int v = 0; v < vectors; v++) {
        vstore_first(dgamma + v * VW, gamma_sum[v], columns);
        vstore_first(dbeta + v * VW, beta_sum[v], columns);
    }
}

static void batchnorm_backward_sums(void *dgamma_, void *dbeta_, const void *dy_, const void *x_, const void *mean_,
                                    const void *var_, double eps, size_t m, size_t n, size_t ld)
{
    const size_t block = BATCHNORM_VECTORS * VW;
    real *dgamma = dgamma_, *dbeta = dbeta_;
    const real *dy = dy_, *x = x_, *mean = mean_, *var = var_;
    size_t j = 0;
    for (; j + block <= n; j += block)
        backward_sums_block(dgamma + j, dbeta + j, dy + j, x + j, mean + j, var + j, eps, m, ld, BATCHNORM_VECTORS, VW);
    for (; j < n; j += VW)
        backward_sums_block(dgamma + j, dbeta + j, dy + j, x + j, mean + j, var + j, eps, m, ld, 1, n - j);
}

/* Likewise. */
FNN_INLINE void backward_vector(real *dx, const real *dy, const real *x, const real *center, const real *factor,
                                const real *slope, const real *shift, size_t n)
{
    const vreal deviation = vload_first(x, n) - vload(center);
    const vreal gradient = vload_first(dy, n) - vload(shift);
    vstore_first(dx, vload(factor) * vfma(deviation, vload(slope), gradient), n);
}

static void batchnorm_backward(void *dx_, const void *dy_, const void *x_, const void *mean_, const void *var_,
                               const void *gamma_, const void *dgamma_, const void *dbeta_, double eps, size_t total,
                               size_t m, size_t n, size_t ld)
{
    const real *mean = mean_, *var = var_, *gamma = gamma_, *dgamma = dgamma_, *dbeta = dbeta_;
    real center[BATCHNORM_COLUMNS], factor[BATCHNORM_COLUMNS], slope[BATCHNORM_COLUMNS], shift[BATCHNORM_COLUMNS];
    for (size_t first = 0; first < n; first += BATCHNORM_COLUMNS) {
        const size_t columns = n - first < BATCHNORM_COLUMNS ? n - first : BATCHNORM_COLUMNS;
        for (size_t j = 0; j < columns; j += VW) {
            const size_t column = first + j, left = columns - j;
            vreal inverse = inverse_std(vload_first(var + column, left), eps);
            vstore(center + j, vload_first(mean + column, left));
            vstore(factor + j, inverse * vload_first(gamma + column, left));
            vstore(slope + j, inverse * (vload_first(dgamma + column, left) / -(real)total));
            vstore(shift + j, vload_first(dbeta + column, left) / (real)total);
        }
        for (size_t i = 0; i < m; i++) {
            const real *dy = (const real *)dy_ + i * ld + first, *x = (const real *)x_ + i * ld + first;
            real *dx = (real *)dx_ + i * ld + first;
            size_t j = 0;
            for (; j + VW <= columns; j += VW)
                backward_vector(dx + j, dy + j, x + j, center + j, factor + j, slope + j, shift + j, VW);
            if (j < columns)
                backward_vector(dx + j, dy + j, x + j, center + j, factor + j, slope + j, shift + j, columns - j);
        }
    }
}

static void batchnorm_running(void *running_, const void *batch_, double decay, double factor, size_t n)
{
    real *running = running_;
    const real *batch = batch_;
    for (size_t j = 0; j < n; j++)
        running[j] = (real)(decay * (double)running[j] + (1 - decay) * factor * (double)batch[j]);
}

/* Activations on flat vectors, softmax on rows. The switch over the activation stands outside the loops: `activation`
 * is a constant in each of their inlined copies. */

static const real SELU_SCALE = (real)1.0507009873554805;
static const real SELU_SCALE_ALPHA = (real)(1.0507009873554805 * 1.6732632423543772);

/* log(1 + e^x) */
FNN_INLINE vreal vsoftplus(vreal x)
{
    return vmax(x, vsplat(0)) + vlog1p(vexp_negative(-vabs(x)));
}

/* f(x); not softmax, which needs a row. */
FNN_INLINE vreal vactivate(vreal x, fnn_activation activation, real alpha)
{
    const vreal zero = vsplat(0);
    switch (activation) {
    case FNN_RELU:
        return vmax(zero, x); /* in this order a NaN stays */
    case FNN_LEAKY_RELU:
        return vselect(x > zero, x, alpha * x);
    case FNN_ELU:
        return vselect(x > zero, x, alpha * vexpm1(x));
    case FNN_SELU:
        return vselect(x > zero, SELU_SCALE * x, SELU_SCALE_ALPHA * vexpm1(x));
    case FNN_GELU:
        return vgelu(x);
    case FNN_SILU:
        return vsilu(x);
    case FNN_SOFTPLUS:
        return vsoftplus(x);
    case FNN_TANH:
        return vtanh(x);
    case FNN_SIGMOID:
        return vsigmoid(x);
    case FNN_IDENTITY:
    case FNN_SOFTMAX:
        break;
    }
    return x;
}

/* dy f'(x), where v is x for GELU and SILU and y for the others. Slopes of LEAKY_RELU are not negative: y has x's
 * sign. */
FNN_INLINE vreal vactivate_backward(vreal dy, vreal v, fnn_activation activation, real alpha)
{
    const vreal zero = vsplat(0);
    switch (activation) {
    case FNN_RELU:
        return vselect(v > zero, dy, zero);
    case FNN_LEAKY_RELU:
        return vselect(v > zero, dy, alpha * dy);
    case FNN_ELU:
        return vselect(v > zero, dy, dy * (v + alpha));
    case FNN_SELU:
        return dy * vselect(v > zero, vsplat(SELU_SCALE), v + SELU_SCALE_ALPHA);
    case FNN_GELU:
        return dy * vgelu_derivative(v);
    case FNN_SILU: {
        const vreal s = vsigmoid(v);
        return dy * s * vfma(v, 1 - s, vsplat(1));
    }
    case FNN_SOFTPLUS:
        return dy * -vexpm1(-v);
    case FNN_TANH:
        return dy * vfma(-v, v, vsplat(1));
    case FNN_SIGMOID:
        return dy * v * (1 - v);
    case FNN_IDENTITY:
    case FNN_SOFTMAX:
        break;
    }
    return dy;
}

/* One vector at a time: the processor overlaps the iterations, and two or four side by side gained nothing (Zen 3). */
FNN_INLINE void activation_forward_loop(real *y, const real *x, fnn_activation activation, real alpha, size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        vstore(y + i, vactivate(vload(x + i), activation, alpha));
    if (i < count)
        vstore_partial(y + i, vactivate(vload_partial(x + i, count - i), activation, alpha), count - i);
}

FNN_INLINE void activation_backward_loop(real *dx, const real *dy, const real *v, fnn_activation activation, real alpha,
                                         size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        vstore(dx + i, vactivate_backward(vload(dy + i), vload(v + i), activation, alpha));
    if (i < count) {
        const vreal last_dy = vload_partial(dy + i, count - i), last_v = vload_partial(v + i, count - i);
        vstore_partial(dx + i, vactivate_backward(last_dy, last_v, activation, alpha), count - i);
    }
}

static void activation_forward(void *y, const void *x, fnn_activation activation, double alpha, size_t count)
{
    switch (activation) {
#define FNN_CASE(name)                                           \
    case name:                                                   \
        activation_forward_loop(y, x, name, (real)alpha, count); \
        break;
        FNN_CASE(FNN_IDENTITY)
        FNN_CASE(FNN_RELU)
        FNN_CASE(FNN_LEAKY_RELU)
        FNN_CASE(FNN_ELU)
        FNN_CASE(FNN_SELU)
        FNN_CASE(FNN_GELU)
        FNN_CASE(FNN_SILU)
        FNN_CASE(FNN_SOFTPLUS)
        FNN_CASE(FNN_TANH)
        FNN_CASE(FNN_SIGMOID)
#undef FNN_CASE
    case FNN_SOFTMAX:
        break;
    }
}

static void activation_backward(void *dx, const void *dy, const void *x, const void *y, fnn_activation activation,
                                double alpha, size_t count)
{
    switch (activation) {
#define FNN_CASE(name, v)                                              \
    case name:                                                         \
        activation_backward_loop(dx, dy, v, name, (real)alpha, count); \
        break;
        FNN_CASE(FNN_IDENTITY, dy)
        FNN_CASE(FNN_RELU, y)
        FNN_CASE(FNN_LEAKY_RELU, y)
        FNN_CASE(FNN_ELU, y)
        FNN_CASE(FNN_SELU, y)
        FNN_CASE(FNN_GELU, x)
        FNN_CASE(FNN_SILU, x)
        FNN_CASE(FNN_SOFTPLUS, y)
        FNN_CASE(FNN_TANH, y)
        FNN_CASE(FNN_SIGMOID, y)
#undef FNN_CASE
    case FNN_SOFTMAX:
        break;
    }
}

/* Rows of n columns in matrices with room for ld: whole vectors as far as ld allows (partial stores are slow), lanes
 * beyond the n columns replaced by `beyond` when loaded, by 0 when stored. */
FNN_INLINE vreal row_load(const real *x, size_t j, size_t n, size_t ld, real beyond)
{
    if (j + VW <= n)
        return vload(x + j);
    return j < n ? vselect(vfirst(n - j), vload_first(x + j, ld - j), vsplat(beyond)) : vsplat(beyond);
}

FNN_INLINE void row_store(real *y, size_t j, size_t n, size_t ld, vreal v)
{
    if (j + VW <= n)
        vstore(y + j, v);
    else if (j < ld)
        vstore_first(y + j, j < n ? vkeep_first(v, n - j) : vsplat(0), ld - j);
}

/* 0 in the columns behind the vector of the last one. */
FNN_INLINE void row_clear(real *y, size_t n, size_t ld)
{
    for (size_t j = (n + VW - 1) / VW * VW; j < ld; j += VW)
        vstore_first(y + j, vsplat(0), ld - j);
}

/* Softmax and the losses take their rows in blocks, one step after the other: a row's steps wait for each other, those
 * of neighbouring rows overlap. */
enum { ROW_BLOCK = 16 };

/* Rows of logits: the largest value; and the sum of e[j] = exp(x[j] - max) in 16 lanes, e stored where it is not NULL
 * (it may be x). A NaN in x is not the maximum but makes the sum NaN. */
FNN_INLINE real row_max(const real *x, size_t n, size_t ld)
{
    const real beyond = (real)-__builtin_inf();
    lanes max;
    for (int v = 0; v < LANES / VW; v++)
        max.v[v] = vsplat(beyond);
    for (size_t j = 0; j < n; j += LANES)
        for (int v = 0; v < LANES / VW; v++)
            max.v[v] = vmax(row_load(x, j + (size_t)v * VW, n, ld, beyond), max.v[v]);
    return lanes_max(max);
}

FNN_INLINE real row_exp_sum(real *e, const real *x, real max, size_t n, size_t ld)
{
    lanes sum = {0};
    for (size_t j = 0; j < n; j += LANES)
        for (int v = 0; v < LANES / VW; v++) {
            const size_t first = j + (size_t)v * VW;
            vreal value = vsplat(0);
            if (first < n)
                value = vexp_negative(row_load(x, first, n, ld, (real)-__builtin_inf()) - max); /* e^-inf is 0 */
            if (e)
                row_store(e, first, n, ld, value);
            sum.v[v] += value;
        }
    return lanes_sum(sum);
}

static void softmax_forward(void *y_, const void *x_, size_t m, size_t n, size_t ld)
{
    real max[ROW_BLOCK], sum[ROW_BLOCK];
    for (size_t start = 0; start < m; start += ROW_BLOCK) {
        const size_t rows = m - start < ROW_BLOCK ? m - start : ROW_BLOCK;
        real *y = (real *)y_ + start * ld;
        const real *x = (const real *)x_ + start * ld;
        for (size_t i = 0; i < rows; i++)
            max[i] = row_max(x + i * ld, n, ld);
        for (size_t i = 0; i < rows; i++)
            sum[i] = row_exp_sum(y + i * ld, x + i * ld, max[i], n, ld);
        for (size_t i = 0; i < rows; i++, y += ld) {
            for (size_t j = 0; j < n; j += VW)
                row_store(y, j, n, ld, row_load(y, j, n, ld, 0) / sum[i]);
            row_clear(y, n, ld);
        }
    }
}

static void softmax_backward(void *dx_, const void *dy_, const void *y_, size_t m, size_t n, size_t ld)
{
    for (size_t i = 0; i < m; i++) {
        real *dx = (real *)dx_ + i * ld;
        const real *dy = (const real *)dy_ + i * ld, *y = (const real *)y_ + i * ld;
        lanes sum = {0};
        for (size_t j = 0; j < n; j += LANES)
            for (int v = 0; v < LANES / VW; v++) {
                const size_t first = j + (size_t)v * VW;
                sum.v[v] += row_load(dy, first, n, ld, 0) * row_load(y, first, n, ld, 0);
            }
        const real mean = lanes_sum(sum);
        for (size_t j = 0; j < n; j += VW)
            row_store(dx, j, n, ld, row_load(y, j, n, ld, 0) * (row_load(dy, j, n, ld, 0) - mean));
        row_clear(dx, n, ld);
    }
}

static void scale(void *y_, const void *x_, double factor, size_t count)
{
    real *y = y_;
    const real *x = x_, f = (real)factor;
    for (size_t i = 0; i < count; i++)
        y[i] = f * x[i];
}

FNN_INLINE vreal elementary_value(vreal x, int function)
{
    switch (function) {
    case 0:
        return vexp(x);
    case 1:
        return vexpm1(x);
    case 2:
        return vlog(x);
    case 3:
        return vlog1p(x);
    case 4:
        return vtanh(x);
    case 5:
        return vsigmoid(x);
    default:
        return verf(x);
    }
}

FNN_INLINE void elementary_loop(real *y, const real *x, int function, size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        vstore(y + i, elementary_value(vload(x + i), function));
    if (i < count)
        vstore_partial(y + i, elementary_value(vload_partial(x + i, count - i), function), count - i);
}

static void elementary(void *y, const void *x, int function, size_t count)
{
    switch (function) {
#define FNN_CASE(number)                      \
    case number:                              \
        elementary_loop(y, x, number, count); \
        break;
        FNN_CASE(0)
        FNN_CASE(1)
        FNN_CASE(2)
        FNN_CASE(3)
        FNN_CASE(4)
        FNN_CASE(5)
        FNN_CASE(6)
#undef FNN_CASE
    }
}

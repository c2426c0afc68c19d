/* Initial weights, shuffles, and the check of the features. */
#include <math.h>
#include <string.h>

#include "net.h"

static void draw_rows(fnn_net *net, const fnn_tensor *tensor, fnn_draw draw, double a, const fnn_random *random)
{
    for (size_t i = 0; i < tensor->rows; i++) {
        void *row = fnn_parameter(net, tensor->offset + i * tensor->stride);
        uint64_t first = (uint64_t)i * tensor->columns;
        if (draw == FNN_DRAW_NORMAL)
            net->kernels->draw_normal(row, a, random, first, tensor->columns);
        else
            net->kernels->draw_uniform(row, draw == FNN_DRAW_UNIFORM ? -a : a, a, random, first, tensor->columns);
    }
}

/* Orthonormal rows of the wide form of a standard normal matrix: those of the tensor, or of its transpose if it is
 * tall. */
static fnn_status draw_orthogonal(fnn_net *net, const fnn_tensor *tensor, double gain, const fnn_random *random)
{
    bool tall = tensor->rows > tensor->columns;
    size_t rows = tall ? tensor->columns : tensor->rows, columns = tall ? tensor->rows : tensor->columns, bytes;
    const fnn_kernels *kernels = fnn_dispatch(FNN_FLOAT64);
    if (!fnn_size_multiply(&bytes, rows, columns) || !fnn_size_multiply(&bytes, bytes, sizeof(double)))
        return FNN_EOVERFLOW;
    double *matrix = fnn_allocate(bytes);
    if (!matrix)
        return FNN_ENOMEM;
    kernels->draw_normal(matrix, 1, random, 0, rows * columns);
    kernels->orthonormalize(matrix, rows, columns);
    ptrdiff_t row_bytes = (ptrdiff_t)(columns * sizeof(double)), item = sizeof(double);
    fnn_features features = {.data = matrix,
                             .dtype = FNN_FLOAT64,
                             .row_stride = tall ? item : row_bytes,
                             .column_stride = tall ? row_bytes : item,
                             .rows = tensor->rows};
    fnn_conversion conversion = {.factor = gain};
    net->kernels->gather(fnn_parameter(net, tensor->offset), &features, NULL, 0, &conversion, tensor->rows,
                         tensor->columns, tensor->stride);
    fnn_release(matrix);
    return FNN_OK;
}

fnn_status fnn_net_draw(fnn_net *net, size_t index, fnn_draw draw, double a)
{
    if (!net || net->frozen || index >= net->n_tensors || draw > FNN_DRAW_ORTHOGONAL)
        return FNN_EINVAL;
    const fnn_tensor *tensor = &net->tensors[index];
    fnn_random random = {.seed = net->seed, .stream = FNN_STREAM_INIT, .layer = (uint32_t)tensor->layer};
    if (draw == FNN_DRAW_ORTHOGONAL)
        return draw_orthogonal(net, tensor, a, &random);
    draw_rows(net, tensor, draw, a, &random);
    return FNN_OK;
}

/* ---- initial weights as the layers ask for them ---- */

typedef struct distribution {
    fnn_draw draw;
    double gain; /* variance * fan */
    enum { FAN_IN, FAN_AVERAGE } fan;
} distribution;

/* Of those whose variance follows from the shape. */
static const distribution distributions[] = {
    [FNN_FAN_IN_UNIFORM] = {FNN_DRAW_UNIFORM, 1.0 / 3, FAN_IN},
    [FNN_LECUN_UNIFORM] = {FNN_DRAW_UNIFORM, 1, FAN_IN},
    [FNN_LECUN_NORMAL] = {FNN_DRAW_NORMAL, 1, FAN_IN},
    [FNN_XAVIER_UNIFORM] = {FNN_DRAW_UNIFORM, 1, FAN_AVERAGE},
    [FNN_XAVIER_NORMAL] = {FNN_DRAW_NORMAL, 1, FAN_AVERAGE},
    [FNN_HE_UNIFORM] = {FNN_DRAW_UNIFORM, 2, FAN_IN},
    [FNN_HE_NORMAL] = {FNN_DRAW_NORMAL, 2, FAN_IN},
};

static bool relu_like(fnn_activation activation)
{
    return activation >= FNN_RELU && activation <= FNN_SOFTPLUS;
}

/* The activation that the outputs of a Dense layer meet first, past BatchNorm and Dropout. */
static fnn_activation following_activation(const fnn_net *net, size_t place)
{
    if (net->layers[place].activation != FNN_IDENTITY)
        return net->layers[place].activation;
    for (size_t i = place + 1; i < net->n_layers; i++) {
        const fnn_layer *layer = &net->layers[i];
        if (layer->kind != FNN_BATCHNORM && layer->kind != FNN_DROPOUT)
            return layer->kind == FNN_ACTIVATION ? layer->activation : FNN_IDENTITY;
    }
    return FNN_IDENTITY;
}

static fnn_status draw_weights(fnn_net *net, size_t index)
{
    const fnn_tensor *tensor = &net->tensors[index];
    const fnn_layer *layer = &net->layers[tensor->layer];
    fnn_init init = layer->init;
    if (init == FNN_INIT_DEFAULT)
        init = relu_like(following_activation(net, tensor->layer)) ? FNN_HE_NORMAL : FNN_XAVIER_UNIFORM;
    switch (init) {
    case FNN_ZEROS:
        return fnn_net_draw(net, index, FNN_DRAW_CONSTANT, 0);
    case FNN_CONSTANT:
        return fnn_net_draw(net, index, FNN_DRAW_CONSTANT, layer->init_value);
    case FNN_UNIFORM:
        return fnn_net_draw(net, index, FNN_DRAW_UNIFORM, layer->init_value);
    case FNN_NORMAL:
        return fnn_net_draw(net, index, FNN_DRAW_NORMAL, layer->init_value);
    case FNN_ORTHOGONAL:
        return fnn_net_draw(net, index, FNN_DRAW_ORTHOGONAL, 1);
    default: {
        const distribution *d = &distributions[init];
        double fan_in = (double)tensor->rows, fan_out = (double)tensor->columns;
        double variance = d->gain / (d->fan == FAN_IN ? fan_in : (fan_in + fan_out) / 2);
        return fnn_net_draw(net, index, d->draw, sqrt(d->draw == FNN_DRAW_UNIFORM ? 3 * variance : variance));
    }
    }
}

fnn_status fnn_net_initialize(fnn_net *net)
{
    if (!net || net->frozen)
        return FNN_EINVAL;
    for (size_t i = 0; i < net->n_tensors; i++) {
        const fnn_tensor *tensor = &net->tensors[i];
        fnn_layer_kind kind = net->layers[tensor->layer].kind;
        const char *role = strchr(tensor->name, '.') + 1;
        bool one = strcmp(role, "gamma") == 0 || strcmp(role, "running_var") == 0;
        fnn_status status = FNN_OK;
        if (kind != FNN_STANDARDIZE)
            status = strcmp(role, "weight") == 0 ? draw_weights(net, i) : fnn_net_draw(net, i, FNN_DRAW_CONSTANT, one);
        if (status != FNN_OK)
            return status;
    }
    return FNN_OK;
}

fnn_status fnn_permutation(int64_t *order, size_t n, uint64_t seed, uint64_t epoch)
{
    const fnn_kernels *kernels = fnn_dispatch(FNN_FLOAT32);
    if (!order && n > 0)
        return FNN_EINVAL;
    if (!kernels)
        return FNN_ENOISA;
    fnn_random random = {.seed = seed, .step = epoch, .stream = FNN_STREAM_SHUFFLE};
    kernels->draw_permutation(order, &random, n);
    return FNN_OK;
}

/* Contiguous features of the net's own dtype are looked at where they lie, others as they will be converted. */
fnn_status fnn_find_nonfinite(fnn_net *net, const fnn_features *x, size_t *row, size_t *column)
{
    size_t n = net->inputs, bytes;
    *row = SIZE_MAX;
    if (x->rows == 0 || (x->dtype != FNN_FLOAT32 && x->dtype != FNN_FLOAT64))
        return FNN_OK;
    ptrdiff_t at;
    if (x->dtype == net->dtype && x->column_stride == (ptrdiff_t)net->real_size &&
        x->row_stride == (ptrdiff_t)(n * net->real_size)) {
        at = net->kernels->first_nonfinite(x->data, x->rows * n);
        if (at >= 0) {
            *row = (size_t)at / n;
            *column = (size_t)at % n;
        }
        return FNN_OK;
    }
    if (!fnn_size_multiply(&bytes, net->ld_inputs, PREDICT_ROWS * net->real_size))
        return FNN_EOVERFLOW;
    void *block = fnn_allocate(bytes);
    if (!block)
        return FNN_ENOMEM;
    fnn_conversion none = {.factor = 1};
    for (size_t first = 0; first < x->rows && *row == SIZE_MAX; first += PREDICT_ROWS) {
        size_t m = x->rows - first < PREDICT_ROWS ? x->rows - first : PREDICT_ROWS;
        net->kernels->gather(block, x, NULL, first, &none, m, n, net->ld_inputs);
        at = net->kernels->first_nonfinite(block, m * net->ld_inputs);
        if (at >= 0) {
            *row = first + (size_t)at / net->ld_inputs;
            *column = (size_t)at % net->ld_inputs;
        }
    }
    fnn_release(block);
    return FNN_OK;
}

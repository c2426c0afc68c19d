/* Loops around what is timed from Python, so that a call of ctypes counts once per block. Sizes and formulas of the
 * kernels are those of csrc/kernels/kernels.def, where `isa` names the table; 0 is returned where it cannot run. */
#include "fastnn.h"
#include "runtime.h"
#include "table.h"

#define FNN_EXPORT __attribute__((visibility("default")))

FNN_EXPORT int fnn_bench_forward(const char *isa, int dtype, size_t repeats, void *y, const void *x, const void *w,
                                 size_t m, size_t n, size_t k, size_t ldy, size_t ldx, size_t ldw);
FNN_EXPORT int fnn_bench_backward_weights(const char *isa, int dtype, size_t repeats, void *dw, const void *x,
                                          const void *dy, size_t k, size_t n, size_t m, size_t lddw, size_t ldx,
                                          size_t lddy);
FNN_EXPORT int fnn_bench_backward_input(const char *isa, int dtype, size_t repeats, void *dx, const void *dy,
                                        const void *wt, size_t m, size_t k, size_t n, size_t lddx, size_t lddy,
                                        size_t ldwt);
FNN_EXPORT int fnn_bench_tanh(const char *isa, int dtype, size_t repeats, void *y, const void *x, size_t count);
FNN_EXPORT const char *fnn_bench_best_isa(void);
FNN_EXPORT fnn_net *fnn_bench_net(const size_t *widths, size_t n_layers);
FNN_EXPORT fnn_status fnn_bench_predict(fnn_net *net, float *out, const float *x, size_t rows, int n_threads,
                                        size_t repeats);

int fnn_bench_forward(const char *isa, int dtype, size_t repeats, void *y, const void *x, const void *w, size_t m,
                      size_t n, size_t k, size_t ldy, size_t ldx, size_t ldw)
{
    const fnn_kernels *table = fnn_kernels_of(isa, (fnn_dtype)dtype);
    for (size_t i = 0; table && i < repeats; i++)
        table->dense_forward(y, x, w, NULL, FNN_IDENTITY, 0, m, n, k, ldy, ldx, ldw);
    return table != NULL;
}

int fnn_bench_backward_weights(const char *isa, int dtype, size_t repeats, void *dw, const void *x, const void *dy,
                               size_t k, size_t n, size_t m, size_t lddw, size_t ldx, size_t lddy)
{
    const fnn_kernels *table = fnn_kernels_of(isa, (fnn_dtype)dtype);
    for (size_t i = 0; table && i < repeats; i++)
        table->dense_backward_weights(dw, x, dy, 0, k, n, m, lddw, ldx, lddy);
    return table != NULL;
}

int fnn_bench_backward_input(const char *isa, int dtype, size_t repeats, void *dx, const void *dy, const void *wt,
                             size_t m, size_t k, size_t n, size_t lddx, size_t lddy, size_t ldwt)
{
    const fnn_kernels *table = fnn_kernels_of(isa, (fnn_dtype)dtype);
    for (size_t i = 0; table && i < repeats; i++)
        table->dense_backward_input(dx, dy, wt, m, k, n, lddx, lddy, ldwt);
    return table != NULL;
}

int fnn_bench_tanh(const char *isa, int dtype, size_t repeats, void *y, const void *x, size_t count)
{
    const fnn_kernels *table = fnn_kernels_of(isa, (fnn_dtype)dtype);
    for (size_t i = 0; table && i < repeats; i++)
        table->activation_forward(y, x, FNN_TANH, 0, count);
    return table != NULL;
}

const char *fnn_bench_best_isa(void)
{
    return fnn_runnable_isa(0);
}

/* Dense layers from widths[0] inputs to widths[n_layers] outputs, ReLU between, small weights; NULL on failure. */
fnn_net *fnn_bench_net(const size_t *widths, size_t n_layers)
{
    enum { MOST_LAYERS = 16 };
    fnn_layer layers[MOST_LAYERS] = {{0}};
    fnn_net *net;
    if (n_layers > MOST_LAYERS)
        return NULL;
    for (size_t i = 0; i < n_layers; i++) {
        layers[i].kind = FNN_DENSE;
        layers[i].units = widths[i + 1];
        layers[i].activation = i + 1 < n_layers ? FNN_RELU : FNN_IDENTITY;
        layers[i].use_bias = layers[i].trainable = 1;
    }
    if (fnn_net_create(&net, layers, n_layers, widths[0], FNN_FLOAT32, 0) != FNN_OK)
        return NULL;
    float *parameters = fnn_net_parameters(net);
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor tensor;
        fnn_net_tensor(net, i, &tensor);
        for (size_t row = 0; row < tensor.rows; row++)
            for (size_t column = 0; column < tensor.columns; column++)
                parameters[tensor.offset + row * tensor.stride + column] = (float)((row + column) % 7) / 7 - 0.4f;
    }
    return net;
}

fnn_status fnn_bench_predict(fnn_net *net, float *out, const float *x, size_t rows, int n_threads, size_t repeats)
{
    ptrdiff_t stride = (ptrdiff_t)(fnn_net_input_size(net) * sizeof *x);
    fnn_features features = {x, FNN_FLOAT32, stride, sizeof *x, rows};
    fnn_status status = FNN_OK;
    for (size_t i = 0; status == FNN_OK && i < repeats; i++)
        status = fnn_predict(net, out, &features, n_threads);
    return status;
}

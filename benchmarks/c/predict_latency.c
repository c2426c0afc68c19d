/* Time of one prediction of a 16-64-64-4 net (ReLU, float32, one row, one thread), live and frozen: the median over
 * blocks of calls, so that reading the clock counts for nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fastnn.h"

enum { INPUTS = 16, OUTPUTS = 4, CALLS = 200, BLOCKS = 2001 };

static const fnn_layer layers[] = {
    {.kind = FNN_DENSE, .units = 64, .activation = FNN_RELU, .use_bias = 1},
    {.kind = FNN_DENSE, .units = 64, .activation = FNN_RELU, .use_bias = 1},
    {.kind = FNN_DENSE, .units = OUTPUTS, .use_bias = 1},
};

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static fnn_status time_prediction(fnn_net *net, const char *what)
{
    static double blocks[BLOCKS];
    float x[INPUTS], y[OUTPUTS];
    for (int i = 0; i < INPUTS; i++)
        x[i] = (float)i / INPUTS - 0.5f;
    const fnn_features features = fnn_rows(x, FNN_FLOAT32, 1, INPUTS);
    fnn_status status = fnn_net_reserve(net, 1, 1);
    for (int block = 0; block < BLOCKS && status == FNN_OK; block++) {
        double begin = now_ns();
        for (int i = 0; i < CALLS && status == FNN_OK; i++)
            status = fnn_predict(net, y, &features, 1);
        blocks[block] = (now_ns() - begin) / CALLS;
    }
    qsort(blocks, BLOCKS, sizeof *blocks, compare);
    printf("one row of a 16-64-64-4 net, %s: %.0f ns (median of %d, 95 %%: %.0f)\n", what, blocks[BLOCKS / 2], BLOCKS,
           blocks[BLOCKS * 95 / 100]);
    return status;
}

int main(void)
{
    fnn_net *net;
    const char *isa;
    fnn_status status = fnn_net_create(&net, layers, sizeof layers / sizeof *layers, INPUTS, FNN_FLOAT32, 0);
    if (status == FNN_OK)
        status = fnn_net_initialize(net);
    if (status == FNN_OK)
        status = time_prediction(net, "live");
    if (status == FNN_OK)
        status = fnn_net_freeze(net);
    if (status == FNN_OK)
        status = time_prediction(net, "frozen");
    if (fnn_isa_name(&isa) == FNN_OK)
        printf("instruction set %s\n", isa);
    fnn_net_free(net);
    if (status != FNN_OK)
        fprintf(stderr, "predict_latency: %s\n", fnn_status_text(status));
    return status != FNN_OK;
}

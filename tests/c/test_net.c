/* The net without Python: create, train, predict; bad layer lists; every allocation failing in turn. */
#include <math.h>
#include <string.h>

#include "fastnn.h"
#include "fnn_internal.h"
#include "minitest.h"

enum { ROWS = 96, INPUTS = 7, CLASSES = 3 };

static const fnn_layer layers[] = {
    {.kind = FNN_DENSE, .units = 20, .use_bias = 1, .trainable = 1},
    {.kind = FNN_BATCHNORM, .trainable = 1, .eps = 1e-5, .decay = 0.9},
    {.kind = FNN_ACTIVATION, .activation = FNN_RELU},
    {.kind = FNN_DROPOUT, .p = 0.25},
    {.kind = FNN_DENSE, .units = CLASSES, .use_bias = 1, .trainable = 1},
};
enum { LAYERS = sizeof layers / sizeof *layers };

static float x[ROWS][INPUTS];
static int32_t labels[ROWS];

static void make_data(void)
{
    uint32_t state = 1;
    for (int i = 0; i < ROWS; i++) {
        labels[i] = i % CLASSES;
        for (int j = 0; j < INPUTS; j++) {
            state = state * 1664525u + 1013904223u;
            x[i][j] = (float)(state >> 8) / (1 << 24) + (j == labels[i]);
        }
    }
}

static fnn_features all_rows(void)
{
    return (fnn_features){
        .data = x, .dtype = FNN_FLOAT32, .row_stride = sizeof x[0], .column_stride = sizeof(float), .rows = ROWS};
}

static fnn_status create_of(fnn_net **net, fnn_dtype dtype)
{
    fnn_status status = fnn_net_create(net, layers, LAYERS, INPUTS, dtype, 1);
    for (size_t i = 0; status == FNN_OK && i < fnn_net_tensor_count(*net); i++) {
        fnn_tensor tensor;
        fnn_net_tensor(*net, i, &tensor);
        if (strstr(tensor.name, ".weight"))
            status = fnn_net_draw(*net, i, FNN_DRAW_UNIFORM, 0.5);
    }
    return status;
}

static fnn_status create(fnn_net **net)
{
    return create_of(net, FNN_FLOAT32);
}

static fnn_status train_epochs(fnn_net *net, int epochs, int n_threads, double *loss)
{
    const fnn_optimizer optimizer = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const fnn_clip clip = {.kind = FNN_CLIP_NORM, .high = 1};
    const size_t starts[] = {0, 32, 64, 96};
    const double rates[] = {0.05, 0.05, 0.05};
    const fnn_loss cross_entropy = {.kind = FNN_CROSS_ENTROPY};
    const fnn_targets targets = {.labels = labels};
    fnn_features features = all_rows();
    fnn_run run = {.x = &features,
                   .y = &targets,
                   .loss = &cross_entropy,
                   .batch_starts = starts,
                   .n_batches = 3,
                   .learning_rates = rates,
                   .n_threads = n_threads};
    fnn_status status = fnn_net_configure(net, &optimizer, &clip, NULL);
    for (int epoch = 0; epoch < epochs && status == FNN_OK; epoch++)
        status = fnn_train(net, &run);
    *loss = run.weight_sum > 0 ? run.loss_sum / run.weight_sum : INFINITY;
    return status;
}

static fnn_status train(fnn_net *net, int n_threads, double *loss)
{
    return train_epochs(net, 20, n_threads, loss);
}

static void test_learns_and_predicts(void)
{
    fnn_net *net;
    double loss;
    float out[ROWS][CLASSES];
    fnn_features features = all_rows();
    CHECK(create(&net) == FNN_OK);
    CHECK(train(net, 2, &loss) == FNN_OK);
    CHECK(loss < 0.3);
    CHECK(fnn_predict(net, out, &features, 2) == FNN_OK);
    int right = 0;
    for (int i = 0; i < ROWS; i++) {
        int best = 0;
        for (int j = 1; j < CLASSES; j++)
            if (out[i][j] > out[i][best])
                best = j;
        right += best == labels[i];
    }
    CHECK(right > ROWS * 9 / 10);
    fnn_net_free(net);
}

static void test_steps_do_not_allocate(void)
{
    fnn_net *net;
    double loss;
    CHECK(create(&net) == FNN_OK);
    CHECK(train(net, 1, &loss) == FNN_OK);
    uint64_t before = fnn_allocation_count();
    CHECK(train(net, 1, &loss) == FNN_OK);
    CHECK(fnn_allocation_count() == before);
    fnn_net_free(net);
}

/* A layer list with one thing wrong. */
static void refuses(fnn_layer layer, size_t input_size, fnn_status expected)
{
    fnn_net *net = (fnn_net *)&layer;
    CHECK(fnn_net_create(&net, &layer, 1, input_size, FNN_FLOAT32, 0) == expected);
    CHECK(net == NULL);
}

static void test_bad_layer_lists(void)
{
    fnn_net *net;
    refuses((fnn_layer){.kind = FNN_DENSE, .units = 0}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_DENSE, .units = 4}, 0, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_DROPOUT, .p = 1}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_DROPOUT, .p = NAN}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_BATCHNORM, .eps = 0}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_ACTIVATION, .activation = (fnn_activation)99}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = (fnn_layer_kind)77}, 4, FNN_EINVAL);
    refuses((fnn_layer){.kind = FNN_DENSE, .units = (size_t)1 << 40}, (size_t)1 << 40, FNN_EOVERFLOW);
    refuses((fnn_layer){.kind = FNN_DENSE, .units = SIZE_MAX}, 1, FNN_EOVERFLOW);
    CHECK(fnn_net_create(&net, layers, 0, 4, FNN_FLOAT32, 0) == FNN_EINVAL);
    CHECK(fnn_net_create(&net, layers, LAYERS, 4, FNN_UINT8, 0) == FNN_EINVAL);
    CHECK(fnn_net_create(NULL, layers, LAYERS, 4, FNN_FLOAT32, 0) == FNN_EINVAL);
    fnn_net_free(NULL);
}

/* Widths around every power of two that matters: an answer, never undefined behaviour. */
static void test_size_grid(void)
{
    const size_t sizes[] = {1, (1u << 31) - 1, 1u << 31, (size_t)1 << 32, (size_t)1 << 61, SIZE_MAX / 2, SIZE_MAX};
    enum { N = sizeof sizes / sizeof *sizes };
    fnn_fail_allocation(8, 1); /* the net's small tables are allowed; an arena of many gigabytes is not asked for */
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            fnn_net *net;
            fnn_layer layer = {.kind = FNN_DENSE, .units = sizes[j], .use_bias = 1};
            fnn_fail_allocation(8, 1);
            fnn_status status = fnn_net_create(&net, &layer, 1, sizes[i], FNN_FLOAT64, 0);
            CHECK((status == FNN_OK) == (net != NULL));
            CHECK(status == FNN_OK || status == FNN_EOVERFLOW || status == FNN_ENOMEM || status == FNN_EINVAL);
            fnn_net_free(net);
        }
    fnn_fail_allocation(0, 0);
}

/* Create, train and predict with the n-th allocation failing, n = 1, 2, ... until none fails any more. */
static void allocations_fail(int from_then_on)
{
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        fnn_net *net = NULL;
        double loss;
        float out[ROWS][CLASSES];
        fnn_features features = all_rows();
        fnn_fail_allocation(n, from_then_on);
        fnn_status status = create(&net);
        if (status == FNN_OK)
            status = train(net, 1, &loss);
        if (status == FNN_OK)
            status = fnn_predict(net, out, &features, 1);
        fnn_fail_allocation(0, 0);
        CHECK(status == FNN_OK || status == FNN_ENOMEM);
        failed = status != FNN_OK;
        if (net) { /* the net is whole: what failed works now */
            CHECK(train(net, 1, &loss) == FNN_OK);
            CHECK(fnn_predict(net, out, &features, 1) == FNN_OK);
        }
        fnn_net_free(net);
        CHECK(n < 100);
    }
}

static void test_every_allocation_fails(void)
{
    allocations_fail(0);
    allocations_fail(1);
}

static void test_same_bits_for_any_thread_count(void)
{
    float first[ROWS][CLASSES], out[ROWS][CLASSES];
    fnn_features features = all_rows();
    for (int n_threads = 1; n_threads <= 8; n_threads++) {
        fnn_net *net;
        double loss;
        CHECK(create(&net) == FNN_OK);
        CHECK(train(net, n_threads, &loss) == FNN_OK);
        CHECK(fnn_predict(net, n_threads == 1 ? first : out, &features, n_threads) == FNN_OK);
        if (n_threads > 1)
            CHECK(memcmp(first, out, sizeof out) == 0);
        fnn_net_free(net);
    }
}

void run_net_tests(void)
{
    make_data();
    RUN(test_learns_and_predicts);
    RUN(test_steps_do_not_allocate);
    RUN(test_bad_layer_lists);
    RUN(test_size_grid);
    RUN(test_every_allocation_fails);
    RUN(test_same_bits_for_any_thread_count);
}

/* A hash (FNV-1a) of all parameters after 201 steps with BatchNorm, dropout, clipping and Adam, for both element types:
 * compared between compilers and machines. */
void print_hashes(void)
{
    make_data();
    for (int dtype = FNN_FLOAT32; dtype <= FNN_FLOAT64; dtype++) {
        fnn_net *net;
        double loss;
        uint64_t hash = 0xcbf29ce484222325u;
        if (create_of(&net, (fnn_dtype)dtype) != FNN_OK || train_epochs(net, 67, 2, &loss) != FNN_OK)
            return;
        const unsigned char *bytes = fnn_net_parameters(net);
        for (size_t i = 0; i < fnn_net_arena_size(net) * (dtype == FNN_FLOAT32 ? 4 : 8); i++)
            hash = (hash ^ bytes[i]) * 0x100000001b3u;
        printf("%016llx\n", (unsigned long long)hash);
        fnn_net_free(net);
    }
}

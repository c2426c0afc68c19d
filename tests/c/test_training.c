/* Training on many threads, without Python: nets of every layer, odd batches, micro-batches, both element types. Tiny
 * work is spread over all threads, so that every barrier, empty share and padded column is met, also under the
 * sanitizers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fastnn.h"
#include "fnn_internal.h"
#include "minitest.h"

enum { MOST_ROWS = 2600, LONG_BATCH = 1100, INPUTS = 9, CLASSES = 10, MOST_LAYERS = 9, STEPS = 3 };

#define DENSE(n) {.kind = FNN_DENSE, .units = n, .use_bias = 1, .trainable = 1}
#define FROZEN_DENSE(n) {.kind = FNN_DENSE, .units = n, .use_bias = 1}
#define BATCHNORM {.kind = FNN_BATCHNORM, .trainable = 1, .eps = 1e-5, .decay = 0.9, .unbiased = 1}
#define FROZEN_BATCHNORM {.kind = FNN_BATCHNORM, .eps = 1e-5, .decay = 0.9}
#define ACTIVATION(name) {.kind = FNN_ACTIVATION, .activation = FNN_##name, .alpha = 0.5}
#define DROPOUT(share) {.kind = FNN_DROPOUT, .p = share}
#define SCALE(factor) {.kind = FNN_SCALE, .alpha = factor}

typedef struct architecture {
    const char *name;
    fnn_layer layers[MOST_LAYERS];
} architecture;

/* Widths of 1024 (512) floats (doubles) are moved off the power of two: their spare columns must stay 0. */
static const architecture architectures[] = {
    {"two batch normalisations",
     {DENSE(33), BATCHNORM, ACTIVATION(RELU), DROPOUT(0.3), DENSE(20), BATCHNORM, ACTIVATION(TANH), DENSE(CLASSES)}},
    {"no two layers alike",
     {SCALE(0.5), DENSE(17), ACTIVATION(GELU), SCALE(2), ACTIVATION(SIGMOID), DENSE(5), ACTIVATION(SOFTMAX),
      ACTIVATION(SILU), DENSE(CLASSES)}},
    {"dropout first", {DROPOUT(0.2), DENSE(40), ACTIVATION(ELU), FROZEN_DENSE(12), FROZEN_BATCHNORM, DENSE(CLASSES)}},
    {"1024 wide", {DENSE(1024), ACTIVATION(TANH), DENSE(24), ACTIVATION(LEAKY_RELU), DENSE(CLASSES)}},
    {"512 wide", {DENSE(30), ACTIVATION(TANH), DENSE(512), BATCHNORM, ACTIVATION(SOFTPLUS), DENSE(CLASSES)}},
};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

/* CLIPPED needs the norm of all gradients before the update; the others update at once where that pays. */
enum recipe { CLIPPED, DESCENT, ADAM, CLIPPED_BY_VALUE, RECIPES };

typedef struct plan {
    const architecture *net;
    enum recipe recipe;
    fnn_dtype dtype;
    size_t rows, micro_batch;
    int n_threads;
    int weighted;
} plan;

static float features[MOST_ROWS][INPUTS];
static int32_t labels[MOST_ROWS];
static double weights[MOST_ROWS];

static void make_data(void)
{
    uint32_t state = 7;
    for (int i = 0; i < MOST_ROWS; i++) {
        for (int j = 0; j < INPUTS; j++) {
            state = state * 1664525u + 1013904223u;
            features[i][j] = (float)(state >> 8) / (1 << 23) - 1;
        }
        labels[i] = (int32_t)(state >> 16) % CLASSES;
        weights[i] = 0.5 + (double)(i % 3);
    }
}

static size_t count_layers(const architecture *a)
{
    size_t n = 0;
    while (n < MOST_LAYERS && a->layers[n].kind)
        n++;
    return n;
}

static fnn_net *create(const architecture *a, fnn_dtype dtype)
{
    fnn_net *net = NULL;
    CHECK(fnn_net_create(&net, a->layers, count_layers(a), INPUTS, dtype, 3) == FNN_OK);
    for (size_t i = 0; net && i < fnn_net_tensor_count(net); i++) {
        fnn_tensor tensor;
        CHECK(fnn_net_tensor(net, i, &tensor) == FNN_OK);
        if (strstr(tensor.name, ".weight"))
            CHECK(fnn_net_draw(net, i, FNN_DRAW_NORMAL, 0.3) == FNN_OK);
    }
    return net;
}

static fnn_status train(fnn_net *net, const plan *p)
{
    const fnn_optimizer adam = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}, sgd = {.kind = FNN_SGD};
    const fnn_clip clips[RECIPES] = {[CLIPPED] = {.kind = FNN_CLIP_NORM, .high = 0.5},
                                     [CLIPPED_BY_VALUE] = {.kind = FNN_CLIP_VALUE, .low = -1e-3, .high = 1e-3}};
    const fnn_penalty elastic_net = {FNN_ELASTIC_NET, 1e-3, 1};
    const size_t starts[] = {0, p->rows, 2 * p->rows, 3 * p->rows};
    int64_t order[3 * MOST_ROWS];
    for (size_t i = 0; i < 3 * p->rows; i++)
        order[i] = (int64_t)(i * 7 % p->rows);
    const double rates[STEPS] = {0.01, 0.01, 0.01};
    const fnn_loss loss = {.kind = FNN_CROSS_ENTROPY, .parameter = 0.1};
    const fnn_targets targets = {.labels = labels, .weights = p->weighted ? weights : NULL};
    const fnn_features x = {.data = features,
                            .dtype = FNN_FLOAT32,
                            .row_stride = sizeof features[0],
                            .column_stride = sizeof(float),
                            .rows = p->rows};
    fnn_run run = {.x = &x,
                   .y = &targets,
                   .loss = &loss,
                   .order = order,
                   .batch_starts = starts,
                   .n_batches = STEPS,
                   .micro_batch = p->micro_batch,
                   .learning_rates = rates,
                   .n_threads = p->n_threads};
    CHECK(fnn_net_configure(net, p->recipe == DESCENT ? &sgd : &adam, &clips[p->recipe],
                            p->recipe == CLIPPED ? &elastic_net : NULL) == FNN_OK);
    return fnn_train(net, &run);
}

static size_t real_size(const plan *p)
{
    return p->dtype == FNN_FLOAT32 ? sizeof(float) : sizeof(double);
}

static uint64_t hash_of(fnn_net *net, const plan *p)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const unsigned char *bytes = fnn_net_parameters(net);
    for (size_t i = 0; i < fnn_net_arena_size(net) * real_size(p); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static bool all_zero(const char *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (memory[i])
            return false;
    return true;
}

static bool padding_is_zero(fnn_net *net, const plan *p)
{
    size_t size = real_size(p);
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor t;
        fnn_net_tensor(net, i, &t);
        for (size_t row = 0; row < t.rows; row++) {
            size_t place = (t.offset + row * t.stride + t.columns) * size, bytes = (t.stride - t.columns) * size;
            if (!all_zero((char *)fnn_net_parameters(net) + place, bytes) ||
                (t.trainable && !all_zero((char *)fnn_net_gradients(net) + place, bytes)))
                return false;
        }
    }
    return true;
}

static uint64_t same_bits_for_any_thread_count(plan p)
{
    const int counts[] = {1, 2, 3, 4, 8};
    uint64_t first = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        p.n_threads = counts[i];
        fnn_net *net = create(p.net, p.dtype);
        CHECK(train(net, &p) == FNN_OK);
        CHECK(padding_is_zero(net, &p));
        uint64_t hash = hash_of(net, &p);
        if (i == 0)
            first = hash;
        CHECK(hash == first);
        fnn_net_free(net);
    }
    return first;
}

static void test_threads_batches_and_layers(void)
{
    const size_t rows[] = {3, 37, 200, LONG_BATCH};
    for (int a = 0; a < ARCHITECTURES; a++)
        for (int dtype = FNN_FLOAT32; dtype <= FNN_FLOAT64; dtype++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                plan p = {.net = &architectures[a], .dtype = (fnn_dtype)dtype, .rows = rows[r], .weighted = r % 2};
                same_bits_for_any_thread_count(p);
                p.micro_batch = rows[r] / 3 + 1;
                same_bits_for_any_thread_count(p);
            }
}

/* An update that follows its gradient at once gives the bits, and leaves the gradients, of one that has them stored. */
static void test_updates_that_need_no_norm(void)
{
    const size_t rows[] = {2, 9, 37};
    for (int a = 0; a < ARCHITECTURES; a++)
        for (int dtype = FNN_FLOAT32; dtype <= FNN_FLOAT64; dtype++)
            for (int recipe = DESCENT; recipe < RECIPES; recipe++)
                for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                    plan p = {&architectures[a], (enum recipe)recipe, (fnn_dtype)dtype, rows[r], 0, 1, r % 2};
                    fnn_net *stores = create(p.net, p.dtype), *other = create(p.net, p.dtype);
                    void *stored = fnn_net_gradients(stores);
                    CHECK(train(stores, &p) == FNN_OK);
                    CHECK(train(other, &p) == FNN_OK);
                    CHECK(memcmp(stored, fnn_net_gradients(other), fnn_net_trainable_size(other) * real_size(&p)) == 0);
                    CHECK(same_bits_for_any_thread_count(p) == hash_of(stores, &p));
                    fnn_net_free(stores);
                    fnn_net_free(other);
                }
}

/* The last micro-batch goes layer by layer, the others in blocks: the buffers must hold all of its rows. */
static void test_short_micro_batch_after_blocks(void)
{
    plan p = {.net = &architectures[1], .rows = 2548, .micro_batch = 2048};
    same_bits_for_any_thread_count(p);
}

/* A smaller batch after a larger one finds the buffers full of old values. */
static void test_batches_of_changing_size(void)
{
    for (int a = 0; a < ARCHITECTURES; a++) {
        plan large = {.net = &architectures[a], .rows = LONG_BATCH, .n_threads = 2}, small = large;
        small.rows = 70;
        fnn_net *used = create(large.net, FNN_FLOAT32), *fresh = create(large.net, FNN_FLOAT32);
        CHECK(train(used, &large) == FNN_OK);
        CHECK(train(used, &small) == FNN_OK);
        CHECK(padding_is_zero(used, &small));
        memcpy(fnn_net_parameters(fresh), fnn_net_parameters(used), fnn_net_arena_size(used) * sizeof(float));
        fnn_net_reset(used);
        CHECK(train(used, &small) == FNN_OK);
        CHECK(train(fresh, &small) == FNN_OK);
        CHECK(hash_of(used, &small) == hash_of(fresh, &small));
        fnn_net_free(used);
        fnn_net_free(fresh);
    }
}

static void test_overflowing_statistics_are_a_divergence(void)
{
    const architecture a = {"batchnorm first", {BATCHNORM, DENSE(CLASSES)}};
    plan p = {.net = &a, .rows = 32, .n_threads = 2};
    fnn_net *net = create(&a, FNN_FLOAT32);
    uint64_t before = hash_of(net, &p);
    float kept = features[5][2];
    features[5][2] = 1e21f;
    CHECK(train(net, &p) == FNN_EDIVERGED);
    features[5][2] = kept;
    CHECK(hash_of(net, &p) == before);
    CHECK(train(net, &p) == FNN_OK);
    fnn_net_free(net);
}

/* Running statistics are committed once, with the update after the pass that formed them. */
static void test_statistics_are_committed_once(void)
{
    const architecture a = {"batchnorm", {BATCHNORM, DENSE(CLASSES)}};
    plan p = {.net = &a, .rows = 32, .n_threads = 1};
    fnn_net *net = create(&a, FNN_FLOAT32);
    fnn_features x = {
        .data = features, .row_stride = sizeof features[0], .column_stride = sizeof(float), .rows = p.rows};
    float out[32][CLASSES], mean = 7, *running;
    double norm;
    fnn_tensor tensor;
    CHECK(train(net, &p) == FNN_OK);
    CHECK(fnn_net_tensor(net, 2, &tensor) == FNN_OK);
    CHECK(strcmp(tensor.name, "0.running_mean") == 0);
    running = (float *)fnn_net_parameters(net) + tensor.offset;
    float before = *running;
    CHECK(fnn_forward(net, out, &x, NULL, p.rows, 1) == FNN_OK);
    CHECK(fnn_backward(net, NULL, out, p.rows, 1) == FNN_OK);
    CHECK(*running == before);
    CHECK(fnn_apply_gradients(net, 1e-3, 1, &norm, 1) == FNN_OK);
    CHECK(*running != before);
    *running = mean;
    CHECK(fnn_apply_gradients(net, 1e-3, 1, &norm, 1) == FNN_OK);
    CHECK(*running == mean);
    CHECK(fnn_forward(net, out, &x, NULL, p.rows, 1) == FNN_OK);
    fnn_net_reset(net);
    CHECK(fnn_apply_gradients(net, 1e-3, 1, &norm, 1) == FNN_OK);
    CHECK(*running == mean);
    fnn_net_free(net);
}

static void test_bad_arguments(void)
{
    const fnn_layer negative_slope = {.kind = FNN_ACTIVATION, .activation = FNN_LEAKY_RELU, .alpha = -0.5};
    const fnn_layer tiny_eps = {.kind = FNN_BATCHNORM, .eps = 1e-60};
    fnn_net *net;
    CHECK(fnn_net_create(&net, &negative_slope, 1, 4, FNN_FLOAT32, 0) == FNN_EINVAL);
    CHECK(fnn_net_create(&net, &tiny_eps, 1, 4, FNN_FLOAT32, 0) == FNN_EINVAL);
    net = create(&architectures[0], FNN_FLOAT32);
    float out[4][CLASSES];
    fnn_features x = {.data = features, .row_stride = sizeof features[0], .column_stride = sizeof(float), .rows = 4};
    CHECK(fnn_predict(net, out, &x, 1) == FNN_OK);
    CHECK(fnn_predict(NULL, out, &x, 1) == FNN_EINVAL);
    CHECK(fnn_predict(net, NULL, &x, 1) == FNN_EINVAL);
    CHECK(fnn_predict(net, out, NULL, 1) == FNN_EINVAL);
    CHECK(fnn_forward(net, out, &x, NULL, 0, 1) == FNN_EINVAL);
    CHECK(fnn_backward(net, NULL, out, 4, 1) == FNN_ENOTREADY);
    x.dtype = (fnn_dtype)200;
    CHECK(fnn_predict(net, out, &x, 1) == FNN_EINVAL);
    x.dtype = FNN_FLOAT32;
    x.data = NULL;
    CHECK(fnn_predict(net, out, &x, 1) == FNN_EINVAL);
    fnn_penalty negative = {FNN_L2, -1, 0};
    fnn_optimizer sgd = {.kind = FNN_SGD}, rmsprop = {.kind = FNN_RMSPROP, .beta2 = 0.9};
    fnn_clip none = {.kind = FNN_CLIP_NONE}, above = {.kind = FNN_CLIP_VALUE, .low = 0.1, .high = 1};
    CHECK(fnn_net_configure(net, &sgd, &none, NULL) == FNN_OK);
    CHECK(fnn_net_configure(net, &sgd, NULL, &negative) == FNN_EINVAL);
    CHECK(fnn_net_configure(net, &sgd, &above, NULL) == FNN_EINVAL);
    CHECK(fnn_net_configure(net, &rmsprop, &none, NULL) == FNN_EINVAL);
    fnn_net_free(net);
}

void run_training_tests(void)
{
    make_data();
    fnn_set_work_per_thread(1);
    RUN(test_threads_batches_and_layers);
    RUN(test_updates_that_need_no_norm);
    RUN(test_short_micro_batch_after_blocks);
    RUN(test_batches_of_changing_size);
    RUN(test_overflowing_statistics_are_a_divergence);
    RUN(test_statistics_are_committed_once);
    RUN(test_bad_arguments);
    fnn_set_work_per_thread(1e6);
}

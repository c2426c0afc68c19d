/* fastnn.h as a C program meets it: what the functions promise beside numbers, and what they refuse. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fastnn.h"
#include "fnn_internal.h"
#include "minitest.h"

enum { ROWS = 70, INPUTS = 5, CLASSES = 3, BATCHES = 4, MOST_BYTES = 1 << 16 };

#define DENSE(n) {.kind = FNN_DENSE, .units = n, .use_bias = 1, .trainable = 1}
static const fnn_layer layers[] = {
    DENSE(18),
    {.kind = FNN_BATCHNORM, .trainable = 1, .eps = 1e-5, .decay = 0.9},
    {.kind = FNN_ACTIVATION, .activation = FNN_RELU},
    {.kind = FNN_DROPOUT, .p = 0.25},
    DENSE(CLASSES),
};
enum { LAYERS = sizeof layers / sizeof *layers };

static const fnn_optimizer adam = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
static const fnn_loss cross_entropy = {.kind = FNN_CROSS_ENTROPY}, mse = {.kind = FNN_MSE};
static const fnn_layer one_layer = DENSE(CLASSES);

static double x[ROWS][INPUTS], values[ROWS][CLASSES];
static int32_t labels[ROWS];

static void make_data(void)
{
    uint32_t state = 3;
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < INPUTS; j++) {
            state = state * 1664525u + 1013904223u;
            x[i][j] = (double)(state >> 8) / (1 << 23) - 1;
        }
        labels[i] = (int32_t)(state >> 16) % CLASSES;
        values[i][labels[i]] = 1;
    }
}

static fnn_features all_rows(void)
{
    return fnn_rows(x, FNN_FLOAT64, ROWS, INPUTS);
}

static fnn_net *create_of(const fnn_layer *list, size_t n)
{
    fnn_net *net;
    CHECK(fnn_net_create(&net, list, n, INPUTS, FNN_FLOAT64, 9) == FNN_OK);
    CHECK(fnn_net_initialize(net) == FNN_OK);
    CHECK(fnn_net_configure(net, &adam, NULL, NULL) == FNN_OK);
    return net;
}

static fnn_net *create(void)
{
    return create_of(layers, LAYERS);
}

static bool same_parameters(fnn_net *a, fnn_net *b)
{
    return memcmp(fnn_net_parameters(a), fnn_net_parameters(b), fnn_net_arena_size(a) * sizeof(double)) == 0;
}

/* ---- a run, and one thing wrong with it ---- */

typedef struct plan {
    fnn_features x;
    fnn_targets y;
    fnn_loss loss;
    int32_t labels[ROWS];
    int64_t order[ROWS];
    size_t starts[BATCHES + 1];
    double rates[BATCHES];
    fnn_run run;
} plan;

static void make_plan(plan *p)
{
    *p = (plan){.x = all_rows(), .loss = cross_entropy, .starts = {0, 10, 30, 45, ROWS}};
    memcpy(p->labels, labels, sizeof labels);
    p->y.labels = p->labels;
    CHECK(fnn_permutation(p->order, ROWS, 4, 0) == FNN_OK);
    for (int i = 0; i < BATCHES; i++)
        p->rates[i] = 0.01;
    p->run = (fnn_run){.x = &p->x,
                       .y = &p->y,
                       .loss = &p->loss,
                       .order = p->order,
                       .batch_starts = p->starts,
                       .n_batches = BATCHES,
                       .learning_rates = p->rates,
                       .n_threads = 1};
}

static void no_features(plan *p)
{
    p->run.x = NULL;
}
static void no_data(plan *p)
{
    p->x.data = NULL;
}
static void unknown_dtype(plan *p)
{
    p->x.dtype = (fnn_dtype)99;
}
static void no_targets(plan *p)
{
    p->run.y = NULL;
}
static void empty_targets(plan *p)
{
    p->y.labels = NULL;
}
static void labels_for_values(plan *p)
{
    p->loss = mse;
}
static void no_loss(plan *p)
{
    p->run.loss = NULL;
}
static void unknown_loss(plan *p)
{
    p->loss.kind = (fnn_loss_kind)99;
}
static void no_starts(plan *p)
{
    p->run.batch_starts = NULL;
}
static void no_rates(plan *p)
{
    p->run.learning_rates = NULL;
}
static void negative_threads(plan *p)
{
    p->run.n_threads = -1;
}
static void label_too_large(plan *p)
{
    p->labels[p->order[ROWS - 1]] = CLASSES;
}
static void label_negative(plan *p)
{
    p->labels[p->order[0]] = -1;
}
static void row_too_large(plan *p)
{
    p->order[33] = ROWS;
}
static void row_negative(plan *p)
{
    p->order[33] = -1;
}
static void more_than_all_rows(plan *p)
{
    p->run.order = NULL;
    p->starts[BATCHES] = ROWS + 1;
}
static void empty_batch(plan *p)
{
    p->starts[2] = p->starts[1];
}
static void falling_starts(plan *p)
{
    p->starts[2] = p->starts[1] - 1;
}
static void one_row(plan *p)
{
    p->starts[3] = ROWS - 1;
}

/* A run is refused as a whole: nothing of it has happened. */
static void rate_not_a_number(plan *p)
{
    p->rates[1] = NAN;
}

static void rate_negative(plan *p)
{
    p->rates[1] = -0.01;
}

static void single_row_micro_batches(plan *p)
{
    p->run.micro_batch = 1;
}

static void smoothing_too_large(plan *p)
{
    p->loss.parameter = 1;
}

static void weight_negative(plan *p)
{
    static const double weights[ROWS] = {-1};
    p->y.weights = weights;
}

static void test_bad_runs(void)
{
    static void (*const spoil[])(plan *) = {no_features,
                                            no_data,
                                            unknown_dtype,
                                            no_targets,
                                            empty_targets,
                                            labels_for_values,
                                            no_loss,
                                            unknown_loss,
                                            no_starts,
                                            no_rates,
                                            label_negative,
                                            row_too_large,
                                            more_than_all_rows,
                                            row_negative,
                                            empty_batch,
                                            falling_starts,
                                            negative_threads,
                                            one_row,
                                            label_too_large,
                                            rate_not_a_number,
                                            rate_negative,
                                            single_row_micro_batches,
                                            smoothing_too_large,
                                            weight_negative};
    fnn_net *net = create(), *untouched = create();
    plan p;
    for (size_t i = 0; i < sizeof spoil / sizeof *spoil; i++) {
        make_plan(&p);
        spoil[i](&p);
        CHECK(fnn_train(net, &p.run) == FNN_EINVAL);
        CHECK(p.run.batches_done == 0 && fnn_net_counters(net).passes == 0);
        CHECK(same_parameters(net, untouched));
    }
    make_plan(&p);
    CHECK(fnn_train(net, &p.run) == FNN_OK);
    CHECK(p.run.batches_done == BATCHES && !same_parameters(net, untouched));
    CHECK(fnn_net_counters(net).passes == BATCHES && fnn_net_counters(net).updates == BATCHES);
    fnn_net_free(untouched);
    fnn_net_free(net);
}

static void test_one_row_without_batchnorm(void)
{
    fnn_net *net = create_of(&one_layer, 1);
    plan p;
    make_plan(&p);
    one_row(&p);
    CHECK(fnn_train(net, &p.run) == FNN_OK);
    fnn_net_free(net);
}

/* ---- every function, handed NULL or nonsense ---- */

static void test_null_and_nonsense(void)
{
    fnn_net *net = create(), *other = NULL;
    fnn_features rows = all_rows(), strange = fnn_rows(x, (fnn_dtype)-1, ROWS, INPUTS);
    fnn_targets targets = {.labels = labels};
    fnn_layer layer;
    fnn_tensor tensor;
    fnn_run run = {0};
    fnn_optimizer bad_optimizer = {.kind = (fnn_optimizer_kind)9};
    fnn_clip bad_clip = {.kind = (fnn_clip_kind)9};
    double out[ROWS][CLASSES], value;
    char bytes[8];
    size_t size = 0;
    CHECK(strcmp(fnn_status_text((fnn_status)99), "unknown status") == 0);
    CHECK(strcmp(fnn_version(), FNN_VERSION_STRING) == 0);
    CHECK(fnn_net_create(&other, NULL, 1, INPUTS, FNN_FLOAT32, 0) == FNN_EINVAL && !other);
    CHECK(fnn_net_layer(NULL, 0, &layer) == FNN_EINVAL);
    CHECK(fnn_net_layer(net, 0, NULL) == FNN_EINVAL);
    CHECK(fnn_net_layer(net, LAYERS, &layer) == FNN_EINVAL);
    CHECK(fnn_net_tensor(NULL, 0, &tensor) == FNN_EINVAL);
    CHECK(fnn_net_tensor(net, 0, NULL) == FNN_EINVAL);
    CHECK(fnn_net_tensor(net, fnn_net_tensor_count(net), &tensor) == FNN_EINVAL);
    CHECK(fnn_net_initialize(NULL) == FNN_EINVAL);
    CHECK(fnn_predict(NULL, out, &rows, 1) == FNN_EINVAL);
    CHECK(fnn_predict(net, NULL, &rows, 1) == FNN_EINVAL);
    CHECK(fnn_predict(net, out, NULL, 1) == FNN_EINVAL);
    CHECK(fnn_predict(net, out, &rows, -1) == FNN_EINVAL);
    CHECK(fnn_predict(net, out, &strange, 1) == FNN_EINVAL);
    CHECK(fnn_predict_proba(NULL, out, &rows, 1) == FNN_EINVAL);
    CHECK(fnn_net_reserve(NULL, 1, 1) == FNN_EINVAL);
    CHECK(fnn_net_reserve(net, 0, 1) == FNN_EINVAL);
    CHECK(fnn_net_reserve(net, 17, 1) == FNN_EINVAL);
    CHECK(fnn_net_reserve(net, 1, -1) == FNN_EINVAL);
    CHECK(fnn_net_reserve(net, 1, 257) == FNN_EINVAL);
    CHECK(fnn_net_freeze(NULL) == FNN_EINVAL);
    CHECK(fnn_net_configure(NULL, &adam, NULL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_configure(net, NULL, NULL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_configure(net, &bad_optimizer, NULL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_configure(net, &adam, &bad_clip, NULL) == FNN_EINVAL);
    CHECK(fnn_train(NULL, &run) == FNN_EINVAL);
    CHECK(fnn_train(net, NULL) == FNN_EINVAL);
    CHECK(fnn_train(net, &run) == FNN_EINVAL);
    CHECK(fnn_train_step(NULL, &rows, &targets, &cross_entropy, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_train_step(net, NULL, &targets, &cross_entropy, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_train_step(net, &rows, NULL, &cross_entropy, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_train_step(net, &rows, &targets, NULL, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_evaluate(NULL, &value, &rows, &targets, &cross_entropy, 1) == FNN_EINVAL);
    CHECK(fnn_evaluate(net, NULL, &rows, &targets, &cross_entropy, 1) == FNN_EINVAL);
    CHECK(fnn_evaluate(net, &value, NULL, &targets, &cross_entropy, 1) == FNN_EINVAL);
    CHECK(fnn_evaluate(net, &value, &rows, NULL, &cross_entropy, 1) == FNN_EINVAL);
    CHECK(fnn_evaluate(net, &value, &rows, &targets, NULL, 1) == FNN_EINVAL);
    CHECK(fnn_evaluate(net, &value, &rows, &targets, &mse, 1) == FNN_EINVAL);
    CHECK(fnn_permutation(NULL, 1, 0, 0) == FNN_EINVAL);
    CHECK(fnn_permutation(NULL, 0, 0, 0) == FNN_OK);
    CHECK(fnn_net_save(NULL, "nowhere", FNN_MODEL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_save(net, NULL, FNN_MODEL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_save(net, "nowhere", (fnn_contents)9, NULL) == FNN_EINVAL);
    CHECK(fnn_net_save_memory(NULL, bytes, &size, FNN_MODEL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_save_memory(net, bytes, NULL, FNN_MODEL, NULL) == FNN_EINVAL);
    CHECK(fnn_net_load(NULL, "nowhere", NULL) == FNN_EINVAL);
    CHECK(fnn_net_load(&other, NULL, NULL) == FNN_EINVAL && !other);
    CHECK(fnn_net_load_memory(NULL, bytes, sizeof bytes, NULL) == FNN_EINVAL);
    CHECK(fnn_net_load_memory(&other, NULL, 1, NULL) == FNN_EINVAL && !other);
    CHECK(fnn_net_load_memory(&other, bytes, 0, NULL) == FNN_EFORMAT && !other);
    CHECK(fnn_set_num_threads(-1) == FNN_EINVAL);
    CHECK(fnn_isa_name(NULL) == FNN_EINVAL);
    rows.rows = 0;
    CHECK(fnn_predict(net, out, &rows, 1) == FNN_OK);
    CHECK(fnn_evaluate(net, &value, &rows, &targets, &cross_entropy, 1) == FNN_EINVAL);
    CHECK(fnn_net_counters(net).passes == 0);
    fnn_net_free(net);
}

static void test_frozen_nets_do_not_train(void)
{
    fnn_net *net = create();
    plan p;
    size_t size = 0;
    make_plan(&p);
    CHECK(fnn_net_freeze(net) == FNN_OK && fnn_net_freeze(net) == FNN_OK && fnn_net_frozen(net));
    CHECK(fnn_train(net, &p.run) == FNN_EINVAL);
    CHECK(fnn_train_step(net, &p.x, &p.y, &cross_entropy, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_net_initialize(net) == FNN_EINVAL);
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_CHECKPOINT, NULL) == FNN_EINVAL && size == 0);
    fnn_net_free(net);
}

/* ---- features ---- */

static void test_rows_of_any_type(void)
{
    static const struct {
        fnn_dtype dtype;
        ptrdiff_t bytes;
    } types[] = {{FNN_FLOAT32, 4}, {FNN_FLOAT64, 8}, {FNN_UINT8, 1}, {FNN_INT8, 1},   {FNN_UINT16, 2},
                 {FNN_INT16, 2},   {FNN_UINT32, 4},  {FNN_INT32, 4}, {FNN_UINT64, 8}, {FNN_INT64, 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        fnn_features rows = fnn_rows(x, types[i].dtype, 3, 7);
        CHECK(rows.column_stride == types[i].bytes && rows.row_stride == 7 * types[i].bytes);
        CHECK(rows.data == x && rows.dtype == types[i].dtype && rows.rows == 3);
    }
    uint8_t small[2][INPUTS] = {{1, 2, 3, 4, 255}, {5, 6, 7, 8, 0}};
    double large[2][INPUTS], out[2][2][CLASSES];
    for (int i = 0; i < 2 * INPUTS; i++)
        large[i / INPUTS][i % INPUTS] = small[i / INPUTS][i % INPUTS];
    fnn_features a = fnn_rows(small, FNN_UINT8, 2, INPUTS), b = fnn_rows(large, FNN_FLOAT64, 2, INPUTS);
    fnn_net *net = create();
    CHECK(fnn_predict(net, out[0], &a, 1) == FNN_OK);
    CHECK(fnn_predict(net, out[1], &b, 1) == FNN_OK);
    CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0 && out[0][0][0] != out[0][1][0]);
    fnn_net_free(net);
}

/* ---- training ---- */

static void test_a_step_is_a_run_of_one_batch(void)
{
    fnn_net *a = create(), *b = create();
    plan p;
    for (int step = 0; step < 5; step++) {
        double value = -1;
        make_plan(&p);
        p.run.order = NULL;
        p.starts[1] = ROWS;
        p.run.n_batches = 1;
        CHECK(fnn_train(a, &p.run) == FNN_OK);
        CHECK(fnn_train_step(b, &p.x, &p.y, &cross_entropy, p.rates[0], 1, &value) == FNN_OK);
        CHECK(value == p.run.loss_sum / p.run.weight_sum && p.run.weight_sum == ROWS);
        CHECK(same_parameters(a, b));
    }
    double weights[ROWS] = {0}, value = -1;
    p.y.weights = weights;
    CHECK(fnn_train_step(b, &p.x, &p.y, &cross_entropy, 0.1, 1, &value) == FNN_OK && value == 0);
    CHECK(same_parameters(a, b));
    CHECK(fnn_net_counters(b).passes == 6 && fnn_net_counters(b).updates == 5);
    fnn_net_free(a);
    fnn_net_free(b);
}

/* An epoch in two calls has the sums, to the bit, of one call. */
static void test_sums_go_on(void)
{
    fnn_net *whole = create(), *parts = create();
    plan p, q;
    make_plan(&p);
    CHECK(fnn_train(whole, &p.run) == FNN_OK);
    for (size_t cut = 1; cut < BATCHES; cut++) {
        fnn_net_reset(parts);
        CHECK(fnn_net_initialize(parts) == FNN_OK);
        make_plan(&q);
        q.run.n_batches = cut;
        CHECK(fnn_train(parts, &q.run) == FNN_OK);
        CHECK(q.run.loss_sum < p.run.loss_sum);
        q.run.loss_sum_before = q.run.loss_sum;
        q.run.weight_sum_before = q.run.weight_sum;
        q.run.batch_starts += cut;
        q.run.learning_rates += cut;
        q.run.n_batches = BATCHES - cut;
        CHECK(fnn_train(parts, &q.run) == FNN_OK);
        CHECK(q.run.loss_sum == p.run.loss_sum && q.run.weight_sum == p.run.weight_sum && p.run.weight_sum == ROWS);
        CHECK(q.run.batches_done == BATCHES - cut);
        CHECK(same_parameters(whole, parts));
    }
    fnn_net_free(whole);
    fnn_net_free(parts);
}

/* A checkpoint in memory: what goes on from it is what never stopped. */
static void test_training_goes_on_from_a_checkpoint(void)
{
    static char bytes[MOST_BYTES];
    fnn_net *net = create(), *loaded = NULL;
    plan p;
    size_t size = 0, room = sizeof bytes;
    make_plan(&p);
    CHECK(fnn_train(net, &p.run) == FNN_OK);
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_CHECKPOINT, NULL) == FNN_EINVAL && size > 0);
    CHECK(fnn_net_save_memory(net, bytes, &room, FNN_CHECKPOINT, NULL) == FNN_OK && room == size);
    CHECK(fnn_net_load_memory(&loaded, bytes, size, NULL) == FNN_OK && loaded);
    if (!loaded)
        return;
    CHECK(fnn_net_configure(loaded, &adam, NULL, NULL) == FNN_OK);
    CHECK(same_parameters(net, loaded) && fnn_net_link(loaded) == FNN_LINK_SOFTMAX);
    CHECK(fnn_net_counters(loaded).passes == BATCHES && fnn_net_counters(loaded).updates == BATCHES);
    CHECK(fnn_train(net, &p.run) == FNN_OK);
    CHECK(fnn_train(loaded, &p.run) == FNN_OK);
    CHECK(same_parameters(net, loaded));
    fnn_net_free(loaded);
    fnn_net_free(net);
}

/* ---- initial weights: the oracle's of tests/reference.py, seed 2^40 + 7, (30, 21), double ---- */

static void test_initial_weights(void)
{
    static const struct {
        fnn_init init;
        double first, second, last;
    } golden[] = {
        {FNN_UNIFORM, 0.1983973684570441, -0.24039331923659688, 0.2369290409252019},
        {FNN_NORMAL, 0.2870357058216656, -0.3855887412221331, 0.37587459238118354},
        {FNN_FAN_IN_UNIFORM, 0.12074079339287441, -0.1462987151326941, 0.14419042249199748},
        {FNN_LECUN_UNIFORM, 0.20912918870263508, -0.2533968076918719, 0.24974513772096185},
        {FNN_LECUN_NORMAL, 0.1746843676532702, -0.23466183498598267, 0.2287499922669263},
        {FNN_XAVIER_UNIFORM, 0.22683245324253387, -0.27484742751191876, 0.27088663531895796},
        {FNN_XAVIER_NORMAL, 0.1894717992439318, -0.25452649648037584, 0.24811420274239193},
        {FNN_HE_UNIFORM, 0.2957533349513488, -0.35835720209989225, 0.3531929609017207},
        {FNN_HE_NORMAL, 0.2470410018698227, -0.33186194960853393, 0.3235013414566278},
        {FNN_ORTHOGONAL, 0.1947172832143662, -0.3291410035161363, -0.0421909309474912},
        {FNN_INIT_DEFAULT, 0.22683245324253387, -0.27484742751191876, 0.27088663531895796}, /* no ReLU follows */
        {FNN_CONSTANT, 0.3, 0.3, 0.3},
        {FNN_ZEROS, 0, 0, 0},
    };
    enum { FAN_IN = 30, FAN_OUT = 21 };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        const fnn_layer layer = {
            .kind = FNN_DENSE, .units = FAN_OUT, .use_bias = 1, .init = golden[i].init, .init_value = 0.3};
        fnn_net *net;
        fnn_tensor weight, bias;
        CHECK(fnn_net_create(&net, &layer, 1, FAN_IN, FNN_FLOAT64, ((uint64_t)1 << 40) + 7) == FNN_OK);
        CHECK(fnn_net_tensor(net, 0, &weight) == FNN_OK && strcmp(weight.name, "0.weight") == 0);
        CHECK(fnn_net_tensor(net, 1, &bias) == FNN_OK && strcmp(bias.name, "0.bias") == 0);
        double *parameters = fnn_net_parameters(net);
        parameters[bias.offset] = 7;
        CHECK(fnn_net_initialize(net) == FNN_OK);
        const double *w = parameters + weight.offset, *last = w + (FAN_IN - 1) * weight.stride + FAN_OUT - 1;
        CHECK(fabs(w[0] - golden[i].first) < 1e-11);
        CHECK(fabs(w[1] - golden[i].second) < 1e-11);
        CHECK(fabs(*last - golden[i].last) < 1e-11);
        CHECK(parameters[bias.offset] == 0);
        fnn_net_free(net);
    }
}

/* ---- prediction ---- */

static void test_reserved_predictions_do_not_allocate(void)
{
    enum { MANY = 700, THREADS = 3 };
    static double many[MANY][INPUTS], out[MANY][CLASSES];
    fnn_set_work_per_thread(1);
    for (int frozen = 0; frozen < 2; frozen++) {
        fnn_net *net = create();
        if (frozen)
            CHECK(fnn_net_freeze(net) == FNN_OK);
        CHECK(fnn_net_reserve(net, 2, THREADS) == FNN_OK);
        uint64_t before = fnn_allocation_count();
        for (size_t rows = 0; rows <= MANY; rows += 7) {
            fnn_features features = fnn_rows(many, FNN_FLOAT64, rows, INPUTS);
            for (int n_threads = 1; n_threads <= THREADS; n_threads++)
                CHECK(fnn_predict(net, out, &features, n_threads) == FNN_OK);
        }
        CHECK(fnn_net_reserve(net, 2, THREADS) == FNN_OK);
        CHECK(fnn_allocation_count() == before);
        CHECK(fnn_net_reserve(net, 3, 256) == FNN_OK); /* as many as a prediction can use */
        CHECK(fnn_allocation_count() > before);
        fnn_net_free(net);
    }
    fnn_set_work_per_thread(1e6);
}

static void test_reserve_without_memory(void)
{
    fnn_net *net = create();
    fnn_fail_allocation(3, 0);
    CHECK(fnn_net_reserve(net, 4, 1) == FNN_ENOMEM);
    fnn_fail_allocation(0, 0);
    uint64_t before = fnn_allocation_count();
    CHECK(fnn_net_reserve(net, 2, 1) == FNN_OK); /* those that could be made */
    CHECK(fnn_allocation_count() == before);
    fnn_net_free(net);
}

static void test_evaluation(void)
{
    double out[ROWS][CLASSES], weights[ROWS], value, sum[2] = {0}, total = 0;
    fnn_features rows = all_rows();
    fnn_targets by_label = {.labels = labels, .weights = weights}, by_value = {.values = values, .weights = weights};
    fnn_net *net = create();
    plan p;
    make_plan(&p);
    CHECK(fnn_train(net, &p.run) == FNN_OK); /* running statistics that differ from those of the batch */
    CHECK(fnn_predict(net, out, &rows, 1) == FNN_OK);
    for (int i = 0; i < ROWS; i++) {
        double exponentials = 0, squares = 0;
        weights[i] = 1 + i % 3;
        total += weights[i];
        for (int j = 0; j < CLASSES; j++) {
            exponentials += exp(out[i][j]);
            squares += (out[i][j] - values[i][j]) * (out[i][j] - values[i][j]);
        }
        sum[0] += weights[i] * (log(exponentials) - out[i][labels[i]]);
        sum[1] += weights[i] * squares / CLASSES;
    }
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        CHECK(fnn_evaluate(net, &value, &rows, &by_label, &cross_entropy, n_threads) == FNN_OK);
        CHECK(fabs(value - sum[0] / total) < 1e-12);
        CHECK(fnn_evaluate(net, &value, &rows, &by_value, &mse, n_threads) == FNN_OK);
        CHECK(fabs(value - sum[1] / total) < 1e-12);
    }
    int32_t kept = labels[ROWS - 1];
    labels[ROWS - 1] = CLASSES;
    CHECK(fnn_evaluate(net, &value, &rows, &by_label, &cross_entropy, 1) == FNN_EINVAL);
    labels[ROWS - 1] = kept;
    rows.rows = 1;
    CHECK(fnn_evaluate(net, &value, &rows, &by_label, &cross_entropy, 1) == FNN_OK);
    fnn_fail_allocation(1, 0);
    CHECK(fnn_evaluate(net, &value, &rows, &by_label, &cross_entropy, 1) == FNN_ENOMEM);
    fnn_fail_allocation(0, 0);
    fnn_net_free(net);
}

static void test_probabilities(void)
{
    double out[ROWS][CLASSES], p[ROWS][CLASSES];
    fnn_features rows = all_rows();
    fnn_targets targets = {.values = values};
    const fnn_loss losses[] = {{.kind = FNN_CROSS_ENTROPY}, {.kind = FNN_BINARY_CROSS_ENTROPY}};
    fnn_net *net = create();
    CHECK(fnn_predict_proba(net, p, &rows, 1) == FNN_EINVAL); /* no link yet */
    CHECK(fnn_train_step(net, &rows, &targets, &mse, 0.01, 1, NULL) == FNN_OK);
    CHECK(fnn_predict_proba(net, p, &rows, 1) == FNN_EINVAL); /* the identity */
    for (int loss = 0; loss < 2; loss++) {
        CHECK(fnn_train_step(net, &rows, &targets, &losses[loss], 0.01, 1, NULL) == FNN_OK);
        CHECK(fnn_predict(net, out, &rows, 1) == FNN_OK);
        CHECK(fnn_predict_proba(net, p, &rows, 1) == FNN_OK);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < CLASSES; j++) {
                double softmax = exp(out[i][j]) / (exp(out[i][0]) + exp(out[i][1]) + exp(out[i][2]));
                CHECK(fabs(p[i][j] - (loss ? 1 / (1 + exp(-out[i][j])) : softmax)) < 1e-14);
            }
    }
    fnn_net_free(net);
    /* The net's own last activation, past a Dropout; a link is not applied on top of it. */
    const fnn_activation last[] = {FNN_SOFTMAX, FNN_SIGMOID};
    for (int i = 0; i < 2; i++) {
        const fnn_layer list[] = {
            DENSE(CLASSES), {.kind = FNN_ACTIVATION, .activation = last[i]}, {.kind = FNN_DROPOUT, .p = 0.5}};
        net = create_of(list, 3);
        CHECK(fnn_predict(net, out, &rows, 1) == FNN_OK);
        CHECK(fnn_predict_proba(net, p, &rows, 1) == FNN_OK);
        CHECK(memcmp(out, p, sizeof out) == 0);
        fnn_net_free(net);
    }
}

/* ---- the layout that programs were compiled for: a change here asks for another FNN_ABI_VERSION ---- */

static void test_layout_of_structs(void)
{
    CHECK(FNN_ABI_VERSION == 0);
    if (sizeof(void *) != 8)
        return;
    CHECK(sizeof(fnn_penalty) == 24);
    CHECK(sizeof(fnn_layer) == 112);
    CHECK(sizeof(fnn_tensor) == 80);
    CHECK(sizeof(fnn_features) == 40);
    CHECK(sizeof(fnn_optimizer) == 64);
    CHECK(sizeof(fnn_clip) == 24);
    CHECK(sizeof(fnn_loss) == 16);
    CHECK(sizeof(fnn_targets) == 24);
    CHECK(sizeof(fnn_run) == 152);
    CHECK(sizeof(fnn_counters) == 16);
    CHECK(sizeof(fnn_detail) == 252);
}

void run_api_tests(void)
{
    make_data();
    RUN(test_bad_runs);
    RUN(test_one_row_without_batchnorm);
    RUN(test_null_and_nonsense);
    RUN(test_frozen_nets_do_not_train);
    RUN(test_rows_of_any_type);
    RUN(test_a_step_is_a_run_of_one_batch);
    RUN(test_sums_go_on);
    RUN(test_training_goes_on_from_a_checkpoint);
    RUN(test_initial_weights);
    RUN(test_reserved_predictions_do_not_allocate);
    RUN(test_reserve_without_memory);
    RUN(test_evaluation);
    RUN(test_probabilities);
    RUN(test_layout_of_structs);
}

/* Small nets that between them have every kind of layer, attribute and tensor a model file can hold. */
#ifndef SAMPLE_NETS_H
#define SAMPLE_NETS_H

#include <string.h>

#include "fastnn.h"
#include "fnn_internal.h"

enum { SAMPLE_INPUTS = 4, SAMPLE_ROWS = 6, MOST_SAMPLE_LAYERS = 12, MOST_ATTACHMENTS = 20 };

/* What is done to the net after it was made. */
typedef enum sample_use { USE_NOTHING, USE_FREEZE, USE_SGD, USE_MOMENTUM, USE_RMSPROP, USE_ADAM } sample_use;

typedef struct sample {
    const char *name;
    fnn_layer layers[MOST_SAMPLE_LAYERS];
    fnn_dtype dtype;
    sample_use use;
    fnn_contents contents;
    int attached;
} sample;

#define SAMPLE_DENSE(n, ...) {.kind = FNN_DENSE, .units = n, __VA_ARGS__}
#define SAMPLE_ALL_LAYERS                                                                                           \
    {                                                                                                               \
        {.kind = FNN_STANDARDIZE},                                                                                  \
            SAMPLE_DENSE(6, .use_bias = 1, .trainable = 1, .activation = FNN_RELU, .init = FNN_HE_NORMAL,           \
                         .penalty = {FNN_L2, 1e-4, 0}),                                                             \
            {.kind = FNN_BATCHNORM, .trainable = 1, .eps = 1e-5, .decay = 0.9},                                     \
            {.kind = FNN_ACTIVATION, .activation = FNN_LEAKY_RELU, .alpha = 0.125},                                 \
            {.kind = FNN_DROPOUT, .p = 0.25, .test_scaling = 1},                                                    \
            SAMPLE_DENSE(5, .trainable = 1, .activation = FNN_ELU, .alpha = 0.7, .init = FNN_UNIFORM,               \
                         .init_value = 0.3, .penalty = {FNN_ELASTIC_NET, 1e-3, 0.5}),                               \
            {.kind = FNN_SCALE, .alpha = -1.5}, {.kind = FNN_BATCHNORM, .eps = 1e-3, .decay = 0, .unbiased = 1},    \
            {.kind = FNN_ACTIVATION, .activation = FNN_GELU}, {.kind = FNN_ACTIVATION, .activation = FNN_SOFTPLUS}, \
            SAMPLE_DENSE(3, .use_bias = 1, .init = FNN_CONSTANT, .init_value = -0.1),                               \
        {                                                                                                           \
            .kind = FNN_ACTIVATION, .activation = FNN_SOFTMAX                                                       \
        }                                                                                                           \
    }
#define SAMPLE_TWO_LAYERS                                                                                      \
    {                                                                                                          \
        SAMPLE_DENSE(5, .use_bias = 1, .trainable = 1, .activation = FNN_TANH),                                \
        {                                                                                                      \
            .kind = FNN_DENSE, .units = 3, .use_bias = 1, .trainable = 1, .penalty = {FNN_PROXIMAL_L1, .01, 0} \
        }                                                                                                      \
    }

static const sample samples[] = {
    {"one layer", {SAMPLE_DENSE(3, .use_bias = 1, .trainable = 1)}, FNN_FLOAT32, USE_NOTHING, FNN_MODEL, 0},
    {"all layers", SAMPLE_ALL_LAYERS, FNN_FLOAT32, USE_SGD, FNN_MODEL, 0},
    {"all layers, double", SAMPLE_ALL_LAYERS, FNN_FLOAT64, USE_ADAM, FNN_MODEL, 0},
    {"frozen", SAMPLE_TWO_LAYERS, FNN_FLOAT32, USE_FREEZE, FNN_MODEL, 0},
    {"frozen, double, wide",
     {SAMPLE_DENSE(21, .use_bias = 1), SAMPLE_DENSE(3, .activation = FNN_SIGMOID)},
     FNN_FLOAT64,
     USE_FREEZE,
     FNN_MODEL,
     1},
    {"momentum", SAMPLE_TWO_LAYERS, FNN_FLOAT32, USE_MOMENTUM, FNN_CHECKPOINT, 1},
    {"rmsprop, double", SAMPLE_TWO_LAYERS, FNN_FLOAT64, USE_RMSPROP, FNN_CHECKPOINT, 0},
    {"adam, all layers", SAMPLE_ALL_LAYERS, FNN_FLOAT32, USE_ADAM, FNN_CHECKPOINT, 1},
    {"no parameters",
     {{.kind = FNN_SCALE, .alpha = 1 / 255.0},
      {.kind = FNN_ACTIVATION, .activation = FNN_SILU},
      {.kind = FNN_ACTIVATION, .activation = FNN_SELU},
      {.kind = FNN_DROPOUT}},
     FNN_FLOAT32,
     USE_NOTHING,
     FNN_MODEL,
     1},
    {"untrained checkpoint", SAMPLE_TWO_LAYERS, FNN_FLOAT32, USE_NOTHING, FNN_CHECKPOINT, 0},
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static const double sample_x[SAMPLE_ROWS][SAMPLE_INPUTS] = {{0.1, -1, 2, 0.5},  {1, 1, -0.3, 0.2}, {-2, 0.4, 0.6, -1},
                                                            {0.3, 0.3, 1, 2.5}, {-1, 2, 0, 0.125}, {0.7, -0.2, -1, 1}};

static fnn_features sample_features(void)
{
    return (fnn_features){.data = sample_x,
                          .dtype = FNN_FLOAT64,
                          .row_stride = sizeof sample_x[0],
                          .column_stride = sizeof(double),
                          .rows = SAMPLE_ROWS};
}

static size_t sample_layer_count(const sample *s)
{
    size_t n = 0;
    while (n < MOST_SAMPLE_LAYERS && s->layers[n].kind)
        n++;
    return n;
}

/* A leading Standardize gets statistics, every BatchNorm some that are not those of the start. */
static void set_statistics(fnn_net *net)
{
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor t;
        fnn_net_tensor(net, i, &t);
        const char *role = strchr(t.name, '.') + 1;
        if (strcmp(role, "mean") != 0 && strcmp(role, "scale") != 0 && strncmp(role, "running", 7) != 0)
            continue;
        for (size_t j = 0; j < t.columns; j++) {
            double value = 0.5 + 0.25 * (double)j;
            if (fnn_net_dtype(net) == FNN_FLOAT32)
                ((float *)fnn_net_parameters(net))[t.offset + j] = (float)value;
            else
                ((double *)fnn_net_parameters(net))[t.offset + j] = value;
        }
    }
}

static fnn_status use_sample(fnn_net *net, sample_use use)
{
    static const fnn_optimizer optimizers[] = {
        [USE_SGD] = {.kind = FNN_SGD},
        [USE_MOMENTUM] = {.kind = FNN_SGD, .momentum = 0.9},
        [USE_RMSPROP] = {.kind = FNN_RMSPROP, .beta2 = 0.99, .eps = 1e-8},
        [USE_ADAM] = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    };
    static const int32_t labels[SAMPLE_ROWS] = {0, 1, 2, 1, 0, 2};
    const fnn_features x = sample_features();
    const fnn_targets y = {.labels = labels};
    const fnn_loss loss = {.kind = FNN_CROSS_ENTROPY};
    if (use == USE_NOTHING)
        return FNN_OK;
    if (use == USE_FREEZE)
        return fnn_net_freeze(net);
    fnn_status status = fnn_net_configure(net, &optimizers[use], NULL, NULL);
    for (int step = 0; step < 2 && status == FNN_OK; step++)
        status = fnn_train_step(net, &x, &y, &loss, 0.05, 1, NULL);
    return status;
}

static fnn_status make_sample(fnn_net **net, const sample *s)
{
    fnn_status status = fnn_net_create(net, s->layers, sample_layer_count(s), SAMPLE_INPUTS, s->dtype, 12345678901u);
    if (status == FNN_OK)
        status = fnn_net_initialize(*net);
    if (status == FNN_OK) {
        set_statistics(*net);
        status = use_sample(*net, s->use);
    }
    if (status != FNN_OK) {
        fnn_net_free(*net);
        *net = NULL;
    }
    return status;
}

/* Everything that the format lets stand beside a net. */
static size_t sample_attachments(fnn_attachment attachments[MOST_ATTACHMENTS], const sample *s)
{
    static const char names[] = "na\xc3\xafve\xe2\x82\xac\xf0\x9f\x90\x8d"; /* two and three words of them */
    static const int64_t three[] = {0, 6, 6, 13}, four[] = {0, 1, 2, 4, 13}, history_ends[] = {0, 2, 13};
    static const double numbers[] = {0.5, -1, 2.25, 1e-3, 7, 8, 9, 10};
    static const float outputs[SAMPLE_ROWS][3];
    static const char state[] = "{\"epoch\": 3}";
    const fnn_attachment all[] = {
        {"class_names.utf8", FNN_UINT8, 13, 0, names},
        {"class_names.offsets", FNN_INT64, 4, 0, three},
        {"feature_names.utf8", FNN_UINT8, 4, 0, names},
        {"feature_names.offsets", FNN_INT64, 4, 0, four},
        {"target_name.utf8", FNN_UINT8, 6, 0, names},
        {"target_name.offsets", FNN_INT64, 2, 0, three},
        {"preprocess.kinds.utf8", FNN_UINT8, 13, 0, names},
        {"preprocess.kinds.offsets", FNN_INT64, 5, 0, four},
        {"preprocess.mean", FNN_FLOAT64, 4, 0, numbers},
        {"preprocess.scale", FNN_FLOAT64, 4, 0, numbers},
        {"preprocess.fill", FNN_FLOAT64, 4, 0, numbers + 4},
        {"preprocess.categories.2.utf8", FNN_UINT8, 13, 0, names},
        {"preprocess.categories.2.offsets", FNN_INT64, 4, 0, three},
        {"history.names.utf8", FNN_UINT8, 13, 0, names},
        {"history.names.offsets", FNN_INT64, 3, 0, history_ends},
        {"history.values", FNN_FLOAT64, 3, 2, numbers},
        {"trainer.state", FNN_UINT8, sizeof state - 1, 0, state},
        {"trainer.outputs", FNN_FLOAT32, SAMPLE_ROWS, 3, outputs},
        {"callback.0.best", FNN_INT64, 4, 0, four},
        {"callback.1", FNN_FLOAT32, 1, 3, outputs},
    };
    enum { OF_A_MODEL = 13, ALL = sizeof all / sizeof *all };
    size_t n = !s->attached ? 0 : s->contents == FNN_CHECKPOINT ? ALL : OF_A_MODEL;
    memcpy(attachments, all, n * sizeof *all);
    return n;
}

/* Its file; the caller frees it with fnn_release. */
static char *sample_file(size_t *size, const sample *s)
{
    fnn_net *net;
    fnn_attachment attachments[MOST_ATTACHMENTS];
    size_t n = sample_attachments(attachments, s);
    char *bytes = NULL;
    *size = 0;
    if (make_sample(&net, s) != FNN_OK)
        return NULL;
    fnn_model_save_memory(net, NULL, size, s->contents, attachments, n, NULL);
    bytes = fnn_allocate(*size);
    if (bytes && fnn_model_save_memory(net, bytes, size, s->contents, attachments, n, NULL) != FNN_OK) {
        fnn_release(bytes);
        bytes = NULL;
    }
    fnn_net_free(net);
    return bytes;
}

#endif

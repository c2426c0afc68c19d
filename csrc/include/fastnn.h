/* fastnn: fully connected neural networks on CPUs.
 *
 * The one public header of the C library. Every function returns a status and never aborts, prints or
 * leaks, whatever NULL or number it is handed (functions that return no status need the net they ask about);
 * `fnn_status_text` gives the sentence for a status. Matrices are row-major; all sizes count elements
 * unless a name says bytes; all lengths of time are seconds. Pointers handed in stay the caller's, and nothing they
 * point to is kept after the call. Arrays are aligned as their elements need.
 *
 * Threads: many threads may call fnn_predict, fnn_predict_proba and fnn_evaluate on one net. A net may be changed
 * (trained, initialized, frozen, freed) by one thread at a time, and not while another one uses it; this is the
 * caller's duty. n_threads in a call: the most threads it uses; 0: as fnn_get_num_threads says. Work that is small
 * stays on the calling thread. Results never depend on the number of threads.
 *
 * In short: fnn_net_load, fnn_net_reserve, fnn_predict, fnn_net_free; or fnn_net_create, fnn_net_initialize,
 * fnn_net_configure, fnn_train_step, fnn_net_save. examples/c has both as programs, docs/c-library.md the rest.
 */
#ifndef FASTNN_H
#define FASTNN_H

#include <stddef.h>
#include <stdint.h>

#define FNN_VERSION_MAJOR 0
#define FNN_VERSION_MINOR 1
#define FNN_VERSION_PATCH 0
#define FNN_VERSION_STRING "0.1.0"
/* Of the shared library, the number in libfastnn.so.0: raised when a struct or a function changes or goes. */
#define FNN_ABI_VERSION 0

/* What the shared library exports; its build defines FNN_SHARED. */
#if defined(FNN_SHARED) && defined(__GNUC__)
#define FNN_API __attribute__((visibility("default")))
#else
#define FNN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are pinned: they never change their meaning. */
typedef enum fnn_status {
    FNN_OK = 0,
    FNN_ENOMEM = 1,       /* an allocation failed; the object is unchanged */
    FNN_EINVAL = 2,       /* an argument is outside its documented range */
    FNN_EOVERFLOW = 3,    /* a size does not fit the address space */
    FNN_EDIVERGED = 4,    /* loss or gradient became non-finite; weights are those before the failing step */
    FNN_EINTERRUPTED = 5, /* the poll function asked to abandon the step; weights are those before it */
    FNN_EIO = 6,          /* reading or writing failed; system_error of fnn_detail tells why */
    FNN_ENOTREADY = 7,    /* a Standardize layer has no statistics yet, or backward was called before forward */
    FNN_ENOISA = 8,       /* the instruction set asked for is unknown, not built in, or not run by this machine */
    FNN_EFORMAT = 9,      /* not a model file, or a damaged one */
    FNN_EVERSION = 10     /* a model file of a newer format */
} fnn_status;

/* Text that lasts for ever. */
FNN_API const char *fnn_status_text(fnn_status status); /* "unknown status" for any other number */
FNN_API const char *fnn_version(void);                  /* FNN_VERSION_STRING of the library that runs */

/* Element types. A net computes in FNN_FLOAT32 or FNN_FLOAT64; features may have any of them. */
typedef enum fnn_dtype {
    FNN_FLOAT32 = 0,
    FNN_FLOAT64 = 1,
    FNN_UINT8 = 2,
    FNN_INT8 = 3,
    FNN_UINT16 = 4,
    FNN_INT16 = 5,
    FNN_UINT32 = 6,
    FNN_INT32 = 7,
    FNN_UINT64 = 8,
    FNN_INT64 = 9
} fnn_dtype;

typedef enum fnn_activation {
    FNN_IDENTITY = 0,
    FNN_RELU = 1,       /* max(x, 0) */
    FNN_LEAKY_RELU = 2, /* x > 0 ? x : slope x */
    FNN_ELU = 3,        /* x > 0 ? x : alpha (e^x - 1) */
    FNN_SELU = 4,       /* 1.0507009873554805 (x > 0 ? x : 1.6732632423543772 (e^x - 1)) */
    FNN_GELU = 5,       /* x (1 + erf(x / sqrt 2)) / 2 */
    FNN_SILU = 6,       /* x / (1 + e^-x) */
    FNN_SOFTPLUS = 7,   /* log(1 + e^x) */
    FNN_TANH = 8,
    FNN_SIGMOID = 9, /* 1 / (1 + e^-x) */
    FNN_SOFTMAX = 10 /* over the outputs of a row */
} fnn_activation;

typedef enum fnn_layer_kind {
    FNN_DENSE = 1,     /* y = activation(x W + b) */
    FNN_BATCHNORM = 2, /* y = gamma (x - mean) / sqrt(var + eps) + beta */
    FNN_DROPOUT = 3,
    FNN_ACTIVATION = 4,
    FNN_SCALE = 5,      /* y = factor x */
    FNN_STANDARDIZE = 6 /* y = (x - mean) / scale, tensors "0.mean" and "0.scale"; first layer only */
} fnn_layer_kind;

/* How weights start; variances from Xavier (AISTATS 2010), He (arXiv:1502.01852), LeCun (1998). The default is
 * HE_NORMAL where a relative of ReLU follows (past BATCHNORM and DROPOUT), else XAVIER_UNIFORM. */
typedef enum fnn_init {
    FNN_INIT_DEFAULT = 0,
    FNN_ZEROS = 1,
    FNN_CONSTANT = 2,       /* init_value */
    FNN_UNIFORM = 3,        /* U(-init_value, init_value) */
    FNN_NORMAL = 4,         /* standard deviation init_value */
    FNN_FAN_IN_UNIFORM = 5, /* variance 1 / (3 fan_in), as 6 to 11 without any value */
    FNN_LECUN_UNIFORM = 6,  /* 1 / fan_in */
    FNN_LECUN_NORMAL = 7,
    FNN_XAVIER_UNIFORM = 8, /* 2 / (fan_in + fan_out) */
    FNN_XAVIER_NORMAL = 9,
    FNN_HE_UNIFORM = 10, /* 2 / fan_in */
    FNN_HE_NORMAL = 11,
    FNN_ORTHOGONAL = 12 /* orthonormal rows or columns, whichever are fewer (arXiv:1312.6120) */
} fnn_init;

typedef enum fnn_penalty_kind {
    FNN_PENALTY_DEFAULT = 0, /* in a layer: that of fnn_net_configure; there: none */
    FNN_L1 = 1,              /* lam sum |w| */
    FNN_PROXIMAL_L1 = 2,     /* the same by soft-thresholding after the update: exact zeros */
    FNN_L2 = 3,              /* lam sum w^2 */
    FNN_ELASTIC_NET = 4      /* lam sum (beta w^2 + |w|) */
} fnn_penalty_kind;

/* A penalty on weights, added to the mean loss. lam, beta >= 0. */
typedef struct fnn_penalty {
    fnn_penalty_kind kind;
    double lam, beta;
} fnn_penalty;

/* One entry of the layer list. Fields that its kind does not name are ignored; 0 in the others is a 0, not a default:
 * {.kind = FNN_DENSE, .units = 8, .use_bias = 1, .trainable = 1}. */
typedef struct fnn_layer {
    fnn_layer_kind kind;
    fnn_activation activation; /* DENSE (applied to its output), ACTIVATION */
    double alpha;              /* slope of LEAKY_RELU, alpha of ELU, factor of SCALE */
    size_t units;              /* DENSE */
    int use_bias;              /* DENSE */
    fnn_init init;             /* DENSE */
    double init_value;         /* DENSE: of CONSTANT, UNIFORM (> 0), NORMAL (> 0) */
    fnn_penalty penalty;       /* DENSE, on its weights */
    int trainable;             /* DENSE, BATCHNORM; a frozen BatchNorm uses and keeps its running statistics */
    double eps;                /* BATCHNORM, > 0 */
    double decay;              /* BATCHNORM, running <- decay running + (1 - decay) batch; 0 <= decay < 1 */
    int unbiased;              /* BATCHNORM: running variance from the unbiased batch variance */
    double p;                  /* DROPOUT: probability of dropping, 0 <= p < 1, used as round(65536 p) / 65536 */
    int test_scaling;          /* DROPOUT: 0 kept values / (1-p) in training; 1 outputs x (1-p) at prediction */
    int given;                 /* STANDARDIZE: 1 mean and scale were given, 0 they come from data; kept in files */
} fnn_layer;

typedef struct fnn_net fnn_net;

/* Build a net: check every size, lay out the parameters and allocate them (64-byte aligned, zero but for gamma = 1,
 * running_var = 1; fnn_net_initialize draws weights). The net is the caller's to free and keeps its own copy of the
 * layers. `seed` fixes initial weights, dropout masks and shuffles. dtype is FNN_FLOAT32 or FNN_FLOAT64. On failure
 * *net is NULL. FNN_EINVAL: no layers, a zero size, a value out of range. FNN_EOVERFLOW, FNN_ENOMEM, FNN_ENOISA. */
FNN_API fnn_status fnn_net_create(fnn_net **net, const fnn_layer *layers, size_t n_layers, size_t input_size,
                                  fnn_dtype dtype, uint64_t seed);
FNN_API void fnn_net_free(fnn_net *net); /* NULL is allowed */

FNN_API size_t fnn_net_input_size(const fnn_net *net);
FNN_API size_t fnn_net_output_size(const fnn_net *net);
FNN_API fnn_dtype fnn_net_dtype(const fnn_net *net);
FNN_API uint64_t fnn_net_seed(const fnn_net *net);
FNN_API size_t fnn_net_layer_count(const fnn_net *net);
/* A copy of an entry of the layer list. FNN_EINVAL: no such layer. */
FNN_API fnn_status fnn_net_layer(const fnn_net *net, size_t index, fnn_layer *layer);

/* A parameter or statistic of the net: rows x columns elements, row i at data + i * stride elements. */
typedef struct fnn_tensor {
    char name[32]; /* "0.weight", "1.running_mean", ...: index in the layer list and role */
    size_t layer;
    size_t rows; /* 1 for vectors */
    size_t columns;
    size_t stride; /* elements between rows, >= columns */
    size_t offset; /* elements from the start of the parameter arena */
    int trainable;
} fnn_tensor;

FNN_API size_t fnn_net_tensor_count(const fnn_net *net);
FNN_API fnn_status fnn_net_tensor(const fnn_net *net, size_t index,
                                  fnn_tensor *tensor); /* FNN_EINVAL: no such tensor */
/* Start of the parameter arena, [trainable | statistics], float or double. It is the net's, lasts as long, and may be
 * written to between calls: a copy of the arena keeps a state, copying it back restores it. Padding must stay zero. */
FNN_API void *fnn_net_parameters(fnn_net *net);
FNN_API size_t fnn_net_trainable_size(const fnn_net *net); /* elements of the trainable part, padding included */
FNN_API size_t fnn_net_arena_size(const fnn_net *net);     /* elements of all parameters and statistics */
/* Draw all weights from the seed as their layers say; biases and beta 0, gamma 1, running statistics 0 and 1. What a
 * STANDARDIZE holds stays: a program writes it into the tensors "0.mean" and "0.scale". FNN_EINVAL: a frozen net.
 * FNN_ENOMEM, FNN_EOVERFLOW: an orthogonal matrix needs room that is not there; the layers before it are drawn. */
FNN_API fnn_status fnn_net_initialize(fnn_net *net);

/* ---- prediction ---- */

/* Rows of features as they lie in memory: element (i, j) at data + i * row_stride + j * column_stride bytes,
 * any alignment, any sign of the strides, never written. */
typedef struct fnn_features {
    const void *data;
    fnn_dtype dtype;
    ptrdiff_t row_stride;
    ptrdiff_t column_stride;
    size_t rows;
} fnn_features;

/* Rows that follow each other, of `columns` features that follow each other. */
FNN_API fnn_features fnn_rows(const void *data, fnn_dtype dtype, size_t rows, size_t columns);

/* out (rows, output_size), contiguous, of the net's dtype: the output of the last layer for every row. The result of
 * a row does not depend on the other rows. Rows that are not finite give what arithmetic makes of them. Memory is
 * allocated where there is no workspace left from a prediction before, or from fnn_net_reserve; 0 rows need none.
 * FNN_EINVAL, FNN_ENOTREADY, FNN_ENOMEM, FNN_EOVERFLOW. */
FNN_API fnn_status fnn_predict(fnn_net *net, void *out, const fnn_features *x, int n_threads);

/* Make the workspaces of `predictors` simultaneous predictions with up to n_threads threads each (1 .. 16 predictors,
 * at most 256 threads: no call uses more): as many fnn_predict, of any number of rows, will not allocate. (The first
 * call that uses several threads starts them.) FNN_EINVAL, FNN_EOVERFLOW; FNN_ENOMEM: those that could be made stay. */
FNN_API fnn_status fnn_net_reserve(fnn_net *net, int predictors, int n_threads);

/* Give up training for speed: every Dense layer's weights are moved, inside the parameter arena, into the layout that
 * predicts fastest: panels of 16 columns (float; 8 of double), panel j (fan_in rows of 64 bytes, contiguous) holding
 * columns 16 j .. of the matrix, zeros beyond its last. The other tensors stay. Outputs keep their bits; functions that
 * train or draw return FNN_EINVAL from then on. FNN_ENOMEM: the net is unchanged. Twice is once. */
FNN_API fnn_status fnn_net_freeze(fnn_net *net);
FNN_API int fnn_net_frozen(const fnn_net *net);

/* What turns the outputs into predictions of the target: set by training, from its loss; kept in model files. */
typedef enum fnn_link {
    FNN_LINK_NONE = 0, /* not known */
    FNN_LINK_IDENTITY = 1,
    FNN_LINK_SIGMOID = 2,
    FNN_LINK_SOFTMAX = 3,
    FNN_LINK_EXP = 4
} fnn_link;
FNN_API fnn_link fnn_net_link(const fnn_net *net);
/* Probabilities: fnn_predict of a net that ends with SOFTMAX or SIGMOID, of another one with its link applied, too.
 * Each row of a SIGMOID is a list of independent ones. FNN_EINVAL: neither gives probabilities; and as fnn_predict. */
FNN_API fnn_status fnn_predict_proba(fnn_net *net, void *out, const fnn_features *x, int n_threads);

/* ---- training ---- */

typedef enum fnn_optimizer_kind { FNN_SGD = 0, FNN_RMSPROP = 1, FNN_ADAM = 2 } fnn_optimizer_kind;

typedef struct fnn_optimizer {
    fnn_optimizer_kind kind;
    double momentum;        /* SGD, 0 <= momentum < 1 */
    int nesterov;           /* SGD */
    double beta1, beta2;    /* ADAM; RMSPROP's alpha is beta2 */
    double eps;             /* RMSPROP, ADAM */
    double weight_decay;    /* added to the clipped gradient: g + weight_decay p, every trainable parameter */
    double decoupled_decay; /* AdamW: p <- p (1 - lr decoupled_decay), then the update */
} fnn_optimizer;

typedef enum fnn_clip_kind {
    FNN_CLIP_NONE = 0,
    FNN_CLIP_VALUE = 1,      /* each element into [low, high] */
    FNN_CLIP_NORM = 2,       /* g high / ||g|| where the norm over all trainable parameters exceeds high */
    FNN_CLIP_TENSOR_NORM = 3 /* the same for each tensor alone */
} fnn_clip_kind;

typedef struct fnn_clip {
    fnn_clip_kind kind;
    double low, high;
} fnn_clip;

typedef enum fnn_loss_kind {
    FNN_CROSS_ENTROPY = 0, /* parameter: label smoothing, >= 0 and < 1; integer labels or target rows */
    FNN_BINARY_CROSS_ENTROPY = 1,
    FNN_MSE = 2,
    FNN_MAE = 3,
    FNN_HUBER = 4, /* parameter: delta > 0 */
    FNN_POISSON = 5
} fnn_loss_kind;

typedef struct fnn_loss {
    fnn_loss_kind kind;
    double parameter;
} fnn_loss;

/* Targets: labels (cross-entropy alone), 0 .. output_size - 1, one per row; or values (rows, output_size), contiguous,
 * of the net's dtype. The other is NULL. */
typedef struct fnn_targets {
    const int32_t *labels;
    const void *values;
    const double *weights; /* one per row, >= 0 and finite, or NULL for 1 */
} fnn_targets;

/* The least eps of BatchNorm and the optimizers: it must not round to 0 in float. */
#define FNN_SMALLEST_EPS 1e-37

/* Sets what the following steps use (before: plain SGD); moments are kept unless the optimizer's kind changes. clip may
 * be NULL for none; penalty, for the DENSE layers without one of their own, too. FNN_EINVAL: a field outside its range,
 * or not clip.low <= 0 <= clip.high (0 must stay 0). A model file does not hold this: configure again after loading. */
FNN_API fnn_status fnn_net_configure(fnn_net *net, const fnn_optimizer *optimizer, const fnn_clip *clip,
                                     const fnn_penalty *penalty);

/* Asked about every 50 ms, by the thread that called fnn_train. */
typedef enum fnn_poll { FNN_POLL_CONTINUE = 0, FNN_POLL_STOP = 1, FNN_POLL_ABANDON = 2 } fnn_poll;
typedef fnn_poll (*fnn_poll_function)(void *argument);

/* A stretch of training steps, and what came of it. Batch b has the rows order[batch_starts[b] .. batch_starts[b+1]):
 * batch_starts has n_batches + 1 elements. */
typedef struct fnn_run {
    const fnn_features *x;
    const fnn_targets *y;
    const fnn_loss *loss;
    const int64_t *order; /* row numbers; NULL: rows in their order */
    const size_t *batch_starts;
    size_t n_batches;
    size_t micro_batch;           /* most rows in one pass; 0: whole batches */
    const double *learning_rates; /* one per batch, >= 0 and finite */
    void *outputs; /* NULL, or (positions, output_size): outputs in training mode, before a final SOFTMAX or SIGMOID
                      that the loss takes over, for batch_starts[0] .. */
    fnn_poll_function poll; /* may be NULL: stop after this step, or abandon it */
    void *poll_argument;
    int n_threads;                             /* 0: as fnn_get_num_threads says */
    double loss_sum_before, weight_sum_before; /* of the earlier part of an epoch: where the sums below begin */
    /* results */
    double loss_sum; /* sum over finished batches of (batch loss * its sum of weights) */
    double weight_sum;
    size_t batches_done; /* finished or skipped (all weights zero) */
    double failed_loss;  /* after FNN_EDIVERGED: the loss of that step, */
    size_t failed_layer; /* and the first layer with a non-finite output or gradient (SIZE_MAX: none found) */
} fnn_run;

/* Gradients, optimizer buffers and workspace are allocated by the first call and when a batch is larger than any
 * before; else nothing is. Labels are read while training runs: they must not change. FNN_EDIVERGED, FNN_EINTERRUPTED
 * (abandoned), FNN_ENOMEM, FNN_EOVERFLOW, FNN_ENOTREADY; FNN_EINVAL: a frozen net, an empty batch, one row where
 * BatchNorm needs two, a row or label that does not exist, or targets that do not suit the loss. Whatever it
 * returns, the first batches_done batches have been trained on, and no other. */
FNN_API fnn_status fnn_train(fnn_net *net, fnn_run *run);
/* The same for one batch, the rows of x. *value, which may be NULL, is its mean loss before the step: in training mode,
 * without penalty; 0 where all weights are 0. learning_rate: >= 0 and finite. */
FNN_API fnn_status fnn_train_step(fnn_net *net, const fnn_features *x, const fnn_targets *y, const fnn_loss *loss,
                                  double learning_rate, int n_threads, double *value);
/* *value = mean loss over the rows of x, weighted, in evaluation mode (running statistics, no dropout, no penalty):
 * what to stop early by; 0 where all weights are 0. Allocates. Statuses as fnn_train, of one batch; one row is enough.
 */
FNN_API fnn_status fnn_evaluate(fnn_net *net, double *value, const fnn_features *x, const fnn_targets *y,
                                const fnn_loss *loss, int n_threads);

typedef struct fnn_counters {
    uint64_t passes;  /* training-mode forward passes since the last reset: the `step` of the random numbers */
    uint64_t updates; /* optimizer steps: t of Adam's bias correction */
} fnn_counters;
/* How far training has come; a checkpoint keeps it. A skipped batch is a pass without update. */
FNN_API fnn_counters fnn_net_counters(const fnn_net *net);
/* Counters and moments 0: as before the first step. Parameters stay: see fnn_net_initialize. */
FNN_API void fnn_net_reset(fnn_net *net);

/* order (n) = the shuffle number `epoch` of this seed. FNN_EINVAL: no order; FNN_ENOISA. */
FNN_API fnn_status fnn_permutation(int64_t *order, size_t n, uint64_t seed, uint64_t epoch);

/* ---- model files: a safetensors file of "fastnn profile 1", see docs/model-file.md ---- */

/* What exactly was wrong; filled by every call that takes it. */
typedef struct fnn_detail {
    int system_error; /* errno after FNN_EIO, else 0 */
    char text[248];   /* an English sentence, "" where the status says it all */
} fnn_detail;

typedef enum fnn_contents {
    FNN_MODEL = 0,     /* layers, parameters, statistics, link */
    FNN_CHECKPOINT = 1 /* and what further training continues from: optimizer buffers and counters. Not a frozen net */
} fnn_contents;

/* Write a file so that its name stands for a whole file at every moment: a temporary file beside it is written, synced
 * and renamed, and the folder synced. `detail` may be NULL.
 * FNN_EIO: the file that was there before is as it was (but where the folder alone could not be synced: it is the new
 * one, whole, and might not survive a loss of power); where the path is no regular file its error is EISDIR or EINVAL.
 * FNN_EINVAL: a parameter is not finite, a variance negative, a scale of Standardize zero or not a normal number, or
 * the net is frozen and the contents are a checkpoint. The net must not change meanwhile. FNN_EOVERFLOW: more layers or
 * tensors than the format holds. FNN_ENOMEM. */
FNN_API fnn_status fnn_net_save(const fnn_net *net, const char *path, fnn_contents contents, fnn_detail *detail);
/* The same bytes into memory: *size is its size before and what the file takes after. FNN_EINVAL with a larger *size:
 * the memory is too small (or NULL: to ask). */
FNN_API fnn_status fnn_net_save_memory(const fnn_net *net, void *bytes, size_t *size, fnn_contents contents,
                                       fnn_detail *detail);
/* Make a net from a file. Any bytes at all give a net that is fit to run, or a status; *net is NULL after a failure.
 * Memory at its most: the file, the net, and 16 MiB. In a net a row of a matrix takes whole multiples of 64 bytes, and
 * 64 more where that is a multiple of 4096: twice the file, unless its matrices are narrow. FNN_EIO, FNN_EFORMAT,
 * FNN_EVERSION, FNN_ENOMEM, FNN_EOVERFLOW, FNN_ENOISA. */
FNN_API fnn_status fnn_net_load(fnn_net **net, const char *path, fnn_detail *detail);
FNN_API fnn_status fnn_net_load_memory(fnn_net **net, const void *bytes, size_t size, fnn_detail *detail);

/* ---- the machine ---- */

/* Worker threads used where nothing else is said: set by the caller, else FASTNN_NUM_THREADS, else OMP_NUM_THREADS,
 * else the processors this process may use (affinity and cgroup quota). */
FNN_API int fnn_get_num_threads(void);
FNN_API fnn_status fnn_set_num_threads(int n); /* n >= 1; 0: back to the default */

/* The live instruction set: "baseline", "avx2", "avx512" or "neon". FNN_ENOISA where FASTNN_ISA asks for one that
 * cannot run here (then *name is what was asked for). */
FNN_API fnn_status fnn_isa_name(const char **name);

#ifdef __cplusplus
}
#endif
#endif

/* fastnn: fully connected neural networks on CPUs.
 *
 * The one public header of the C library. Every function returns a status and never aborts, prints or
 * leaks; `fnn_status_text` gives the sentence for a status. Matrices are row-major; all sizes count elements
 * unless a name says bytes; all lengths of time are seconds. Pointers handed in stay the caller's.
 *
 * Threads: many threads may call `fnn_predict` on one net. A net may be trained by one thread at a time, and
 * not while another thread predicts on it; this is the caller's duty.
 */
#ifndef FASTNN_H
#define FASTNN_H

#include <stddef.h>
#include <stdint.h>

#define FNN_VERSION_MAJOR 0
#define FNN_VERSION_MINOR 1
#define FNN_VERSION_PATCH 0
#define FNN_VERSION_STRING "0.1.0"

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
    FNN_EIO = 6,          /* reading or writing failed; errno tells why */
    FNN_ENOTREADY = 7,    /* a Standardize layer has no statistics yet, or backward was called before forward */
    FNN_ENOISA = 8        /* the instruction set asked for is unknown, not built in, or not run by this machine */
} fnn_status;

const char *fnn_status_text(fnn_status status);
const char *fnn_version(void);

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
    FNN_STANDARDIZE = 6 /* y = (x - mean) / scale; first layer only */
} fnn_layer_kind;

/* One entry of the layer list. Fields that its kind does not name are ignored. */
typedef struct fnn_layer {
    fnn_layer_kind kind;
    fnn_activation activation; /* DENSE (applied to its output), ACTIVATION */
    double alpha;              /* slope of LEAKY_RELU, alpha of ELU, factor of SCALE */
    size_t units;              /* DENSE */
    int use_bias;              /* DENSE */
    int trainable;             /* DENSE, BATCHNORM; a frozen BatchNorm uses and keeps its running statistics */
    double eps;                /* BATCHNORM, > 0 */
    double decay;              /* BATCHNORM, running <- decay running + (1 - decay) batch; 0 <= decay < 1 */
    int unbiased;              /* BATCHNORM: running variance from the unbiased batch variance */
    double p;                  /* DROPOUT: probability of dropping, 0 <= p < 1, used as round(65536 p) / 65536 */
    int test_scaling;          /* DROPOUT: 0 kept values / (1-p) in training; 1 outputs x (1-p) at prediction */
} fnn_layer;

typedef struct fnn_net fnn_net;

/* Build a net: check every size, lay out the parameters and allocate them (64-byte aligned, zero but for gamma = 1,
 * running_var = 1). `seed` fixes initial weights, dropout masks and shuffles. On failure *net is NULL.
 * FNN_EINVAL: no layers, a zero size, a value out of range. FNN_EOVERFLOW, FNN_ENOMEM. */
fnn_status fnn_net_create(fnn_net **net, const fnn_layer *layers, size_t n_layers, size_t input_size, fnn_dtype dtype,
                          uint64_t seed);
void fnn_net_free(fnn_net *net); /* NULL is allowed */

size_t fnn_net_input_size(const fnn_net *net);
size_t fnn_net_output_size(const fnn_net *net);

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

size_t fnn_net_tensor_count(const fnn_net *net);
fnn_status fnn_net_tensor(const fnn_net *net, size_t index, fnn_tensor *tensor);
void *fnn_net_parameters(fnn_net *net); /* start of the arena: [trainable | statistics], float or double */

/* Rows of features as they lie in memory: element (i, j) at data + i * row_stride + j * column_stride bytes,
 * any alignment, any sign of the strides, never written. */
typedef struct fnn_features {
    const void *data;
    fnn_dtype dtype;
    ptrdiff_t row_stride;
    ptrdiff_t column_stride;
    size_t rows;
} fnn_features;

/* out (rows, output_size), contiguous, of the net's dtype: the output of the last layer for every row. The result of
 * a row does not depend on the other rows nor on the number of threads. n_threads 0: as configured. */
fnn_status fnn_predict(fnn_net *net, void *out, const fnn_features *x, int n_threads);

/* Give up training for speed: every Dense layer's weights are moved, inside the parameter arena, into the layout that
 * predicts fastest: panels of 16 columns (float; 8 of double), panel j (fan_in rows of 64 bytes, contiguous) holding
 * columns 16 j .. of the matrix, zeros beyond its last. The other tensors stay. Outputs keep their bits; functions that
 * train or draw return FNN_EINVAL from then on. FNN_ENOMEM: the net is unchanged. Twice is once. */
fnn_status fnn_net_freeze(fnn_net *net);
int fnn_net_frozen(const fnn_net *net);

/* Worker threads used where nothing else is said: set by the caller, else FASTNN_NUM_THREADS, else OMP_NUM_THREADS,
 * else the processors this process may use (affinity and cgroup quota). */
int fnn_get_num_threads(void);
fnn_status fnn_set_num_threads(int n); /* n >= 1; 0: back to the default */

/* The live instruction set: "baseline", "avx2", "avx512" or "neon". FNN_ENOISA where FASTNN_ISA asks for one that
 * cannot run here (then *name is what was asked for). */
fnn_status fnn_isa_name(const char **name);

#ifdef __cplusplus
}
#endif
#endif

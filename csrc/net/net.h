/* The net as C sees it: a plan of nodes over arenas of one layout, and the passes that walk it.
 *
 * A node is one operation on a batch. A layer-list entry becomes no node (Identity; Scale or Standardize in front,
 * which the gather does), one, or two (Dense with its own activation). Every layer is one small file with node types
 * {shape, scratch, forward, backward, predict}.
 *
 * Training steps are one program run by all threads of a pool job. On the way through the layers a thread owns rows of
 * the batch, then chunks of the parameters, whose gradients it forms and which it updates; it may use what others
 * computed only after a barrier. What a thread computes never depends on how many there are. */
#ifndef FNN_NET_H
#define FNN_NET_H

#include <stdatomic.h>
#include <stdbool.h>

#include "fastnn.h"
#include "fnn_internal.h"
#include "runtime.h"
#include "table.h"

#define FNN_NONE SIZE_MAX

enum {
    UPDATE_CHUNK = 4096,  /* elements per partial sum of the gradient's norm, about */
    STEP_ROWS = 256,      /* a long batch goes through a net of small layers in blocks of so many rows */
    MOST_CHUNKS = 64,     /* parts that a sum over a long batch is cut into */
    PREDICT_ROWS = 96,    /* rows of a block that runs through all layers while it is hot; whole tiles of 6, 4, 3 */
    WORKSPACE_SLOTS = 16, /* prediction workspaces kept for re-use */
    MAX_ENUMERATED = 40   /* units under dropout in an exact expectation */
};

typedef struct fnn_node fnn_node;
typedef struct fnn_pass fnn_pass;
typedef struct fnn_block fnn_block;

/* What training asks of the workspace. */
typedef struct fnn_needs {
    size_t rows;       /* of the buffers of activations and their gradients */
    size_t batch_rows; /* most rows of a pass */
    int threads;
} fnn_needs;

/* Where the next piece of the training workspace goes. */
typedef struct fnn_layout {
    fnn_needs needs;
    size_t real_size;
    size_t gradient; /* place of the gradient of the last node's output so far */
    size_t bytes;
    bool overflow;
} fnn_layout;

typedef struct fnn_node_type {
    /* Its (not) trainable tensors, placed by fnn_add_tensor; NULL where it has none. */
    fnn_status (*shape)(fnn_net *net, fnn_node *node, bool trainable);
    /* What it keeps between forward and backward, placed by fnn_place; NULL for nothing. */
    void (*scratch)(fnn_layout *layout, fnn_node *node);
    /* y of this batch from its input, training mode. */
    void (*forward)(const fnn_pass *pass, const fnn_node *node, bool fused);
    /* Where the node below needs it, pass->gradient, d loss / d y, becomes d loss / d x. Parameters of few elements get
     * their gradients here; those of Dense are formed later, by the owners of the parameters. */
    void (*backward)(fnn_pass *pass, const fnn_node *node, bool input_gradient);
    /* y from x for a block of rows, evaluation mode; returns where y is (x itself where the node works in place). */
    void *(*predict)(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused);
} fnn_node_type;

extern const fnn_node_type fnn_dense, fnn_batchnorm, fnn_dropout, fnn_activation_node, fnn_softmax, fnn_scale_node;

struct fnn_node {
    const fnn_node_type *type;
    fnn_layer layer; /* the entry it came from; activation and alpha are this node's own */
    size_t layer_index;
    size_t inputs, outputs;       /* widths */
    size_t ld_inputs, ld_outputs; /* padded */
    size_t weight, bias;          /* places in the parameter arena: W, b; or gamma, beta; FNN_NONE where absent */
    size_t mean, variance;        /* BatchNorm's running statistics */
    bool fuses_next;              /* Dense: the next node is an activation that its product may apply */
    bool in_place;                /* training: y is stored over x */
    uint32_t threshold;           /* Dropout: p = threshold / 65536 */
    double drop_scale;            /* Dropout: of kept values in training */
    /* places in the training workspace, in bytes */
    size_t x, y, mask;
    size_t dx, dy;   /* Dense: gradients of its input and output */
    size_t panel;    /* Dense: W transposed */
    size_t partials; /* Dense: dW and db of each chunk of a long batch */
    size_t batch_mean, batch_variance, pending_mean, pending_variance, dgamma, dbeta, zeros;
};

/* A tensor's stretch of the trainable arena, cut into chunks: of whole rows where it is a Dense layer's W. */
typedef struct fnn_stretch {
    enum { FNN_WEIGHT, FNN_BIAS, FNN_VECTOR } role; /* of a Dense, but for VECTOR: gradients come from its backward */
    const fnn_node *node;
    size_t offset, count;
    size_t chunk; /* elements; the last one may have fewer */
    size_t first_chunk, n_chunks;
} fnn_stretch;

/* l1 sum |w| + l2 sum w^2 over the weights of a layer. */
typedef struct fnn_penalty_terms {
    double l1, l2;
    bool proximal; /* the l1 part by soft-thresholding after the update */
} fnn_penalty_terms;

typedef struct fnn_workspace {
    size_t bytes;
    char *memory;
} fnn_workspace;

struct fnn_net {
    fnn_dtype dtype;
    size_t real_size; /* bytes of an element */
    uint64_t seed;
    const fnn_kernels *kernels;

    size_t n_layers;
    fnn_layer *layers;
    size_t *layer_end; /* nodes of entries 0..i */
    size_t *layer_width;
    size_t n_nodes;
    fnn_node *nodes;
    size_t first_trainable; /* first node with something to learn; n_nodes if none */
    size_t inputs, ld_inputs, outputs, ld_max;
    double row_work;                            /* multiply-adds of a row's pass */
    double factor;                              /* conversion of the features in front */
    size_t standardize_mean, standardize_scale; /* or FNN_NONE */

    size_t n_tensors;
    fnn_tensor *tensors;
    size_t trainable_size, arena_size; /* elements */
    char *parameters;
    fnn_link link;
    bool frozen; /* the weights lie packed for dense_forward_packed, each matrix in its own place */

    /* training; allocated when first needed */
    char *gradients;
    char *moments[2];
    size_t n_stretches, n_chunks;
    fnn_stretch *stretches;
    double *norm_partials; /* one per chunk */
    fnn_optimizer optimizer;
    fnn_clip clip;
    fnn_penalty_terms *penalties; /* one per layer */
    double loss_scale;            /* of every row's loss */
    bool penalty_per_weight;      /* penalties are divided by the weight of the batch */
    fnn_measures measures;        /* of the steps since they were last taken; norm_sums NULL: nobody asks */
    atomic_bool values_clipped;   /* while measuring: some element of this step's gradient */
    fnn_counters counters;
    bool gradients_wanted;           /* somebody has views of them: every step stores them */
    size_t unformed_rows;            /* of the last step, where its gradients rode in the update; else 0 */
    _Atomic uint64_t unbounded_pass; /* number (from 1) of a pass whose dW might not be finite */
    fnn_needs capacity;              /* what the training workspace is laid out for */
    char *training;
    size_t input_place, input_gradient_place, output_gradient_place; /* bytes into `training` */
    size_t labels_place, targets_place, row_weight_place, row_loss_place;
    size_t scratch_place, scratch_bytes; /* per thread: gradients that are applied at once */
    size_t forward_rows;                 /* of the last forward, for backward; 0: none */
    bool statistics_pending;             /* the last pass left running statistics that an update commits */
    atomic_bool statistics_overflow;     /* and some of them are not finite */

    _Atomic(fnn_workspace *) workspaces[WORKSPACE_SLOTS];
};

/* One thread's view of one training pass over a (micro-)batch. */
struct fnn_pass {
    fnn_net *net;
    const fnn_kernels *kernels;
    size_t rows;               /* of all threads */
    size_t row_begin, row_end; /* this thread's own, as places in the buffers */
    size_t shift;              /* + place in the buffers = row of the (micro-)batch, modulo 2^64 */
    int thread, n_threads;
    fnn_random random;     /* layer is filled in by Dropout */
    uint64_t first_row;    /* of the (micro-)batch in the whole batch */
    bool accumulate;       /* add to the gradients (micro-batches after the first) */
    double penalty_factor; /* of the penalties in this step */
    void *gradient;        /* d loss / d y of the node at hand; (rows, ld) */
};

enum fnn_mode { FNN_EVALUATE, FNN_SAMPLE, FNN_ENUMERATE };

/* A block of rows on its way through the net in evaluation mode. */
struct fnn_block {
    const fnn_net *net;
    const fnn_kernels *kernels;
    size_t rows;
    size_t ld_inputs; /* of the rows that enter the first node; a Dense there takes any */
    enum fnn_mode mode;
    fnn_random random; /* FNN_SAMPLE */
    uint64_t first_row;
    uint64_t first_mask; /* FNN_ENUMERATE: row i has mask first_mask + i */
};

static inline void *fnn_at(const fnn_net *net, void *base, size_t elements)
{
    return (char *)base + elements * net->real_size;
}

static inline void *fnn_parameter(const fnn_net *net, size_t place)
{
    return place == FNN_NONE ? NULL : net->parameters + place * net->real_size;
}

static inline void *fnn_training(const fnn_net *net, size_t place)
{
    return net->training + place;
}

/* Elements between rows: padded, and never a multiple of 4096 bytes (rows would then share cache sets). */
bool fnn_padded(size_t *ld, const fnn_net *net, size_t columns);

/* The part [*begin, *end) of `count` things, in whole groups, that falls to `thread`. */
static inline void fnn_share(size_t *begin, size_t *end, size_t count, size_t group, int thread, int n_threads)
{
    size_t groups = (count + group - 1) / group, n = (size_t)n_threads, t = (size_t)thread;
    *begin = groups * t / n * group;
    *end = groups * (t + 1) / n * group;
    if (*end > count)
        *end = count;
    if (*begin > *end)
        *begin = *end;
}

/* Threads that `work` (multiply-adds, or what takes as long) on `rows` rows deserves. */
int fnn_thread_count(int asked, double work, size_t rows);
double fnn_pass_work(const fnn_net *net, size_t rows);
double fnn_update_work(const fnn_net *net);

fnn_status fnn_add_tensor(fnn_net *net, size_t *place, size_t layer, const char *role, bool trainable, size_t rows,
                          size_t columns);
/* Room for rows x columns elements of `size` bytes, 64-byte aligned. */
size_t fnn_place(fnn_layout *layout, size_t rows, size_t columns, size_t size);

/* ---- dense.c: the parts of a training pass that do not go row by row ---- */

/* Rows of a chunk of the sums over a batch; all rows: one sum. Depends on shapes alone, for it decides the bits. */
size_t fnn_chunk_rows(const fnn_node *node, size_t rows);
/* This thread's share of W transposed. */
void fnn_dense_transpose(const fnn_pass *pass, const fnn_node *node);
/* dW and db of the thread's own rows into the partials of a chunk, or added to what is there. */
void fnn_dense_partial(const fnn_pass *pass, const fnn_node *node, size_t chunk, bool add);
/* Rows [begin, end) of dW, or columns [begin, end) of db, from all rows of the pass. */
void fnn_dense_weight_gradient(const fnn_pass *pass, void *dw, const fnn_node *node, size_t begin, size_t end);
void fnn_dense_bias_gradient(const fnn_pass *pass, void *db, const fnn_node *node, size_t begin, size_t end);
/* Rows [begin, end) of W -= rate dW, dW being stored nowhere. */
void fnn_dense_descend(const fnn_pass *pass, const fnn_node *node, double rate, size_t begin, size_t end);
/* Elements [begin, end) of the gradient from the partials, added in the chunks' order; counted from the start of W. */
void fnn_dense_add_partials(const fnn_pass *pass, void *sum, const fnn_node *node, size_t begin, size_t end);

/* ---- plan.c: fnn_net_create in two parts ---- */

/* All but the parameters. */
fnn_status fnn_plan_net(fnn_net **net, const fnn_layer *layers, size_t n_layers, size_t input_size, fnn_dtype dtype,
                        uint64_t seed);
fnn_status fnn_allocate_parameters(fnn_net *net); /* unless they are there */

size_t fnn_item_size(fnn_dtype dtype); /* bytes of an element; 0 for no dtype (predict.c) */

/* ---- workspace.c, step.c ---- */

fnn_status fnn_prepare_gradients(fnn_net *net);
fnn_status fnn_prepare_training(fnn_net *net, fnn_needs needs); /* at least; gradients as well */
bool fnn_ready(const fnn_net *net);                             /* statistics of a leading Standardize are set */
void fnn_gather(const fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t first_row, size_t m);
size_t fnn_loss_end(const fnn_net *net, fnn_loss_kind loss); /* nodes before the activation that the loss takes over */
void fnn_loss_rows(const fnn_net *net, const fnn_loss *loss, double *row_loss, void *dy, const void *y,
                   const int32_t *labels, const void *values, const double *row_weight, size_t m);
/* Store the gradients of the last step after all, from what it left in the buffers. */
void fnn_form_last_gradients(fnn_net *net);
bool fnn_has_batch_statistics(const fnn_net *net);
/* Features and targets are there, of the kinds that this loss takes. */
bool fnn_data_suit_loss(const fnn_features *x, const fnn_targets *y, const fnn_loss *loss);
/* The row exists and its label, where targets are labels, is one. */
bool fnn_has_row(const fnn_net *net, const fnn_features *x, const fnn_targets *y, size_t row);
/* Chunks of the sums that the threads share where so many rows go through the net in blocks of STEP_ROWS; else 0. */
size_t fnn_block_chunks(const fnn_net *net, size_t rows);
/* The layout of a pass over `rows` rows on n_threads threads: rows in the buffers. */
size_t fnn_buffer_rows(const fnn_net *net, size_t rows, int n_threads);

/* What a thread does of one micro-batch, and after a batch's last one of the update. */
typedef struct fnn_micro_batch {
    const fnn_run *run;
    size_t position; /* of its first row in the order */
    size_t rows;
    size_t first_row;  /* in its batch */
    double weight_sum; /* of the whole batch */
    double learning_rate;
    bool last;
    fnn_counters counters;
    double loss;   /* of the batch so far: before, then after it */
    bool diverged; /* loss, norm or a running statistic is not finite: nothing was changed */
} fnn_micro_batch;
void fnn_run_micro_batch(fnn_net *net, fnn_micro_batch *batch, int thread, int n_threads);
/* The first layer with a non-finite output or batch statistic in the micro-batch, else the last one with a non-finite
 * gradient, else SIZE_MAX. */
size_t fnn_failed_layer(fnn_net *net, const fnn_micro_batch *batch);

/* ---- update.c: gradients, penalty, norm, clip and optimizer for the chunks of parameters that a thread owns ---- */

fnn_status fnn_prepare_update(fnn_net *net);
fnn_status fnn_allocate_moment(fnn_net *net, int index); /* unless it is there */
bool fnn_valid_penalty(const fnn_penalty *penalty);
/* Each layer's own penalty, or this one (NULL: none). */
void fnn_resolve_penalties(fnn_net *net, const fnn_penalty *penalty);
/* Of the penalties in a step on rows of this weight. */
double fnn_penalty_factor(const fnn_net *net, double batch_weight);
/* Gradients of all parameters from what forward and backward left; a barrier lies behind and must follow. */
void fnn_form_gradients(const fnn_pass *pass);
/* The same and the update; a barrier lies behind and must follow. False where loss, norm or a running statistic is not
 * finite: then nothing was changed. */
bool fnn_form_and_update(const fnn_pass *pass, double learning_rate, uint64_t updates, double loss);
/* May the update follow each stretch of gradient at once? Only where all gradients are known to be finite: see
 * fnn_bounds_gradients. */
bool fnn_update_is_fused(const fnn_net *net, const fnn_micro_batch *batch);
/* Do the norms of this thread's rows keep every dW and db finite? */
bool fnn_bounds_gradients(const fnn_pass *pass);
void fnn_fused_update(const fnn_pass *pass, double learning_rate, uint64_t updates);
/* Bytes of a thread's scratch for it. */
size_t fnn_scratch_size(const fnn_net *net);
double fnn_stretch_norm(const fnn_net *net, const fnn_stretch *s);

#endif

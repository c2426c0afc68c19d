/* The net as C sees it: a plan of nodes over arenas of one layout, and the passes that walk it.
 *
 * A node is one operation on a batch. A layer-list entry becomes no node (Identity; Scale or Standardize in front,
 * which the gather does), one, or two (Dense with its own activation). Every layer is one small file with node types
 * {shape, scratch, forward, backward, predict}.
 *
 * A training step is one program run by all threads of a pool job. A thread owns the rows [row_begin, row_end) of the
 * batch; it may use other rows' results only after a barrier. What a thread computes never depends on how many there
 * are. */
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
    UPDATE_CHUNK = 4096,  /* elements per partial sum of the gradient's norm */
    PREDICT_ROWS = 96,    /* rows of a block that runs through all layers while it is hot; whole tiles of 6, 4, 3 */
    WORKSPACE_SLOTS = 16, /* prediction workspaces kept for re-use */
    MAX_ENUMERATED = 40   /* units under dropout in an exact expectation */
};

typedef struct fnn_node fnn_node;
typedef struct fnn_pass fnn_pass;
typedef struct fnn_block fnn_block;

/* Where the next piece of the training workspace goes. */
typedef struct fnn_layout {
    size_t bytes;
    bool overflow;
} fnn_layout;

typedef struct fnn_node_type {
    /* Its (not) trainable tensors, placed by fnn_add_tensor; NULL where it has none. */
    fnn_status (*shape)(fnn_net *net, fnn_node *node, bool trainable);
    /* What it keeps between forward and backward of `rows` rows, placed by fnn_place; NULL for nothing. */
    void (*scratch)(fnn_layout *layout, fnn_node *node, size_t rows, size_t real_size);
    /* y of this batch from its input, training mode. */
    void (*forward)(const fnn_pass *pass, const fnn_node *node, bool fused);
    /* Parameter gradients from pass->gradient; when the node below needs it, pass->gradient becomes the input's
     * gradient. */
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
    size_t batch_mean, batch_variance, pending_mean, pending_variance, dgamma, dbeta, zeros;
};

/* A tensor's stretch of the trainable arena, cut into chunks of UPDATE_CHUNK. */
typedef struct fnn_stretch {
    size_t offset, count;
    size_t layer;
    bool is_weight;
    size_t first_chunk, n_chunks;
} fnn_stretch;

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
    bool frozen; /* the weights lie packed for dense_forward_packed, each matrix in its own place */

    /* training; allocated when first needed */
    char *gradients;
    char *moments[2];
    size_t n_stretches, n_chunks;
    fnn_stretch *stretches;
    double *norm_partials; /* one per chunk */
    fnn_optimizer optimizer;
    fnn_clip clip;
    fnn_penalty *penalties; /* one per layer */
    fnn_counters counters;
    size_t capacity; /* rows the training workspace is laid out for */
    char *training;
    size_t input_place, gradient_place[2], panel_place[2], partial_place; /* bytes into `training` */
    size_t labels_place, targets_place, row_weight_place, row_loss_place;
    size_t forward_rows;             /* of the last forward, for backward; 0: none */
    bool statistics_pending;         /* the last pass left running statistics that an update commits */
    atomic_bool statistics_overflow; /* and some of them are not finite */

    _Atomic(fnn_workspace *) workspaces[WORKSPACE_SLOTS];
};

/* One thread's view of one training pass over a (micro-)batch. */
struct fnn_pass {
    fnn_net *net;
    const fnn_kernels *kernels;
    size_t rows;
    size_t row_begin, row_end; /* this thread's own */
    int thread, n_threads;
    fnn_random random;  /* layer is filled in by Dropout */
    uint64_t first_row; /* place of row 0 in the whole batch */
    bool accumulate;    /* add to the gradients (micro-batches after the first) */
    bool first_micro;
    void *gradient;     /* d loss / d y of the node at hand; (rows, ld) */
    int gradient_index; /* which of the two gradient buffers that is */
    int panel;
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
/* Elements for the per-chunk gradients of the Dense nodes when up to `rows` rows are trained on. */
size_t fnn_partials_size(const fnn_net *net, size_t rows);

fnn_status fnn_prepare_training(fnn_net *net, size_t rows);
bool fnn_ready(const fnn_net *net); /* statistics of a leading Standardize are set */
void fnn_gather(const fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t first_row, size_t m);
size_t fnn_loss_end(const fnn_net *net, fnn_loss_kind loss); /* nodes before the activation that the loss takes over */
void fnn_loss_rows(const fnn_net *net, const fnn_loss *loss, double *row_loss, void *dy, const void *y,
                   const int32_t *labels, const void *values, const double *row_weight, size_t m);

/* update.c: penalty, norm, clip and optimizer, run by all threads of a job once the gradients are complete. */
typedef struct fnn_update_result {
    double squared_norm; /* of the gradient with penalties, before clipping */
    bool diverged;       /* loss, norm or a running statistic not finite: nothing was changed */
} fnn_update_result;
fnn_status fnn_prepare_update(fnn_net *net);
fnn_update_result fnn_update_shared(fnn_net *net, double learning_rate, double loss, int thread, int n_threads);
/* The first layer with a non-finite output or batch statistic in the last pass, else the last one with a non-finite
 * gradient, else SIZE_MAX. */
size_t fnn_failed_layer(const fnn_net *net, size_t rows, size_t end);

#endif

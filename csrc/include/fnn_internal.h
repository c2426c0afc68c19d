/* What only fastnn's own Python binding and tests need; not installed, may change at any time. */
#ifndef FNN_INTERNAL_H
#define FNN_INTERNAL_H

#include "fastnn.h"
#include "runtime.h" /* fork generation, allocation and thread counts, faults on demand */

/* ---- how a net is trained ---- */

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

/* l1 sum |w| + l2 sum w^2 over a Dense layer's weights. proximal: the l1 part by soft-thresholding after the update. */
typedef struct fnn_penalty {
    double l1, l2;
    int proximal;
} fnn_penalty;

typedef enum fnn_loss_kind {
    FNN_CROSS_ENTROPY = 0, /* parameter: label smoothing; integer labels or target rows */
    FNN_BINARY_CROSS_ENTROPY = 1,
    FNN_MSE = 2,
    FNN_MAE = 3,
    FNN_HUBER = 4, /* parameter: delta */
    FNN_POISSON = 5
} fnn_loss_kind;

typedef struct fnn_loss {
    fnn_loss_kind kind;
    double parameter;
} fnn_loss;

/* Targets: labels (cross-entropy alone), or values (rows, outputs), contiguous, of the net's dtype. */
typedef struct fnn_targets {
    const int32_t *labels;
    const void *values;
    const double *weights; /* one per row, >= 0, or NULL for 1 */
} fnn_targets;

/* The least eps of BatchNorm and the optimizers: it must not round to 0 in float. */
#define FNN_SMALLEST_EPS 1e-37

/* Sets what the following steps use; moments are kept unless the optimizer's kind changes. penalties: one per
 * layer-list entry. FNN_EINVAL: a field outside its range, or not clip.low <= 0 <= clip.high (0 must stay 0). */
fnn_status fnn_net_configure(fnn_net *net, const fnn_optimizer *optimizer, const fnn_clip *clip,
                             const fnn_penalty *penalties);

/* Asked about every 50 ms, never while a pool lock is held. */
typedef enum fnn_poll { FNN_POLL_CONTINUE = 0, FNN_POLL_STOP = 1, FNN_POLL_ABANDON = 2 } fnn_poll;
typedef fnn_poll (*fnn_poll_function)(void *argument);

/* A stretch of training steps, and what came of it. Batch b has the rows order[batch_starts[b] .. batch_starts[b+1]).
 */
typedef struct fnn_run {
    const fnn_features *x;
    const fnn_targets *y;
    const fnn_loss *loss;
    const int64_t *order; /* row numbers, checked by the caller; NULL: rows in their order */
    const size_t *batch_starts;
    size_t n_batches;
    size_t micro_batch;           /* most rows in one pass; 0: whole batches */
    const double *learning_rates; /* one per batch */
    void *outputs; /* NULL, or (positions, output_size): outputs in training mode, before a final activation that the
                      loss takes over (see fnn_net_fused_output), for batch_starts[0] .. */
    fnn_poll_function poll; /* may be NULL: stop after this step, or abandon it */
    void *poll_argument;
    int n_threads; /* 0: as configured */
    /* results */
    double loss_sum; /* sum over finished batches of (batch loss * its sum of weights) */
    double weight_sum;
    size_t batches_done; /* finished or skipped (all weights zero) */
    double failed_loss;  /* after FNN_EDIVERGED: the loss of that step, */
    size_t failed_layer; /* and the first layer with a non-finite output or gradient (SIZE_MAX: none found) */
} fnn_run;

/* FNN_OK, FNN_EDIVERGED, FNN_EINTERRUPTED (abandoned), FNN_ENOMEM, FNN_EOVERFLOW, FNN_ENOTREADY, FNN_EINVAL. */
fnn_status fnn_train(fnn_net *net, fnn_run *run);

/* One training-mode pass at a time, for own losses and own loops. out (m, output_size) and dy contiguous. Forward
 * counts as one training-mode pass for the random numbers. */
fnn_status fnn_forward(fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t m, int n_threads);
/* Gradients of the last forward: parameters' into fnn_net_gradients (overwritten), inputs' into dx (m, input_size) as
 * the first node sees them (after Scale/Standardize in front), or NULL. */
fnn_status fnn_backward(fnn_net *net, void *dx, const void *dy, size_t m, int n_threads);
/* Penalty + clip + optimizer on the present gradients, and commit (once) of the running statistics that the last
 * forward left. FNN_EDIVERGED: nothing changed. */
fnn_status fnn_apply_gradients(fnn_net *net, double learning_rate, double *squared_norm, int n_threads);

/* After a fnn_forward whose loss or gradients were not finite: the first layer with a non-finite output or batch
 * statistic, else the last one with a non-finite gradient; SIZE_MAX if none, or without a forward. */
size_t fnn_net_failed_layer(const fnn_net *net);

/* Gradient arena (layout of the trainable part of the parameters), with the gradients of the last backward or step.
 * From the first call on every step stores them; before, steps that can do without do not. NULL: no memory. */
void *fnn_net_gradients(fnn_net *net);
/* Optimizer buffer 0 (momentum, Adam's m) or 1 (second moment); NULL where the optimizer has none or it was not used
 * yet. */
void *fnn_net_moments(fnn_net *net, int index);
size_t fnn_net_trainable_size(const fnn_net *net); /* elements of the trainable part, padding included */
size_t fnn_net_arena_size(const fnn_net *net);     /* elements of all parameters and statistics */

typedef struct fnn_counters {
    uint64_t passes;  /* training-mode forward passes since the last reset: the `step` of the random numbers */
    uint64_t updates; /* optimizer steps: t of Adam's bias correction */
} fnn_counters;
fnn_counters fnn_net_counters(const fnn_net *net);
void fnn_net_set_counters(fnn_net *net, fnn_counters counters);
/* Counters 0, moments 0: as before the first step. */
void fnn_net_reset(fnn_net *net);

/* The final activation that this loss works on the input of (SOFTMAX with cross-entropy, SIGMOID with binary
 * cross-entropy), else IDENTITY. */
fnn_activation fnn_net_fused_output(const fnn_net *net, fnn_loss_kind loss);
double fnn_net_penalty(fnn_net *net); /* lambda sum R(w) as configured */
/* For tests: the multiply-adds that are worth a thread (1 lets tiny nets use them all). */
void fnn_set_work_per_thread(double work);

/* ---- evaluation ---- */

/* Outputs of the first n_layers entries of the layer list (all: fnn_predict), out (rows, width of that entry)
 * contiguous. */
fnn_status fnn_predict_layers(fnn_net *net, void *out, const fnn_features *x, size_t n_layers, int n_threads);
size_t fnn_net_layer_width(const fnn_net *net, size_t layer);
/* fnn_predict of contiguous rows of the net's dtype that looks at them on the way: FNN_EINVAL where a feature is not
 * finite (out then holds no result) or x is of another kind. One pass over x: 1 % of a large prediction. */
fnn_status fnn_predict_finite(fnn_net *net, void *out, const fnn_features *x, int n_threads);
/* Outputs before the final activation that `loss` takes over. */
fnn_status fnn_predict_for_loss(fnn_net *net, void *out, const fnn_features *x, fnn_loss_kind loss, int n_threads);
/* Weighted mean loss of outputs (rows, output_size), contiguous, as from fnn_predict_for_loss. */
fnn_status fnn_loss_value(fnn_net *net, double *value, const void *outputs, const fnn_targets *y, const fnn_loss *loss,
                          size_t rows);
/* Mean and standard deviation (divisor `samples`) over dropout masks, BatchNorm at its running statistics; both (rows,
 * output_size). The rows of x are rows first_row.. of a larger whole, which their masks depend on. */
fnn_status fnn_predict_mc(fnn_net *net, void *mean, void *deviation, const fnn_features *x, uint64_t first_row,
                          size_t samples, uint64_t seed, int n_threads);
/* The stretch [first_mask, end_mask) of the exact expectation over all 2^units masks, where units =
 * fnn_net_dropout_units is 1..40: added to sum (rows, output_size), double. Stretches in order give the bits of one
 * call over all masks. */
fnn_status fnn_predict_expected(fnn_net *net, double *sum, const fnn_features *x, uint64_t first_mask,
                                uint64_t end_mask, int n_threads);
size_t fnn_net_dropout_units(
    const fnn_net *net); /* units whose masks are random: sum of widths of Dropout layers with p > 0 */
/* array (rows, columns) contiguous <- activation(array), in the net's dtype. */
fnn_status fnn_activate(fnn_net *net, void *array, fnn_activation activation, double alpha, size_t rows,
                        size_t columns);

/* ---- draws and checks ---- */

typedef enum fnn_draw {
    FNN_DRAW_CONSTANT = 0,
    FNN_DRAW_UNIFORM = 1,
    FNN_DRAW_NORMAL = 2,
    FNN_DRAW_ORTHOGONAL = 3
} fnn_draw;
/* Fill a tensor: constant a; uniform [-a, a); normal with sigma a; orthogonal rows or columns times a. */
fnn_status fnn_net_draw(fnn_net *net, size_t tensor, fnn_draw draw, double a);
/* order (n) = the permutation number `epoch` of this seed. */
fnn_status fnn_permutation(int64_t *order, size_t n, uint64_t seed, uint64_t epoch);
/* First feature that is not finite after conversion to the net's dtype; *row = SIZE_MAX if none. Integers are never
 * looked at. */
fnn_status fnn_find_nonfinite(fnn_net *net, const fnn_features *x, size_t *row, size_t *column);

#endif

/* What only fastnn's own Python binding and tests need; not installed, may change at any time. */
#ifndef FNN_INTERNAL_H
#define FNN_INTERNAL_H

#include "fastnn.h"
#include "runtime.h" /* fork generation, allocation and thread counts, faults on demand */

/* ---- own loops ---- */

/* One training-mode pass at a time, for own losses and own loops. out (m, output_size) and dy contiguous. Forward
 * counts as one training-mode pass for the random numbers. */
fnn_status fnn_forward(fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t m, int n_threads);
/* Gradients of the last forward: parameters' into fnn_net_gradients (overwritten), inputs' into dx (m, input_size) as
 * the first node sees them (after Scale/Standardize in front), or NULL. */
fnn_status fnn_backward(fnn_net *net, void *dx, const void *dy, size_t m, int n_threads);
/* Penalty + clip + optimizer on the present gradients, and commit (once) of the running statistics that the last
 * forward left. batch_weight: of the rows that they are of, for fnn_net_scale_objective. FNN_EDIVERGED: nothing
 * changed. */
fnn_status fnn_apply_gradients(fnn_net *net, double learning_rate, double batch_weight, double *squared_norm,
                               int n_threads);

/* The objective of the following steps of fnn_train: loss_scale (> 0, finite) times the loss, values and gradients;
 * with penalty_per_weight the penalties' lam divided by the sum of weights of each batch. FNN_EINVAL. */
fnn_status fnn_net_scale_objective(fnn_net *net, double loss_scale, int penalty_per_weight);

/* Sums over steps. */
typedef struct fnn_measures {
    uint64_t steps;
    uint64_t clipped;  /* steps whose gradient was changed by clipping */
    double *norm_sums; /* per trainable tensor: norm of (gradient + penalty) before clipping; NULL: not measuring */
} fnn_measures;
/* Measure every step from now on, or no longer. Costs the norms; steps of other bits than without never. FNN_ENOMEM. */
fnn_status fnn_net_measure(fnn_net *net, int on);
/* What was measured since the last call, norms (as many as trainable tensors) included; starts anew. FNN_EINVAL: not
 * measuring. */
fnn_status fnn_net_take_measures(fnn_net *net, fnn_measures *measures, double *norm_sums);

/* After a fnn_forward whose loss or gradients were not finite: the first layer with a non-finite output or batch
 * statistic, else the last one with a non-finite gradient; SIZE_MAX if none, or without a forward. */
size_t fnn_net_failed_layer(const fnn_net *net);

/* Gradient arena (layout of the trainable part of the parameters), with the gradients of the last backward or step.
 * From the first call on every step stores them; before, steps that can do without do not. NULL: no memory. */
void *fnn_net_gradients(fnn_net *net);
/* Optimizer buffer 0 (momentum, Adam's m) or 1 (second moment); NULL where the optimizer has none or it was not used
 * yet. */
void *fnn_net_moments(fnn_net *net, int index);
void fnn_net_set_counters(fnn_net *net, fnn_counters counters);
/* Parameters, moments, counters and link of a net of the same layers. FNN_EINVAL: the arenas differ, or one is frozen;
 * FNN_ENOMEM: as before. */
fnn_status fnn_net_copy_state(fnn_net *to, const fnn_net *from);

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
/* First feature that is not finite after conversion to the net's dtype; *row = SIZE_MAX if none. Integers are never
 * looked at. */
fnn_status fnn_find_nonfinite(fnn_net *net, const fnn_features *x, size_t *row, size_t *column);

/* ---- model files with more in them ---- */

/* A tensor beside those of the net; docs/model-file.md lists the names. */
typedef struct fnn_attachment {
    const char *name;
    fnn_dtype dtype;
    size_t rows;
    size_t columns;   /* 0: a vector of `rows` elements */
    const void *data; /* contiguous; of an open file at any alignment */
} fnn_attachment;

/* fnn_net_save, fnn_net_save_memory with attachments. FNN_EINVAL: a name or shape that the format does not know. */
fnn_status fnn_model_save(const fnn_net *net, const char *path, fnn_contents contents,
                          const fnn_attachment *attachments, size_t n, fnn_detail *detail);
fnn_status fnn_model_save_memory(const fnn_net *net, void *bytes, size_t *size, fnn_contents contents,
                                 const fnn_attachment *attachments, size_t n, fnn_detail *detail);

typedef struct fnn_model fnn_model; /* a model file in memory, checked from end to end */
fnn_status fnn_model_open(fnn_model **model, const char *path, fnn_detail *detail);
/* The bytes must stay until it is closed. */
fnn_status fnn_model_open_memory(fnn_model **model, const void *bytes, size_t size, fnn_detail *detail);
void fnn_model_close(fnn_model *model); /* NULL is allowed */
/* The net, once. FNN_ENOMEM: as before. */
fnn_status fnn_model_net(fnn_model *model, fnn_net **net, fnn_detail *detail);
fnn_contents fnn_model_contents(const fnn_model *model);
size_t fnn_model_attachment_count(const fnn_model *model);
fnn_attachment fnn_model_attachment(const fnn_model *model, size_t index); /* all zeros behind the last */
/* CRC-32 as of zlib, of these bytes after those that gave `crc` (0: none). */
uint32_t fnn_crc32(uint32_t crc, const void *bytes, size_t size);

void fnn_net_set_link(fnn_net *net, fnn_link link);

#endif

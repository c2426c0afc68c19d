/* The kernels of one instruction set and one element type as a table of functions.
 *
 * `real` below is float or double; pointers to it are passed as void so that the rooms above are compiled once for
 * both. Kernels read and write exactly what their comment in kernels.def says, at any alignment, never call malloc,
 * libm or a thread, and give the same bits for every vector width. A "padded" matrix has a leading dimension (elements
 * between rows) that is a multiple of FNN_PAD_BYTES; whole padded rows are computed. */
#ifndef FNN_TABLE_H
#define FNN_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "fastnn.h"

#define FNN_PAD_BYTES 64
#define FNN_UPDATE_ROWS 128 /* the longest sum that dense_update_weights forms in one go */

/* Random bits are Philox4x32-10 of (seed; stream, step, layer, element): nothing else decides them. */
enum fnn_stream { FNN_STREAM_INIT = 1, FNN_STREAM_SHUFFLE = 2, FNN_STREAM_DROPOUT = 3, FNN_STREAM_MONTE_CARLO = 4 };

typedef struct fnn_random {
    uint64_t seed;
    uint64_t step;   /* < 2^56 */
    uint32_t stream; /* < 2^8 */
    uint32_t layer;  /* < 2^16 */
} fnn_random;

/* How the gather turns features into inputs of the first Dense layer: ((x * factor) - mean) / scale. */
typedef struct fnn_conversion {
    double factor;     /* 1 for none */
    const void *mean;  /* real, one per column, or NULL */
    const void *scale; /* real, one per column, or NULL */
} fnn_conversion;

/* One update of a stretch of parameters. With g' = clip(g + l1 sign(p) + 2 l2 p) + weight_decay p, and AdamW's
 * p <- p (1 - lr decoupled_decay) before it:
 *   SGD      b = first ? g' : momentum b + g';  p -= lr (nesterov ? g' + momentum b : b);  momentum 0: p -= lr g'
 *   RMSprop  v = beta2 v + (1-beta2) g'^2;  p -= lr g' / (sqrt v + eps)
 *   Adam     m = beta1 m + (1-beta1) g';  v = beta2 v + (1-beta2) g'^2;
 *            p -= (lr / correction1) m / (sqrt v / sqrt correction2 + eps)
 * then, with proximal = lambda > 0, p <- soft(p, s lambda): s = lr for SGD, lr / (1 - momentum) with momentum,
 * lr / denominator of this coordinate for RMSprop and Adam. clip(g) = min(max(g * clip_scale, clip_min), clip_max).
 * Penalty and weight_decay use p from before AdamW's decay. Zero padding stays zero: clip_min <= 0 <= clip_max, eps > 0
 * as a real. */
typedef struct fnn_update {
    double learning_rate;
    double l1, l2, proximal;
    double clip_scale, clip_min, clip_max; /* 1, -inf, +inf for none */
    double momentum;
    double beta1, beta2, eps;
    double correction1, correction2; /* 1 - beta1^t, 1 - beta2^t */
    double weight_decay, decoupled_decay;
    int nesterov;
    int first; /* first update: SGD's buffer starts as the gradient */
} fnn_update;

#define FNN_KERNEL(result, name, arguments) result(*name) arguments;
typedef struct fnn_kernels {
    const char *isa;
#include "kernels.def"
} fnn_kernels;
#undef FNN_KERNEL

extern const fnn_kernels fnn_kernels_baseline_f32, fnn_kernels_baseline_f64;
extern const fnn_kernels fnn_kernels_avx2_f32, fnn_kernels_avx2_f64;
extern const fnn_kernels fnn_kernels_avx512_f32, fnn_kernels_avx512_f64;
extern const fnn_kernels fnn_kernels_neon_f32, fnn_kernels_neon_f64;

#endif

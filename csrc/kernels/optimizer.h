/* One update of a stretch of parameters; the formulas stand at fnn_update in table.h. The gradient is read only:
 * penalty and clipping are applied on the fly, at the p from before any decay. Elements with p = g = 0 and moments 0
 * (the padding of rows) stay exactly 0, given clip_min <= 0 <= clip_max and an eps that is > 0 as a real. */

/* The numbers of an fnn_update that all optimizers use, rounded to real once. */
typedef struct update_terms {
    int plain; /* no penalty, clipping, decay or proximal step: the gradient is used as it is */
    int clips_values;
    real learning_rate, l1, twice_l2, proximal;
    real clip_scale, clip_min, clip_max;
    real weight_decay, decoupled_decay;
} update_terms;

static update_terms update_terms_of(const fnn_update *u)
{
    int clips_values = u->clip_min > -__builtin_inf() || u->clip_max < __builtin_inf();
    return (update_terms){
        .plain = u->l1 == 0 && u->l2 == 0 && u->proximal == 0 && u->clip_scale == 1 && !clips_values &&
                 u->weight_decay == 0 && u->decoupled_decay == 0,
        .clips_values = clips_values,
        .learning_rate = (real)u->learning_rate,
        .l1 = (real)u->l1,
        .twice_l2 = (real)(2 * u->l2),
        .proximal = (real)u->proximal,
        .clip_scale = (real)u->clip_scale,
        .clip_min = (real)u->clip_min,
        .clip_max = (real)u->clip_max,
        .weight_decay = (real)u->weight_decay,
        .decoupled_decay = (real)(u->learning_rate * u->decoupled_decay),
    };
}

/* clip(g + l1 sign(p) + 2 l2 p) + weight_decay p. The two costly terms hide behind branches that never change. */
FNN_INLINE vreal full_gradient(vreal g, vreal p, const update_terms *t)
{
    if (t->l1 > 0)
        g += vselect(p == 0, vsplat(0), vwith_sign(vsplat(t->l1), p));
    g = vfma(vsplat(t->twice_l2), p, g) * t->clip_scale;
    if (t->clips_values)
        g = vmin(vmax(g, vsplat(t->clip_min)), vsplat(t->clip_max));
    return vfma(vsplat(t->weight_decay), p, g);
}

/* sign(p) max(|p| - threshold, 0) */
FNN_INLINE vreal soft_threshold(vreal p, vreal threshold)
{
    return vselect(vabs(p) <= threshold, vsplat(0), p - vwith_sign(threshold, p));
}

FNN_INLINE vreal decay(vreal p, const update_terms *t)
{
    return vfma(vsplat(-t->decoupled_decay), p, p);
}

/* A moment that decays into the denormal numbers would stay there for ever (rounding holds it) and make every operation
 * on it several times slower; it becomes 0. */
FNN_INLINE vreal without_denormals(vreal moment)
{
    return (vreal)((vint)moment & ~(vabs(moment) < vsplat(SMALLEST_NORMAL)));
}

FNN_INLINE void sgd_loop(real *p, real *b, const real *g, const fnn_update *u, const update_terms *t, int plain,
                         size_t count)
{
    vreal momentum = vsplat((real)u->momentum);
    real threshold = (real)(u->learning_rate / (1 - u->momentum) * u->proximal);
    for (size_t i = 0; i < count; i += VW) {
        size_t n = count - i;
        vreal pi = vload_first(p + i, n), gi = vload_first(g + i, n), direction;
        if (!plain) {
            gi = full_gradient(gi, pi, t);
            pi = decay(pi, t);
        }
        if (u->momentum != 0) {
            vreal bi = u->first ? gi : without_denormals(vfma(momentum, vload_first(b + i, n), gi));
            vstore_first(b + i, bi, n);
            direction = u->nesterov ? vfma(momentum, bi, gi) : bi;
        } else {
            direction = gi;
        }
        pi = vfma(vsplat(-t->learning_rate), direction, pi);
        if (!plain && t->proximal > 0)
            pi = soft_threshold(pi, vsplat(threshold));
        vstore_first(p + i, pi, n);
    }
}

static void sgd_update(void *p, void *b, const void *g, const fnn_update *update, size_t count)
{
    update_terms t = update_terms_of(update);
    if (t.plain)
        sgd_loop(p, b, g, update, &t, 1, count);
    else
        sgd_loop(p, b, g, update, &t, 0, count);
}

FNN_INLINE void rmsprop_loop(real *p, real *v, const real *g, const fnn_update *u, const update_terms *t, int plain,
                             size_t count)
{
    vreal beta2 = vsplat((real)u->beta2), rest2 = vsplat((real)(1 - u->beta2)), eps = vsplat((real)u->eps);
    for (size_t i = 0; i < count; i += VW) {
        size_t n = count - i;
        vreal pi = vload_first(p + i, n), gi = vload_first(g + i, n);
        if (!plain) {
            gi = full_gradient(gi, pi, t);
            pi = decay(pi, t);
        }
        vreal vi = without_denormals(vfma(beta2, vload_first(v + i, n), rest2 * gi * gi));
        vreal rate = t->learning_rate / (vsqrt(vi) + eps);
        pi = vfma(-rate, gi, pi);
        if (!plain && t->proximal > 0)
            pi = soft_threshold(pi, rate * t->proximal);
        vstore_first(v + i, vi, n);
        vstore_first(p + i, pi, n);
    }
}

static void rmsprop_update(void *p, void *v, const void *g, const fnn_update *update, size_t count)
{
    update_terms t = update_terms_of(update);
    if (t.plain)
        rmsprop_loop(p, v, g, update, &t, 1, count);
    else
        rmsprop_loop(p, v, g, update, &t, 0, count);
}

FNN_INLINE void adam_loop(real *p, real *m, real *v, const real *g, const fnn_update *u, const update_terms *t,
                          int plain, size_t count)
{
    vreal beta1 = vsplat((real)u->beta1), rest1 = vsplat((real)(1 - u->beta1));
    vreal beta2 = vsplat((real)u->beta2), rest2 = vsplat((real)(1 - u->beta2)), eps = vsplat((real)u->eps);
    vreal step = vsplat((real)(u->learning_rate / u->correction1));
    vreal root_scale = vsplat((real)(1 / __builtin_sqrt(u->correction2)));
    for (size_t i = 0; i < count; i += VW) {
        size_t n = count - i;
        vreal pi = vload_first(p + i, n), gi = vload_first(g + i, n);
        if (!plain) {
            gi = full_gradient(gi, pi, t);
            pi = decay(pi, t);
        }
        vreal mi = without_denormals(vfma(beta1, vload_first(m + i, n), rest1 * gi));
        vreal vi = without_denormals(vfma(beta2, vload_first(v + i, n), rest2 * gi * gi));
        vreal denominator = vfma(vsqrt(vi), root_scale, eps);
        pi = vfma(-(step / denominator), mi, pi);
        if (!plain && t->proximal > 0)
            pi = soft_threshold(pi, t->learning_rate / denominator * t->proximal);
        vstore_first(m + i, mi, n);
        vstore_first(v + i, vi, n);
        vstore_first(p + i, pi, n);
    }
}

static void adam_update(void *p, void *m, void *v, const void *g, const fnn_update *update, size_t count)
{
    update_terms t = update_terms_of(update);
    if (t.plain)
        adam_loop(p, m, v, g, update, &t, 1, count);
    else
        adam_loop(p, m, v, g, update, &t, 0, count);
}

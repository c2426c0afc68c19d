/* One update of a stretch of parameters; the formulas stand at fnn_update in table.h. The gradient is read only:
 * penalty and clipping are applied on the fly, at the p from before any decay. Elements with p = g = 0 and moments 0
 * (the padding of rows) stay exactly 0, given clip_min <= 0 <= clip_max and an eps that is > 0 as a real. */

/* What an update asks for beyond the formula of its optimizer. A literal in the loops, so that the frequent cases have
 * no branch and fewer constants than registers. */
enum update_kind {
    UPDATE_PLAIN,  /* nothing: the gradient is used as it is */
    UPDATE_LINEAR, /* L2, a factor of the gradient, decay */
    UPDATE_FULL    /* L1, its proximal step or clipped values too */
};

/* The numbers of an fnn_update that all optimizers use, rounded to real once. */
typedef struct update_terms {
    enum update_kind kind;
    int clips_values;
    real learning_rate, l1, twice_l2, proximal;
    real clip_scale, clip_min, clip_max;
    real weight_decay, decoupled_decay;
    real momentum, beta1, rest1, beta2, rest2, eps; /* rest = 1 - beta */
    int nesterov, first;
} update_terms;

FNN_INLINE update_terms update_terms_of(const fnn_update *u)
{
    int clips_values = u->clip_min > -__builtin_inf() || u->clip_max < __builtin_inf();
    return (update_terms){
        .kind = u->l1 != 0 || u->proximal != 0 || clips_values                                        ? UPDATE_FULL
                : u->l2 != 0 || u->clip_scale != 1 || u->weight_decay != 0 || u->decoupled_decay != 0 ? UPDATE_LINEAR
                                                                                                      : UPDATE_PLAIN,
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
        .momentum = (real)u->momentum,
        .beta1 = (real)u->beta1,
        .rest1 = (real)(1 - u->beta1),
        .beta2 = (real)u->beta2,
        .rest2 = (real)(1 - u->beta2),
        .eps = (real)u->eps,
        .nesterov = u->nesterov,
        .first = u->first,
    };
}

/* clip(g + l1 sign(p) + 2 l2 p) + weight_decay p. The two costly terms hide behind branches that never change. */
FNN_INLINE vreal full_gradient(vreal g, vreal p, const update_terms *t, enum update_kind kind)
{
    if (kind == UPDATE_PLAIN)
        return g;
    if (kind == UPDATE_FULL && t->l1 > 0)
        g += vselect(p == 0, vsplat(0), vwith_sign(vsplat(t->l1), p));
    g = vfma(vsplat(t->twice_l2), p, g) * t->clip_scale;
    if (kind == UPDATE_FULL && t->clips_values)
        g = vmin(vmax(g, vsplat(t->clip_min)), vsplat(t->clip_max));
    return vfma(vsplat(t->weight_decay), p, g);
}

/* sign(p) max(|p| - threshold, 0) */
FNN_INLINE vreal soft_threshold(vreal p, vreal threshold)
{
    return vselect(vabs(p) <= threshold, vsplat(0), p - vwith_sign(threshold, p));
}

FNN_INLINE vreal decay(vreal p, const update_terms *t, enum update_kind kind)
{
    return kind == UPDATE_PLAIN ? p : vfma(vsplat(-t->decoupled_decay), p, p);
}

/* A moment that decays into the denormal numbers would stay there for ever (rounding holds it) and make every operation
 * on it several times slower; it becomes 0. */
FNN_INLINE vreal without_denormals(vreal moment)
{
    return (vreal)((vint)moment & ~(vabs(moment) < vsplat(SMALLEST_NORMAL)));
}

FNN_INLINE void sgd_vector(real *p, real *b, const real *g, const update_terms *t, real threshold,
                           enum update_kind kind, size_t n)
{
    vreal pi = vload_first(p, n), direction = full_gradient(vload_first(g, n), pi, t, kind);
    pi = decay(pi, t, kind);
    if (t->momentum != 0) {
        const vreal gi = direction, momentum = vsplat(t->momentum);
        const vreal bi = t->first ? gi : without_denormals(vfma(momentum, vload_first(b, n), gi));
        vstore_first(b, bi, n);
        direction = t->nesterov ? vfma(momentum, bi, gi) : bi;
    }
    pi = vfma(vsplat(-t->learning_rate), direction, pi);
    if (kind == UPDATE_FULL && t->proximal > 0)
        pi = soft_threshold(pi, vsplat(threshold));
    vstore_first(p, pi, n);
}

FNN_INLINE void sgd_loop(real *p, real *b, const real *g, const update_terms *t, real threshold, enum update_kind kind,
                         size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        sgd_vector(p + i, b + i, g + i, t, threshold, kind, VW);
    if (i < count)
        sgd_vector(p + i, b + i, g + i, t, threshold, kind, count - i);
}

static void sgd_update(void *p, void *b, const void *g, const fnn_update *update, size_t count)
{
    const update_terms t = update_terms_of(update);
    const real threshold = (real)(update->learning_rate / (1 - update->momentum) * update->proximal);
    if (!b)
        b = p; /* never touched: there is no momentum */
    switch (t.kind) {
    case UPDATE_PLAIN:
        sgd_loop(p, b, g, &t, threshold, UPDATE_PLAIN, count);
        break;
    case UPDATE_LINEAR:
        sgd_loop(p, b, g, &t, threshold, UPDATE_LINEAR, count);
        break;
    case UPDATE_FULL:
        sgd_loop(p, b, g, &t, threshold, UPDATE_FULL, count);
        break;
    }
}

FNN_INLINE void rmsprop_vector(real *p, real *v, const real *g, const update_terms *t, enum update_kind kind, size_t n)
{
    vreal pi = vload_first(p, n);
    const vreal gi = full_gradient(vload_first(g, n), pi, t, kind);
    pi = decay(pi, t, kind);
    const vreal vi = without_denormals(vfma(vsplat(t->beta2), vload_first(v, n), t->rest2 * gi * gi));
    const vreal rate = t->learning_rate / (vsqrt(vi) + t->eps);
    pi = vfma(-rate, gi, pi);
    if (kind == UPDATE_FULL && t->proximal > 0)
        pi = soft_threshold(pi, rate * t->proximal);
    vstore_first(v, vi, n);
    vstore_first(p, pi, n);
}

FNN_INLINE void rmsprop_loop(real *p, real *v, const real *g, const update_terms *t, enum update_kind kind,
                             size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        rmsprop_vector(p + i, v + i, g + i, t, kind, VW);
    if (i < count)
        rmsprop_vector(p + i, v + i, g + i, t, kind, count - i);
}

static void rmsprop_update(void *p, void *v, const void *g, const fnn_update *update, size_t count)
{
    const update_terms t = update_terms_of(update);
    switch (t.kind) {
    case UPDATE_PLAIN:
        rmsprop_loop(p, v, g, &t, UPDATE_PLAIN, count);
        break;
    case UPDATE_LINEAR:
        rmsprop_loop(p, v, g, &t, UPDATE_LINEAR, count);
        break;
    case UPDATE_FULL:
        rmsprop_loop(p, v, g, &t, UPDATE_FULL, count);
        break;
    }
}

/* One root and one division: with AVX2 they alone take the time of a vector (Zen 3). */
FNN_INLINE void adam_vector(real *p, real *m, real *v, const real *g, const update_terms *t, real step, real root_scale,
                            enum update_kind kind, size_t n)
{
    vreal pi = vload_first(p, n);
    const vreal gi = full_gradient(vload_first(g, n), pi, t, kind);
    pi = decay(pi, t, kind);
    const vreal mi = without_denormals(vfma(vsplat(t->beta1), vload_first(m, n), t->rest1 * gi));
    const vreal vi = without_denormals(vfma(vsplat(t->beta2), vload_first(v, n), t->rest2 * gi * gi));
    const vreal denominator = vfma(vsqrt(vi), vsplat(root_scale), vsplat(t->eps));
    pi = vfma(-(step / denominator), mi, pi);
    if (kind == UPDATE_FULL && t->proximal > 0)
        pi = soft_threshold(pi, t->learning_rate / denominator * t->proximal);
    vstore_first(m, mi, n);
    vstore_first(v, vi, n);
    vstore_first(p, pi, n);
}

FNN_INLINE void adam_loop(real *p, real *m, real *v, const real *g, const update_terms *t, real step, real root_scale,
                          enum update_kind kind, size_t count)
{
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        adam_vector(p + i, m + i, v + i, g + i, t, step, root_scale, kind, VW);
    if (i < count)
        adam_vector(p + i, m + i, v + i, g + i, t, step, root_scale, kind, count - i);
}

static void adam_update(void *p, void *m, void *v, const void *g, const fnn_update *update, size_t count)
{
    const update_terms t = update_terms_of(update);
    const real step = (real)(update->learning_rate / update->correction1);
    const real root_scale = (real)(1 / __builtin_sqrt(update->correction2));
    switch (t.kind) {
    case UPDATE_PLAIN:
        adam_loop(p, m, v, g, &t, step, root_scale, UPDATE_PLAIN, count);
        break;
    case UPDATE_LINEAR:
        adam_loop(p, m, v, g, &t, step, root_scale, UPDATE_LINEAR, count);
        break;
    case UPDATE_FULL:
        adam_loop(p, m, v, g, &t, step, root_scale, UPDATE_FULL, count);
        break;
    }
}

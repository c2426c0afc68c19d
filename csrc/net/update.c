/* From what forward and backward left to new parameters. Every thread owns chunks of the parameters: it forms their
 * gradients and, while they are in its cache, sums the norm of (gradient + penalty); when all have done so it clips and
 * updates them. The penalty's gradient is formed on the fly, so the stored gradients stay without it. An update that
 * needs no norm follows each stretch of gradient at once, and a plain step of SGD rides in the product that forms dW:
 * such gradients are stored nowhere. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "net.h"

/* ---- configuration ---- */

static bool is_share(double value)
{
    return value >= 0 && value < 1;
}

static bool valid_optimizer(const fnn_optimizer *o)
{
    bool divides = o->kind != FNN_SGD;
    return o->kind <= FNN_ADAM && is_share(o->momentum) && is_share(o->beta1) && is_share(o->beta2) &&
           (!divides || o->eps >= FNN_SMALLEST_EPS) && o->weight_decay >= 0 && o->decoupled_decay >= 0;
}

static bool valid_clip(const fnn_clip *clip)
{
    switch (clip->kind) {
    case FNN_CLIP_NONE:
        return true;
    case FNN_CLIP_VALUE:
        return clip->low <= 0 && clip->high >= 0;
    case FNN_CLIP_NORM:
    case FNN_CLIP_TENSOR_NORM:
        return clip->high > 0;
    }
    return false;
}

fnn_status fnn_net_scale_objective(fnn_net *net, double loss_scale, int penalty_per_weight)
{
    if (!(loss_scale > 0) || !isfinite(loss_scale))
        return FNN_EINVAL;
    net->loss_scale = loss_scale;
    net->penalty_per_weight = penalty_per_weight;
    return FNN_OK;
}

double fnn_penalty_factor(const fnn_net *net, double batch_weight)
{
    return net->penalty_per_weight ? 1 / batch_weight : 1;
}

static void clear_moments(fnn_net *net)
{
    for (int i = 0; i < 2; i++)
        if (net->moments[i])
            memset(net->moments[i], 0, net->trainable_size * net->real_size);
}

static fnn_penalty_terms terms_of(const fnn_penalty *penalty)
{
    switch (penalty->kind) {
    case FNN_L1:
    case FNN_PROXIMAL_L1:
        return (fnn_penalty_terms){.l1 = penalty->lam, .proximal = penalty->kind == FNN_PROXIMAL_L1};
    case FNN_L2:
        return (fnn_penalty_terms){.l2 = penalty->lam};
    case FNN_ELASTIC_NET:
        return (fnn_penalty_terms){.l1 = penalty->lam, .l2 = penalty->lam * penalty->beta};
    case FNN_PENALTY_DEFAULT:
        break;
    }
    return (fnn_penalty_terms){0};
}

void fnn_resolve_penalties(fnn_net *net, const fnn_penalty *penalty)
{
    const fnn_penalty none = {FNN_PENALTY_DEFAULT, 0, 0};
    for (size_t i = 0; i < net->n_layers; i++) {
        const fnn_layer *layer = &net->layers[i];
        const fnn_penalty *own = layer->penalty.kind != FNN_PENALTY_DEFAULT ? &layer->penalty : penalty;
        net->penalties[i] = terms_of(layer->kind == FNN_DENSE && own ? own : &none);
    }
}

fnn_status fnn_net_configure(fnn_net *net, const fnn_optimizer *optimizer, const fnn_clip *clip,
                             const fnn_penalty *penalty)
{
    if (!net || !optimizer || !valid_optimizer(optimizer) || (clip && !valid_clip(clip)) ||
        (penalty && !fnn_valid_penalty(penalty)))
        return FNN_EINVAL;
    if (optimizer->kind != net->optimizer.kind) {
        net->counters.updates = 0;
        clear_moments(net);
    }
    net->optimizer = *optimizer;
    net->clip = clip ? *clip : (fnn_clip){.kind = FNN_CLIP_NONE};
    fnn_resolve_penalties(net, penalty);
    return FNN_OK;
}

void fnn_net_reset(fnn_net *net)
{
    net->counters = (fnn_counters){0};
    net->statistics_pending = false;
    clear_moments(net);
}

fnn_counters fnn_net_counters(const fnn_net *net)
{
    return net->counters;
}

void fnn_net_set_counters(fnn_net *net, fnn_counters counters)
{
    net->counters = counters;
}

void *fnn_net_moments(fnn_net *net, int index)
{
    return index == 0 || index == 1 ? net->moments[index] : NULL;
}

double fnn_net_penalty(fnn_net *net)
{
    double sum = 0;
    for (size_t i = 0; i < net->n_tensors; i++) {
        const fnn_tensor *tensor = &net->tensors[i];
        const fnn_penalty_terms *penalty = &net->penalties[tensor->layer];
        bool is_weight = net->layers[tensor->layer].kind == FNN_DENSE && strstr(tensor->name, ".weight");
        if (is_weight && (penalty->l1 != 0 || penalty->l2 != 0))
            sum += net->kernels->penalty(fnn_parameter(net, tensor->offset), penalty->l1, penalty->l2,
                                         tensor->rows * tensor->stride);
    }
    return sum;
}

/* ---- memory ---- */

fnn_status fnn_allocate_moment(fnn_net *net, int index)
{
    if (!net->moments[index])
        net->moments[index] = fnn_allocate(net->trainable_size * net->real_size);
    return net->moments[index] ? FNN_OK : FNN_ENOMEM;
}

fnn_status fnn_net_copy_state(fnn_net *to, const fnn_net *from)
{
    if (to->frozen || from->frozen || to->dtype != from->dtype || to->trainable_size != from->trainable_size ||
        to->arena_size != from->arena_size)
        return FNN_EINVAL;
    size_t bytes = to->trainable_size * to->real_size;
    for (int i = 0; i < 2; i++)
        if (from->moments[i] && fnn_allocate_moment(to, i) != FNN_OK)
            return FNN_ENOMEM;
    memcpy(to->parameters, from->parameters, to->arena_size * to->real_size);
    clear_moments(to);
    for (int i = 0; i < 2; i++)
        if (from->moments[i])
            memcpy(to->moments[i], from->moments[i], bytes);
    to->counters = from->counters;
    to->link = from->link;
    to->statistics_pending = false;
    to->forward_rows = 0;
    return FNN_OK;
}

/* The node whose parameters begin at `offset` of the arena. */
static const fnn_node *node_at(const fnn_net *net, size_t offset)
{
    const fnn_node *node = net->nodes;
    while (node->weight != offset && node->bias != offset)
        node++;
    return node;
}

/* Elements of a chunk of a Dense layer's W. */
static size_t weight_chunk(size_t ld)
{
    enum { TILE_ROWS = 12 }; /* a multiple of the rows of most tiles */
    size_t tiles = UPDATE_CHUNK / (TILE_ROWS * ld);
    return (tiles ? tiles : 1) * TILE_ROWS * ld;
}

static fnn_stretch stretch_of(const fnn_net *net, const fnn_tensor *tensor)
{
    fnn_stretch s = {.role = FNN_VECTOR,
                     .node = node_at(net, tensor->offset),
                     .offset = tensor->offset,
                     .count = tensor->rows * tensor->stride,
                     .chunk = UPDATE_CHUNK};
    if (s.node->type == &fnn_dense)
        s.role = s.node->weight == s.offset ? FNN_WEIGHT : FNN_BIAS;
    if (s.role == FNN_WEIGHT)
        s.chunk = weight_chunk(tensor->stride);
    s.n_chunks = (s.count + s.chunk - 1) / s.chunk;
    return s;
}

static fnn_status build_stretches(fnn_net *net)
{
    if (net->stretches)
        return FNN_OK;
    size_t n = 0, n_chunks = 0;
    fnn_stretch *stretches = fnn_allocate(net->n_tensors * sizeof *stretches);
    for (size_t i = 0; stretches && i < net->n_tensors; i++)
        if (net->tensors[i].trainable) {
            stretches[n] = stretch_of(net, &net->tensors[i]);
            stretches[n].first_chunk = n_chunks;
            n_chunks += stretches[n++].n_chunks;
        }
    double *partials = fnn_allocate(n_chunks * sizeof *partials);
    if (!stretches || !partials) {
        fnn_release(stretches);
        fnn_release(partials);
        return FNN_ENOMEM;
    }
    net->stretches = stretches;
    net->norm_partials = partials;
    net->n_stretches = n;
    net->n_chunks = n_chunks;
    return FNN_OK;
}

fnn_status fnn_prepare_update(fnn_net *net)
{
    fnn_status status = build_stretches(net);
    bool momentum = net->optimizer.kind == FNN_ADAM || (net->optimizer.kind == FNN_SGD && net->optimizer.momentum > 0);
    if (status == FNN_OK && momentum)
        status = fnn_allocate_moment(net, 0);
    if (status == FNN_OK && net->optimizer.kind != FNN_SGD)
        status = fnn_allocate_moment(net, 1);
    return status;
}

/* ---- whose parameters ---- */

/* The chunk that element `place` of the trainable arena lies in. */
static size_t chunk_of(const fnn_net *net, size_t place)
{
    size_t i = 0;
    while (i < net->n_stretches && place >= net->stretches[i].offset + net->stretches[i].count)
        i++;
    if (i == net->n_stretches)
        return net->n_chunks;
    return net->stretches[i].first_chunk + (place - net->stretches[i].offset) / net->stretches[i].chunk;
}

typedef struct owned {
    size_t begin, end; /* chunks */
} owned;

/* About as many elements for each thread. */
static owned own_chunks(const fnn_net *net, int thread, int n_threads)
{
    size_t total = net->trainable_size, n = (size_t)n_threads, t = (size_t)thread;
    return (owned){chunk_of(net, total / n * t + total % n * t / n),
                   chunk_of(net, total / n * (t + 1) + total % n * (t + 1) / n)};
}

/* The part of stretch s that lies in the owned chunks, as elements [begin, end) of the stretch; false if none. */
static bool overlap(const fnn_stretch *s, owned own, size_t *begin, size_t *end)
{
    size_t first = own.begin > s->first_chunk ? own.begin - s->first_chunk : 0;
    size_t last = own.end > s->first_chunk ? own.end - s->first_chunk : 0;
    *begin = first * s->chunk;
    *end = last * s->chunk < s->count ? last * s->chunk : s->count;
    return *begin < *end;
}

/* ---- gradients and their norm ---- */

static void *gradient_at(const fnn_net *net, size_t place)
{
    return fnn_at(net, net->gradients, place);
}

static fnn_penalty_terms penalty_of(const fnn_net *net, const fnn_stretch *s, double factor)
{
    if (s->role != FNN_WEIGHT)
        return (fnn_penalty_terms){0};
    fnn_penalty_terms penalty = net->penalties[s->node->layer_index];
    penalty.l1 *= factor;
    penalty.l2 *= factor;
    return penalty;
}

static void partial_norms(fnn_net *net, const fnn_stretch *s, double penalty_factor, size_t begin, size_t end)
{
    fnn_penalty_terms penalty = penalty_of(net, s, penalty_factor);
    double l1 = penalty.proximal ? 0 : penalty.l1;
    bool looks_for_clipped = net->measures.norm_sums && net->clip.kind == FNN_CLIP_VALUE;
    for (; begin < end; begin += s->chunk) {
        size_t count = end - begin < s->chunk ? end - begin : s->chunk;
        const void *g = gradient_at(net, s->offset + begin), *p = fnn_parameter(net, s->offset + begin);
        net->norm_partials[s->first_chunk + begin / s->chunk] = net->kernels->square_norm(g, p, l1, penalty.l2, count);
        if (looks_for_clipped && net->kernels->any_outside(g, p, l1, penalty.l2, net->clip.low, net->clip.high, count))
            atomic_store_explicit(&net->values_clipped, true, memory_order_relaxed);
    }
}

/* The gradient of elements [begin, end) of a stretch that is not a VECTOR, whole chunks. */
static void form_gradient(const fnn_pass *pass, void *gradient, const fnn_stretch *s, size_t begin, size_t end)
{
    const fnn_node *node = s->node;
    if (fnn_chunk_rows(node, pass->rows) < pass->rows) {
        size_t place = s->offset - node->weight;
        fnn_dense_add_partials(pass, gradient, node, place + begin, place + end);
    } else if (s->role == FNN_WEIGHT) {
        fnn_dense_weight_gradient(pass, gradient, node, begin / node->ld_outputs, end / node->ld_outputs);
    } else {
        fnn_dense_bias_gradient(pass, gradient, node, begin, end);
    }
}

/* Elements of a run of whole chunks whose gradient, once formed, is still in the second-level cache. */
static size_t run_length(size_t chunk)
{
    enum { HOT_ELEMENTS = 32768 };
    return (HOT_ELEMENTS + chunk - 1) / chunk * chunk;
}

static size_t run_end(const fnn_stretch *s, size_t begin, size_t end)
{
    size_t run = run_length(s->chunk);
    return end - begin < run ? end : begin + run;
}

static void form_owned(const fnn_pass *pass, owned own, bool norms)
{
    fnn_net *net = pass->net;
    size_t begin, end;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        if (!overlap(s, own, &begin, &end))
            continue;
        for (size_t stop; begin < end; begin = stop) {
            stop = run_end(s, begin, end);
            if (s->role != FNN_VECTOR)
                form_gradient(pass, gradient_at(net, s->offset + begin), s, begin, stop);
            if (norms)
                partial_norms(net, s, pass->penalty_factor, begin, stop);
        }
    }
}

void fnn_form_gradients(const fnn_pass *pass)
{
    form_owned(pass, own_chunks(pass->net, pass->thread, pass->n_threads), false);
}

static double norm_scale(double squared_norm, double most)
{
    double norm = sqrt(squared_norm);
    return norm > most ? most / norm : 1;
}

double fnn_stretch_norm(const fnn_net *net, const fnn_stretch *s)
{
    double sum = 0;
    for (size_t c = 0; c < s->n_chunks; c++)
        sum += net->norm_partials[s->first_chunk + c];
    return sum;
}

/* Added in the chunks' order. Every thread computes it: the same bits, and no barrier. */
static double total_norm(const fnn_net *net)
{
    double total = 0;
    for (size_t i = 0; i < net->n_stretches; i++)
        total += fnn_stretch_norm(net, &net->stretches[i]);
    return total;
}

/* x^n by squaring: beta^t without libm, the same everywhere. */
static double power(double x, uint64_t n)
{
    double result = 1;
    for (; n; n >>= 1, x *= x)
        if (n & 1)
            result *= x;
    return result;
}

static fnn_update base_update(const fnn_net *net, double learning_rate, uint64_t updates)
{
    const fnn_optimizer *o = &net->optimizer;
    uint64_t t = updates + 1;
    fnn_update update = {.learning_rate = learning_rate,
                         .clip_scale = 1,
                         .clip_min = -INFINITY,
                         .clip_max = INFINITY,
                         .momentum = o->momentum,
                         .beta1 = o->beta1,
                         .beta2 = o->beta2,
                         .eps = o->eps,
                         .correction1 = 1 - power(o->beta1, t),
                         .correction2 = 1 - power(o->beta2, t),
                         .weight_decay = o->weight_decay,
                         .decoupled_decay = o->decoupled_decay,
                         .nesterov = o->nesterov,
                         .first = t == 1};
    if (net->clip.kind == FNN_CLIP_VALUE) {
        update.clip_min = net->clip.low;
        update.clip_max = net->clip.high;
    }
    return update;
}

static void update_stretch(fnn_net *net, const fnn_update *update, const void *g, size_t offset, size_t count)
{
    void *p = fnn_parameter(net, offset);
    void *moment0 = net->moments[0] ? fnn_at(net, net->moments[0], offset) : NULL;
    void *moment1 = net->moments[1] ? fnn_at(net, net->moments[1], offset) : NULL;
    switch (net->optimizer.kind) {
    case FNN_SGD:
        net->kernels->sgd_update(p, net->optimizer.momentum > 0 ? moment0 : NULL, g, update, count);
        break;
    case FNN_RMSPROP:
        net->kernels->rmsprop_update(p, moment1, g, update, count);
        break;
    case FNN_ADAM:
        net->kernels->adam_update(p, moment0, moment1, g, update, count);
        break;
    }
}

static void update_owned(fnn_net *net, fnn_update update, double penalty_factor, double squared_norm, owned own)
{
    if (net->clip.kind == FNN_CLIP_NORM)
        update.clip_scale = norm_scale(squared_norm, net->clip.high);
    size_t begin, end;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        if (!overlap(s, own, &begin, &end))
            continue;
        fnn_penalty_terms penalty = penalty_of(net, s, penalty_factor);
        update.l1 = penalty.proximal ? 0 : penalty.l1;
        update.l2 = penalty.l2;
        update.proximal = penalty.proximal ? penalty.l1 : 0;
        if (net->clip.kind == FNN_CLIP_TENSOR_NORM)
            update.clip_scale = norm_scale(fnn_stretch_norm(net, s), net->clip.high);
        update_stretch(net, &update, gradient_at(net, s->offset + begin), s->offset + begin, end - begin);
    }
}

static void commit_statistics(fnn_net *net)
{
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type != &fnn_batchnorm || !node->layer.trainable)
            continue;
        size_t bytes = node->outputs * net->real_size;
        memcpy(fnn_parameter(net, node->mean), fnn_training(net, node->pending_mean), bytes);
        memcpy(fnn_parameter(net, node->variance), fnn_training(net, node->pending_variance), bytes);
    }
}

/* ---- measures ---- */

fnn_status fnn_net_measure(fnn_net *net, int on)
{
    fnn_release(net->measures.norm_sums);
    net->measures = (fnn_measures){0};
    if (!on)
        return FNN_OK;
    net->measures.norm_sums = fnn_allocate(net->n_tensors * sizeof *net->measures.norm_sums);
    return net->measures.norm_sums ? FNN_OK : FNN_ENOMEM;
}

fnn_status fnn_net_take_measures(fnn_net *net, fnn_measures *measures, double *norm_sums)
{
    double *sums = net->measures.norm_sums;
    if (!sums)
        return FNN_EINVAL;
    *measures = net->measures;
    measures->norm_sums = norm_sums;
    size_t n = 0;
    for (size_t i = 0; i < net->n_tensors; i++)
        if (net->tensors[i].trainable)
            norm_sums[n] = sums[n], n++;
    memset(sums, 0, n * sizeof *sums);
    net->measures = (fnn_measures){.norm_sums = sums};
    return FNN_OK;
}

static bool is_clipped(const fnn_net *net, double squared_norm)
{
    bool clipped = false;
    switch (net->clip.kind) {
    case FNN_CLIP_NONE:
        return false;
    case FNN_CLIP_VALUE:
        return atomic_load_explicit(&net->values_clipped, memory_order_relaxed);
    case FNN_CLIP_NORM:
        return norm_scale(squared_norm, net->clip.high) < 1;
    case FNN_CLIP_TENSOR_NORM:
        for (size_t i = 0; i < net->n_stretches; i++)
            clipped |= norm_scale(fnn_stretch_norm(net, &net->stretches[i]), net->clip.high) < 1;
        return clipped;
    }
    return false;
}

static void measure_step(fnn_net *net, double squared_norm)
{
    net->measures.steps++;
    net->measures.clipped += is_clipped(net, squared_norm);
    for (size_t i = 0; i < net->n_stretches; i++)
        net->measures.norm_sums[i] += sqrt(fnn_stretch_norm(net, &net->stretches[i]));
}

/* Behind a barrier that follows the partial norms of all owners. */
static bool update_shared(fnn_net *net, double learning_rate, double penalty_factor, uint64_t updates, double loss,
                          double squared_norm, owned own, int thread)
{
    bool overflow = net->statistics_pending && atomic_load(&net->statistics_overflow);
    if (!isfinite(loss) || !isfinite(squared_norm) || overflow)
        return false;
    update_owned(net, base_update(net, learning_rate, updates), penalty_factor, squared_norm, own);
    if (thread == 0 && net->statistics_pending)
        commit_statistics(net);
    if (thread == 0 && net->measures.norm_sums)
        measure_step(net, squared_norm);
    return true;
}

bool fnn_form_and_update(const fnn_pass *pass, double learning_rate, uint64_t updates, double loss)
{
    owned own = own_chunks(pass->net, pass->thread, pass->n_threads);
    form_owned(pass, own, true);
    fnn_barrier(pass->n_threads);
    return update_shared(pass->net, learning_rate, pass->penalty_factor, updates, loss, total_norm(pass->net), own,
                         pass->thread);
}

/* ---- the update that follows its gradient at once ---- */

/* Reading the activations and their gradients once more, for the bound, must cost less than it saves. */
static bool bound_is_cheap(const fnn_net *net, size_t rows)
{
    size_t per_row = 0;
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_dense)
            per_row += net->nodes[i].ld_inputs + net->nodes[i].ld_outputs;
    return rows < 2 * net->trainable_size / (per_row + 1);
}

bool fnn_update_is_fused(const fnn_net *net, const fnn_micro_batch *batch)
{
    bool needs_norm = net->clip.kind == FNN_CLIP_NORM || net->clip.kind == FNN_CLIP_TENSOR_NORM;
    if (needs_norm || net->measures.norm_sums || net->gradients_wanted || !batch->last || batch->first_row > 0 ||
        !bound_is_cheap(net, batch->rows))
        return false;
    for (size_t i = 0; i < net->n_stretches; i++) {
        fnn_penalty_terms penalty = penalty_of(net, &net->stretches[i], 1);
        if (penalty.l1 != 0 || penalty.l2 != 0 || fnn_chunk_rows(net->stretches[i].node, batch->rows) < batch->rows)
            return false;
    }
    return true;
}

/* With |X|^2 and |dY|^2 of each thread's rows at most max / threads^2 / rows, those of all rows are at most
 * max / threads / rows, and no element of dW = X^T dY, at most |X| |dY|, or of db, at most sqrt(rows) |dY|, exceeds
 * max. Gradients that are there already must be finite. The sum of all squares, which the other way asks for, is then
 * finite, too: in float64 the root of the largest number is the bound, shared among the tensors. */
bool fnn_bounds_gradients(const fnn_pass *pass)
{
    const fnn_net *net = pass->net;
    double n = pass->n_threads;
    double largest = net->dtype == FNN_FLOAT32 ? FLT_MAX : sqrt(DBL_MAX) / (double)(net->n_stretches + 1);
    double bound = largest / (n * n) / (double)pass->rows;
    size_t begin = pass->row_begin, rows = pass->row_end - begin;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        const fnn_node *node = s->node;
        if (s->role == FNN_VECTOR) {
            if (!(net->kernels->square_norm(gradient_at(net, s->offset), NULL, 0, 0, s->count) <= largest))
                return false;
        } else if (s->role == FNN_WEIGHT) {
            const void *x = fnn_at(net, fnn_training(net, node->x), begin * node->ld_inputs);
            const void *dy = fnn_at(net, fnn_training(net, node->dy), begin * node->ld_outputs);
            if (!(net->kernels->square_norm(x, NULL, 0, 0, rows * node->ld_inputs) <= bound &&
                  net->kernels->square_norm(dy, NULL, 0, 0, rows * node->ld_outputs) <= bound))
                return false;
        }
    }
    return true;
}

static bool is_plain_descent(const fnn_optimizer *o)
{
    return o->kind == FNN_SGD && o->momentum == 0 && o->weight_decay == 0 && o->decoupled_decay == 0;
}

size_t fnn_scratch_size(const fnn_net *net)
{
    size_t most = UPDATE_CHUNK, bytes;
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_dense) {
            size_t run = run_length(weight_chunk(net->nodes[i].ld_outputs)), all;
            size_t rows = net->nodes[i].inputs + 1;
            if (fnn_size_multiply(&all, rows, net->nodes[i].ld_outputs) && all < run)
                run = all;
            most = run > most ? run : most;
        }
    return fnn_size_round_up(&bytes, most * net->real_size, FNN_PAD_BYTES) ? bytes : SIZE_MAX;
}

/* A leading dimension that was moved off a power of two has columns that no product writes. */
static bool has_spare_columns(const fnn_net *net, const fnn_stretch *s)
{
    size_t pad = FNN_PAD_BYTES / net->real_size;
    return s->role == FNN_WEIGHT && s->node->ld_outputs - s->node->outputs >= pad;
}

void fnn_fused_update(const fnn_pass *pass, double learning_rate, uint64_t updates)
{
    fnn_net *net = pass->net;
    owned own = own_chunks(net, pass->thread, pass->n_threads);
    fnn_update update = base_update(net, learning_rate, updates);
    bool inside_product =
        is_plain_descent(&net->optimizer) && net->clip.kind == FNN_CLIP_NONE && pass->rows <= FNN_UPDATE_ROWS;
    void *scratch = fnn_training(net, net->scratch_place + (size_t)pass->thread * net->scratch_bytes);
    size_t begin, end;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        if (!overlap(s, own, &begin, &end))
            continue;
        if (s->role == FNN_WEIGHT && inside_product) {
            fnn_dense_descend(pass, s->node, learning_rate, begin / s->node->ld_outputs, end / s->node->ld_outputs);
            continue;
        }
        if (s->role == FNN_VECTOR) {
            update_stretch(net, &update, gradient_at(net, s->offset + begin), s->offset + begin, end - begin);
            continue;
        }
        for (size_t stop; begin < end; begin = stop) {
            stop = run_end(s, begin, end);
            if (has_spare_columns(net, s))
                memset(scratch, 0, (stop - begin) * net->real_size);
            form_gradient(pass, scratch, s, begin, stop);
            update_stretch(net, &update, scratch, s->offset + begin, stop - begin);
        }
    }
    if (pass->thread == 0 && net->statistics_pending)
        commit_statistics(net);
}

/* ---- own loops ---- */

double fnn_update_work(const fnn_net *net)
{
    const double per_parameter = 20; /* multiply-adds that take as long as norm and update of one: about 0.4 ns */
    return per_parameter * (double)net->trainable_size;
}

typedef struct apply_job {
    fnn_net *net;
    double learning_rate, penalty_factor;
    uint64_t updates; /* before this one */
    double squared_norm;
    bool diverged;
} apply_job;

static void apply(void *argument, int thread, int n_threads)
{
    apply_job *job = argument;
    fnn_net *net = job->net;
    owned own = own_chunks(net, thread, n_threads);
    size_t begin, end;
    for (size_t i = 0; i < net->n_stretches; i++)
        if (overlap(&net->stretches[i], own, &begin, &end))
            partial_norms(net, &net->stretches[i], job->penalty_factor, begin, end);
    fnn_barrier(n_threads);
    double squared_norm = total_norm(net);
    bool done = update_shared(net, job->learning_rate, job->penalty_factor, job->updates, 0, squared_norm, own, thread);
    if (thread == 0) {
        job->squared_norm = squared_norm;
        job->diverged = !done;
        net->counters.updates += done; /* before a fork may see the new parameters */
    }
}

fnn_status fnn_apply_gradients(fnn_net *net, double learning_rate, double batch_weight, double *squared_norm,
                               int n_threads)
{
    if (net->frozen)
        return FNN_EINVAL;
    fnn_status status = fnn_prepare_gradients(net);
    if (status == FNN_OK)
        status = fnn_prepare_update(net);
    if (status != FNN_OK)
        return status;
    apply_job job = {.net = net,
                     .learning_rate = learning_rate,
                     .penalty_factor = fnn_penalty_factor(net, batch_weight),
                     .updates = net->counters.updates};
    atomic_store(&net->values_clipped, false);
    fnn_pool_run_step(apply, &job, fnn_thread_count(n_threads, fnn_update_work(net), SIZE_MAX / 2));
    net->statistics_pending = false;
    *squared_norm = job.squared_norm;
    return job.diverged ? FNN_EDIVERGED : FNN_OK;
}

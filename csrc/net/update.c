/* From gradients to new parameters in two passes: the norm of (gradient + penalty), then clip and update. The penalty's
 * gradient is formed on the fly in both, so the stored gradients stay without it. */
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

static void clear_moments(fnn_net *net)
{
    for (int i = 0; i < 2; i++)
        if (net->moments[i])
            memset(net->moments[i], 0, net->trainable_size * net->real_size);
}

fnn_status fnn_net_configure(fnn_net *net, const fnn_optimizer *optimizer, const fnn_clip *clip,
                             const fnn_penalty *penalties)
{
    if (!net || !optimizer || !clip || !penalties || !valid_optimizer(optimizer) || !valid_clip(clip))
        return FNN_EINVAL;
    if (optimizer->kind != net->optimizer.kind) {
        net->counters.updates = 0;
        clear_moments(net);
    }
    net->optimizer = *optimizer;
    net->clip = *clip;
    memcpy(net->penalties, penalties, net->n_layers * sizeof *penalties);
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
        const fnn_penalty *penalty = &net->penalties[tensor->layer];
        bool is_weight = net->layers[tensor->layer].kind == FNN_DENSE && strstr(tensor->name, ".weight");
        if (is_weight && (penalty->l1 != 0 || penalty->l2 != 0))
            sum += net->kernels->penalty(fnn_parameter(net, tensor->offset), penalty->l1, penalty->l2,
                                         tensor->rows * tensor->stride);
    }
    return sum;
}

/* ---- memory ---- */

static fnn_status allocate_moment(fnn_net *net, int index)
{
    if (!net->moments[index])
        net->moments[index] = fnn_allocate(net->trainable_size * net->real_size);
    return net->moments[index] ? FNN_OK : FNN_ENOMEM;
}

static fnn_status build_stretches(fnn_net *net)
{
    if (net->stretches)
        return FNN_OK;
    size_t n = 0, n_chunks = 0;
    fnn_stretch *stretches = fnn_allocate(net->n_tensors * sizeof *stretches);
    if (stretches)
        for (size_t i = 0; i < net->n_tensors; i++) {
            const fnn_tensor *tensor = &net->tensors[i];
            if (!tensor->trainable)
                continue;
            size_t count = tensor->rows * tensor->stride, chunks = (count + UPDATE_CHUNK - 1) / UPDATE_CHUNK;
            stretches[n++] = (fnn_stretch){.offset = tensor->offset,
                                           .count = count,
                                           .layer = tensor->layer,
                                           .is_weight = strstr(tensor->name, ".weight") != NULL,
                                           .first_chunk = n_chunks,
                                           .n_chunks = chunks};
            n_chunks += chunks;
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
        status = allocate_moment(net, 0);
    if (status == FNN_OK && net->optimizer.kind != FNN_SGD)
        status = allocate_moment(net, 1);
    return status;
}

/* ---- the passes ---- */

/* The part of stretch s that lies in chunks [begin, end); false if none. */
static bool overlap(const fnn_stretch *s, size_t begin, size_t end, size_t *first, size_t *last)
{
    *first = begin > s->first_chunk ? begin - s->first_chunk : 0;
    *last = end < s->first_chunk + s->n_chunks ? end : s->first_chunk + s->n_chunks;
    if (*last <= s->first_chunk + *first)
        return false;
    *last -= s->first_chunk;
    return true;
}

static fnn_penalty penalty_of(const fnn_net *net, const fnn_stretch *s)
{
    return s->is_weight ? net->penalties[s->layer] : (fnn_penalty){0};
}

static void partial_norms(fnn_net *net, size_t begin, size_t end)
{
    size_t first, last;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        if (!overlap(s, begin, end, &first, &last))
            continue;
        fnn_penalty penalty = penalty_of(net, s);
        double l1 = penalty.proximal ? 0 : penalty.l1;
        for (size_t c = first; c < last; c++) {
            size_t offset = s->offset + c * UPDATE_CHUNK, rest = s->count - c * UPDATE_CHUNK;
            net->norm_partials[s->first_chunk + c] =
                net->kernels->square_norm(fnn_at(net, net->gradients, offset), fnn_parameter(net, offset), l1,
                                          penalty.l2, rest < UPDATE_CHUNK ? rest : UPDATE_CHUNK);
        }
    }
}

static double norm_scale(double squared_norm, double most)
{
    double norm = sqrt(squared_norm);
    return norm > most ? most / norm : 1;
}

static double stretch_norm(const fnn_net *net, const fnn_stretch *s)
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
        total += stretch_norm(net, &net->stretches[i]);
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

static fnn_update base_update(const fnn_net *net, double learning_rate)
{
    const fnn_optimizer *o = &net->optimizer;
    uint64_t t = net->counters.updates + 1;
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

static void update_stretch(fnn_net *net, const fnn_update *update, size_t offset, size_t count)
{
    void *p = fnn_parameter(net, offset), *g = fnn_at(net, net->gradients, offset);
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

static void update_chunks(fnn_net *net, double learning_rate, double squared_norm, size_t begin, size_t end)
{
    fnn_update update = base_update(net, learning_rate);
    if (net->clip.kind == FNN_CLIP_NORM)
        update.clip_scale = norm_scale(squared_norm, net->clip.high);
    size_t first, last;
    for (size_t i = 0; i < net->n_stretches; i++) {
        const fnn_stretch *s = &net->stretches[i];
        if (!overlap(s, begin, end, &first, &last))
            continue;
        fnn_penalty penalty = penalty_of(net, s);
        update.l1 = penalty.proximal ? 0 : penalty.l1;
        update.l2 = penalty.l2;
        update.proximal = penalty.proximal ? penalty.l1 : 0;
        if (net->clip.kind == FNN_CLIP_TENSOR_NORM)
            update.clip_scale = norm_scale(stretch_norm(net, s), net->clip.high);
        size_t from = first * UPDATE_CHUNK, to = last * UPDATE_CHUNK;
        update_stretch(net, &update, s->offset + from, (to < s->count ? to : s->count) - from);
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

fnn_update_result fnn_update_shared(fnn_net *net, double learning_rate, double loss, int thread, int n_threads)
{
    size_t begin, end;
    fnn_share(&begin, &end, net->n_chunks, 1, thread, n_threads);
    partial_norms(net, begin, end);
    fnn_barrier(n_threads);
    fnn_update_result result = {.squared_norm = total_norm(net)};
    bool overflow = net->statistics_pending && atomic_load(&net->statistics_overflow);
    result.diverged = !isfinite(loss) || !isfinite(result.squared_norm) || overflow;
    if (result.diverged)
        return result;
    update_chunks(net, learning_rate, result.squared_norm, begin, end);
    if (thread == 0 && net->statistics_pending)
        commit_statistics(net);
    return result;
}

/* ---- own loops ---- */

double fnn_update_work(const fnn_net *net)
{
    const double per_parameter = 20; /* multiply-adds that take as long as norm and update of one: about 0.4 ns */
    return per_parameter * (double)net->trainable_size;
}

typedef struct apply_job {
    fnn_net *net;
    double learning_rate;
    fnn_update_result result;
} apply_job;

static void apply(void *argument, int thread, int n_threads)
{
    apply_job *job = argument;
    fnn_update_result result = fnn_update_shared(job->net, job->learning_rate, 0, thread, n_threads);
    if (thread == 0)
        job->result = result;
}

fnn_status fnn_apply_gradients(fnn_net *net, double learning_rate, double *squared_norm, int n_threads)
{
    if (net->frozen)
        return FNN_EINVAL;
    fnn_status status = fnn_net_gradients(net) ? fnn_prepare_update(net) : FNN_ENOMEM;
    if (status != FNN_OK)
        return status;
    apply_job job = {.net = net, .learning_rate = learning_rate};
    fnn_pool_run_step(apply, &job, fnn_thread_count(n_threads, fnn_update_work(net), SIZE_MAX / 2));
    net->statistics_pending = false;
    *squared_norm = job.result.squared_norm;
    if (job.result.diverged)
        return FNN_EDIVERGED;
    net->counters.updates++;
    return FNN_OK;
}

/* ---- what failed ---- */

size_t fnn_failed_layer(const fnn_net *net, size_t rows, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        const fnn_node *node = &net->nodes[i];
        if (net->kernels->first_nonfinite(fnn_training(net, node->y), rows * node->ld_outputs) >= 0 ||
            (node->type == &fnn_batchnorm && node->layer.trainable &&
             net->kernels->first_nonfinite(fnn_training(net, node->pending_variance), node->outputs) >= 0))
            return node->layer_index;
    }
    for (size_t i = net->n_stretches; i-- > 0;)
        if (!isfinite(stretch_norm(net, &net->stretches[i])))
            return net->stretches[i].layer;
    return SIZE_MAX;
}

size_t fnn_net_failed_layer(const fnn_net *net)
{
    return net->forward_rows > 0 ? fnn_failed_layer(net, net->forward_rows, net->n_nodes) : SIZE_MAX;
}

/* Evaluation mode: blocks of rows run through all layers while they are hot; threads share the rows. */
#include <math.h>
#include <string.h>

#include "net.h"

/* ---- workspaces: a small free list without a lock, so that a fork can never find it held ---- */

enum { BUFFERS = 3 };

static fnn_workspace *take_workspace(fnn_net *net, size_t bytes)
{
    fnn_workspace *workspace = NULL;
    for (int i = 0; i < WORKSPACE_SLOTS && !workspace; i++)
        workspace = atomic_exchange(&net->workspaces[i], NULL);
    if (workspace && workspace->bytes >= bytes)
        return workspace;
    fnn_release(workspace);
    size_t header = FNN_PAD_BYTES;
    if (!fnn_size_add(&header, header, bytes))
        return NULL;
    workspace = fnn_allocate(header);
    if (workspace)
        *workspace = (fnn_workspace){.bytes = bytes, .memory = (char *)workspace + FNN_PAD_BYTES};
    return workspace;
}

static void give_workspace(fnn_net *net, fnn_workspace *workspace)
{
    for (int i = 0; i < WORKSPACE_SLOTS; i++) {
        fnn_workspace *expected = NULL;
        if (atomic_compare_exchange_strong(&net->workspaces[i], &expected, workspace))
            return;
    }
    fnn_release(workspace);
}

/* ---- a block of rows ---- */

/* Runs nodes [begin, end) on a block. x has its rows; y and spare are buffers of block rows for what comes after, spare
 * being x where that may be overwritten. Returns where the result is. */
static void *run_block(const fnn_block *block, size_t begin, size_t end, void *x, void *y, void *spare)
{
    const fnn_node *nodes = block->net->nodes;
    for (size_t i = begin; i < end; i++) {
        bool fused = nodes[i].fuses_next && i + 1 < end;
        x = nodes[i].type->predict(block, &nodes[i], y, x, fused);
        if (x == y) {
            y = spare;
            spare = x;
        }
        i += fused;
    }
    return x;
}

typedef struct predict_job {
    fnn_net *net;
    const fnn_features *x;
    char *out;         /* predictions, means or expectations */
    char *deviation;   /* Monte Carlo */
    size_t begin, end; /* nodes: those before `begin` (the first Dropout) are free of randomness */
    size_t width, ld;  /* of the outputs */
    size_t samples;
    uint64_t seed, first_row;      /* Monte Carlo */
    uint64_t first_mask, end_mask; /* exact expectation */
    bool must_be_finite;   /* rows are looked at before they are used; they are contiguous and of the net's dtype */
    atomic_bool nonfinite; /* one was not */
    char *memory;
    size_t bytes_per_thread;
} predict_job;

typedef struct buffers {
    void *rows[BUFFERS];
    double *mean, *spread; /* accumulators of a block */
} buffers;

static buffers thread_buffers(const predict_job *job, int thread)
{
    const fnn_net *net = job->net;
    char *memory = job->memory + (size_t)thread * job->bytes_per_thread;
    size_t bytes = PREDICT_ROWS * net->ld_max * net->real_size;
    buffers b;
    for (int i = 0; i < BUFFERS; i++)
        b.rows[i] = memory + (size_t)i * bytes;
    b.mean = (double *)(memory + BUFFERS * bytes);
    b.spread = b.mean + PREDICT_ROWS * net->ld_max;
    return b;
}

static size_t block_rows(size_t begin, size_t end)
{
    return end - begin < PREDICT_ROWS ? end - begin : PREDICT_ROWS;
}

static bool real_rows(const fnn_net *net, const fnn_features *x)
{
    ptrdiff_t item = (ptrdiff_t)net->real_size;
    return x->dtype == net->dtype && x->column_stride == item && x->row_stride % item == 0 && x->row_stride >= 0 &&
           (uintptr_t)x->data % net->real_size == 0;
}

/* No copy of rows that a Dense layer in front reads as they are: it does not write to them. */
static bool readable_in_place(const predict_job *job)
{
    const fnn_net *net = job->net;
    return job->end && net->nodes[0].type == &fnn_dense && net->factor == 1 && net->standardize_mean == FNN_NONE &&
           real_rows(net, job->x);
}

static void predict_rows(void *argument, int thread, int n_threads)
{
    predict_job *job = argument;
    const fnn_net *net = job->net;
    const fnn_features *x = job->x;
    buffers b = thread_buffers(job, thread);
    bool in_place = readable_in_place(job);
    size_t begin, end;
    fnn_share(&begin, &end, x->rows, 1, thread, n_threads);
    for (size_t row = begin; row < end; row += PREDICT_ROWS) {
        fnn_block block = {.net = net,
                           .kernels = net->kernels,
                           .rows = block_rows(row, end),
                           .ld_inputs = in_place ? (size_t)x->row_stride / net->real_size : net->ld_inputs,
                           .mode = FNN_EVALUATE};
        const char *from = (const char *)x->data + (ptrdiff_t)row * x->row_stride;
        if (job->must_be_finite && net->kernels->first_nonfinite(from, block.rows * net->inputs) >= 0) {
            atomic_store_explicit(&job->nonfinite, true, memory_order_relaxed);
            return;
        }
        if (!in_place)
            fnn_gather(net, b.rows[0], x, NULL, row, block.rows);
        char *y = run_block(&block, 0, job->end, in_place ? (void *)from : b.rows[0], b.rows[1], b.rows[0]);
        for (size_t i = 0; i < block.rows; i++)
            memcpy(fnn_at(net, job->out, (row + i) * job->width), fnn_at(net, y, i * job->ld),
                   job->width * net->real_size);
    }
}

static double real_at(const fnn_net *net, const void *array, size_t i)
{
    return net->dtype == FNN_FLOAT32 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static void store_real(const fnn_net *net, void *array, size_t i, double value)
{
    if (net->dtype == FNN_FLOAT32)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
}

/* Welford's update: mean and sum of squared deviations after sample number t (from 1). */
static void add_sample(const predict_job *job, buffers *b, const void *y, size_t rows, size_t t)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < job->width; j++) {
            double value = real_at(job->net, y, i * job->ld + j);
            double *mean = &b->mean[i * job->width + j], *spread = &b->spread[i * job->width + j];
            double delta = value - *mean;
            *mean += delta / (double)t;
            *spread += delta * (value - *mean);
        }
}

static void sample_rows(void *argument, int thread, int n_threads)
{
    const predict_job *job = argument;
    const fnn_net *net = job->net;
    buffers b = thread_buffers(job, thread);
    size_t begin, end, prefix_ld = job->begin ? net->nodes[job->begin - 1].ld_outputs : net->ld_inputs;
    fnn_share(&begin, &end, job->x->rows, 1, thread, n_threads);
    for (size_t row = begin; row < end; row += PREDICT_ROWS) {
        fnn_block block = {.net = net,
                           .kernels = net->kernels,
                           .rows = block_rows(row, end),
                           .ld_inputs = net->ld_inputs,
                           .mode = FNN_SAMPLE,
                           .random = {.seed = job->seed, .stream = FNN_STREAM_MONTE_CARLO},
                           .first_row = job->first_row + row};
        size_t values = block.rows * job->width;
        fnn_gather(net, b.rows[0], job->x, NULL, row, block.rows);
        void *prefix = run_block(&block, 0, job->begin, b.rows[0], b.rows[1], b.rows[0]);
        void *x = prefix == b.rows[0] ? b.rows[1] : b.rows[0];
        memset(b.mean, 0, values * sizeof(double));
        memset(b.spread, 0, values * sizeof(double));
        for (size_t t = 1; t <= job->samples; t++) {
            block.random.step = t - 1;
            memcpy(x, prefix, block.rows * prefix_ld * net->real_size);
            add_sample(job, &b, run_block(&block, job->begin, job->end, x, b.rows[2], x), block.rows, t);
        }
        for (size_t i = 0; i < values; i++) {
            store_real(net, job->out, row * job->width + i, b.mean[i]);
            store_real(net, job->deviation, row * job->width + i, sqrt(b.spread[i] / (double)job->samples));
        }
    }
}

/* Probability of the mask whose bits of dropped units are `mask`: product over the Dropout layers. */
static double mask_probability(const fnn_net *net, uint64_t mask)
{
    double probability = 1;
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type != &fnn_dropout || node->threshold == 0)
            continue;
        double p = node->threshold / 65536.0;
        for (size_t u = 0; u < node->outputs; u++, mask >>= 1)
            probability *= mask & 1 ? p : 1 - p;
    }
    return probability;
}

static void expected_rows(void *argument, int thread, int n_threads)
{
    const predict_job *job = argument;
    const fnn_net *net = job->net;
    buffers b = thread_buffers(job, thread);
    size_t begin, end;
    fnn_share(&begin, &end, job->x->rows, 1, thread, n_threads);
    for (size_t row = begin; row < end; row++) {
        fnn_block block = {
            .net = net, .kernels = net->kernels, .rows = 1, .ld_inputs = net->ld_inputs, .mode = FNN_ENUMERATE};
        fnn_gather(net, b.rows[0], job->x, NULL, row, 1);
        void *prefix = run_block(&block, 0, job->begin, b.rows[0], b.rows[1], b.rows[0]);
        void *other = prefix == b.rows[0] ? b.rows[1] : b.rows[0];
        double *sum = (double *)job->out + row * job->width;
        for (uint64_t mask = job->first_mask; mask < job->end_mask; mask += PREDICT_ROWS) {
            block.first_mask = mask;
            block.rows = job->end_mask - mask < PREDICT_ROWS ? (size_t)(job->end_mask - mask) : PREDICT_ROWS;
            /* The first Dropout reads the one prefix row; what follows must not write over it. */
            void *x = net->nodes[job->begin].type->predict(&block, &net->nodes[job->begin], b.rows[2], prefix, false);
            const void *y = run_block(&block, job->begin + 1, job->end, x, other, x);
            for (size_t i = 0; i < block.rows; i++) {
                double probability = mask_probability(net, mask + i);
                for (size_t j = 0; j < job->width; j++)
                    sum[j] += probability * real_at(net, y, i * job->ld + j);
            }
        }
    }
}

/* ---- entry points ---- */

size_t fnn_item_size(fnn_dtype dtype)
{
    static const size_t sizes[] = {[FNN_FLOAT32] = 4, [FNN_FLOAT64] = 8, [FNN_UINT8] = 1,  [FNN_INT8] = 1,
                                   [FNN_UINT16] = 2,  [FNN_INT16] = 2,   [FNN_UINT32] = 4, [FNN_INT32] = 4,
                                   [FNN_UINT64] = 8,  [FNN_INT64] = 8};
    return dtype <= FNN_INT64 ? sizes[dtype] : 0;
}

fnn_features fnn_rows(const void *data, fnn_dtype dtype, size_t rows, size_t columns)
{
    ptrdiff_t size = (ptrdiff_t)fnn_item_size(dtype); /* an unknown dtype is refused where the rows are used */
    return (fnn_features){
        .data = data, .dtype = dtype, .row_stride = (ptrdiff_t)columns * size, .column_stride = size, .rows = rows};
}

static size_t first_dropout(const fnn_net *net)
{
    size_t i = 0;
    while (i < net->n_nodes && !(net->nodes[i].type == &fnn_dropout && net->nodes[i].threshold > 0))
        i++;
    return i;
}

static bool workspace_bytes(size_t *bytes, const fnn_net *net, bool accumulators, int n_threads, size_t *per_thread)
{
    size_t per_element = BUFFERS * net->real_size + (accumulators ? 2 * sizeof(double) : 0);
    return fnn_size_multiply(per_thread, PREDICT_ROWS * per_element, net->ld_max) &&
           fnn_size_multiply(bytes, *per_thread, (size_t)n_threads);
}

fnn_status fnn_net_reserve(fnn_net *net, int predictors, int n_threads)
{
    if (!net || predictors < 1 || predictors > WORKSPACE_SLOTS || n_threads < 0 || n_threads > FNN_MAX_THREADS)
        return FNN_EINVAL;
    size_t bytes, per_thread;
    if (!workspace_bytes(&bytes, net, false, n_threads ? n_threads : fnn_get_num_threads(), &per_thread))
        return FNN_EOVERFLOW;
    fnn_workspace *taken[WORKSPACE_SLOTS] = {NULL};
    fnn_status status = FNN_OK;
    for (int i = 0; i < predictors && status == FNN_OK; i++) {
        taken[i] = take_workspace(net, bytes);
        status = taken[i] ? FNN_OK : FNN_ENOMEM;
    }
    for (int i = 0; i < predictors && taken[i]; i++)
        give_workspace(net, taken[i]);
    return status;
}

static fnn_status run_job(predict_job *job, fnn_job function, double work_factor, bool accumulators, int asked)
{
    fnn_net *net = job->net;
    if (!job->x || !job->out || job->x->dtype > FNN_INT64 || asked < 0)
        return FNN_EINVAL;
    if (!fnn_ready(net))
        return FNN_ENOTREADY;
    if (job->x->rows == 0)
        return FNN_OK;
    if (!job->x->data)
        return FNN_EINVAL;
    job->width = job->end ? net->nodes[job->end - 1].outputs : net->inputs;
    job->ld = job->end ? net->nodes[job->end - 1].ld_outputs : net->ld_inputs;
    int n_threads = fnn_thread_count(asked, fnn_pass_work(net, job->x->rows) * work_factor, job->x->rows);
    size_t bytes;
    if (!workspace_bytes(&bytes, net, accumulators, n_threads, &job->bytes_per_thread))
        return FNN_EOVERFLOW;
    fnn_workspace *workspace = take_workspace(net, bytes);
    if (!workspace)
        return FNN_ENOMEM;
    job->memory = workspace->memory;
    fnn_pool_run(function, job, n_threads);
    give_workspace(net, workspace);
    return FNN_OK;
}

fnn_status fnn_predict(fnn_net *net, void *out, const fnn_features *x, int n_threads)
{
    return fnn_predict_layers(net, out, x, net ? net->n_layers : 0, n_threads);
}

fnn_status fnn_predict_layers(fnn_net *net, void *out, const fnn_features *x, size_t n_layers, int n_threads)
{
    if (!net || n_layers > net->n_layers)
        return FNN_EINVAL;
    predict_job job = {.net = net, .x = x, .out = out, .end = n_layers ? net->layer_end[n_layers - 1] : 0};
    return run_job(&job, predict_rows, 1, false, n_threads);
}

/* The activation that makes the outputs; Dropout does nothing in evaluation. */
static fnn_activation final_activation(const fnn_net *net)
{
    size_t i = net->n_nodes;
    while (i > 0 && net->nodes[i - 1].type == &fnn_dropout)
        i--;
    bool is_activation =
        i > 0 && (net->nodes[i - 1].type == &fnn_activation_node || net->nodes[i - 1].type == &fnn_softmax);
    return is_activation ? net->nodes[i - 1].layer.activation : FNN_IDENTITY;
}

fnn_status fnn_predict_proba(fnn_net *net, void *out, const fnn_features *x, int n_threads)
{
    if (!net)
        return FNN_EINVAL;
    fnn_activation last = final_activation(net), link = FNN_IDENTITY;
    if (last != FNN_SOFTMAX && last != FNN_SIGMOID) {
        if (net->link != FNN_LINK_SOFTMAX && net->link != FNN_LINK_SIGMOID)
            return FNN_EINVAL;
        link = net->link == FNN_LINK_SOFTMAX ? FNN_SOFTMAX : FNN_SIGMOID;
    }
    fnn_status status = fnn_predict(net, out, x, n_threads);
    if (status == FNN_OK && link != FNN_IDENTITY && x->rows > 0)
        status = fnn_activate(net, out, link, 0, x->rows, net->outputs);
    return status;
}

fnn_status fnn_predict_finite(fnn_net *net, void *out, const fnn_features *x, int n_threads)
{
    predict_job job = {.net = net, .x = x, .out = out, .end = net->n_nodes, .must_be_finite = true};
    if (x->dtype != net->dtype || x->column_stride != (ptrdiff_t)net->real_size ||
        x->row_stride != (ptrdiff_t)(net->inputs * net->real_size))
        return FNN_EINVAL;
    fnn_status status = run_job(&job, predict_rows, 1, false, n_threads);
    return status == FNN_OK && atomic_load_explicit(&job.nonfinite, memory_order_relaxed) ? FNN_EINVAL : status;
}

fnn_status fnn_predict_for_loss(fnn_net *net, void *out, const fnn_features *x, fnn_loss_kind loss, int n_threads)
{
    predict_job job = {.net = net, .x = x, .out = out, .end = fnn_loss_end(net, loss)};
    return run_job(&job, predict_rows, 1, false, n_threads);
}

fnn_status fnn_predict_mc(fnn_net *net, void *mean, void *deviation, const fnn_features *x, uint64_t first_row,
                          size_t samples, uint64_t seed, int n_threads)
{
    if (samples == 0 || !deviation)
        return FNN_EINVAL;
    predict_job job = {.net = net,
                       .x = x,
                       .out = mean,
                       .deviation = deviation,
                       .begin = first_dropout(net),
                       .end = net->n_nodes,
                       .samples = samples,
                       .seed = seed,
                       .first_row = first_row};
    return run_job(&job, sample_rows, (double)samples, true, n_threads);
}

fnn_status fnn_predict_expected(fnn_net *net, double *sum, const fnn_features *x, uint64_t first_mask,
                                uint64_t end_mask, int n_threads)
{
    size_t units = fnn_net_dropout_units(net);
    if (units == 0 || units > MAX_ENUMERATED || end_mask > (uint64_t)1 << units)
        return FNN_EINVAL;
    predict_job job = {.net = net,
                       .x = x,
                       .out = (char *)sum,
                       .begin = first_dropout(net),
                       .end = net->n_nodes,
                       .first_mask = first_mask,
                       .end_mask = end_mask};
    return run_job(&job, expected_rows, (double)(end_mask - first_mask), false, n_threads);
}

fnn_status fnn_activate(fnn_net *net, void *array, fnn_activation activation, double alpha, size_t rows, size_t columns)
{
    if (activation == FNN_SOFTMAX)
        net->kernels->softmax_forward(array, array, rows, columns, columns);
    else
        net->kernels->activation_forward(array, array, activation, alpha, rows * columns);
    return FNN_OK;
}

/* ---- loss of given outputs ---- */

static void copy_padded(const fnn_net *net, void *to, const void *from, size_t rows, size_t ld)
{
    for (size_t i = 0; i < rows; i++)
        memcpy(fnn_at(net, to, i * ld), fnn_at(net, (void *)from, i * net->outputs), net->outputs * net->real_size);
}

fnn_status fnn_loss_value(fnn_net *net, double *value, const void *outputs, const fnn_targets *y, const fnn_loss *loss,
                          size_t rows)
{
    size_t bytes, ld = net->n_nodes ? net->nodes[net->n_nodes - 1].ld_outputs : net->ld_inputs;
    size_t block_bytes = PREDICT_ROWS * ld * net->real_size;
    if (!fnn_size_multiply(&bytes, rows, sizeof(double)) || !fnn_size_add(&bytes, bytes, 2 * block_bytes))
        return FNN_EOVERFLOW;
    char *memory = fnn_allocate(bytes);
    if (!memory)
        return FNN_ENOMEM;
    void *block = memory, *targets = memory + block_bytes;
    double *row_loss = (double *)(memory + 2 * block_bytes);
    for (size_t row = 0; row < rows; row += PREDICT_ROWS) {
        size_t m = block_rows(row, rows), first = row * net->outputs;
        copy_padded(net, block, fnn_at(net, (void *)outputs, first), m, ld);
        if (y->values)
            copy_padded(net, targets, fnn_at(net, (void *)y->values, first), m, ld);
        fnn_loss_rows(net, loss, row_loss + row, NULL, block, y->labels ? y->labels + row : NULL, targets, NULL, m);
    }
    double weights = y->weights ? net->kernels->weighted_sum(y->weights, NULL, rows) : (double)rows;
    *value = weights > 0 ? net->kernels->weighted_sum(row_loss, y->weights, rows) / weights : 0;
    fnn_release(memory);
    return FNN_OK;
}

fnn_status fnn_evaluate(fnn_net *net, double *value, const fnn_features *x, const fnn_targets *y, const fnn_loss *loss,
                        int n_threads)
{
    size_t bytes;
    if (!net || !value || !fnn_data_suit_loss(x, y, loss) || x->rows == 0)
        return FNN_EINVAL;
    for (size_t row = 0; row < x->rows; row++)
        if (!fnn_has_row(net, x, y, row))
            return FNN_EINVAL;
    if (!fnn_size_multiply(&bytes, x->rows, net->outputs) || !fnn_size_multiply(&bytes, bytes, net->real_size))
        return FNN_EOVERFLOW;
    void *outputs = fnn_allocate(bytes);
    if (!outputs)
        return FNN_ENOMEM;
    fnn_status status = fnn_predict_for_loss(net, outputs, x, loss->kind, n_threads);
    if (status == FNN_OK)
        status = fnn_loss_value(net, value, outputs, y, loss, x->rows);
    fnn_release(outputs);
    return status;
}

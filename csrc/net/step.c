/* One training pass over a (micro-)batch: gather, forward, loss, backward, and after a batch's last one the update. */
#include <math.h>
#include <string.h>

#include "net.h"

/* ---- parts of a pass ---- */

void fnn_gather(const fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t first_row, size_t m)
{
    bool standardize = net->standardize_mean != FNN_NONE;
    fnn_conversion conversion = {.factor = net->factor,
                                 .mean = standardize ? fnn_parameter(net, net->standardize_mean) : NULL,
                                 .scale = standardize ? fnn_parameter(net, net->standardize_scale) : NULL};
    net->kernels->gather(out, x, rows, first_row, &conversion, m, net->inputs, net->ld_inputs);
}

static fnn_pass begin_pass(fnn_net *net, fnn_counters counters, size_t rows, int thread, int n_threads)
{
    fnn_pass pass = {.net = net,
                     .kernels = net->kernels,
                     .rows = rows,
                     .thread = thread,
                     .n_threads = n_threads,
                     .random = {.seed = net->seed, .step = counters.passes, .stream = FNN_STREAM_DROPOUT}};
    fnn_share(&pass.row_begin, &pass.row_end, rows, 1, thread, n_threads);
    return pass;
}

/* Row of the (micro-)batch that this thread's first row is. */
static size_t first_batch_row(const fnn_pass *pass)
{
    return pass->shift + pass->row_begin;
}

static void gather_own_rows(const fnn_pass *pass, const fnn_features *x, const int64_t *order, size_t position)
{
    const fnn_net *net = pass->net;
    size_t first = position + first_batch_row(pass);
    fnn_gather(net, fnn_at(net, fnn_training(net, net->input_place), pass->row_begin * net->ld_inputs), x,
               order ? order + first : NULL, first, pass->row_end - pass->row_begin);
}

static void run_forward(const fnn_pass *pass, size_t end)
{
    const fnn_node *nodes = pass->net->nodes;
    for (size_t i = 0; i < end; i++) {
        bool fused = nodes[i].fuses_next && i + 1 < end && nodes[i + 1].in_place;
        nodes[i].type->forward(pass, &nodes[i], fused);
        i += fused;
    }
}

static size_t lowest_node(const fnn_net *net, bool to_inputs)
{
    return to_inputs ? 0 : net->first_trainable;
}

/* The transposed weights that backward needs, each thread its share; all of them are there after a barrier. */
static void transpose_weights(const fnn_pass *pass, size_t end, bool to_inputs)
{
    const fnn_net *net = pass->net;
    for (size_t i = lowest_node(net, to_inputs); i < end; i++)
        if (net->nodes[i].type == &fnn_dense && (to_inputs || i > net->first_trainable))
            fnn_dense_transpose(pass, &net->nodes[i]);
}

static void *output_gradient(const fnn_net *net)
{
    return fnn_training(net, net->output_gradient_place);
}

static void run_backward(fnn_pass *pass, size_t end, bool to_inputs)
{
    const fnn_net *net = pass->net;
    size_t begin = lowest_node(net, to_inputs);
    pass->gradient = output_gradient(net);
    for (size_t i = end; i-- > begin;)
        net->nodes[i].type->backward(pass, &net->nodes[i], to_inputs || i > begin);
}

static bool is_chunked(const fnn_node *node, size_t rows)
{
    return node->type == &fnn_dense && node->layer.trainable && fnn_chunk_rows(node, rows) < rows;
}

/* This thread's rows of a chunk: dW and db of every layer that forms them by chunks. */
static void form_partials(const fnn_pass *pass, size_t rows, size_t chunk, bool add)
{
    const fnn_net *net = pass->net;
    for (size_t i = 0; i < net->n_nodes; i++)
        if (is_chunked(&net->nodes[i], rows))
            fnn_dense_partial(pass, &net->nodes[i], chunk, add);
}

/* The length of the chunks of a pass over so many rows; `rows` where no layer has chunks. */
static size_t chunk_length(const fnn_net *net, size_t rows)
{
    for (size_t i = 0; i < net->n_nodes; i++)
        if (is_chunked(&net->nodes[i], rows))
            return fnn_chunk_rows(&net->nodes[i], rows);
    return rows;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* All rows are in the buffers: the chunks of the sums are shared among the threads. */
static void form_all_partials(const fnn_pass *pass)
{
    size_t rows = pass->rows, chunk = chunk_length(pass->net, rows), begin, end;
    if (chunk == rows)
        return;
    fnn_barrier(pass->n_threads); /* all rows of dy are there */
    fnn_share(&begin, &end, (rows + chunk - 1) / chunk, 1, pass->thread, pass->n_threads);
    for (size_t c = begin; c < end; c++) {
        fnn_pass part = *pass;
        part.row_begin = c * chunk;
        part.row_end = smaller(rows, part.row_begin + chunk);
        form_partials(&part, rows, c, false);
    }
}

static void *output_rows(const fnn_net *net, size_t end)
{
    return fnn_training(net, end ? net->nodes[end - 1].y : net->input_place);
}

static size_t output_ld(const fnn_net *net, size_t end)
{
    return end ? net->nodes[end - 1].ld_outputs : net->ld_inputs;
}

/* Rows between a padded matrix and a contiguous one. */
static void copy_rows(const fnn_net *net, void *to, size_t ld_to, const void *from, size_t ld_from, size_t columns,
                      size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        memcpy(fnn_at(net, to, i * ld_to), fnn_at(net, (void *)from, i * ld_from), columns * net->real_size);
}

/* ---- the loss ---- */

static void gather_targets(const fnn_pass *pass, const fnn_micro_batch *batch, double *row_weight)
{
    const fnn_net *net = pass->net;
    const fnn_targets *y = batch->run->y;
    const int64_t *order = batch->run->order;
    int32_t *labels = fnn_training(net, net->labels_place);
    size_t begin = pass->row_begin, end = pass->row_end, position = batch->position + pass->shift;
    double equal = 1 / batch->weight_sum;
    for (size_t i = begin; i < end; i++) {
        size_t row = order ? (size_t)order[position + i] : position + i;
        row_weight[pass->shift + i] = net->loss_scale * (y->weights ? y->weights[row] / batch->weight_sum : equal);
        if (y->labels)
            labels[i] = y->labels[row];
    }
    if (!y->values)
        return;
    size_t n = net->outputs, ld = output_ld(net, net->n_nodes);
    const fnn_features values = {.data = y->values,
                                 .dtype = net->dtype,
                                 .row_stride = (ptrdiff_t)(n * net->real_size),
                                 .column_stride = (ptrdiff_t)net->real_size};
    const fnn_conversion none = {.factor = 1};
    net->kernels->gather(fnn_at(net, fnn_training(net, net->targets_place), begin * ld), &values,
                         order ? order + (position + begin) : NULL, position + begin, &none, end - begin, n, ld);
}

static void compute_loss(const fnn_pass *pass, const fnn_micro_batch *batch, size_t end)
{
    const fnn_net *net = pass->net;
    const fnn_run *run = batch->run;
    size_t begin = pass->row_begin, m = pass->row_end - begin, ld = output_ld(net, end), first = first_batch_row(pass);
    void *outputs = fnn_at(net, output_rows(net, end), begin * ld);
    double *row_weight = fnn_training(net, net->row_weight_place), *row_loss = fnn_training(net, net->row_loss_place);
    gather_targets(pass, batch, row_weight);
    if (run->outputs) {
        size_t position = batch->position - run->batch_starts[0] + first;
        copy_rows(net, fnn_at(net, run->outputs, position * net->outputs), net->outputs, outputs, ld, net->outputs, m);
    }
    fnn_loss_rows(net, run->loss, row_loss + first, fnn_at(net, output_gradient(net), begin * ld), outputs,
                  run->y->labels ? (int32_t *)fnn_training(net, net->labels_place) + begin : NULL,
                  fnn_at(net, fnn_training(net, net->targets_place), begin * ld), row_weight + first, m);
}

void fnn_loss_rows(const fnn_net *net, const fnn_loss *loss, double *row_loss, void *dy, const void *y,
                   const int32_t *labels, const void *values, const double *row_weight, size_t m)
{
    const fnn_kernels *k = net->kernels;
    size_t n = net->outputs, ld = output_ld(net, net->n_nodes);
    double parameter = loss->parameter;
    switch (loss->kind) {
    case FNN_CROSS_ENTROPY:
        if (labels)
            k->loss_cross_entropy_labels(row_loss, dy, y, labels, row_weight, parameter, m, n, ld);
        else
            k->loss_cross_entropy(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    case FNN_BINARY_CROSS_ENTROPY:
        k->loss_binary_cross_entropy(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    case FNN_MSE:
        k->loss_mse(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    case FNN_MAE:
        k->loss_mae(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    case FNN_HUBER:
        k->loss_huber(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    case FNN_POISSON:
        k->loss_poisson(row_loss, dy, y, values, row_weight, parameter, m, n, ld);
        break;
    }
}

/* ---- a micro-batch ---- */

bool fnn_has_batch_statistics(const fnn_net *net)
{
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_batchnorm && net->nodes[i].layer.trainable)
            return true;
    return false;
}

size_t fnn_block_chunks(const fnn_net *net, size_t rows)
{
    if (rows <= STEP_ROWS || fnn_has_batch_statistics(net))
        return 0;
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_dense && net->nodes[i].layer.trainable && !is_chunked(&net->nodes[i], rows))
            return 0;
    size_t chunk = chunk_length(net, rows);
    return chunk < rows ? (rows + chunk - 1) / chunk : 0;
}

size_t fnn_buffer_rows(const fnn_net *net, size_t rows, int n_threads)
{
    return fnn_block_chunks(net, rows) > 0 ? (size_t)n_threads * STEP_ROWS : rows;
}

static void run_rows(const fnn_pass *pass, const fnn_micro_batch *batch, size_t end)
{
    gather_own_rows(pass, batch->run->x, batch->run->order, batch->position);
    run_forward(pass, end);
    compute_loss(pass, batch, end);
}

/* Layer by layer: the whole micro-batch is in the buffers. */
static void run_layers(fnn_pass *pass, const fnn_micro_batch *batch, size_t end)
{
    run_rows(pass, batch, end);
    transpose_weights(pass, end, false);
    fnn_barrier(pass->n_threads);
    run_backward(pass, end, false);
    form_all_partials(pass);
}

/* The block of rows [begin, end) of the micro-batch in this thread's part of the buffers. */
static void place_block(fnn_pass *pass, size_t begin, size_t end)
{
    pass->row_begin = (size_t)pass->thread * STEP_ROWS;
    pass->row_end = pass->row_begin + (end - begin);
    pass->shift = begin - pass->row_begin;
}

/* Block by block through all layers and back, so that activations and gradients never leave the cache; the chunks of
 * the sums are shared among the threads. */
static void run_blocks(fnn_pass *pass, const fnn_micro_batch *batch, size_t end)
{
    size_t rows = batch->rows, chunk = chunk_length(pass->net, rows), first, last;
    transpose_weights(pass, end, false);
    fnn_barrier(pass->n_threads);
    fnn_share(&first, &last, (rows + chunk - 1) / chunk, 1, pass->thread, pass->n_threads);
    for (size_t c = first; c < last; c++) {
        size_t chunk_end = smaller(rows, (c + 1) * chunk);
        for (size_t row = c * chunk; row < chunk_end; row += STEP_ROWS) {
            place_block(pass, row, smaller(chunk_end, row + STEP_ROWS));
            run_rows(pass, batch, end);
            run_backward(pass, end, false);
            form_partials(pass, rows, c, row > c * chunk);
        }
    }
}

static fnn_pass micro_batch_pass(fnn_net *net, const fnn_micro_batch *batch, int thread, int n_threads)
{
    fnn_pass pass = begin_pass(net, batch->counters, batch->rows, thread, n_threads);
    pass.first_row = batch->first_row;
    pass.accumulate = batch->first_row > 0;
    pass.penalty_factor = fnn_penalty_factor(net, batch->weight_sum);
    return pass;
}

void fnn_run_micro_batch(fnn_net *net, fnn_micro_batch *batch, int thread, int n_threads)
{
    size_t end = fnn_loss_end(net, batch->run->loss->kind);
    fnn_pass pass = micro_batch_pass(net, batch, thread, n_threads);
    uint64_t number = batch->counters.passes + 1;
    bool may_fuse = fnn_update_is_fused(net, batch);
    if (thread == 0 && batch->first_row == 0) {
        atomic_store(&net->statistics_overflow, false);
        atomic_store(&net->values_clipped, false);
    }
    if (fnn_block_chunks(net, batch->rows) > 0)
        run_blocks(&pass, batch, end);
    else
        run_layers(&pass, batch, end);
    if (may_fuse && !fnn_bounds_gradients(&pass))
        atomic_store(&net->unbounded_pass, number);
    fnn_barrier(n_threads); /* all rows, their losses and all partials are there */
    batch->loss += net->kernels->weighted_sum(fnn_training(net, net->row_loss_place),
                                              fnn_training(net, net->row_weight_place), batch->rows);
    bool fused = may_fuse && isfinite(batch->loss) && atomic_load(&net->unbounded_pass) != number &&
                 !(net->statistics_pending && atomic_load(&net->statistics_overflow));
    if (thread == 0)
        net->unformed_rows = fused ? batch->rows : 0;
    if (!batch->last) {
        fnn_form_gradients(&pass);
    } else if (fused) {
        fnn_fused_update(&pass, batch->learning_rate, batch->counters.updates);
    } else {
        batch->diverged = !fnn_form_and_update(&pass, batch->learning_rate, batch->counters.updates, batch->loss);
    }
    fnn_barrier(n_threads); /* buffers and parameters are free for the next one */
}

void fnn_form_last_gradients(fnn_net *net)
{
    fnn_pass pass = begin_pass(net, net->counters, net->unformed_rows, 0, 1);
    if (net->unformed_rows > 0)
        fnn_form_gradients(&pass);
    net->unformed_rows = 0;
}

/* ---- what failed ---- */

static size_t failed_forward(const fnn_pass *pass, size_t end)
{
    const fnn_net *net = pass->net;
    size_t m = pass->row_end - pass->row_begin;
    for (size_t i = 0; i < end; i++) {
        const fnn_node *node = &net->nodes[i];
        const void *y = fnn_at(net, fnn_training(net, node->y), pass->row_begin * node->ld_outputs);
        if (net->kernels->first_nonfinite(y, m * node->ld_outputs) >= 0 ||
            (node->type == &fnn_batchnorm && node->layer.trainable &&
             net->kernels->first_nonfinite(fnn_training(net, node->pending_variance), node->outputs) >= 0))
            return node->layer_index;
    }
    return SIZE_MAX;
}

/* The last layer with a non-finite gradient. */
static size_t failed_gradient(const fnn_net *net)
{
    for (size_t i = net->n_stretches; i-- > 0;)
        if (!isfinite(fnn_stretch_norm(net, &net->stretches[i])))
            return net->stretches[i].node->layer_index;
    return SIZE_MAX;
}

size_t fnn_failed_layer(fnn_net *net, const fnn_micro_batch *batch)
{
    size_t end = fnn_loss_end(net, batch->run->loss->kind), failed = SIZE_MAX;
    fnn_pass pass = micro_batch_pass(net, batch, 0, 1);
    if (fnn_block_chunks(net, batch->rows) == 0) {
        failed = failed_forward(&pass, end);
    } else {
        for (size_t row = 0; row < batch->rows; row += STEP_ROWS) { /* the outputs of most blocks are gone */
            place_block(&pass, row, smaller(batch->rows, row + STEP_ROWS));
            gather_own_rows(&pass, batch->run->x, batch->run->order, batch->position);
            run_forward(&pass, end);
            failed = smaller(failed, failed_forward(&pass, end));
        }
    }
    return failed != SIZE_MAX ? failed : failed_gradient(net);
}

size_t fnn_net_failed_layer(const fnn_net *net)
{
    if (net->forward_rows == 0)
        return SIZE_MAX;
    fnn_pass pass = {.net = (fnn_net *)net, .row_end = net->forward_rows};
    size_t failed = failed_forward(&pass, net->n_nodes);
    return failed != SIZE_MAX ? failed : failed_gradient(net);
}

/* ---- one pass at a time ---- */

typedef struct pass_job {
    fnn_net *net;
    const fnn_features *x;
    const int64_t *rows;
    size_t m;
    void *out;      /* forward: outputs; backward: input gradient or NULL */
    const void *dy; /* backward */
} pass_job;

static void forward_job(void *argument, int thread, int n_threads)
{
    const pass_job *job = argument;
    fnn_net *net = job->net;
    fnn_pass pass = begin_pass(net, net->counters, job->m, thread, n_threads);
    gather_own_rows(&pass, job->x, job->rows, 0);
    run_forward(&pass, net->n_nodes);
    size_t ld = output_ld(net, net->n_nodes), begin = pass.row_begin;
    copy_rows(net, fnn_at(net, job->out, begin * net->outputs), net->outputs,
              fnn_at(net, output_rows(net, net->n_nodes), begin * ld), ld, net->outputs, pass.row_end - begin);
}

fnn_status fnn_forward(fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t m, int n_threads)
{
    if (m == 0)
        return FNN_EINVAL;
    if (!fnn_ready(net))
        return FNN_ENOTREADY;
    fnn_form_last_gradients(net);
    fnn_status status = fnn_prepare_training(net, (fnn_needs){.rows = m, .batch_rows = m, .threads = 1});
    if (status != FNN_OK)
        return status;
    net->statistics_pending = true;
    atomic_store(&net->statistics_overflow, false);
    pass_job job = {.net = net, .x = x, .rows = rows, .m = m, .out = out};
    fnn_pool_run_step(forward_job, &job, fnn_thread_count(n_threads, fnn_pass_work(net, m), m));
    net->forward_rows = m;
    net->counters.passes++;
    return FNN_OK;
}

static void backward_job(void *argument, int thread, int n_threads)
{
    const pass_job *job = argument;
    fnn_net *net = job->net;
    fnn_pass pass = begin_pass(net, net->counters, job->m, thread, n_threads);
    size_t ld = output_ld(net, net->n_nodes), begin = pass.row_begin, n = net->outputs, m = pass.row_end - begin;
    char *gradient = fnn_at(net, output_gradient(net), begin * ld);
    for (size_t i = 0; i < m; i++)
        memset(fnn_at(net, gradient, i * ld + n), 0, (ld - n) * net->real_size);
    copy_rows(net, gradient, ld, fnn_at(net, (void *)job->dy, begin * n), n, n, m);
    transpose_weights(&pass, net->n_nodes, job->out != NULL);
    fnn_barrier(n_threads);
    run_backward(&pass, net->n_nodes, job->out != NULL);
    form_all_partials(&pass);
    fnn_barrier(n_threads); /* all rows and all partials are there */
    fnn_form_gradients(&pass);
    if (job->out)
        copy_rows(net, fnn_at(net, job->out, begin * net->inputs), net->inputs,
                  fnn_at(net, pass.gradient, begin * net->ld_inputs), net->ld_inputs, net->inputs, m);
}

fnn_status fnn_backward(fnn_net *net, void *dx, const void *dy, size_t m, int n_threads)
{
    if (m == 0 || net->forward_rows != m)
        return FNN_ENOTREADY;
    fnn_status status = fnn_prepare_update(net);
    if (status != FNN_OK)
        return status;
    pass_job job = {.net = net, .m = m, .out = dx, .dy = dy};
    double work = 2 * fnn_pass_work(net, m); /* dW and dX */
    fnn_pool_run_step(backward_job, &job, fnn_thread_count(n_threads, work, m));
    return FNN_OK;
}

/* One training step: gather, forward, loss, backward, and after a batch's last micro-batch the update. */
#include <string.h>

#include "net.h"

static const double POLL_SECONDS = 0.05;
static const double THREE_PRODUCTS = 3; /* work of a step beside that of its forward pass: forward, dW, dX */

/* ---- parts of a pass ---- */

void fnn_gather(const fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t first_row, size_t m)
{
    bool standardize = net->standardize_mean != FNN_NONE;
    fnn_conversion conversion = {.factor = net->factor,
                                 .mean = standardize ? fnn_parameter(net, net->standardize_mean) : NULL,
                                 .scale = standardize ? fnn_parameter(net, net->standardize_scale) : NULL};
    net->kernels->gather(out, x, rows, first_row, &conversion, m, net->inputs, net->ld_inputs);
}

static fnn_pass begin_pass(fnn_net *net, size_t rows, int thread, int n_threads)
{
    fnn_pass pass = {.net = net,
                     .kernels = net->kernels,
                     .rows = rows,
                     .thread = thread,
                     .n_threads = n_threads,
                     .random = {.seed = net->seed, .step = net->counters.passes, .stream = FNN_STREAM_DROPOUT},
                     .first_micro = true,
                     .gradient = fnn_training(net, net->gradient_place[0])};
    fnn_share(&pass.row_begin, &pass.row_end, rows, 1, thread, n_threads);
    return pass;
}

static void gather_own_rows(const fnn_pass *pass, const fnn_features *x, const int64_t *order, size_t position)
{
    const fnn_net *net = pass->net;
    size_t first = position + pass->row_begin;
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

static void run_backward(fnn_pass *pass, size_t end, bool to_inputs)
{
    const fnn_net *net = pass->net;
    size_t begin = to_inputs ? 0 : net->first_trainable;
    for (size_t i = end; i-- > begin;)
        net->nodes[i].type->backward(pass, &net->nodes[i], to_inputs || i > begin);
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

/* ---- the step as a job of the pool ---- */

typedef struct micro_batch {
    fnn_net *net;
    const fnn_run *run;
    size_t position; /* of its first row in the order */
    size_t rows;
    size_t first_row;  /* in its batch */
    double weight_sum; /* of the whole batch */
    double learning_rate;
    bool last;
    double loss; /* of the batch so far */
    fnn_update_result update;
} micro_batch;

static size_t row_number(const fnn_run *run, size_t position)
{
    return run->order ? (size_t)run->order[position] : position;
}

static void gather_targets(const fnn_pass *pass, const micro_batch *batch)
{
    const fnn_net *net = pass->net;
    const fnn_targets *y = batch->run->y;
    int32_t *labels = fnn_training(net, net->labels_place);
    double *row_weight = fnn_training(net, net->row_weight_place);
    char *values = fnn_training(net, net->targets_place);
    size_t n = net->outputs, ld = output_ld(net, net->n_nodes);
    for (size_t i = pass->row_begin; i < pass->row_end; i++) {
        size_t row = row_number(batch->run, batch->position + i);
        row_weight[i] = (y->weights ? y->weights[row] : 1.0) / batch->weight_sum;
        if (y->labels) {
            labels[i] = y->labels[row];
        } else {
            memcpy(fnn_at(net, values, i * ld), fnn_at(net, (void *)y->values, row * n), n * net->real_size);
            memset(fnn_at(net, values, i * ld + n), 0, (ld - n) * net->real_size);
        }
    }
}

static void compute_loss(const fnn_pass *pass, const micro_batch *batch, size_t end)
{
    const fnn_net *net = pass->net;
    const fnn_run *run = batch->run;
    size_t begin = pass->row_begin, m = pass->row_end - begin, ld = output_ld(net, end);
    void *outputs = fnn_at(net, output_rows(net, end), begin * ld);
    gather_targets(pass, batch);
    if (run->outputs) {
        size_t position = batch->position - run->batch_starts[0] + begin;
        copy_rows(net, fnn_at(net, run->outputs, position * net->outputs), net->outputs, outputs, ld, net->outputs, m);
    }
    fnn_loss_rows(net, run->loss, (double *)fnn_training(net, net->row_loss_place) + begin,
                  fnn_at(net, pass->gradient, begin * ld), outputs,
                  run->y->labels ? (int32_t *)fnn_training(net, net->labels_place) + begin : NULL,
                  fnn_at(net, fnn_training(net, net->targets_place), begin * ld),
                  (double *)fnn_training(net, net->row_weight_place) + begin, m);
}

static void run_micro_batch(void *argument, int thread, int n_threads)
{
    micro_batch *batch = argument;
    fnn_net *net = batch->net;
    size_t end = fnn_loss_end(net, batch->run->loss->kind);
    fnn_pass pass = begin_pass(net, batch->rows, thread, n_threads);
    pass.first_row = batch->first_row;
    pass.first_micro = batch->first_row == 0;
    pass.accumulate = !pass.first_micro;
    gather_own_rows(&pass, batch->run->x, batch->run->order, batch->position);
    run_forward(&pass, end);
    compute_loss(&pass, batch, end);
    run_backward(&pass, end, false);
    fnn_barrier(n_threads); /* all gradients and row losses are there */
    double loss = batch->loss + net->kernels->weighted_sum(fnn_training(net, net->row_loss_place),
                                                           fnn_training(net, net->row_weight_place), batch->rows);
    fnn_update_result update = {0};
    if (batch->last)
        update = fnn_update_shared(net, batch->learning_rate, loss, thread, n_threads);
    else
        fnn_barrier(n_threads); /* batch->loss has been read by all */
    if (thread == 0) {
        batch->loss = loss;
        batch->update = update;
    }
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

/* ---- many steps ---- */

static bool has_batch_statistics(const fnn_net *net)
{
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_batchnorm && net->nodes[i].layer.trainable)
            return true;
    return false;
}

/* Rows of the next micro-batch when `rest` are left. A remainder of one row joins it where a batch of one has no
 * statistics. */
static size_t micro_rows(size_t rest, size_t micro, bool no_single)
{
    if (micro == 0 || rest <= micro || (no_single && rest == micro + 1))
        return rest;
    return micro;
}

static size_t most_rows(const fnn_run *run, bool no_single)
{
    size_t most = 0;
    for (size_t b = 0; b < run->n_batches; b++) {
        size_t rows = run->batch_starts[b + 1] - run->batch_starts[b];
        size_t micro = run->micro_batch && rows > run->micro_batch ? run->micro_batch + no_single : rows;
        most = micro > most ? micro : most;
    }
    return most;
}

static double batch_weight(const fnn_run *run, size_t begin, size_t end)
{
    if (!run->y->weights)
        return (double)(end - begin);
    double sum = 0;
    for (size_t i = begin; i < end; i++)
        sum += run->y->weights[row_number(run, i)];
    return sum;
}

typedef struct poll_state {
    double last;
    bool stop;
} poll_state;

/* True when the step in flight is to be abandoned. */
static bool polled_abandon(const fnn_run *run, poll_state *state)
{
    if (!run->poll)
        return false;
    double now = fnn_clock();
    if (now - state->last < POLL_SECONDS)
        return false;
    fnn_poll answer = run->poll(run->poll_argument);
    state->last = fnn_clock();
    state->stop |= answer != FNN_POLL_CONTINUE;
    return answer == FNN_POLL_ABANDON;
}

static fnn_status diverged(fnn_net *net, fnn_run *run, const micro_batch *batch)
{
    run->failed_loss = batch->loss;
    run->squared_norm = batch->update.squared_norm;
    run->failed_layer = fnn_failed_layer(net, batch->rows, fnn_loss_end(net, run->loss->kind));
    return FNN_EDIVERGED;
}

/* From here on passes form running statistics for the next update. */
static void begin_statistics(fnn_net *net, bool first_micro)
{
    net->statistics_pending = true;
    if (first_micro)
        atomic_store(&net->statistics_overflow, false);
}

static fnn_status train_batch(fnn_net *net, fnn_run *run, size_t b, bool no_single, poll_state *state)
{
    size_t begin = run->batch_starts[b], end = run->batch_starts[b + 1];
    micro_batch batch = {
        .net = net, .run = run, .weight_sum = batch_weight(run, begin, end), .learning_rate = run->learning_rates[b]};
    bool abandon = false;
    if (batch.weight_sum > 0) {
        for (size_t at = begin; at < end; at += batch.rows) {
            batch.position = at;
            batch.first_row = at - begin;
            batch.rows = micro_rows(end - at, run->micro_batch, no_single);
            batch.last = at + batch.rows == end;
            begin_statistics(net, at == begin);
            double work = THREE_PRODUCTS * fnn_pass_work(net, batch.rows) + (batch.last ? fnn_update_work(net) : 0);
            fnn_pool_run_step(run_micro_batch, &batch, fnn_thread_count(run->n_threads, work, batch.rows));
            if (!batch.last && polled_abandon(run, state)) {
                net->statistics_pending = false;
                return FNN_EINTERRUPTED;
            }
        }
        net->statistics_pending = false;
        if (batch.update.diverged)
            return diverged(net, run, &batch);
        net->counters.updates++;
        run->loss_sum += batch.loss * batch.weight_sum;
        run->weight_sum += batch.weight_sum;
        run->squared_norm = batch.update.squared_norm;
        abandon = polled_abandon(run, state);
    } else if (run->outputs) { /* a batch without weight is skipped: it has no outputs */
        size_t first = (begin - run->batch_starts[0]) * net->outputs;
        memset(fnn_at(net, run->outputs, first), 0, (end - begin) * net->outputs * net->real_size);
    }
    net->counters.passes++;
    run->batches_done++;
    return abandon ? FNN_EINTERRUPTED : FNN_OK;
}

fnn_status fnn_train(fnn_net *net, fnn_run *run)
{
    bool no_single = has_batch_statistics(net);
    run->loss_sum = run->weight_sum = run->squared_norm = run->failed_loss = 0;
    run->batches_done = 0;
    run->failed_layer = SIZE_MAX;
    if (!fnn_ready(net))
        return FNN_ENOTREADY;
    if (!run->x || !run->y || !run->loss || (!run->y->labels && !run->y->values) ||
        (run->y->labels && run->loss->kind != FNN_CROSS_ENTROPY))
        return FNN_EINVAL;
    fnn_status status = fnn_prepare_training(net, most_rows(run, no_single));
    if (status == FNN_OK)
        status = fnn_prepare_update(net);
    poll_state state = {.last = fnn_clock()};
    for (size_t b = 0; b < run->n_batches && status == FNN_OK && !state.stop; b++)
        status = train_batch(net, run, b, no_single, &state);
    net->forward_rows = 0; /* a backward of one's own needs a forward of one's own */
    return status;
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
    fnn_pass pass = begin_pass(net, job->m, thread, n_threads);
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
    fnn_status status = fnn_prepare_training(net, m);
    if (status != FNN_OK)
        return status;
    begin_statistics(net, true);
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
    fnn_pass pass = begin_pass(net, job->m, thread, n_threads);
    size_t ld = output_ld(net, net->n_nodes), begin = pass.row_begin, n = net->outputs, m = pass.row_end - begin;
    char *gradient = fnn_at(net, pass.gradient, begin * ld);
    for (size_t i = 0; i < m; i++)
        memset(fnn_at(net, gradient, i * ld + n), 0, (ld - n) * net->real_size);
    copy_rows(net, gradient, ld, fnn_at(net, (void *)job->dy, begin * n), n, n, m);
    run_backward(&pass, net->n_nodes, job->out != NULL);
    if (job->out)
        copy_rows(net, fnn_at(net, job->out, begin * net->inputs), net->inputs,
                  fnn_at(net, pass.gradient, begin * net->ld_inputs), net->ld_inputs, net->inputs, m);
}

fnn_status fnn_backward(fnn_net *net, void *dx, const void *dy, size_t m, int n_threads)
{
    if (m == 0 || net->forward_rows != m)
        return FNN_ENOTREADY;
    pass_job job = {.net = net, .m = m, .out = dx, .dy = dy};
    double work = (THREE_PRODUCTS - 1) * fnn_pass_work(net, m);
    fnn_pool_run_step(backward_job, &job, fnn_thread_count(n_threads, work, m));
    return FNN_OK;
}

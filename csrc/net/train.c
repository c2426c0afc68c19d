/* Many steps: batches cut into micro-batches, one job of the pool for all that are due before the next poll. */
#include <math.h>
#include <string.h>

#include "net.h"

static const double POLL_SECONDS = 0.05;
enum { MOST_SKIPPED = 256 };            /* batches without weight in a job, which does not look at the clock for them */
static const double THREE_PRODUCTS = 3; /* work of a step beside that of its forward pass: forward, dW, dX */

/* A stretch of training as every thread of a job follows it: all of them come to the same numbers. */
typedef struct progress {
    size_t batch;         /* in hand */
    size_t rows_done;     /* of it */
    double weight;        /* of its rows, once some are done */
    double loss;          /* of these */
    size_t micro_batches; /* done in all */
    fnn_counters counters;
    double loss_sum, weight_sum;
    fnn_micro_batch failed; /* the one that diverged */
    fnn_status status;
} progress;

typedef struct train_job {
    fnn_net *net;
    const fnn_run *run;
    bool no_single;   /* a micro-batch of one row has no statistics */
    int most_threads; /* of the whole run: what is configured may change beside it */
    int n_threads;    /* wanted; a micro-batch that wants another number is left to the next job */
    progress progress;
    size_t end_batch;          /* of the job */
    double end;                /* of the job, on the clock */
    _Atomic size_t last_to_do; /* number of micro-batches after which the job ends, once that is known */
} train_job;

static size_t batch_rows(const fnn_run *run, size_t batch)
{
    return run->batch_starts[batch + 1] - run->batch_starts[batch];
}

/* Rows of the next micro-batch when `rest` are left. A remainder of one row joins it where a batch of one has no
 * statistics. */
static size_t micro_rows(size_t rest, size_t micro, bool no_single)
{
    if (micro == 0 || rest <= micro || (no_single && rest == micro + 1))
        return rest;
    return micro;
}

static size_t next_rows(const train_job *job, const progress *p)
{
    return micro_rows(batch_rows(job->run, p->batch) - p->rows_done, job->run->micro_batch, job->no_single);
}

static double batch_weight(const fnn_run *run, size_t batch)
{
    size_t begin = run->batch_starts[batch], end = run->batch_starts[batch + 1];
    if (!run->y->weights)
        return (double)(end - begin);
    double sum = 0;
    for (size_t i = begin; i < end; i++)
        sum += run->y->weights[run->order ? (size_t)run->order[i] : i];
    return sum;
}

static int wanted_threads(const train_job *job, size_t rows, bool last)
{
    const fnn_net *net = job->net;
    double work = THREE_PRODUCTS * fnn_pass_work(net, rows) + (last ? fnn_update_work(net) : 0);
    int wanted = fnn_thread_count(job->most_threads, work, rows);
    size_t chunks = fnn_block_chunks(net, rows);
    return chunks > 0 && chunks < (size_t)wanted ? (int)chunks : wanted;
}

/* ---- inside a job ---- */

static void begin_next_batch(progress *p)
{
    p->batch++;
    p->rows_done = 0;
    p->loss = 0;
    p->counters.passes++;
}

/* A batch without weight is skipped: it has no outputs. */
static void skip_batch(const train_job *job, progress *p, int thread)
{
    const fnn_run *run = job->run;
    const fnn_net *net = job->net;
    if (thread == 0 && run->outputs) {
        size_t width = net->outputs, first = (run->batch_starts[p->batch] - run->batch_starts[0]) * width;
        memset(fnn_at(net, run->outputs, first), 0, batch_rows(run, p->batch) * width * net->real_size);
    }
    begin_next_batch(p);
}

static void run_next(const train_job *job, progress *p, int thread, int n_threads)
{
    const fnn_run *run = job->run;
    size_t rows = next_rows(job, p);
    fnn_micro_batch micro = {.run = run,
                             .position = run->batch_starts[p->batch] + p->rows_done,
                             .rows = rows,
                             .first_row = p->rows_done,
                             .weight_sum = p->weight,
                             .learning_rate = run->learning_rates[p->batch],
                             .last = p->rows_done + rows == batch_rows(run, p->batch),
                             .counters = p->counters,
                             .loss = p->loss};
    fnn_run_micro_batch(job->net, &micro, thread, n_threads);
    p->micro_batches++;
    p->rows_done += rows;
    p->loss = micro.loss;
    if (!micro.last)
        return;
    if (micro.diverged) {
        p->failed = micro;
        p->status = FNN_EDIVERGED;
        return;
    }
    p->counters.updates++;
    p->loss_sum += micro.loss * p->weight;
    p->weight_sum += p->weight;
    begin_next_batch(p);
}

/* Thread 0 says before a micro-batch, whose barriers pass it on, that the job ends after it. */
static void look_at_clock(train_job *job, const progress *p)
{
    if (fnn_clock() >= job->end || fnn_fork_waits())
        atomic_store_explicit(&job->last_to_do, p->micro_batches + 1, memory_order_relaxed);
}

static void run_steps(void *argument, int thread, int n_threads)
{
    train_job *job = argument;
    progress p = job->progress;
    size_t done = p.micro_batches, skipped = 0;
    while (p.batch < job->end_batch && p.status == FNN_OK && skipped < MOST_SKIPPED) {
        if (p.rows_done == 0)
            p.weight = batch_weight(job->run, p.batch);
        if (p.weight == 0) {
            skip_batch(job, &p, thread);
            skipped++;
            continue;
        }
        size_t rows = next_rows(job, &p);
        bool last = p.rows_done + rows == batch_rows(job->run, p.batch);
        if (p.micro_batches > done && wanted_threads(job, rows, last) != job->n_threads)
            break;
        if (thread == 0)
            look_at_clock(job, &p);
        run_next(job, &p, thread, n_threads);
        if (atomic_load_explicit(&job->last_to_do, memory_order_relaxed) == p.micro_batches)
            break;
    }
    fnn_barrier(n_threads); /* all have copied where the job began */
    if (thread == 0) {
        job->progress = p;
        job->net->counters = p.counters; /* before a fork may see the new parameters */
    }
}

/* ---- jobs ---- */

static void add_needs(const train_job *job, fnn_needs *needs, size_t rows)
{
    int threads = wanted_threads(job, rows, true);
    size_t in_buffers = fnn_buffer_rows(job->net, rows, threads);
    needs->batch_rows = rows > needs->batch_rows ? rows : needs->batch_rows;
    needs->rows = in_buffers > needs->rows ? in_buffers : needs->rows;
    needs->threads = threads > needs->threads ? threads : needs->threads;
}

/* Room for every micro-batch of the run: a short one may go layer by layer where the others go in blocks. */
static fnn_status prepare(train_job *job)
{
    const fnn_run *run = job->run;
    fnn_needs needs = {.threads = 1};
    for (size_t b = 0; b < run->n_batches; b++) {
        size_t rows = batch_rows(run, b);
        if (run->micro_batch && rows > run->micro_batch) {
            add_needs(job, &needs, rows % run->micro_batch);
            rows = run->micro_batch + job->no_single;
        }
        add_needs(job, &needs, rows);
    }
    fnn_status status = fnn_prepare_training(job->net, needs);
    return status == FNN_OK ? fnn_prepare_update(job->net) : status;
}

static void run_job(train_job *job, size_t end_batch)
{
    const progress *p = &job->progress;
    size_t rows = next_rows(job, p);
    job->n_threads = wanted_threads(job, rows, p->rows_done + rows == batch_rows(job->run, p->batch));
    job->end_batch = end_batch;
    job->end = fnn_clock() + POLL_SECONDS;
    atomic_store(&job->last_to_do, SIZE_MAX);
    fnn_pool_run_step(run_steps, job, job->n_threads);
}

static void report(fnn_run *run, train_job *job)
{
    progress *p = &job->progress;
    run->loss_sum = p->loss_sum;
    run->weight_sum = p->weight_sum;
    run->batches_done = p->batch;
    if (p->status == FNN_EDIVERGED) {
        run->failed_loss = p->failed.loss;
        run->failed_layer = fnn_failed_layer(job->net, &p->failed);
    }
}

static bool valid_loss(const fnn_loss *loss)
{
    if (loss->kind == FNN_CROSS_ENTROPY)
        return loss->parameter >= 0 && loss->parameter < 1;
    return loss->kind <= FNN_POISSON && (loss->kind != FNN_HUBER || (loss->parameter > 0 && isfinite(loss->parameter)));
}

bool fnn_data_suit_loss(const fnn_features *x, const fnn_targets *y, const fnn_loss *loss)
{
    return x && y && loss && x->data && x->dtype <= FNN_INT64 && valid_loss(loss) &&
           (y->labels ? loss->kind == FNN_CROSS_ENTROPY : y->values != NULL);
}

bool fnn_has_row(const fnn_net *net, const fnn_features *x, const fnn_targets *y, size_t row)
{
    return row < x->rows && (!y->labels || (size_t)y->labels[row] < net->outputs) &&
           (!y->weights || (y->weights[row] >= 0 && isfinite(y->weights[row])));
}

/* Rows and labels of a batch exist, weights and rate are numbers to learn with. */
static bool valid_batch(const fnn_net *net, const fnn_run *run, size_t batch)
{
    size_t begin = run->batch_starts[batch], end = run->batch_starts[batch + 1];
    double rate = run->learning_rates[batch];
    if (begin >= end || (!run->order && end > run->x->rows) || !(rate >= 0) || !isfinite(rate))
        return false;
    for (size_t i = begin; i < end; i++)
        if (!fnn_has_row(net, run->x, run->y, run->order ? (size_t)run->order[i] : i))
            return false;
    return end - begin > 1 || !fnn_has_batch_statistics(net);
}

static bool valid(const fnn_net *net, const fnn_run *run)
{
    if (!run->batch_starts || !run->learning_rates || run->n_threads < 0 ||
        !fnn_data_suit_loss(run->x, run->y, run->loss) || (run->micro_batch == 1 && fnn_has_batch_statistics(net)))
        return false;
    for (size_t b = 0; b < run->n_batches; b++)
        if (!valid_batch(net, run, b))
            return false;
    return true;
}

static fnn_link link_of(fnn_loss_kind loss)
{
    switch (loss) {
    case FNN_CROSS_ENTROPY:
        return FNN_LINK_SOFTMAX;
    case FNN_BINARY_CROSS_ENTROPY:
        return FNN_LINK_SIGMOID;
    case FNN_POISSON:
        return FNN_LINK_EXP;
    case FNN_MSE:
    case FNN_MAE:
    case FNN_HUBER:
        break;
    }
    return FNN_LINK_IDENTITY;
}

fnn_status fnn_train(fnn_net *net, fnn_run *run)
{
    if (!net || !run)
        return FNN_EINVAL;
    train_job job = {.net = net,
                     .run = run,
                     .no_single = fnn_has_batch_statistics(net),
                     .most_threads = run->n_threads > 0 ? run->n_threads : fnn_get_num_threads(),
                     .progress = {.counters = net->counters,
                                  .loss_sum = run->loss_sum_before,
                                  .weight_sum = run->weight_sum_before}};
    progress *p = &job.progress;
    run->loss_sum = run->loss_sum_before;
    run->weight_sum = run->weight_sum_before;
    run->failed_loss = 0;
    run->batches_done = 0;
    run->failed_layer = SIZE_MAX;
    if (!fnn_ready(net))
        return FNN_ENOTREADY;
    if (!valid(net, run))
        return FNN_EINVAL;
    p->status = prepare(&job);
    if (p->status != FNN_OK)
        return p->status;
    net->link = link_of(run->loss->kind);
    bool stop = false;
    net->statistics_pending = true; /* passes form running statistics for the next update */
    double last_poll = fnn_clock();
    while (p->status == FNN_OK && p->batch < run->n_batches && (!stop || p->rows_done > 0)) {
        run_job(&job, stop ? p->batch + 1 : run->n_batches);
        if (run->poll && fnn_clock() - last_poll >= POLL_SECONDS) {
            fnn_poll answer = run->poll(run->poll_argument);
            last_poll = fnn_clock();
            stop |= answer != FNN_POLL_CONTINUE;
            if (answer == FNN_POLL_ABANDON && p->status == FNN_OK)
                p->status = FNN_EINTERRUPTED;
        }
    }
    net->statistics_pending = false;
    net->forward_rows = 0; /* a backward of one's own needs a forward of one's own */
    report(run, &job);
    return p->status;
}

fnn_status fnn_train_step(fnn_net *net, const fnn_features *x, const fnn_targets *y, const fnn_loss *loss,
                          double learning_rate, int n_threads, double *value)
{
    if (!x)
        return FNN_EINVAL;
    const size_t starts[2] = {0, x->rows};
    fnn_run run = {.x = x,
                   .y = y,
                   .loss = loss,
                   .batch_starts = starts,
                   .n_batches = 1,
                   .learning_rates = &learning_rate,
                   .n_threads = n_threads};
    fnn_status status = fnn_train(net, &run);
    if (value && status == FNN_OK)
        *value = run.weight_sum > 0 ? run.loss_sum / run.weight_sum : 0;
    return status;
}

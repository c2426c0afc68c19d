/* BatchNorm: y = gamma (x - mean) / sqrt(var + eps) + beta, statistics of the batch in training, running ones in
 * evaluation. A frozen layer (trainable = 0) uses its running statistics in training too and keeps them. */
#include <string.h>

#include "net.h"

static fnn_status shape(fnn_net *net, fnn_node *node, bool trainable)
{
    fnn_status status = FNN_OK;
    size_t i = node->layer_index, n = node->outputs;
    if (!node->layer.trainable == !trainable) {
        status = fnn_add_tensor(net, &node->weight, i, "gamma", trainable, 1, n);
        if (status == FNN_OK)
            status = fnn_add_tensor(net, &node->bias, i, "beta", trainable, 1, n);
    }
    if (status == FNN_OK && !trainable) {
        status = fnn_add_tensor(net, &node->mean, i, "running_mean", false, 1, n);
        if (status == FNN_OK)
            status = fnn_add_tensor(net, &node->variance, i, "running_var", false, 1, n);
    }
    return status;
}

static void scratch(fnn_layout *layout, fnn_node *node)
{
    size_t *vectors[] = {&node->batch_mean, &node->batch_variance, &node->pending_mean, &node->pending_variance,
                         &node->dgamma,     &node->dbeta,          &node->zeros};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = fnn_place(layout, 1, node->ld_outputs, layout->real_size);
}

/* Columns of a BatchNorm that fall to this thread in the passes that need all rows. */
static void own_columns(const fnn_pass *pass, const fnn_node *node, size_t *begin, size_t *end)
{
    fnn_share(begin, end, node->ld_outputs, FNN_PAD_BYTES / pass->net->real_size, pass->thread, pass->n_threads);
}

static void *vector(const fnn_net *net, size_t place, size_t element)
{
    return fnn_at(net, fnn_training(net, place), element);
}

static void batch_statistics(const fnn_pass *pass, const fnn_node *node)
{
    const fnn_net *net = pass->net;
    const fnn_kernels *kernels = pass->kernels;
    size_t begin, end;
    own_columns(pass, node, &begin, &end);
    if (begin == end)
        return;
    size_t n = end - begin, m = pass->rows;
    void *mean = vector(net, node->batch_mean, begin), *variance = vector(net, node->batch_variance, begin);
    void *pending_mean = vector(net, node->pending_mean, begin);
    void *pending_variance = vector(net, node->pending_variance, begin);
    kernels->batchnorm_statistics(mean, variance, vector(net, node->x, begin), m, n, node->ld_inputs);
    if (!pass->accumulate) {
        memcpy(pending_mean, fnn_at(net, fnn_parameter(net, node->mean), begin), n * net->real_size);
        memcpy(pending_variance, fnn_at(net, fnn_parameter(net, node->variance), begin), n * net->real_size);
    }
    double unbias = node->layer.unbiased && m > 1 ? (double)m / (double)(m - 1) : 1.0;
    kernels->batchnorm_running(pending_mean, mean, node->layer.decay, 1.0, n);
    kernels->batchnorm_running(pending_variance, variance, node->layer.decay, unbias, n);
    /* An infinite variance makes outputs and gradients 0, so loss and norm would not show it. */
    if (kernels->first_nonfinite(pending_mean, n) >= 0 || kernels->first_nonfinite(pending_variance, n) >= 0)
        atomic_store(&pass->net->statistics_overflow, true);
}

static void forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    (void)fused;
    const fnn_net *net = pass->net;
    const void *mean = fnn_parameter(net, node->mean), *variance = fnn_parameter(net, node->variance);
    if (node->layer.trainable) {
        fnn_barrier(pass->n_threads); /* all rows of x are there */
        batch_statistics(pass, node);
        fnn_barrier(pass->n_threads); /* all columns of the statistics are there */
        mean = fnn_training(net, node->batch_mean);
        variance = fnn_training(net, node->batch_variance);
    }
    size_t first = pass->row_begin * node->ld_outputs;
    pass->kernels->batchnorm_forward(vector(net, node->y, first), vector(net, node->x, first), mean, variance,
                                     fnn_parameter(net, node->weight), fnn_parameter(net, node->bias), node->layer.eps,
                                     pass->row_end - pass->row_begin, node->ld_outputs, node->ld_outputs);
}

static void gradient_sums(const fnn_pass *pass, const fnn_node *node)
{
    const fnn_net *net = pass->net;
    size_t begin, end;
    own_columns(pass, node, &begin, &end);
    if (begin == end)
        return;
    size_t n = end - begin;
    void *dgamma = vector(net, node->dgamma, begin), *dbeta = vector(net, node->dbeta, begin);
    pass->kernels->batchnorm_backward_sums(dgamma, dbeta, fnn_at(net, pass->gradient, begin),
                                           vector(net, node->x, begin), vector(net, node->batch_mean, begin),
                                           vector(net, node->batch_variance, begin), node->layer.eps, pass->rows, n,
                                           node->ld_outputs);
    char *gamma_gradient = net->gradients + (node->weight + begin) * net->real_size;
    char *beta_gradient = net->gradients + (node->bias + begin) * net->real_size;
    if (!pass->accumulate) {
        memset(gamma_gradient, 0, n * net->real_size);
        memset(beta_gradient, 0, n * net->real_size);
    }
    pass->kernels->add(gamma_gradient, dgamma, n);
    pass->kernels->add(beta_gradient, dbeta, n);
}

static void backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    const fnn_net *net = pass->net;
    bool learns = node->layer.trainable;
    if (learns) {
        fnn_barrier(pass->n_threads); /* all rows of dy are there */
        gradient_sums(pass, node);
        fnn_barrier(pass->n_threads); /* all columns of the sums are there; dx may now overwrite dy */
    }
    if (!input_gradient)
        return;
    /* With fixed statistics the terms through mean and variance are absent: zero sums. */
    size_t first = pass->row_begin * node->ld_outputs;
    void *dy = fnn_at(net, pass->gradient, first);
    pass->kernels->batchnorm_backward(
        dy, dy, vector(net, node->x, first),
        learns ? fnn_training(net, node->batch_mean) : fnn_parameter(net, node->mean),
        learns ? fnn_training(net, node->batch_variance) : fnn_parameter(net, node->variance),
        fnn_parameter(net, node->weight), fnn_training(net, learns ? node->dgamma : node->zeros),
        fnn_training(net, learns ? node->dbeta : node->zeros), node->layer.eps, pass->rows,
        pass->row_end - pass->row_begin, node->ld_outputs, node->ld_outputs);
}

static void *predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    (void)y, (void)fused;
    const fnn_net *net = block->net;
    block->kernels->batchnorm_forward(x, x, fnn_parameter(net, node->mean), fnn_parameter(net, node->variance),
                                      fnn_parameter(net, node->weight), fnn_parameter(net, node->bias), node->layer.eps,
                                      block->rows, node->ld_outputs, node->ld_outputs);
    return x;
}

const fnn_node_type fnn_batchnorm = {shape, scratch, forward, backward, predict};

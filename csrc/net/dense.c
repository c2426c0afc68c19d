/* Dense: y (m,n) = activation(x (m,k) W (k,n) + b). */
#include <string.h>

#include "net.h"

static fnn_status shape(fnn_net *net, fnn_node *node, bool trainable)
{
    size_t i = node->layer_index;
    if (!node->layer.trainable != !trainable)
        return FNN_OK;
    fnn_status status = fnn_add_tensor(net, &node->weight, i, "weight", trainable, node->inputs, node->outputs);
    if (status == FNN_OK && node->layer.use_bias)
        status = fnn_add_tensor(net, &node->bias, i, "bias", trainable, 1, node->outputs);
    return status;
}

/* The activation that follows, where the product applies it, else the identity. */
static fnn_activation epilogue(const fnn_node *node, bool fused, double *alpha)
{
    *alpha = fused ? node[1].layer.alpha : 0;
    return fused ? node[1].layer.activation : FNN_IDENTITY;
}

static void dense_product(const fnn_net *net, const fnn_node *node, void *y, const void *x, size_t rows, size_t ldx,
                          bool fused)
{
    double alpha;
    fnn_activation activation = epilogue(node, fused, &alpha);
    const void *weight = fnn_parameter(net, node->weight), *bias = fnn_parameter(net, node->bias);
    if (net->frozen)
        net->kernels->dense_forward_packed(y, x, weight, bias, activation, alpha, rows, node->outputs, node->inputs,
                                           node->ld_outputs, ldx);
    else
        net->kernels->dense_forward(y, x, weight, bias, activation, alpha, rows, node->outputs, node->inputs,
                                    node->ld_outputs, ldx, node->ld_outputs);
}

static void forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    const fnn_net *net = pass->net;
    size_t begin = pass->row_begin;
    dense_product(net, node, fnn_at(net, fnn_training(net, node->y), begin * node->ld_outputs),
                  fnn_at(net, fnn_training(net, node->x), begin * node->ld_inputs), pass->row_end - begin,
                  node->ld_inputs, fused);
}

enum { SHORTEST_CHUNK = STEP_ROWS, SMALL_MATRIX = 16384 };

static bool is_small(const fnn_node *node)
{
    return node->inputs * node->ld_outputs <= SMALL_MATRIX;
}

size_t fnn_chunk_rows(const fnn_node *node, size_t rows)
{
    if (rows < 4 * SHORTEST_CHUNK || !is_small(node))
        return rows;
    size_t chunk = (rows + MOST_CHUNKS - 1) / MOST_CHUNKS;
    return chunk < SHORTEST_CHUNK ? SHORTEST_CHUNK : (chunk + 7) / 8 * 8;
}

static void scratch(fnn_layout *layout, fnn_node *node)
{
    size_t size = layout->real_size;
    node->dx = layout->gradient;
    node->dy = layout->gradient = fnn_place(layout, layout->needs.rows, node->ld_outputs, size);
    node->panel = fnn_place(layout, node->outputs, node->ld_inputs, size);
    /* The number of chunks is not monotone in the rows, so there is room for the most there can be. */
    if (is_small(node) && fnn_chunk_rows(node, layout->needs.batch_rows) < layout->needs.batch_rows)
        node->partials = fnn_place(layout, MOST_CHUNKS * (node->inputs + 1), node->ld_outputs, size);
}

void fnn_dense_transpose(const fnn_pass *pass, const fnn_node *node)
{
    const fnn_net *net = pass->net;
    size_t begin, end;
    fnn_share(&begin, &end, node->outputs, FNN_PAD_BYTES / net->real_size, pass->thread, pass->n_threads);
    pass->kernels->transpose(fnn_at(net, fnn_training(net, node->panel), begin * node->ld_inputs),
                             fnn_at(net, fnn_parameter(net, node->weight), begin), node->inputs, end - begin,
                             node->ld_inputs, node->ld_outputs);
}

void fnn_dense_partial(const fnn_pass *pass, const fnn_node *node, size_t chunk, bool add)
{
    const fnn_net *net = pass->net;
    const fnn_kernels *kernels = pass->kernels;
    size_t k = node->inputs, n = node->outputs, ldw = node->ld_outputs, ldx = node->ld_inputs;
    size_t first = pass->row_begin, rows = pass->row_end - first;
    void *partial = fnn_at(net, fnn_training(net, node->partials), chunk * (k + 1) * ldw);
    const void *dy = fnn_at(net, fnn_training(net, node->dy), first * ldw);
    kernels->dense_backward_weights(partial, fnn_at(net, fnn_training(net, node->x), first * ldx), dy, add, k, n, rows,
                                    ldw, ldx, ldw);
    if (node->bias != FNN_NONE)
        kernels->column_sums(fnn_at(net, partial, k * ldw), dy, add, rows, ldw, ldw);
}

void fnn_dense_add_partials(const fnn_pass *pass, void *sum, const fnn_node *node, size_t begin, size_t end)
{
    const fnn_net *net = pass->net;
    size_t chunk = fnn_chunk_rows(node, pass->rows), stride = (node->inputs + 1) * node->ld_outputs;
    if (!pass->accumulate)
        memset(sum, 0, (end - begin) * net->real_size);
    for (size_t c = 0; c * chunk < pass->rows; c++)
        pass->kernels->add(sum, fnn_at(net, fnn_training(net, node->partials), c * stride + begin), end - begin);
}

void fnn_dense_weight_gradient(const fnn_pass *pass, void *dw, const fnn_node *node, size_t begin, size_t end)
{
    const fnn_net *net = pass->net;
    pass->kernels->dense_backward_weights(dw, fnn_at(net, fnn_training(net, node->x), begin),
                                          fnn_training(net, node->dy), pass->accumulate, end - begin, node->outputs,
                                          pass->rows, node->ld_outputs, node->ld_inputs, node->ld_outputs);
}

void fnn_dense_bias_gradient(const fnn_pass *pass, void *db, const fnn_node *node, size_t begin, size_t end)
{
    const fnn_net *net = pass->net;
    pass->kernels->column_sums(db, fnn_at(net, fnn_training(net, node->dy), begin), pass->accumulate, pass->rows,
                               end - begin, node->ld_outputs);
}

void fnn_dense_descend(const fnn_pass *pass, const fnn_node *node, double rate, size_t begin, size_t end)
{
    const fnn_net *net = pass->net;
    size_t ldw = node->ld_outputs;
    pass->kernels->dense_update_weights(fnn_at(net, fnn_parameter(net, node->weight), begin * ldw),
                                        fnn_at(net, fnn_training(net, node->x), begin), fnn_training(net, node->dy),
                                        rate, end - begin, node->outputs, pass->rows, ldw, node->ld_inputs, ldw);
}

static void backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    if (!input_gradient)
        return;
    const fnn_net *net = pass->net;
    size_t begin = pass->row_begin;
    void *dx = fnn_training(net, node->dx);
    pass->kernels->dense_backward_input(fnn_at(net, dx, begin * node->ld_inputs),
                                        fnn_at(net, fnn_training(net, node->dy), begin * node->ld_outputs),
                                        fnn_training(net, node->panel), pass->row_end - begin, node->inputs,
                                        node->outputs, node->ld_inputs, node->ld_outputs, node->ld_inputs);
    pass->gradient = dx;
}

static void *predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    dense_product(block->net, node, y, x, block->rows, node == block->net->nodes ? block->ld_inputs : node->ld_inputs,
                  fused);
    return y;
}

const fnn_node_type fnn_dense = {
    .shape = shape, .scratch = scratch, .forward = forward, .backward = backward, .predict = predict};

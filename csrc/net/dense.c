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

enum { SHORTEST_CHUNK = 256, MOST_CHUNKS = 64, SMALL_MATRIX = 16384 };

/* Rows of a chunk of the sum over the batch; all rows: one sum. Depends on shapes alone, for it decides the bits. */
static size_t chunk_rows(const fnn_node *node, size_t rows)
{
    if (rows < 4 * SHORTEST_CHUNK || node->inputs * node->ld_outputs > SMALL_MATRIX)
        return rows;
    size_t chunk = (rows + MOST_CHUNKS - 1) / MOST_CHUNKS;
    return chunk < SHORTEST_CHUNK ? SHORTEST_CHUNK : (chunk + 7) / 8 * 8;
}

/* The number of chunks is not monotone in the rows, so there is room for the most there can be. */
size_t fnn_partials_size(const fnn_net *net, size_t rows)
{
    size_t most = 0;
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type != &fnn_dense || chunk_rows(node, rows) == rows)
            continue;
        size_t size =
            MOST_CHUNKS * (node->inputs + 1) * node->ld_outputs; /* of SMALL_MATRIX and a bias each, at most */
        most = size > most ? size : most;
    }
    return most;
}

/* dW and db as one matrix in the arena: k rows of W, then b. The sum over the batch is cut into chunks when the matrix
 * is small and the batch long: then threads share the chunks, and the chunks are added in order. */
static void weight_gradients(const fnn_pass *pass, const fnn_node *node)
{
    const fnn_net *net = pass->net;
    const fnn_kernels *kernels = pass->kernels;
    size_t k = node->inputs, n = node->outputs, ldw = node->ld_outputs, ldx = node->ld_inputs;
    const void *x = fnn_training(net, node->x), *dy = pass->gradient;
    char *dw = net->gradients + node->weight * net->real_size;
    bool bias = node->bias != FNN_NONE;
    size_t size = (k + bias) * ldw, begin, end, chunk = chunk_rows(node, pass->rows);

    if (chunk == pass->rows) {
        bool by_inputs = k >= n;
        size_t group = by_inputs ? 8 : FNN_PAD_BYTES / net->real_size;
        fnn_share(&begin, &end, by_inputs ? k : ldw, group, pass->thread, pass->n_threads);
        size_t place = by_inputs ? begin * ldw : begin;
        if (begin < end)
            kernels->dense_backward_weights(fnn_at(net, dw, place), fnn_at(net, (void *)x, by_inputs ? begin : 0),
                                            fnn_at(net, (void *)dy, by_inputs ? 0 : begin), pass->accumulate,
                                            by_inputs ? end - begin : k, by_inputs ? n : end - begin, pass->rows, ldw,
                                            ldx, ldw);
        fnn_share(&begin, &end, ldw, FNN_PAD_BYTES / net->real_size, pass->thread, pass->n_threads);
        if (bias)
            kernels->column_sums(fnn_at(net, dw, k * ldw + begin), fnn_at(net, (void *)dy, begin), pass->accumulate,
                                 pass->rows, end - begin, ldw);
        return;
    }

    size_t n_chunks = (pass->rows + chunk - 1) / chunk, stride = (k + 1) * ldw;
    char *partials = fnn_training(net, net->partial_place);
    fnn_share(&begin, &end, n_chunks, 1, pass->thread, pass->n_threads);
    for (size_t c = begin; c < end; c++) {
        size_t first = c * chunk, rows = pass->rows - first < chunk ? pass->rows - first : chunk;
        void *partial = fnn_at(net, partials, c * stride);
        const void *dy_rows = fnn_at(net, (void *)dy, first * ldw);
        kernels->dense_backward_weights(partial, fnn_at(net, (void *)x, first * ldx), dy_rows, 0, k, ldw, rows, ldw,
                                        ldx, ldw);
        if (bias)
            kernels->column_sums(fnn_at(net, partial, k * ldw), dy_rows, 0, rows, ldw, ldw);
    }
    fnn_barrier(pass->n_threads);
    fnn_share(&begin, &end, size, FNN_PAD_BYTES / net->real_size, pass->thread, pass->n_threads);
    if (!pass->accumulate)
        memset(fnn_at(net, dw, begin), 0, (end - begin) * net->real_size);
    for (size_t c = 0; c < n_chunks; c++)
        kernels->add(fnn_at(net, dw, begin), fnn_at(net, partials, c * stride + begin), end - begin);
}

/* A leading dimension that was moved off a power of two has columns that no product computes. The buffers of gradients
 * serve layers of different widths, so these columns hold old values: they become 0. */
static void clear_spare_columns(const fnn_net *net, void *matrix, size_t rows, size_t columns, size_t ld)
{
    size_t pad = FNN_PAD_BYTES / net->real_size, computed = (columns + pad - 1) / pad * pad;
    if (computed == ld)
        return;
    for (size_t i = 0; i < rows; i++)
        memset(fnn_at(net, matrix, i * ld + computed), 0, (ld - computed) * net->real_size);
}

static void backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    const fnn_net *net = pass->net;
    size_t k = node->inputs, n = node->outputs, begin = pass->row_begin, panel_begin, panel_end;
    /* Two panels take turns: a thread may pack the next one while another still reads this one. */
    void *panel = fnn_training(net, net->panel_place[pass->panel]);
    if (input_gradient) {
        fnn_share(&panel_begin, &panel_end, n, FNN_PAD_BYTES / net->real_size, pass->thread, pass->n_threads);
        pass->kernels->transpose(fnn_at(net, panel, panel_begin * node->ld_inputs),
                                 fnn_at(net, fnn_parameter(net, node->weight), panel_begin), k, panel_end - panel_begin,
                                 node->ld_inputs, node->ld_outputs);
        pass->panel ^= 1;
    }
    fnn_barrier(pass->n_threads); /* all rows of dy, and the whole panel, are there */
    if (node->layer.trainable)
        weight_gradients(pass, node);
    if (!input_gradient)
        return;
    pass->gradient_index ^= 1;
    void *dx = fnn_training(net, net->gradient_place[pass->gradient_index]);
    pass->kernels->dense_backward_input(
        fnn_at(net, dx, begin * node->ld_inputs), fnn_at(net, pass->gradient, begin * node->ld_outputs), panel,
        pass->row_end - begin, k, n, node->ld_inputs, node->ld_outputs, node->ld_inputs);
    clear_spare_columns(net, fnn_at(net, dx, begin * node->ld_inputs), pass->row_end - begin, k, node->ld_inputs);
    pass->gradient = dx;
}

static void *predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    dense_product(block->net, node, y, x, block->rows, node == block->net->nodes ? block->ld_inputs : node->ld_inputs,
                  fused);
    return y;
}

const fnn_node_type fnn_dense = {.shape = shape, .forward = forward, .backward = backward, .predict = predict};

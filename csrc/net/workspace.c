/* The training workspace: one block of memory, laid out for a number of rows when training first needs it. */
#include "net.h"

typedef struct layout {
    size_t bytes;
    bool overflow;
} layout;

/* Room for rows x columns elements of `size` bytes, 64-byte aligned; returns its place. */
static size_t place(layout *at, size_t rows, size_t columns, size_t size)
{
    size_t begin = at->bytes, bytes;
    if (!fnn_size_multiply(&bytes, rows, columns) || !fnn_size_multiply(&bytes, bytes, size) ||
        !fnn_size_round_up(&bytes, bytes, FNN_PAD_BYTES) || !fnn_size_add(&at->bytes, at->bytes, bytes))
        at->overflow = true;
    return begin;
}

static void place_batchnorm(layout *at, fnn_node *node, size_t size)
{
    size_t *vectors[] = {&node->batch_mean, &node->batch_variance, &node->pending_mean, &node->pending_variance,
                         &node->dgamma,     &node->dbeta,          &node->zeros};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = place(at, 1, node->ld_outputs, size);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static layout lay_out(fnn_net *net, size_t rows)
{
    layout at = {0};
    size_t size = net->real_size, panel = 0, partials = 0;
    net->input_place = place(&at, rows, net->ld_inputs, size);
    size_t x = net->input_place;
    for (size_t i = 0; i < net->n_nodes; i++) {
        fnn_node *node = &net->nodes[i];
        node->x = x;
        node->y = x = node->in_place ? x : place(&at, rows, node->ld_outputs, size);
        if (node->type == &fnn_dropout)
            node->mask = place(&at, rows, node->ld_outputs, 1);
        if (node->type == &fnn_batchnorm)
            place_batchnorm(&at, node, size);
        if (node->type == &fnn_dense) {
            size_t chunk = fnn_weight_chunk(node, rows), chunks = (rows + chunk - 1) / chunk;
            panel = larger(panel, node->outputs * node->ld_inputs);
            if (chunk < rows)
                partials = larger(partials, chunks * (node->inputs + 1) * node->ld_outputs);
        }
    }
    net->gradient_place[0] = place(&at, rows, net->ld_max, size);
    net->gradient_place[1] = place(&at, rows, net->ld_max, size);
    net->panel_place[0] = place(&at, 1, panel, size);
    net->panel_place[1] = place(&at, 1, panel, size);
    net->partial_place = place(&at, 1, partials, size);
    net->labels_place = place(&at, rows, 1, sizeof(int32_t));
    net->targets_place = place(&at, rows, net->ld_max, size);
    net->row_weight_place = place(&at, rows, 1, sizeof(double));
    net->row_loss_place = place(&at, rows, 1, sizeof(double));
    return at;
}

static fnn_status prepare_gradients(fnn_net *net)
{
    if (net->gradients)
        return FNN_OK;
    size_t bytes;
    if (!fnn_size_multiply(&bytes, net->trainable_size, net->real_size))
        return FNN_EOVERFLOW;
    net->gradients = fnn_allocate(bytes);
    return net->gradients ? FNN_OK : FNN_ENOMEM;
}

fnn_status fnn_prepare_training(fnn_net *net, size_t rows)
{
    fnn_status status = prepare_gradients(net);
    if (status != FNN_OK || rows <= net->capacity)
        return status;
    fnn_release(net->training);
    net->training = NULL;
    net->capacity = net->forward_rows = 0;
    layout at = lay_out(net, rows);
    if (at.overflow)
        return FNN_EOVERFLOW;
    net->training = fnn_allocate(at.bytes);
    if (!net->training)
        return FNN_ENOMEM;
    net->capacity = rows;
    return FNN_OK;
}

void *fnn_net_gradients(fnn_net *net)
{
    return prepare_gradients(net) == FNN_OK ? net->gradients : NULL;
}

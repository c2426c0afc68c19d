/* The training workspace: one block of memory, laid out for a number of rows when training first needs it. */
#include "net.h"

size_t fnn_place(fnn_layout *layout, size_t rows, size_t columns, size_t size)
{
    size_t begin = layout->bytes, bytes;
    if (!fnn_size_multiply(&bytes, rows, columns) || !fnn_size_multiply(&bytes, bytes, size) ||
        !fnn_size_round_up(&bytes, bytes, FNN_PAD_BYTES) || !fnn_size_add(&layout->bytes, layout->bytes, bytes))
        layout->overflow = true;
    return begin;
}

static fnn_layout lay_out(fnn_net *net, size_t rows, size_t batch_rows)
{
    size_t size = net->real_size;
    fnn_layout layout = {.rows = rows, .batch_rows = batch_rows, .real_size = size};
    size_t x = net->input_place = fnn_place(&layout, rows, net->ld_inputs, size);
    net->input_gradient_place = layout.gradient = fnn_place(&layout, rows, net->ld_inputs, size);
    for (size_t i = 0; i < net->n_nodes; i++) {
        fnn_node *node = &net->nodes[i];
        node->x = x;
        node->y = x = node->in_place ? x : fnn_place(&layout, rows, node->ld_outputs, size);
        if (node->type->scratch)
            node->type->scratch(&layout, node);
    }
    net->output_gradient_place = layout.gradient;
    net->labels_place = fnn_place(&layout, rows, 1, sizeof(int32_t));
    net->targets_place = fnn_place(&layout, rows, net->ld_max, size);
    net->row_weight_place = fnn_place(&layout, batch_rows, 1, sizeof(double));
    net->row_loss_place = fnn_place(&layout, batch_rows, 1, sizeof(double));
    return layout;
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

fnn_status fnn_prepare_training(fnn_net *net, size_t rows, size_t batch_rows)
{
    if (net->frozen)
        return FNN_EINVAL;
    fnn_status status = prepare_gradients(net);
    if (status != FNN_OK || (rows <= net->capacity && batch_rows <= net->batch_capacity))
        return status;
    rows = rows < net->capacity ? net->capacity : rows;
    batch_rows = batch_rows < net->batch_capacity ? net->batch_capacity : batch_rows;
    fnn_form_last_gradients(net);
    fnn_release(net->training);
    net->training = NULL;
    net->capacity = net->batch_capacity = net->forward_rows = 0;
    net->statistics_pending = false;
    fnn_layout layout = lay_out(net, rows, batch_rows);
    if (layout.overflow)
        return FNN_EOVERFLOW;
    net->training = fnn_allocate(layout.bytes);
    if (!net->training)
        return FNN_ENOMEM;
    net->capacity = rows;
    net->batch_capacity = batch_rows;
    return FNN_OK;
}

void *fnn_net_gradients(fnn_net *net)
{
    net->gradients_wanted = true;
    fnn_form_last_gradients(net);
    return prepare_gradients(net) == FNN_OK ? net->gradients : NULL;
}

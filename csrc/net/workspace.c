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

/* Elements of the largest transposed weight matrix. */
static size_t panel_size(fnn_layout *layout, const fnn_net *net)
{
    size_t most = 0, size;
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type != &fnn_dense)
            continue;
        if (!fnn_size_multiply(&size, node->outputs, node->ld_inputs))
            layout->overflow = true;
        else if (size > most)
            most = size;
    }
    return most;
}

static fnn_layout lay_out(fnn_net *net, size_t rows)
{
    fnn_layout layout = {0};
    size_t size = net->real_size, panel = panel_size(&layout, net);
    net->input_place = fnn_place(&layout, rows, net->ld_inputs, size);
    size_t x = net->input_place;
    for (size_t i = 0; i < net->n_nodes; i++) {
        fnn_node *node = &net->nodes[i];
        node->x = x;
        node->y = x = node->in_place ? x : fnn_place(&layout, rows, node->ld_outputs, size);
        if (node->type->scratch)
            node->type->scratch(&layout, node, rows, size);
    }
    for (int i = 0; i < 2; i++) {
        net->gradient_place[i] = fnn_place(&layout, rows, net->ld_max, size);
        net->panel_place[i] = fnn_place(&layout, 1, panel, size);
    }
    net->partial_place = fnn_place(&layout, 1, fnn_partials_size(net, rows), size);
    net->labels_place = fnn_place(&layout, rows, 1, sizeof(int32_t));
    net->targets_place = fnn_place(&layout, rows, net->ld_max, size);
    net->row_weight_place = fnn_place(&layout, rows, 1, sizeof(double));
    net->row_loss_place = fnn_place(&layout, rows, 1, sizeof(double));
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

fnn_status fnn_prepare_training(fnn_net *net, size_t rows)
{
    if (net->frozen)
        return FNN_EINVAL;
    fnn_status status = prepare_gradients(net);
    if (status != FNN_OK || rows <= net->capacity)
        return status;
    fnn_release(net->training);
    net->training = NULL;
    net->capacity = net->forward_rows = 0;
    net->statistics_pending = false;
    fnn_layout layout = lay_out(net, rows);
    if (layout.overflow)
        return FNN_EOVERFLOW;
    net->training = fnn_allocate(layout.bytes);
    if (!net->training)
        return FNN_ENOMEM;
    net->capacity = rows;
    return FNN_OK;
}

void *fnn_net_gradients(fnn_net *net)
{
    return prepare_gradients(net) == FNN_OK ? net->gradients : NULL;
}

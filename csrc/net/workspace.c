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

static fnn_layout lay_out(fnn_net *net, fnn_needs needs)
{
    size_t size = net->real_size, rows = needs.rows;
    fnn_layout layout = {.needs = needs, .real_size = size};
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
    net->row_weight_place = fnn_place(&layout, needs.batch_rows, 1, sizeof(double));
    net->row_loss_place = fnn_place(&layout, needs.batch_rows, 1, sizeof(double));
    net->scratch_bytes = fnn_scratch_size(net);
    net->scratch_place = fnn_place(&layout, (size_t)needs.threads, net->scratch_bytes, 1);
    return layout;
}

fnn_status fnn_prepare_gradients(fnn_net *net)
{
    if (net->gradients)
        return FNN_OK;
    size_t bytes;
    if (!fnn_size_multiply(&bytes, net->trainable_size, net->real_size))
        return FNN_EOVERFLOW;
    net->gradients = fnn_allocate(bytes);
    return net->gradients ? FNN_OK : FNN_ENOMEM;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

fnn_status fnn_prepare_training(fnn_net *net, fnn_needs needs)
{
    const fnn_needs *have = &net->capacity;
    if (net->frozen)
        return FNN_EINVAL;
    fnn_status status = fnn_prepare_gradients(net);
    if (status != FNN_OK ||
        (needs.rows <= have->rows && needs.batch_rows <= have->batch_rows && needs.threads <= have->threads))
        return status;
    needs = (fnn_needs){.rows = larger(needs.rows, have->rows),
                        .batch_rows = larger(needs.batch_rows, have->batch_rows),
                        .threads = needs.threads > have->threads ? needs.threads : have->threads};
    fnn_form_last_gradients(net);
    fnn_release(net->training);
    net->training = NULL;
    net->capacity = (fnn_needs){0};
    net->forward_rows = 0;
    net->statistics_pending = false;
    fnn_layout layout = lay_out(net, needs);
    if (layout.overflow)
        return FNN_EOVERFLOW;
    net->training = fnn_allocate(layout.bytes);
    if (!net->training)
        return FNN_ENOMEM;
    net->capacity = needs;
    return FNN_OK;
}

void *fnn_net_gradients(fnn_net *net)
{
    net->gradients_wanted = true;
    fnn_form_last_gradients(net);
    return fnn_prepare_gradients(net) == FNN_OK ? net->gradients : NULL;
}

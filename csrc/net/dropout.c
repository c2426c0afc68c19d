/* Dropout: a fresh mask per training pass; at prediction nothing, or the factor 1-p with test scaling; a mask drawn
 * (Monte Carlo) or enumerated (exact expectation) where the randomness itself is asked for. */
#include <string.h>

#include "net.h"

static void scratch(fnn_layout *layout, fnn_node *node)
{
    node->mask = fnn_place(layout, layout->needs.rows, node->ld_outputs, 1);
}

static fnn_random layer_random(fnn_random random, const fnn_node *node)
{
    random.layer = (uint32_t)node->layer_index;
    return random;
}

static void forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    (void)fused;
    const fnn_net *net = pass->net;
    size_t first = pass->row_begin * node->ld_outputs;
    fnn_random random = layer_random(pass->random, node);
    pass->kernels->dropout_forward(fnn_at(net, fnn_training(net, node->y), first),
                                   (uint8_t *)fnn_training(net, node->mask) + first,
                                   fnn_at(net, fnn_training(net, node->x), first), node->threshold, node->drop_scale,
                                   &random, pass->first_row + pass->shift + pass->row_begin,
                                   pass->row_end - pass->row_begin, node->outputs, node->ld_outputs);
}

static void backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    if (!input_gradient)
        return;
    const fnn_net *net = pass->net;
    size_t first = pass->row_begin * node->ld_outputs;
    void *dy = fnn_at(net, pass->gradient, first);
    pass->kernels->dropout_backward(dy, dy, (const uint8_t *)fnn_training(net, node->mask) + first, node->drop_scale,
                                    (pass->row_end - pass->row_begin) * node->ld_outputs);
}

/* Masks of the Dropout layers before this one take the lower bits of a mask's number. */
static unsigned first_bit(const fnn_net *net, const fnn_node *node)
{
    size_t bits = 0;
    for (const fnn_node *other = net->nodes; other < node; other++)
        if (other->type == &fnn_dropout && other->threshold > 0)
            bits += other->outputs;
    return (unsigned)bits;
}

static void *predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    (void)fused;
    const fnn_kernels *kernels = block->kernels;
    size_t n = node->outputs, ld = node->ld_outputs;
    if (node->threshold == 0)
        return x;
    switch (block->mode) {
    case FNN_SAMPLE: {
        fnn_random random = layer_random(block->random, node);
        kernels->dropout_forward(x, NULL, x, node->threshold, node->drop_scale, &random, block->first_row, block->rows,
                                 n, ld);
        return x;
    }
    case FNN_ENUMERATE: {
        unsigned bit = first_bit(block->net, node);
        kernels->dropout_enumerated(y, x, node->drop_scale, block->first_mask, bit, block->rows, n, ld,
                                    bit == 0 ? 0 : ld); /* the first Dropout gets the one row all masks share */
        return y;
    }
    case FNN_EVALUATE:
        break;
    }
    if (node->layer.test_scaling)
        kernels->scale(x, x, 1.0 - node->threshold / 65536.0, block->rows * ld);
    return x;
}

const fnn_node_type fnn_dropout = {.scratch = scratch, .forward = forward, .backward = backward, .predict = predict};

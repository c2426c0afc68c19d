/* Activations as nodes of their own, Softmax over a row, and Scale inside a net. */
#include "net.h"

static size_t own_count(const fnn_pass *pass, const fnn_node *node)
{
    return (pass->row_end - pass->row_begin) * node->ld_outputs;
}

static void *own_rows(const fnn_pass *pass, const fnn_node *node, size_t place)
{
    return fnn_at(pass->net, fnn_training(pass->net, place), pass->row_begin * node->ld_outputs);
}

static void *own_gradient(const fnn_pass *pass, const fnn_node *node)
{
    return fnn_at(pass->net, pass->gradient, pass->row_begin * node->ld_outputs);
}

/* ---- activation ---- */

static void activation_forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    (void)fused;
    pass->kernels->activation_forward(own_rows(pass, node, node->y), own_rows(pass, node, node->x),
                                      node->layer.activation, node->layer.alpha, own_count(pass, node));
}

static void activation_backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    if (!input_gradient)
        return;
    void *dy = own_gradient(pass, node);
    pass->kernels->activation_backward(dy, dy, own_rows(pass, node, node->x), own_rows(pass, node, node->y),
                                       node->layer.activation, node->layer.alpha, own_count(pass, node));
}

static void *activation_predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    (void)y, (void)fused;
    block->kernels->activation_forward(x, x, node->layer.activation, node->layer.alpha, block->rows * node->ld_outputs);
    return x;
}

const fnn_node_type fnn_activation_node = {
    .forward = activation_forward, .backward = activation_backward, .predict = activation_predict};

/* ---- softmax ---- */

static void softmax_forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    (void)fused;
    pass->kernels->softmax_forward(own_rows(pass, node, node->y), own_rows(pass, node, node->x),
                                   pass->row_end - pass->row_begin, node->outputs, node->ld_outputs);
}

static void softmax_backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    if (!input_gradient)
        return;
    void *dy = own_gradient(pass, node);
    pass->kernels->softmax_backward(dy, dy, own_rows(pass, node, node->y), pass->row_end - pass->row_begin,
                                    node->outputs, node->ld_outputs);
}

static void *softmax_predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    (void)y, (void)fused;
    block->kernels->softmax_forward(x, x, block->rows, node->outputs, node->ld_outputs);
    return x;
}

const fnn_node_type fnn_softmax = {
    .forward = softmax_forward, .backward = softmax_backward, .predict = softmax_predict};

/* ---- scale ---- */

static void scale_forward(const fnn_pass *pass, const fnn_node *node, bool fused)
{
    (void)fused;
    pass->kernels->scale(own_rows(pass, node, node->y), own_rows(pass, node, node->x), node->layer.alpha,
                         own_count(pass, node));
}

static void scale_backward(fnn_pass *pass, const fnn_node *node, bool input_gradient)
{
    if (!input_gradient)
        return;
    void *dy = own_gradient(pass, node);
    pass->kernels->scale(dy, dy, node->layer.alpha, own_count(pass, node));
}

static void *scale_predict(const fnn_block *block, const fnn_node *node, void *y, void *x, bool fused)
{
    (void)y, (void)fused;
    block->kernels->scale(x, x, node->layer.alpha, block->rows * node->ld_outputs);
    return x;
}

const fnn_node_type fnn_scale_node = {.forward = scale_forward, .backward = scale_backward, .predict = scale_predict};

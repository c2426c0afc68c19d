/* From the layer list to checked sizes, places in the arenas, and nodes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "net.h"

bool fnn_padded(size_t *ld, const fnn_net *net, size_t columns)
{
    enum { CACHE_PAGE = 4096 }; /* bytes after which addresses fall on the same cache sets */
    size_t pad = FNN_PAD_BYTES / net->real_size;
    if (!fnn_size_round_up(ld, columns, pad))
        return false;
    if (*ld * net->real_size % CACHE_PAGE == 0)
        return fnn_size_add(ld, *ld, pad);
    return true;
}

static bool in_range(double value, double low, double high)
{
    return value >= low && value < high;
}

/* The sign of x is read off y in backward: slope and alpha may not turn it. */
static bool valid_activation(const fnn_layer *layer)
{
    bool signed_alpha = layer->activation == FNN_LEAKY_RELU || layer->activation == FNN_ELU;
    return layer->activation <= FNN_SOFTMAX && isfinite(layer->alpha) && (!signed_alpha || layer->alpha >= 0);
}

static bool valid_init(const fnn_layer *layer)
{
    bool spread = layer->init == FNN_UNIFORM || layer->init == FNN_NORMAL;
    return layer->init <= FNN_ORTHOGONAL && isfinite(layer->init_value) && (!spread || layer->init_value > 0);
}

bool fnn_valid_penalty(const fnn_penalty *penalty)
{
    return penalty->kind <= FNN_ELASTIC_NET && in_range(penalty->lam, 0, INFINITY) &&
           in_range(penalty->beta, 0, INFINITY);
}

static bool valid_layer(const fnn_layer *layer, size_t index)
{
    switch (layer->kind) {
    case FNN_DENSE:
        return layer->units > 0 && valid_activation(layer) && valid_init(layer) && fnn_valid_penalty(&layer->penalty);
    case FNN_BATCHNORM:
        return layer->eps >= FNN_SMALLEST_EPS && isfinite(layer->eps) && in_range(layer->decay, 0, 1);
    case FNN_DROPOUT:
        return in_range(layer->p, 0, 65535.5 / 65536);
    case FNN_ACTIVATION:
        return valid_activation(layer);
    case FNN_SCALE:
        return isfinite(layer->alpha);
    case FNN_STANDARDIZE:
        return index == 0;
    }
    return false;
}

/* f'(x) can be had from y alone, so that y may overwrite x and the product may apply it. */
static bool known_from_output(fnn_activation activation)
{
    return activation != FNN_GELU && activation != FNN_SILU && activation != FNN_SOFTMAX;
}

static fnn_node *add_node(fnn_net *net, const fnn_node_type *type, const fnn_layer *layer, size_t index, size_t inputs,
                          size_t outputs)
{
    fnn_node *node = &net->nodes[net->n_nodes++];
    *node = (fnn_node){.type = type,
                       .layer = *layer,
                       .layer_index = index,
                       .inputs = inputs,
                       .outputs = outputs,
                       .weight = FNN_NONE,
                       .bias = FNN_NONE,
                       .mean = FNN_NONE,
                       .variance = FNN_NONE};
    return node;
}

/* Backward of this node looks at its y, so the next node must not write over it. */
static bool needs_output(const fnn_node *node)
{
    return node->type == &fnn_activation_node || node->type == &fnn_softmax;
}

static bool may_overwrite(const fnn_net *net)
{
    return net->n_nodes < 2 || !needs_output(&net->nodes[net->n_nodes - 2]);
}

static void add_activation(fnn_net *net, const fnn_layer *layer, size_t index, size_t width)
{
    if (layer->activation == FNN_IDENTITY)
        return;
    bool softmax = layer->activation == FNN_SOFTMAX;
    fnn_node *node = add_node(net, softmax ? &fnn_softmax : &fnn_activation_node, layer, index, width, width);
    node->in_place = known_from_output(layer->activation) && may_overwrite(net);
    if (net->n_nodes > 1 && net->nodes[net->n_nodes - 2].type == &fnn_dense)
        net->nodes[net->n_nodes - 2].fuses_next = !softmax;
}

static void add_scale(fnn_net *net, const fnn_layer *layer, size_t index, size_t width)
{
    fnn_node *node = add_node(net, &fnn_scale_node, layer, index, width, width);
    node->in_place = may_overwrite(net);
}

static void add_layer(fnn_net *net, size_t index, size_t width)
{
    const fnn_layer *layer = &net->layers[index];
    switch (layer->kind) {
    case FNN_DENSE:
        add_node(net, &fnn_dense, layer, index, width, layer->units);
        add_activation(net, layer, index, layer->units);
        break;
    case FNN_BATCHNORM:
        add_node(net, &fnn_batchnorm, layer, index, width, width);
        break;
    case FNN_DROPOUT: {
        fnn_node *node = add_node(net, &fnn_dropout, layer, index, width, width);
        node->threshold = (uint32_t)(layer->p * 65536 + 0.5);
        node->drop_scale = layer->test_scaling ? 1.0 : 65536.0 / (65536.0 - node->threshold);
        break;
    }
    case FNN_ACTIVATION:
        add_activation(net, layer, index, width);
        break;
    case FNN_SCALE:
        if (index == 0)
            net->factor = layer->alpha;
        else
            add_scale(net, layer, index, width);
        break;
    case FNN_STANDARDIZE: /* done by the gather */
        break;
    }
}

/* Multiply-adds of a row's pass through the net. */
static double row_work(const fnn_net *net)
{
    const double elementwise = 8; /* an activation, mask or normalisation takes as long as about 8 multiply-adds */
    double work = 0;
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        work += node->type == &fnn_dense ? (double)node->inputs * (double)node->ld_outputs
                                         : elementwise * (double)node->outputs;
    }
    return work;
}

/* Nodes, and the width after each entry. At most two nodes come from an entry. */
static fnn_status build_nodes(fnn_net *net)
{
    size_t width = net->inputs;
    net->ld_max = net->ld_inputs;
    for (size_t i = 0; i < net->n_layers; i++) {
        size_t begin = net->n_nodes;
        add_layer(net, i, width);
        for (size_t j = begin; j < net->n_nodes; j++) {
            fnn_node *node = &net->nodes[j];
            if (!fnn_padded(&node->ld_inputs, net, node->inputs) || !fnn_padded(&node->ld_outputs, net, node->outputs))
                return FNN_EOVERFLOW;
            if (node->ld_outputs > net->ld_max)
                net->ld_max = node->ld_outputs;
        }
        if (net->layers[i].kind == FNN_DENSE)
            width = net->layers[i].units;
        net->layer_end[i] = net->n_nodes;
        net->layer_width[i] = width;
    }
    net->outputs = width;
    net->row_work = row_work(net);
    return FNN_OK;
}

fnn_status fnn_add_tensor(fnn_net *net, size_t *place, size_t layer, const char *role, bool trainable, size_t rows,
                          size_t columns)
{
    fnn_tensor *tensor = &net->tensors[net->n_tensors++];
    size_t elements;
    *tensor = (fnn_tensor){.layer = layer, .rows = rows, .columns = columns, .trainable = trainable};
    snprintf(tensor->name, sizeof tensor->name, "%zu.%s", layer, role);
    if (!fnn_padded(&tensor->stride, net, columns) || !fnn_size_multiply(&elements, tensor->stride, rows))
        return FNN_EOVERFLOW;
    tensor->offset = net->arena_size;
    *place = tensor->offset;
    return fnn_size_add(&net->arena_size, net->arena_size, elements) ? FNN_OK : FNN_EOVERFLOW;
}

static fnn_status shape_node(fnn_net *net, fnn_node *node, bool trainable)
{
    return node->type->shape ? node->type->shape(net, node, trainable) : FNN_OK;
}

/* The trainable tensors of all nodes come first, then what a Standardize in front keeps, then the rest. */
static fnn_status place_tensors(fnn_net *net)
{
    fnn_status status = FNN_OK;
    net->first_trainable = net->n_nodes;
    for (size_t i = 0; i < net->n_nodes && status == FNN_OK; i++) {
        size_t before = net->n_tensors;
        status = shape_node(net, &net->nodes[i], true);
        if (net->n_tensors > before && net->first_trainable == net->n_nodes)
            net->first_trainable = i;
    }
    net->trainable_size = net->arena_size;
    if (status == FNN_OK && net->layers[0].kind == FNN_STANDARDIZE) {
        status = fnn_add_tensor(net, &net->standardize_mean, 0, "mean", false, 1, net->inputs);
        if (status == FNN_OK)
            status = fnn_add_tensor(net, &net->standardize_scale, 0, "scale", false, 1, net->inputs);
    }
    for (size_t i = 0; i < net->n_nodes && status == FNN_OK; i++)
        status = shape_node(net, &net->nodes[i], false);
    return status;
}

/* The order of the list entries, whatever the place in the arena. */
static void sort_tensors(fnn_net *net)
{
    for (size_t i = 1; i < net->n_tensors; i++) {
        fnn_tensor tensor = net->tensors[i];
        size_t j = i;
        for (; j > 0 && net->tensors[j - 1].layer > tensor.layer; j--)
            net->tensors[j] = net->tensors[j - 1];
        net->tensors[j] = tensor;
    }
}

fnn_status fnn_allocate_parameters(fnn_net *net)
{
    size_t bytes;
    if (net->parameters)
        return FNN_OK;
    if (!fnn_size_multiply(&bytes, net->arena_size, net->real_size))
        return FNN_EOVERFLOW;
    net->parameters = fnn_allocate(bytes);
    if (!net->parameters)
        return FNN_ENOMEM;
    const fnn_random none = {0};
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type == &fnn_batchnorm) {
            net->kernels->draw_uniform(fnn_parameter(net, node->weight), 1, 1, &none, 0, node->outputs);
            net->kernels->draw_uniform(fnn_parameter(net, node->variance), 1, 1, &none, 0, node->outputs);
        }
    }
    return FNN_OK;
}

static fnn_status build(fnn_net *net, const fnn_layer *layers)
{
    size_t layer_bytes, place_bytes, node_bytes, tensor_bytes, penalty_bytes, nodes;
    if (!fnn_padded(&net->ld_inputs, net, net->inputs) || !fnn_size_multiply(&nodes, net->n_layers, 2) ||
        !fnn_size_multiply(&layer_bytes, net->n_layers, sizeof(fnn_layer)) ||
        !fnn_size_multiply(&place_bytes, net->n_layers, sizeof(size_t)) ||
        !fnn_size_multiply(&penalty_bytes, net->n_layers, sizeof(fnn_penalty_terms)) ||
        !fnn_size_multiply(&node_bytes, nodes, sizeof(fnn_node)) ||
        !fnn_size_multiply(&tensor_bytes, net->n_layers, 4 * sizeof(fnn_tensor)))
        return FNN_EOVERFLOW;
    net->layers = fnn_allocate(layer_bytes);
    net->layer_end = fnn_allocate(place_bytes);
    net->layer_width = fnn_allocate(place_bytes);
    net->penalties = fnn_allocate(penalty_bytes);
    net->nodes = fnn_allocate(node_bytes);
    net->tensors = fnn_allocate(tensor_bytes);
    if (!net->layers || !net->layer_end || !net->layer_width || !net->penalties || !net->nodes || !net->tensors)
        return FNN_ENOMEM;
    memcpy(net->layers, layers, layer_bytes);
    fnn_resolve_penalties(net, NULL);
    fnn_status status = build_nodes(net);
    if (status == FNN_OK)
        status = place_tensors(net);
    sort_tensors(net);
    return status;
}

fnn_status fnn_plan_net(fnn_net **result, const fnn_layer *layers, size_t n_layers, size_t input_size, fnn_dtype dtype,
                        uint64_t seed)
{
    if (!result)
        return FNN_EINVAL;
    *result = NULL;
    if (!layers || n_layers == 0 || n_layers > UINT16_MAX || input_size == 0 || input_size > PTRDIFF_MAX ||
        (dtype != FNN_FLOAT32 && dtype != FNN_FLOAT64))
        return FNN_EINVAL;
    for (size_t i = 0; i < n_layers; i++)
        if (!valid_layer(&layers[i], i))
            return FNN_EINVAL;
    const fnn_kernels *kernels = fnn_dispatch(dtype);
    if (!kernels)
        return FNN_ENOISA;
    fnn_net *net = fnn_allocate(sizeof *net);
    if (!net)
        return FNN_ENOMEM;
    net->dtype = dtype;
    net->real_size = dtype == FNN_FLOAT32 ? sizeof(float) : sizeof(double);
    net->seed = seed;
    net->kernels = kernels;
    net->loss_scale = 1;
    net->n_layers = n_layers;
    net->inputs = input_size;
    net->factor = 1;
    net->standardize_mean = net->standardize_scale = FNN_NONE;
    net->optimizer = (fnn_optimizer){.kind = FNN_SGD};
    fnn_status status = build(net, layers);
    if (status != FNN_OK) {
        fnn_net_free(net);
        return status;
    }
    *result = net;
    return FNN_OK;
}

fnn_status fnn_net_create(fnn_net **result, const fnn_layer *layers, size_t n_layers, size_t input_size,
                          fnn_dtype dtype, uint64_t seed)
{
    fnn_status status = fnn_plan_net(result, layers, n_layers, input_size, dtype, seed);
    if (status != FNN_OK)
        return status;
    status = fnn_allocate_parameters(*result);
    if (status != FNN_OK) {
        fnn_net_free(*result);
        *result = NULL;
    }
    return status;
}

void fnn_net_free(fnn_net *net)
{
    if (!net)
        return;
    for (int i = 0; i < WORKSPACE_SLOTS; i++)
        fnn_release(net->workspaces[i]);
    fnn_release(net->training);
    fnn_release(net->norm_partials);
    fnn_release(net->measures.norm_sums);
    fnn_release(net->stretches);
    fnn_release(net->moments[1]);
    fnn_release(net->moments[0]);
    fnn_release(net->gradients);
    fnn_release(net->parameters);
    fnn_release(net->tensors);
    fnn_release(net->nodes);
    fnn_release(net->penalties);
    fnn_release(net->layer_width);
    fnn_release(net->layer_end);
    fnn_release(net->layers);
    fnn_release(net);
}

/* A packed matrix needs no more room than its padded rows. */
fnn_status fnn_net_freeze(fnn_net *net)
{
    if (!net)
        return FNN_EINVAL;
    size_t largest = 0;
    for (size_t i = 0; i < net->n_nodes; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type == &fnn_dense && node->inputs * node->ld_outputs > largest)
            largest = node->inputs * node->ld_outputs;
    }
    void *copy = fnn_allocate(largest * net->real_size);
    if (!copy)
        return FNN_ENOMEM;
    for (size_t i = 0; i < net->n_nodes && !net->frozen; i++) {
        const fnn_node *node = &net->nodes[i];
        if (node->type != &fnn_dense)
            continue;
        void *weight = fnn_parameter(net, node->weight);
        memcpy(copy, weight, node->inputs * node->ld_outputs * net->real_size);
        memset(weight, 0, node->inputs * node->ld_outputs * net->real_size); /* spare columns find no place in it */
        net->kernels->dense_pack(weight, copy, node->inputs, node->outputs, node->ld_outputs);
    }
    fnn_release(copy);
    net->frozen = true;
    net->forward_rows = 0;
    return FNN_OK;
}

/* ---- what the plan tells ---- */

int fnn_net_frozen(const fnn_net *net)
{
    return net->frozen;
}

size_t fnn_net_input_size(const fnn_net *net)
{
    return net->inputs;
}

size_t fnn_net_output_size(const fnn_net *net)
{
    return net->outputs;
}

fnn_dtype fnn_net_dtype(const fnn_net *net)
{
    return net->dtype;
}

uint64_t fnn_net_seed(const fnn_net *net)
{
    return net->seed;
}

size_t fnn_net_layer_count(const fnn_net *net)
{
    return net->n_layers;
}

fnn_status fnn_net_layer(const fnn_net *net, size_t index, fnn_layer *layer)
{
    if (!net || !layer || index >= net->n_layers)
        return FNN_EINVAL;
    *layer = net->layers[index];
    return FNN_OK;
}

fnn_link fnn_net_link(const fnn_net *net)
{
    return net->link;
}

void fnn_net_set_link(fnn_net *net, fnn_link link)
{
    net->link = link;
}

size_t fnn_net_layer_width(const fnn_net *net, size_t layer)
{
    return net->layer_width[layer];
}

size_t fnn_net_tensor_count(const fnn_net *net)
{
    return net->n_tensors;
}

fnn_status fnn_net_tensor(const fnn_net *net, size_t index, fnn_tensor *tensor)
{
    if (!net || !tensor || index >= net->n_tensors)
        return FNN_EINVAL;
    *tensor = net->tensors[index];
    return FNN_OK;
}

void *fnn_net_parameters(fnn_net *net)
{
    return net->parameters;
}

size_t fnn_net_trainable_size(const fnn_net *net)
{
    return net->trainable_size;
}

size_t fnn_net_arena_size(const fnn_net *net)
{
    return net->arena_size;
}

size_t fnn_net_dropout_units(const fnn_net *net)
{
    size_t units = 0;
    for (size_t i = 0; i < net->n_nodes; i++)
        if (net->nodes[i].type == &fnn_dropout && net->nodes[i].threshold > 0)
            units += net->nodes[i].outputs;
    return units;
}

fnn_activation fnn_net_fused_output(const fnn_net *net, fnn_loss_kind loss)
{
    fnn_activation last = net->n_nodes ? net->nodes[net->n_nodes - 1].layer.activation : FNN_IDENTITY;
    bool is_activation = net->n_nodes && (net->nodes[net->n_nodes - 1].type == &fnn_softmax ||
                                          net->nodes[net->n_nodes - 1].type == &fnn_activation_node);
    if (is_activation && ((loss == FNN_CROSS_ENTROPY && last == FNN_SOFTMAX) ||
                          (loss == FNN_BINARY_CROSS_ENTROPY && last == FNN_SIGMOID)))
        return last;
    return FNN_IDENTITY;
}

size_t fnn_loss_end(const fnn_net *net, fnn_loss_kind loss)
{
    return net->n_nodes - (fnn_net_fused_output(net, loss) != FNN_IDENTITY);
}

bool fnn_ready(const fnn_net *net)
{
    if (net->standardize_scale == FNN_NONE)
        return true;
    const void *scale = fnn_parameter(net, net->standardize_scale);
    return net->dtype == FNN_FLOAT32 ? *(const float *)scale != 0 : *(const double *)scale != 0;
}

/* ---- how much work is in a pass ---- */

double fnn_pass_work(const fnn_net *net, size_t rows)
{
    return net->row_work * (double)rows;
}

static _Atomic double work_per_thread =
    1e6; /* about 20 us; a second thread pays from 50 us on, waking it takes up to 20 */

void fnn_set_work_per_thread(double work)
{
    work_per_thread = work;
}

int fnn_thread_count(int asked, double work, size_t rows)
{
    enum { LEAST_ROWS = 4 };
    const double least_worth = 2.5;
    double worth = work / work_per_thread;
    if (worth < least_worth)
        return 1;
    int most = asked > 0 ? asked : fnn_get_num_threads();
    if (most > FNN_MAX_THREADS)
        most = FNN_MAX_THREADS;
    if (worth < most)
        most = (int)worth;
    if (rows / LEAST_ROWS + 1 < (size_t)most)
        most = (int)(rows / LEAST_ROWS + 1);
    return most;
}

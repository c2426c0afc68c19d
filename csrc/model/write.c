/* Writing a model file: CRCs of all tensors first, then the header that holds them, then the tensors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

typedef struct item {
    char name[MOST_NAME + 1];
    fnn_dtype dtype;
    size_t rows, columns; /* columns is 0 for vectors */
    size_t bytes;
    const fnn_tensor *tensor; /* of the net, whose rows lie in `data`, an arena; else NULL and `data` is contiguous */
    const char *data;
    uint32_t crc;
    size_t position; /* in the list as collected */
} item;

typedef struct writer {
    const fnn_net *net;
    fnn_contents contents;
    item *items; /* in the file's order */
    size_t n;
    fnn_text header;
    size_t size; /* of the whole file */
} writer;

/* ---- what stands in the file ---- */

static fnn_status add_item(writer *w, const item *template, fnn_detail *detail)
{
    item *added = &w->items[w->n];
    *added = *template;
    added->position = w->n++;
    if (added->rows == 0 || added->rows > INT32_MAX || added->columns > INT32_MAX ||
        !fnn_size_multiply(&added->bytes, added->rows, added->columns ? added->columns : 1) ||
        !fnn_size_multiply(&added->bytes, added->bytes, fnn_item_size(added->dtype)))
        return fnn_say(detail, FNN_EOVERFLOW, "tensor '%s': the format holds sizes from 1 to 2^31 - 1", added->name);
    return FNN_OK;
}

/* What the reader would refuse is not written. The padding is zero: an arena may be looked at as a whole. */
static fnn_status check_tensor(const fnn_net *net, const item *added, fnn_demand demand, fnn_detail *detail)
{
    const fnn_tensor *t = added->tensor;
    const char *begin = added->data + t->offset * net->real_size;
    size_t n = t->rows * t->stride;
    if (net->kernels->first_nonfinite(begin, n) >= 0)
        return fnn_say(detail, FNN_EINVAL, "tensor '%s' has a value that is not finite; such a net cannot be saved",
                       added->name);
    if (demand == FNN_FINITE)
        return FNN_OK;
    if (demand != FNN_NOT_NEGATIVE)
        n = t->columns; /* a vector, whose padding is no divisor */
    return fnn_check_values(added->name, added->dtype, begin, n, demand, detail) == FNN_OK ? FNN_OK : FNN_EINVAL;
}

/* The tensors of the net (moment -1), or those of an optimizer buffer. */
static fnn_status add_tensors(writer *w, int moment, fnn_detail *detail)
{
    const fnn_net *net = w->net;
    const char *prefix = moment < 0 ? "" : fnn_moment_prefixes[moment];
    for (size_t i = 0; i < net->n_tensors; i++) {
        const fnn_tensor *t = &net->tensors[i];
        if (moment >= 0 && !t->trainable)
            continue;
        bool vector = fnn_is_vector(net, t);
        item added = {.dtype = net->dtype,
                      .rows = vector ? t->columns : t->rows,
                      .columns = vector ? 0 : t->columns,
                      .tensor = t,
                      .data = moment < 0 ? net->parameters : net->moments[moment]};
        fnn_demand demand = moment < 0 ? fnn_demand_of(net, t) : moment ? FNN_NOT_NEGATIVE : FNN_FINITE;
        snprintf(added.name, sizeof added.name, "%s%s", prefix, t->name);
        fnn_status status = add_item(w, &added, detail);
        if (status == FNN_OK)
            status = check_tensor(net, &added, demand, detail);
        if (status != FNN_OK)
            return status;
    }
    return FNN_OK;
}

static fnn_status add_attachment(writer *w, const fnn_attachment *a, fnn_detail *detail)
{
    if (!a->name || !a->data || a->dtype > FNN_INT64)
        return fnn_say(detail, FNN_EINVAL, "an attachment has no name, no data or an unknown dtype");
    item added = {.dtype = a->dtype, .rows = a->rows, .columns = a->columns, .data = a->data};
    if (!fnn_valid_name((fnn_span){a->name, a->name + strlen(a->name)}))
        return fnn_say(detail, FNN_EINVAL, "the name '%.40s' is not of 1 to %d characters A-Z a-z 0-9 _ .", a->name,
                       MOST_NAME);
    snprintf(added.name, sizeof added.name, "%s", a->name);
    return add_item(w, &added, detail);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const item *)a)->name, ((const item *)b)->name);
}

static fnn_attachment attachment_of(const item *source)
{
    return (fnn_attachment){source->name, source->dtype, source->rows, source->columns, source->data};
}

/* Among items in the order of their names. */
static fnn_status check_attachments(const writer *w, fnn_detail *detail)
{
    item partner_key;
    for (size_t i = 0; i < w->n; i++) {
        if (i > 0 && compare_names(&w->items[i - 1], &w->items[i]) == 0)
            return fnn_say(detail, FNN_EINVAL, "tensor '%s' is there twice", w->items[i].name);
        if (w->items[i].tensor)
            continue;
        char name[MOST_PARTNER];
        fnn_attachment a = attachment_of(&w->items[i]), partner;
        const item *other = NULL;
        if (fnn_partner_name(name, a.name) && strlen(name) <= MOST_NAME) {
            snprintf(partner_key.name, sizeof partner_key.name, "%.*s", MOST_NAME, name);
            other = bsearch(&partner_key, w->items, w->n, sizeof *w->items, compare_names);
        }
        if (other)
            partner = attachment_of(other);
        if (fnn_check_attachment(&a, other ? &partner : NULL, w->contents, detail) != FNN_OK)
            return FNN_EINVAL;
    }
    return FNN_OK;
}

/* By size of element, so that each tensor is aligned to it without gaps. */
static int compare_items(const void *a, const void *b)
{
    const item *x = a, *y = b;
    size_t sizes[] = {fnn_item_size(x->dtype), fnn_item_size(y->dtype)};
    if (sizes[0] != sizes[1])
        return sizes[0] < sizes[1] ? 1 : -1;
    return x->position < y->position ? -1 : 1;
}

static fnn_status collect(writer *w, const fnn_attachment *attachments, size_t n, fnn_detail *detail)
{
    const fnn_net *net = w->net;
    if (net->inputs > INT32_MAX || net->counters.passes > MOST_COUNT || net->counters.updates > MOST_COUNT)
        return fnn_say(detail, FNN_EOVERFLOW, "the format holds at most 2^31 - 1 inputs, and 2^63 - 1 steps");
    if (net->n_layers > MOST_LAYERS || net->n_tensors > MOST_TENSORS || n > MOST_TENSORS)
        return fnn_say(detail, FNN_EOVERFLOW, "the format holds at most %d layers and %d tensors", MOST_LAYERS,
                       MOST_TENSORS);
    size_t most = net->n_tensors + n, items_size; /* both are small */
    if (w->contents == FNN_CHECKPOINT)
        most += 2 * net->n_tensors;
    if (!fnn_size_multiply(&items_size, most, sizeof *w->items))
        return FNN_EOVERFLOW;
    w->items = fnn_allocate(items_size);
    if (!w->items)
        return FNN_ENOMEM;
    fnn_status status = add_tensors(w, -1, detail);
    for (int i = 0; i < 2 && status == FNN_OK && w->contents == FNN_CHECKPOINT; i++)
        if (net->moments[i])
            status = add_tensors(w, i, detail);
    for (size_t i = 0; i < n && status == FNN_OK; i++)
        status = add_attachment(w, &attachments[i], detail);
    if (status == FNN_OK && w->n > MOST_TENSORS)
        status = fnn_say(detail, FNN_EOVERFLOW, "the format holds at most %d tensors, this would be %zu", MOST_TENSORS,
                         w->n);
    if (status != FNN_OK)
        return status;
    qsort(w->items, w->n, sizeof *w->items, compare_names);
    status = check_attachments(w, detail);
    qsort(w->items, w->n, sizeof *w->items, compare_items);
    return status;
}

/* ---- bytes ---- */

/* Row i of a frozen matrix, from its panels; see fnn_net_freeze. */
static void put_packed_row(fnn_sink *sink, const fnn_net *net, const item *matrix, size_t i)
{
    const fnn_tensor *t = matrix->tensor;
    size_t lanes = FNN_PAD_BYTES / net->real_size;
    const char *begin = matrix->data + t->offset * net->real_size;
    for (size_t column = 0; column < t->columns; column += lanes) {
        size_t n = t->columns - column < lanes ? t->columns - column : lanes;
        fnn_put(sink, begin + (column / lanes * t->rows + i) * FNN_PAD_BYTES, n * net->real_size);
    }
}

static void put_item(fnn_sink *sink, const fnn_net *net, const item *source)
{
    const fnn_tensor *t = source->tensor;
    if (!t) {
        fnn_put(sink, source->data, source->bytes);
        return;
    }
    for (size_t i = 0; i < t->rows; i++) {
        if (net->frozen && !fnn_is_vector(net, t))
            put_packed_row(sink, net, source, i);
        else
            fnn_put(sink, source->data + (t->offset + i * t->stride) * net->real_size, t->columns * net->real_size);
    }
}

static fnn_status add_to_crc(fnn_sink *sink, const void *bytes, size_t size)
{
    sink->crc = fnn_crc32(sink->crc, bytes, size);
    return FNN_OK;
}

static fnn_status copy_to_memory(fnn_sink *sink, const void *bytes, size_t size)
{
    memcpy(sink->memory + sink->buffered, bytes, size);
    sink->buffered += size;
    return FNN_OK;
}

static void put_file(fnn_sink *sink, const void *argument)
{
    const writer *w = argument;
    uint64_t length = w->header.size;
    fnn_put(sink, &length, LENGTH_BYTES);
    fnn_put(sink, w->header.begin, w->header.size);
    for (size_t i = 0; i < w->n; i++)
        put_item(sink, w->net, &w->items[i]);
}

/* ---- the header ---- */

static void append_metadata(writer *w)
{
    const fnn_net *net = w->net;
    fnn_text *text = &w->header;
    fnn_append(text, "\"__metadata__\":{\"fastnn.format\":\"%d\",\"fastnn.kind\":\"%s\"", MODEL_FORMAT,
               fnn_contents_names[w->contents]);
    fnn_append(text, ",\"fastnn.created_by\":\"fastnn %s\"", FNN_VERSION_STRING);
    fnn_append(text, ",\"fastnn.dtype\":\"%s\",\"fastnn.input_size\":\"%zu\",\"fastnn.seed\":\"%llu\"",
               fnn_dtype_name(net->dtype), net->inputs, (unsigned long long)net->seed);
    fnn_append(text, ",\"fastnn.frozen\":\"%d\",\"fastnn.link\":\"%s\"", net->frozen, fnn_link_names[net->link]);
    fnn_append(text, ",\"fastnn.arch\":\"");
    fnn_append_layers(text, net->layers, net->n_layers);
    fnn_append(text, "\"");
    if (w->contents == FNN_CHECKPOINT)
        fnn_append(text, ",\"fastnn.optimizer\":\"%s\",\"fastnn.passes\":\"%llu\",\"fastnn.updates\":\"%llu\"",
                   fnn_optimizer_names[net->optimizer.kind], (unsigned long long)net->counters.passes,
                   (unsigned long long)net->counters.updates);
    for (size_t i = 0; i < w->n; i++)
        fnn_append(text, ",\"fastnn.crc.%s\":\"%08x\"", w->items[i].name, (unsigned)w->items[i].crc);
}

static void append_entries(writer *w)
{
    size_t offset = 0;
    for (size_t i = 0; i < w->n; i++) {
        const item *t = &w->items[i];
        fnn_append(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", t->name, fnn_dtype_name(t->dtype), t->rows);
        if (t->columns)
            fnn_append(&w->header, ",%zu", t->columns);
        fnn_append(&w->header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + t->bytes);
        offset += t->bytes;
    }
}

static fnn_status write_header(writer *w, fnn_detail *detail)
{
    enum { OF_A_RECORD = 512, OF_THE_REST = 1024 }; /* a layer's, or a tensor's entry and CRC: both are shorter */
    fnn_text *text = &w->header;
    size_t most = OF_THE_REST + OF_A_RECORD * (w->net->n_layers + w->n);
    text->capacity = (most < MOST_HEADER ? most : MOST_HEADER) + 1; /* and the zero behind it */
    text->begin = fnn_allocate(text->capacity);
    if (!text->begin)
        return FNN_ENOMEM;
    fnn_append(text, "{");
    append_metadata(w);
    fnn_append(text, ",\"fastnn.header_crc\":\"");
    size_t crc_place = text->size;
    fnn_append(text, "00000000\"}");
    append_entries(w);
    fnn_append(text, "}");
    while (!text->overflow && (LENGTH_BYTES + text->size) % DATA_ALIGNMENT != 0)
        fnn_append(text, " ");
    if (text->overflow)
        return fnn_say(detail, FNN_EOVERFLOW, "the header would take more than %d bytes: too many layers", MOST_HEADER);
    char digits[CRC_DIGITS + 1];
    snprintf(digits, sizeof digits, "%08x", (unsigned)fnn_crc32(0, text->begin, text->size));
    memcpy(text->begin + crc_place, digits, CRC_DIGITS);
    return FNN_OK;
}

/* ---- the whole ---- */

static fnn_status begin(writer *w, const fnn_attachment *attachments, size_t n, fnn_detail *detail)
{
    if (detail)
        *detail = (fnn_detail){0};
    if (!w->net || w->contents > FNN_CHECKPOINT || (!attachments && n > 0))
        return FNN_EINVAL;
    if (w->net->frozen && w->contents == FNN_CHECKPOINT)
        return fnn_say(detail, FNN_EINVAL, "a frozen net has nothing to continue from: it cannot be a checkpoint");
    fnn_status status = collect(w, attachments, n, detail);
    if (status != FNN_OK)
        return status;
    for (size_t i = 0; i < w->n; i++) {
        fnn_sink sink = {.write = add_to_crc};
        put_item(&sink, w->net, &w->items[i]);
        w->items[i].crc = sink.crc;
    }
    status = write_header(w, detail);
    w->size = LENGTH_BYTES + w->header.size;
    for (size_t i = 0; i < w->n && status == FNN_OK; i++)
        if (!fnn_size_add(&w->size, w->size, w->items[i].bytes))
            status = FNN_EOVERFLOW;
    return status;
}

static void end(writer *w)
{
    fnn_release(w->items);
    fnn_release(w->header.begin);
}

fnn_status fnn_model_save(const fnn_net *net, const char *path, fnn_contents contents,
                          const fnn_attachment *attachments, size_t n, fnn_detail *detail)
{
    writer w = {.net = path ? net : NULL, .contents = contents};
    fnn_status status = begin(&w, attachments, n, detail);
    if (status == FNN_OK)
        status = fnn_replace_file(path, put_file, &w, detail);
    end(&w);
    return status;
}

fnn_status fnn_model_save_memory(const fnn_net *net, void *bytes, size_t *size, fnn_contents contents,
                                 const fnn_attachment *attachments, size_t n, fnn_detail *detail)
{
    if (detail)
        *detail = (fnn_detail){0};
    if (!size)
        return FNN_EINVAL;
    writer w = {.net = net, .contents = contents};
    fnn_status status = begin(&w, attachments, n, detail);
    if (status == FNN_OK) {
        size_t room = bytes ? *size : 0;
        *size = w.size;
        if (room < w.size) {
            status = FNN_EINVAL;
        } else {
            fnn_sink sink = {.write = copy_to_memory, .memory = bytes};
            put_file(&sink, &w);
        }
    }
    end(&w);
    return status;
}

fnn_status fnn_net_save(const fnn_net *net, const char *path, fnn_contents contents, fnn_detail *detail)
{
    return fnn_model_save(net, path, contents, NULL, 0, detail);
}

fnn_status fnn_net_save_memory(const fnn_net *net, void *bytes, size_t *size, fnn_contents contents, fnn_detail *detail)
{
    return fnn_model_save_memory(net, bytes, size, contents, NULL, 0, detail);
}

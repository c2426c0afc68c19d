/* Reading a model file: header, layers, what the layers need, CRCs and values; only then is a net built. */
#include <stdio.h>
#include <string.h>

#include "model.h"

struct fnn_model {
    char *header_bytes; /* as they stand in the file; ours, so that what was checked cannot change */
    char *text;         /* behind them: the same again, for the parser to write in */
    size_t text_size;
    char *own_data; /* where we read them; NULL where they are the caller's */
    const char *data;
    size_t data_size;
    fnn_header header;
    fnn_contents contents;
    fnn_net *net; /* planned, without parameters; NULL once it is handed out */
    bool has_moments[2];
    bool frozen;
};

/* ---- metadata ---- */

static fnn_status find_value(fnn_span *value, const fnn_model *model, const char *key, fnn_detail *detail)
{
    const fnn_pair *pair = fnn_find_pair(&model->header, key);
    if (!pair)
        return fnn_say(detail, FNN_EFORMAT, "metadata '%s' is missing", key);
    *value = pair->value;
    return FNN_OK;
}

static fnn_status find_integer(uint64_t *integer, const fnn_model *model, const char *key, uint64_t most,
                               fnn_detail *detail)
{
    fnn_span value;
    fnn_status status = find_value(&value, model, key, detail);
    if (status == FNN_OK && (!fnn_span_integer(integer, value) || *integer > most))
        status =
            fnn_say(detail, FNN_EFORMAT, "metadata '%s' is '%.*s', expected an integer from 0 to %llu", key,
                    (int)(value.end - value.at < 40 ? value.end - value.at : 40), value.at, (unsigned long long)most);
    return status;
}

/* The place of the value in a table of n names. */
static fnn_status find_name(int *number, const fnn_model *model, const char *key, const char *const *names, int n,
                            fnn_detail *detail)
{
    fnn_span value;
    fnn_status status = find_value(&value, model, key, detail);
    if (status != FNN_OK)
        return status;
    for (int i = 0; i < n; i++)
        if (fnn_span_is(value, names[i])) {
            *number = i;
            return FNN_OK;
        }
    return fnn_say(detail, FNN_EFORMAT, "metadata '%s' has the unknown value '%.*s'", key,
                   (int)(value.end - value.at < 40 ? value.end - value.at : 40), value.at);
}

#define FIND_NAME(number, model, key, names, detail) \
    find_name(number, model, key, names, (int)(sizeof(names) / sizeof(names)[0]), detail)

static bool crc_is(fnn_span value, uint32_t crc)
{
    char digits[CRC_DIGITS + 1];
    snprintf(digits, sizeof digits, "%08x", (unsigned)crc);
    return fnn_span_is(value, digits);
}

/* Over the header with its own digits as zeros. */
static fnn_status check_header_crc(const fnn_model *model, fnn_detail *detail)
{
    const char zeros[CRC_DIGITS + 1] = "00000000", *header = model->header_bytes;
    fnn_span value;
    fnn_status status = find_value(&value, model, "fastnn.header_crc", detail);
    if (status != FNN_OK)
        return status;
    size_t place = (size_t)(value.at - model->text), behind = place + CRC_DIGITS;
    if (value.end - value.at != CRC_DIGITS)
        return fnn_say(detail, FNN_EFORMAT, "metadata 'fastnn.header_crc' is not of %d digits", CRC_DIGITS);
    uint32_t crc = fnn_crc32(0, header, place);
    crc = fnn_crc32(crc, zeros, CRC_DIGITS);
    crc = fnn_crc32(crc, header + behind, model->text_size - behind);
    if (!crc_is(value, crc))
        return fnn_say(detail, FNN_EFORMAT, "the header is damaged (CRC %08x, expected %.*s)", (unsigned)crc,
                       CRC_DIGITS, value.at);
    return FNN_OK;
}

static fnn_status check_format(const fnn_model *model, fnn_detail *detail)
{
    uint64_t format;
    if (!fnn_find_pair(&model->header, "fastnn.format"))
        return fnn_say(detail, FNN_EFORMAT, "a safetensors file, but not a fastnn model");
    fnn_status status = find_integer(&format, model, "fastnn.format", UINT32_MAX, detail);
    if (status == FNN_OK && format > MODEL_FORMAT)
        return fnn_say(detail, FNN_EVERSION, "the file has format %llu, fastnn %s reads up to %d: upgrade fastnn",
                       (unsigned long long)format, FNN_VERSION_STRING, MODEL_FORMAT);
    if (status == FNN_OK && format == 0)
        return fnn_say(detail, FNN_EFORMAT, "there is no format 0");
    return status;
}

/* A key that only a newer version understands may change what the rest means. */
static fnn_status refuse_unknown_keys(const fnn_model *model, fnn_detail *detail)
{
    static const char *const model_keys[] = {"format", "kind",   "created_by", "dtype", "input_size",
                                             "seed",   "frozen", "link",       "arch",  "header_crc"};
    static const char *const checkpoint_keys[] = {"optimizer", "passes", "updates"};
    enum { MODEL_KEYS = sizeof model_keys / sizeof model_keys[0], CHECKPOINT_KEYS = 3 };
    for (size_t i = 0; i < model->header.n_pairs; i++) {
        fnn_span key = model->header.pairs[i].key, whole = key;
        if (!fnn_accept(&key, "fastnn.") || fnn_accept(&key, "crc."))
            continue;
        bool known = false;
        for (int j = 0; j < MODEL_KEYS; j++)
            known |= fnn_span_is(key, model_keys[j]);
        for (int j = 0; j < CHECKPOINT_KEYS && model->contents == FNN_CHECKPOINT; j++)
            known |= fnn_span_is(key, checkpoint_keys[j]);
        if (!known)
            return fnn_say(detail, FNN_EFORMAT, "metadata '%.*s' is not known to this version",
                           (int)(whole.end - whole.at < 80 ? whole.end - whole.at : 80), whole.at);
    }
    return FNN_OK;
}

/* ---- the net that the file describes ---- */

/* More tensors than a file can hold: the plan of such a net would be made in vain. */
static bool too_many_tensors(const fnn_layer *layers, size_t n)
{
    enum { OF_BATCHNORM = 4, OF_ANY_OTHER = 2 };
    size_t tensors = 0;
    for (size_t i = 0; i < n; i++)
        if (layers[i].kind == FNN_BATCHNORM)
            tensors += OF_BATCHNORM;
        else if (layers[i].kind == FNN_DENSE)
            tensors += layers[i].use_bias ? OF_ANY_OTHER : 1;
        else if (layers[i].kind == FNN_STANDARDIZE)
            tensors += OF_ANY_OTHER;
    return tensors > MOST_TENSORS;
}

static fnn_status plan_net(fnn_model *model, fnn_detail *detail)
{
    uint64_t input_size = 0, seed = 0, frozen = 0;
    int dtype = 0, link = 0;
    size_t n;
    fnn_span arch;
    static const char *const dtypes[] = {"F32", "F64"};
    fnn_status status = FIND_NAME(&dtype, model, "fastnn.dtype", dtypes, detail);
    if (status == FNN_OK)
        status = find_integer(&input_size, model, "fastnn.input_size", INT32_MAX, detail);
    if (status == FNN_OK)
        status = find_integer(&seed, model, "fastnn.seed", UINT64_MAX, detail);
    if (status == FNN_OK)
        status = find_integer(&frozen, model, "fastnn.frozen", model->contents == FNN_MODEL, detail);
    if (status == FNN_OK)
        status = FIND_NAME(&link, model, "fastnn.link", fnn_link_names, detail);
    if (status == FNN_OK)
        status = find_value(&arch, model, "fastnn.arch", detail);
    if (status != FNN_OK)
        return status;
    n = fnn_count_layers(arch);
    if (n > MOST_LAYERS)
        return fnn_say(detail, FNN_EFORMAT, "more than %d layers", MOST_LAYERS);
    size_t layers_size;
    if (!fnn_size_multiply(&layers_size, n, sizeof(fnn_layer)))
        return FNN_EOVERFLOW;
    fnn_layer *layers = fnn_allocate(layers_size);
    if (!layers)
        return FNN_ENOMEM;
    status = fnn_read_layers(layers, &n, arch, detail);
    if (status == FNN_OK && too_many_tensors(layers, n))
        status = fnn_say(detail, FNN_EFORMAT, "the layers need more than %d tensors", MOST_TENSORS);
    if (status == FNN_OK) {
        status = fnn_plan_net(&model->net, layers, n, (size_t)input_size, dtype ? FNN_FLOAT64 : FNN_FLOAT32, seed);
        if (status == FNN_EINVAL || status == FNN_EOVERFLOW)
            status = fnn_say(detail, FNN_EFORMAT, "the layer list holds a value out of its range");
    }
    fnn_release(layers);
    if (status == FNN_OK) {
        model->net->link = (fnn_link)link;
        model->frozen = frozen != 0;
    }
    return status;
}

static fnn_status read_training_state(fnn_model *model, fnn_detail *detail)
{
    if (model->contents != FNN_CHECKPOINT)
        return FNN_OK;
    /* The numbers are in no file: whoever trains on sets them. These are what a caller who forgets it gets. */
    static const fnn_optimizer usual[] = {
        [FNN_SGD] = {.kind = FNN_SGD},
        [FNN_RMSPROP] = {.kind = FNN_RMSPROP, .beta2 = 0.99, .eps = 1e-8},
        [FNN_ADAM] = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    };
    int optimizer = 0;
    fnn_net *net = model->net;
    fnn_status status = FIND_NAME(&optimizer, model, "fastnn.optimizer", fnn_optimizer_names, detail);
    if (status == FNN_OK)
        status = find_integer(&net->counters.passes, model, "fastnn.passes", MOST_COUNT, detail);
    if (status == FNN_OK)
        status = find_integer(&net->counters.updates, model, "fastnn.updates", MOST_COUNT, detail);
    if (status == FNN_OK)
        net->optimizer = usual[optimizer];
    return status;
}

/* ---- the tensors that it needs ---- */

static fnn_status take_tensor(fnn_model *model, const fnn_tensor *t, const char *prefix, fnn_demand demand,
                              fnn_detail *detail)
{
    char name[MOST_NAME + 1];
    bool vector = fnn_is_vector(model->net, t);
    snprintf(name, sizeof name, "%s%s", prefix, t->name);
    fnn_entry *entry = fnn_find_entry(&model->header, name);
    if (!entry)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' is missing", name);
    size_t rows = vector ? t->columns : t->rows, columns = vector ? 1 : t->columns;
    if (entry->dtype != model->net->dtype || entry->rank != (vector ? 1 : 2) || entry->rows != rows ||
        entry->columns != columns)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' is %s of %zu x %zu, the layers need %s of %zu x %zu", name,
                       fnn_dtype_name(entry->dtype), entry->rows, entry->columns, fnn_dtype_name(model->net->dtype),
                       rows, columns);
    entry->taken = true;
    /* the header was refused where this product is not the size of a stretch of the file */
    return fnn_check_values(entry->name, entry->dtype, model->data + entry->begin, entry->rows * entry->columns, demand,
                            detail);
}

static fnn_status take_moments(fnn_model *model, int index, fnn_detail *detail)
{
    const fnn_net *net = model->net;
    fnn_status status = FNN_OK;
    for (size_t i = 0; i < net->n_tensors && status == FNN_OK; i++) {
        const fnn_tensor *t = &net->tensors[i];
        if (!t->trainable)
            continue;
        if (!model->has_moments[index]) {
            char name[MOST_NAME + 1];
            snprintf(name, sizeof name, "%s%s", fnn_moment_prefixes[index], t->name);
            if (!fnn_find_entry(&model->header, name))
                return FNN_OK; /* this buffer is not in use; should others of it be there, they are refused as unknown
                                */
            model->has_moments[index] = true;
        }
        status = take_tensor(model, t, fnn_moment_prefixes[index], index ? FNN_NOT_NEGATIVE : FNN_FINITE, detail);
    }
    return status;
}

static fnn_status take_tensors(fnn_model *model, fnn_detail *detail)
{
    const fnn_net *net = model->net;
    fnn_status status = FNN_OK;
    for (size_t i = 0; i < net->n_tensors && status == FNN_OK; i++)
        status = take_tensor(model, &net->tensors[i], "", fnn_demand_of(net, &net->tensors[i]), detail);
    for (int i = 0; i < 2 && status == FNN_OK && model->contents == FNN_CHECKPOINT; i++)
        status = take_moments(model, i, detail);
    return status;
}

/* ---- what is attached ---- */

static fnn_attachment attachment_of(const fnn_model *model, const fnn_entry *entry)
{
    return (fnn_attachment){.name = entry->name,
                            .dtype = entry->dtype,
                            .rows = entry->rows,
                            .columns = entry->rank == 2 ? entry->columns : 0,
                            .data = model->data + entry->begin};
}

static fnn_status check_attachment(const fnn_model *model, const fnn_entry *entry, fnn_detail *detail)
{
    char name[MOST_PARTNER];
    const fnn_entry *other = fnn_partner_name(name, entry->name) ? fnn_find_entry(&model->header, name) : NULL;
    fnn_attachment a = attachment_of(model, entry), partner;
    if (other)
        partner = attachment_of(model, other);
    return fnn_check_attachment(&a, other ? &partner : NULL, model->contents, detail);
}

static fnn_status check_crcs(const fnn_model *model, fnn_detail *detail)
{
    size_t keys = 0;
    for (size_t i = 0; i < model->header.n_pairs; i++) {
        fnn_span key = model->header.pairs[i].key;
        keys += fnn_accept(&key, "fastnn.crc.");
    }
    for (size_t i = 0; i < model->header.n_entries; i++) {
        const fnn_entry *entry = &model->header.entries[i];
        char key[MOST_NAME + 16];
        fnn_span value;
        snprintf(key, sizeof key, "fastnn.crc.%s", entry->name);
        fnn_status status = find_value(&value, model, key, detail);
        if (status != FNN_OK)
            return status;
        uint32_t crc = fnn_crc32(0, model->data + entry->begin, entry->end - entry->begin);
        if (!crc_is(value, crc))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' is damaged (CRC %08x, expected %.*s)", entry->name,
                           (unsigned)crc, (int)(value.end - value.at < 8 ? value.end - value.at : 8), value.at);
    }
    if (keys != model->header.n_entries)
        return fnn_say(detail, FNN_EFORMAT, "there are %zu CRCs for %zu tensors", keys, model->header.n_entries);
    return FNN_OK;
}

/* ---- the whole file ---- */

/* What the bytes might be instead. */
static const char *likeness(const char *bytes, size_t size)
{
    static const struct {
        const char *magic, *name;
    } others[] = {{"PK\3\4", " It looks like a zip archive (.npz, .pt, .keras)."},
                  {"\x89HDF", " It looks like HDF5 (.h5)."},
                  {"\x80\2", " It looks like a pickle; fastnn never unpickles."},
                  {"\x80\3", " It looks like a pickle; fastnn never unpickles."},
                  {"\x80\4", " It looks like a pickle; fastnn never unpickles."},
                  {"\x80\5", " It looks like a pickle; fastnn never unpickles."}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (size >= strlen(others[i].magic) && memcmp(bytes, others[i].magic, strlen(others[i].magic)) == 0)
            return others[i].name;
    return "";
}

/* Where the bytes come from, in their order: the caller's memory, or an open file. */
typedef struct source {
    const char *memory; /* what has not been taken yet */
    int file;           /* where memory is NULL */
    size_t size;        /* of the whole */
} source;

static fnn_status take_bytes(source *s, void *bytes, size_t size, fnn_detail *detail)
{
    if (!s->memory)
        return fnn_read_bytes(s->file, bytes, size, detail);
    memcpy(bytes, s->memory, size);
    s->memory += size;
    return FNN_OK;
}

static fnn_status read_length(size_t *header_size, source *s, fnn_detail *detail)
{
    char start[LENGTH_BYTES];
    uint64_t length;
    if (s->size < LENGTH_BYTES)
        return fnn_say(detail, FNN_EFORMAT, "not a fastnn model: the file has %zu bytes", s->size);
    fnn_status status = take_bytes(s, start, LENGTH_BYTES, detail);
    if (status != FNN_OK)
        return status;
    memcpy(&length, start, LENGTH_BYTES);
    if (length > MOST_HEADER && length > s->size - LENGTH_BYTES)
        return fnn_say(detail, FNN_EFORMAT, "not a fastnn model.%s", likeness(start, LENGTH_BYTES));
    if (length > s->size - LENGTH_BYTES)
        return fnn_say(
            detail, FNN_EFORMAT,
            "the file is %zu bytes, its header alone declares %llu: incomplete copy or interrupted download?", s->size,
            (unsigned long long)length);
    if (length > MOST_HEADER)
        return fnn_say(detail, FNN_EFORMAT, "a header of %llu bytes; a fastnn model has at most %d",
                       (unsigned long long)length, MOST_HEADER);
    *header_size = (size_t)length;
    return FNN_OK;
}

static fnn_status take_header(fnn_model *model, source *s, fnn_detail *detail)
{
    size_t both;
    fnn_status status = read_length(&model->text_size, s, detail);
    if (status != FNN_OK)
        return status;
    model->data_size = s->size - LENGTH_BYTES - model->text_size;
    if (!fnn_size_add(&both, model->text_size, model->text_size))
        return FNN_EOVERFLOW;
    model->header_bytes = fnn_allocate(both);
    if (!model->header_bytes)
        return FNN_ENOMEM;
    model->text = model->header_bytes + model->text_size;
    status = take_bytes(s, model->header_bytes, model->text_size, detail);
    memcpy(model->text, model->header_bytes, model->text_size);
    return status;
}

/* All that can be known before the tensors are looked at: only then is a file's data read, so that one of another kind
 * is refused at once, however large it is. */
static fnn_status check_header(fnn_model *model, fnn_detail *detail)
{
    int contents = 0;
    fnn_status status = fnn_read_header(&model->header, model->text, model->text_size, model->data_size, detail);
    if (status == FNN_OK)
        status = check_format(model, detail);
    if (status == FNN_OK)
        status = check_header_crc(model, detail);
    if (status == FNN_OK)
        status = FIND_NAME(&contents, model, "fastnn.kind", fnn_contents_names, detail);
    if (status != FNN_OK)
        return status;
    model->contents = (fnn_contents)contents;
    status = refuse_unknown_keys(model, detail);
    if (status == FNN_OK)
        status = plan_net(model, detail);
    if (status == FNN_OK)
        status = read_training_state(model, detail);
    return status;
}

static fnn_status take_data(fnn_model *model, source *s, fnn_detail *detail)
{
    model->data = s->memory;
    if (s->memory)
        return FNN_OK;
    model->data = model->own_data = fnn_allocate(model->data_size);
    return model->own_data ? take_bytes(s, model->own_data, model->data_size, detail) : FNN_ENOMEM;
}

static fnn_status check_data(fnn_model *model, fnn_detail *detail)
{
    fnn_status status = check_crcs(model, detail);
    if (status == FNN_OK)
        status = take_tensors(model, detail);
    for (size_t i = 0; i < model->header.n_entries && status == FNN_OK; i++)
        if (!model->header.entries[i].taken)
            status = check_attachment(model, &model->header.entries[i], detail);
    return status;
}

static fnn_status open_model(fnn_model **result, source *s, fnn_detail *detail)
{
    fnn_model *model = fnn_allocate(sizeof *model);
    if (!model)
        return FNN_ENOMEM;
    fnn_status status = take_header(model, s, detail);
    if (status == FNN_OK)
        status = check_header(model, detail);
    if (status == FNN_OK)
        status = take_data(model, s, detail);
    if (status == FNN_OK)
        status = check_data(model, detail);
    if (status == FNN_OK)
        *result = model;
    else
        fnn_model_close(model);
    return status;
}

fnn_status fnn_model_open_memory(fnn_model **result, const void *bytes, size_t size, fnn_detail *detail)
{
    source s = {.memory = bytes, .size = size};
    if (detail)
        *detail = (fnn_detail){0};
    if (!result)
        return FNN_EINVAL;
    *result = NULL;
    return bytes ? open_model(result, &s, detail) : FNN_EINVAL;
}

fnn_status fnn_model_open(fnn_model **result, const char *path, fnn_detail *detail)
{
    source s = {0};
    if (detail)
        *detail = (fnn_detail){0};
    if (!result)
        return FNN_EINVAL;
    *result = NULL;
    fnn_status status = path ? fnn_open_file(&s.file, &s.size, path, detail) : FNN_EINVAL;
    if (status != FNN_OK)
        return status;
    status = open_model(result, &s, detail);
    fnn_files.close(s.file); /* nothing was written: what it says does not matter */
    return status;
}

void fnn_model_close(fnn_model *model)
{
    if (!model)
        return;
    fnn_net_free(model->net);
    fnn_release(model->header.pairs);
    fnn_release(model->header.entries);
    fnn_release(model->header_bytes);
    fnn_release(model->own_data);
    fnn_release(model);
}

/* ---- the net ---- */

/* Where to put row i of a frozen matrix: into its panels, see fnn_net_freeze. */
static void copy_into_panels(char *panels, const char *row, const fnn_tensor *t, size_t i, size_t row_bytes)
{
    for (size_t begin = 0; begin < row_bytes; begin += FNN_PAD_BYTES, panels += t->rows * FNN_PAD_BYTES) {
        size_t n = row_bytes - begin < FNN_PAD_BYTES ? row_bytes - begin : FNN_PAD_BYTES;
        memcpy(panels + i * FNN_PAD_BYTES, row + begin, n);
    }
}

/* The plan has all of these products: the arena would not fit the address space if one of them did not. */
static void copy_tensor(const fnn_model *model, char *arena, const fnn_tensor *t, const char *prefix)
{
    char name[MOST_NAME + 1];
    snprintf(name, sizeof name, "%s%s", prefix, t->name);
    size_t size = model->net->real_size, row = t->columns * size;
    const char *from = model->data + fnn_find_entry(&model->header, name)->begin;
    char *to = arena + t->offset * size;
    for (size_t i = 0; i < t->rows; i++) {
        if (model->frozen && !fnn_is_vector(model->net, t))
            copy_into_panels(to, from + i * row, t, i, row);
        else
            memcpy(to + i * t->stride * size, from + i * row, row);
    }
}

fnn_status fnn_model_net(fnn_model *model, fnn_net **result, fnn_detail *detail)
{
    if (detail)
        *detail = (fnn_detail){0};
    if (!result)
        return FNN_EINVAL;
    *result = NULL;
    if (!model || !model->net)
        return FNN_EINVAL;
    fnn_net *net = model->net;
    fnn_status status = fnn_allocate_parameters(net);
    for (int i = 0; i < 2 && status == FNN_OK; i++)
        if (model->has_moments[i])
            status = fnn_allocate_moment(net, i);
    if (status != FNN_OK)
        return status;
    for (size_t i = 0; i < net->n_tensors; i++) {
        copy_tensor(model, net->parameters, &net->tensors[i], "");
        for (int j = 0; j < 2; j++)
            if (model->has_moments[j] && net->tensors[i].trainable)
                copy_tensor(model, net->moments[j], &net->tensors[i], fnn_moment_prefixes[j]);
    }
    net->frozen = model->frozen;
    *result = net;
    model->net = NULL;
    return FNN_OK;
}

fnn_contents fnn_model_contents(const fnn_model *model)
{
    return model ? model->contents : FNN_MODEL;
}

size_t fnn_model_attachment_count(const fnn_model *model)
{
    size_t count = 0;
    for (size_t i = 0; model && i < model->header.n_entries; i++)
        count += !model->header.entries[i].taken;
    return count;
}

fnn_attachment fnn_model_attachment(const fnn_model *model, size_t index)
{
    for (size_t i = 0; model && i < model->header.n_entries; i++)
        if (!model->header.entries[i].taken && index-- == 0)
            return attachment_of(model, &model->header.entries[i]);
    return (fnn_attachment){0};
}

fnn_status fnn_net_load(fnn_net **net, const char *path, fnn_detail *detail)
{
    fnn_model *model = NULL;
    if (detail)
        *detail = (fnn_detail){0};
    if (!net)
        return FNN_EINVAL;
    *net = NULL;
    fnn_status status = fnn_model_open(&model, path, detail);
    if (status == FNN_OK)
        status = fnn_model_net(model, net, detail);
    fnn_model_close(model);
    return status;
}

fnn_status fnn_net_load_memory(fnn_net **net, const void *bytes, size_t size, fnn_detail *detail)
{
    fnn_model *model = NULL;
    if (detail)
        *detail = (fnn_detail){0};
    if (!net)
        return FNN_EINVAL;
    *net = NULL;
    fnn_status status = fnn_model_open_memory(&model, bytes, size, detail);
    if (status == FNN_OK)
        status = fnn_model_net(model, net, detail);
    fnn_model_close(model);
    return status;
}

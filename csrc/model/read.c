/* Reading a model file: header, layers, what the layers need, CRCs and values; only then is a net built. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

struct fnn_model {
    char *file; /* the whole file where we read it; NULL where the bytes are the caller's */
    char *text; /* a copy of the header, so that what was checked cannot change */
    size_t text_size;
    const char *data;
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
static fnn_status check_header_crc(const fnn_model *model, const char *header, fnn_detail *detail)
{
    const char zeros[CRC_DIGITS + 1] = "00000000";
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
    fnn_layer *layers = fnn_allocate(MOST_LAYERS * sizeof *layers);
    if (!layers)
        return FNN_ENOMEM;
    status = fnn_read_layers(layers, &n, arch, detail);
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
    int optimizer = 0;
    fnn_net *net = model->net;
    fnn_status status = FIND_NAME(&optimizer, model, "fastnn.optimizer", fnn_optimizer_names, detail);
    if (status == FNN_OK)
        status = find_integer(&net->counters.passes, model, "fastnn.passes", UINT64_MAX, detail);
    if (status == FNN_OK)
        status = find_integer(&net->counters.updates, model, "fastnn.updates", UINT64_MAX, detail);
    if (status == FNN_OK)
        net->optimizer.kind = (fnn_optimizer_kind)optimizer;
    return status;
}

/* ---- the tensors that it needs ---- */

static double real_at(fnn_dtype dtype, const char *bytes, size_t i)
{
    if (dtype == FNN_FLOAT32) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        return value;
    }
    double value;
    memcpy(&value, bytes + i * sizeof value, sizeof value);
    return value;
}

typedef enum demand { FINITE, NOT_NEGATIVE, DIVISOR } demand;

/* A divisor is a normal number; zeros everywhere say that there are none yet. */
static fnn_status check_values(const fnn_model *model, const fnn_entry *entry, demand demand, fnn_detail *detail)
{
    size_t n = entry->rows * entry->columns, zeros = 0;
    const char *data = model->data + entry->begin;
    double least = entry->dtype == FNN_FLOAT32 ? (double)FLT_MIN : DBL_MIN;
    for (size_t i = 0; i < n; i++) {
        double value = real_at(entry->dtype, data, i);
        bool zero = value == 0;
        zeros += zero;
        if (!isfinite(value) || (demand == NOT_NEGATIVE && value < 0) ||
            (demand == DIVISOR && !zero && fabs(value) < least))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has the value %g at element %zu", entry->name, value, i);
    }
    if (demand == DIVISOR && zeros != 0 && zeros != n)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has zeros beside other values", entry->name);
    return FNN_OK;
}

static fnn_status take_tensor(fnn_model *model, const fnn_tensor *t, const char *prefix, demand demand,
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
    return check_values(model, entry, demand, detail);
}

static demand demand_of(const char *tensor_name)
{
    const char *role = strchr(tensor_name, '.') + 1;
    if (strcmp(role, "running_var") == 0)
        return NOT_NEGATIVE;
    return strcmp(role, "scale") == 0 ? DIVISOR : FINITE;
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
        status = take_tensor(model, t, fnn_moment_prefixes[index], index ? NOT_NEGATIVE : FINITE, detail);
    }
    return status;
}

static fnn_status take_tensors(fnn_model *model, fnn_detail *detail)
{
    const fnn_net *net = model->net;
    fnn_status status = FNN_OK;
    for (size_t i = 0; i < net->n_tensors && status == FNN_OK; i++)
        status = take_tensor(model, &net->tensors[i], "", demand_of(net->tensors[i].name), detail);
    for (int i = 0; i < 2 && status == FNN_OK && model->contents == FNN_CHECKPOINT; i++)
        status = take_moments(model, i, detail);
    return status;
}

/* ---- what is attached ---- */

/* Bytes of the UTF-8 character at `at`, 0 where it is none: no surrogates, nothing longer than needed. */
static size_t utf8_length(const unsigned char *at, size_t room)
{
    static const struct {
        unsigned char mask, mark;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};
    enum { MOST_BYTES = 4, CONTINUATION_BITS = 6 };
    for (size_t n = 1; n <= MOST_BYTES && n <= room; n++) {
        if ((at[0] & forms[n - 1].mask) != forms[n - 1].mark)
            continue;
        uint32_t code = at[0] & (unsigned char)~forms[n - 1].mask;
        for (size_t i = 1; i < n; i++) {
            if ((at[i] & 0xC0) != 0x80)
                return 0;
            code = code << CONTINUATION_BITS | (at[i] & 0x3F);
        }
        bool surrogate = code >= 0xD800 && code <= 0xDFFF;
        return code >= forms[n - 1].least && code <= 0x10FFFF && !surrogate ? n : 0;
    }
    return 0;
}

static bool is_utf8(const char *bytes, size_t begin, size_t end)
{
    while (begin < end) {
        size_t n = utf8_length((const unsigned char *)bytes + begin, end - begin);
        if (n == 0)
            return false;
        begin += n;
    }
    return true;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t length = strlen(name), n = strlen(suffix);
    return length >= n && strcmp(name + length - n, suffix) == 0;
}

/* NAME.offsets beside NAME.utf8, which is missing where all strings are empty. */
static fnn_status check_strings(const fnn_model *model, const fnn_entry *offsets, fnn_detail *detail)
{
    char name[MOST_NAME + 1];
    int stem = (int)(strlen(offsets->name) - strlen(".offsets"));
    snprintf(name, sizeof name, "%.*s.utf8", stem, offsets->name);
    const fnn_entry *utf8 = fnn_find_entry(&model->header, name);
    size_t size = utf8 ? utf8->rows : 0, before = 0;
    for (size_t i = 0; i < offsets->rows; i++) {
        int64_t offset;
        memcpy(&offset, model->data + offsets->begin + i * sizeof offset, sizeof offset);
        if (offset < (int64_t)before || (uint64_t)offset > size || (i == 0 && offset != 0) ||
            (utf8 && !is_utf8(model->data + utf8->begin, before, (size_t)offset)))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s': string %zu is not UTF-8 within '%s'", offsets->name, i,
                           name);
        before = (size_t)offset;
    }
    if (before != size)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' ends at byte %zu of the %zu of '%s'", offsets->name, before,
                       size, name);
    return FNN_OK;
}

static fnn_status check_attachment(const fnn_model *model, const fnn_entry *entry, fnn_detail *detail)
{
    fnn_status status = fnn_check_attachment_name(entry->name, entry->dtype, entry->rank, model->contents, detail);
    if (status != FNN_OK || strncmp(entry->name, "callback.", strlen("callback.")) == 0)
        return status;
    if (ends_with(entry->name, ".offsets"))
        return check_strings(model, entry, detail);
    if (ends_with(entry->name, ".utf8")) {
        char name[MOST_NAME + 1 + 4];
        snprintf(name, sizeof name, "%.*s.offsets", (int)(strlen(entry->name) - strlen(".utf8")), entry->name);
        if (!fnn_find_entry(&model->header, name))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' needs '%s'", entry->name, name);
    }
    return strncmp(entry->name, "preprocess.", strlen("preprocess.")) == 0 && entry->dtype == FNN_FLOAT64
               ? check_values(model, entry, FINITE, detail)
               : FNN_OK;
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

static fnn_status check(fnn_model *model, const char *bytes, size_t size, fnn_detail *detail)
{
    uint64_t length;
    if (size < LENGTH_BYTES)
        return fnn_say(detail, FNN_EFORMAT, "not a fastnn model: the file has %zu bytes", size);
    memcpy(&length, bytes, LENGTH_BYTES);
    if (length > MOST_HEADER && length > size - LENGTH_BYTES)
        return fnn_say(detail, FNN_EFORMAT, "not a fastnn model.%s", likeness(bytes, size));
    if (length > size - LENGTH_BYTES)
        return fnn_say(
            detail, FNN_EFORMAT,
            "the file is %zu bytes, its header alone declares %llu: incomplete copy or interrupted download?", size,
            (unsigned long long)length);
    if (length > MOST_HEADER)
        return fnn_say(detail, FNN_EFORMAT, "a header of %llu bytes; a fastnn model has at most %d",
                       (unsigned long long)length, MOST_HEADER);
    const char *header = bytes + LENGTH_BYTES;
    model->text_size = (size_t)length;
    model->data = header + length;
    model->text = fnn_allocate(model->text_size);
    if (!model->text)
        return FNN_ENOMEM;
    memcpy(model->text, header, model->text_size);
    int contents = 0;
    fnn_status status =
        fnn_read_header(&model->header, model->text, model->text_size, size - LENGTH_BYTES - model->text_size, detail);
    if (status == FNN_OK)
        status = check_format(model, detail);
    if (status == FNN_OK)
        status = check_header_crc(model, header, detail);
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
    if (status == FNN_OK)
        status = check_crcs(model, detail);
    if (status == FNN_OK)
        status = take_tensors(model, detail);
    for (size_t i = 0; i < model->header.n_entries && status == FNN_OK; i++)
        if (!model->header.entries[i].taken)
            status = check_attachment(model, &model->header.entries[i], detail);
    return status;
}

fnn_status fnn_model_open_memory(fnn_model **result, const void *bytes, size_t size, fnn_detail *detail)
{
    if (detail)
        *detail = (fnn_detail){0};
    if (!result)
        return FNN_EINVAL;
    *result = NULL;
    if (!bytes && size > 0)
        return FNN_EINVAL;
    fnn_model *model = fnn_allocate(sizeof *model);
    if (!model)
        return FNN_ENOMEM;
    fnn_status status = check(model, bytes, size, detail);
    if (status != FNN_OK) {
        fnn_model_close(model);
        return status;
    }
    *result = model;
    return FNN_OK;
}

fnn_status fnn_model_open(fnn_model **result, const char *path, fnn_detail *detail)
{
    char *bytes;
    size_t size;
    if (detail)
        *detail = (fnn_detail){0};
    if (!result || !path)
        return FNN_EINVAL;
    *result = NULL;
    fnn_status status = fnn_read_file(&bytes, &size, path, detail);
    if (status != FNN_OK)
        return status;
    status = fnn_model_open_memory(result, bytes, size, detail);
    if (status == FNN_OK)
        (*result)->file = bytes;
    else
        fnn_release(bytes);
    return status;
}

void fnn_model_close(fnn_model *model)
{
    if (!model)
        return;
    fnn_net_free(model->net);
    fnn_release(model->header.pairs);
    fnn_release(model->header.entries);
    fnn_release(model->text);
    fnn_release(model->file);
    fnn_release(model);
}

/* ---- the net ---- */

static void copy_tensor(const fnn_model *model, char *arena, const fnn_tensor *t, const char *prefix)
{
    char name[MOST_NAME + 1];
    snprintf(name, sizeof name, "%s%s", prefix, t->name);
    size_t size = model->net->real_size, row = t->columns * size;
    const char *from = model->data + fnn_find_entry(&model->header, name)->begin;
    for (size_t i = 0; i < t->rows; i++)
        memcpy(arena + (t->offset + i * t->stride) * size, from + i * row, row);
}

fnn_status fnn_model_net(fnn_model *model, fnn_net **result, fnn_detail *detail)
{
    if (detail)
        *detail = (fnn_detail){0};
    *result = NULL;
    fnn_net *net = model->net;
    if (!net)
        return FNN_EINVAL;
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
    status = model->frozen ? fnn_net_freeze(net) : FNN_OK;
    if (status == FNN_OK) {
        *result = net;
        model->net = NULL;
    }
    return status;
}

fnn_contents fnn_model_contents(const fnn_model *model)
{
    return model->contents;
}

size_t fnn_model_attachment_count(const fnn_model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < model->header.n_entries; i++)
        count += !model->header.entries[i].taken;
    return count;
}

fnn_attachment fnn_model_attachment(const fnn_model *model, size_t index)
{
    const fnn_entry *entry = model->header.entries;
    while (entry->taken || index-- > 0)
        entry++;
    return (fnn_attachment){.name = entry->name,
                            .dtype = entry->dtype,
                            .rows = entry->rows,
                            .columns = entry->rank == 2 ? entry->columns : 0,
                            .data = model->data + entry->begin};
}

static fnn_status finish_load(fnn_status status, fnn_model *model, fnn_net **net, fnn_detail *detail)
{
    if (status == FNN_OK)
        status = fnn_model_net(model, net, detail);
    fnn_model_close(model);
    return status;
}

fnn_status fnn_net_load(fnn_net **net, const char *path, fnn_detail *detail)
{
    fnn_model *model = NULL;
    if (!net)
        return FNN_EINVAL;
    *net = NULL;
    return finish_load(fnn_model_open(&model, path, detail), model, net, detail);
}

fnn_status fnn_net_load_memory(fnn_net **net, const void *bytes, size_t size, fnn_detail *detail)
{
    fnn_model *model = NULL;
    if (!net)
        return FNN_EINVAL;
    *net = NULL;
    return finish_load(fnn_model_open_memory(&model, bytes, size, detail), model, net, detail);
}

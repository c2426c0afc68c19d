/* The header of a safetensors file: JSON of a known shape, {"name": {"dtype", "shape", "data_offsets"}, ...} and one
 * "__metadata__" of strings. No escapes, no fractions, no nesting beyond that: what the format does not need is
 * refused. */
#include <stdlib.h>
#include <string.h>

#include "model.h"

static const char *const dtypes[] = {
    [FNN_FLOAT32] = "F32", [FNN_FLOAT64] = "F64", [FNN_UINT8] = "U8",  [FNN_INT8] = "I8",    [FNN_UINT16] = "U16",
    [FNN_INT16] = "I16",   [FNN_UINT32] = "U32",  [FNN_INT32] = "I32", [FNN_UINT64] = "U64", [FNN_INT64] = "I64",
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

const char *fnn_dtype_name(fnn_dtype dtype)
{
    return dtypes[dtype];
}

/* ---- JSON ---- */

static void skip_space(fnn_span *text)
{
    while (text->at < text->end && strchr(" \t\r\n", *text->at) && *text->at)
        text->at++;
}

/* The next thing is this character; it and the space around it are stepped over. */
static bool take(fnn_span *text, const char *character)
{
    skip_space(text);
    bool found = fnn_accept(text, character);
    skip_space(text);
    return found;
}

static bool take_string(fnn_span *string, fnn_span *text)
{
    skip_space(text);
    if (!fnn_accept(text, "\""))
        return false;
    string->at = text->at;
    while (text->at < text->end && (unsigned char)*text->at >= ' ' && *text->at != '"' && *text->at != '\\')
        text->at++;
    string->end = text->at;
    return fnn_accept(text, "\"");
}

static bool take_integer(uint64_t *value, fnn_span *text)
{
    skip_space(text);
    fnn_span digits = *text;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9')
        text->at++;
    digits.end = text->at;
    return fnn_span_integer(value, digits);
}

/* [a, b, ...] of at most `most` integers. */
static bool take_integers(uint64_t *values, size_t *n, size_t most, fnn_span *text)
{
    *n = 0;
    if (!take(text, "["))
        return false;
    if (take(text, "]"))
        return true;
    do {
        if (*n == most || !take_integer(&values[(*n)++], text))
            return false;
    } while (take(text, ","));
    return take(text, "]");
}

/* ---- entries ---- */

static bool name_character(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '.';
}

bool fnn_valid_name(fnn_span name)
{
    if (name.at == name.end || name.end - name.at > MOST_NAME)
        return false;
    while (name.at < name.end)
        if (!name_character(*name.at++))
            return false;
    return true;
}

static bool set_dtype(fnn_entry *entry, fnn_span name)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (fnn_span_is(name, dtypes[i])) {
            entry->dtype = (fnn_dtype)i;
            return true;
        }
    return false;
}

static bool set_shape(fnn_entry *entry, const uint64_t *shape, size_t rank)
{
    for (size_t i = 0; i < rank; i++)
        if (shape[i] == 0 || shape[i] > INT32_MAX)
            return false;
    entry->rank = rank;
    entry->rows = rank > 0 ? (size_t)shape[0] : 0;
    entry->columns = rank > 1 ? (size_t)shape[1] : 1;
    return rank > 0;
}

/* {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}, in any order, each once. */
static bool take_entry(fnn_entry *entry, fnn_span *text)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    int seen = 0;
    if (!take(text, "{"))
        return false;
    do {
        fnn_span key, dtype;
        uint64_t values[2];
        size_t n;
        int field = 0;
        if (!take_string(&key, text) || !take(text, ":"))
            return false;
        if (fnn_span_is(key, "dtype")) {
            field = take_string(&dtype, text) && set_dtype(entry, dtype) ? DTYPE : 0;
        } else if (fnn_span_is(key, "shape")) {
            field = take_integers(values, &n, 2, text) && set_shape(entry, values, n) ? SHAPE : 0;
        } else if (fnn_span_is(key, "data_offsets")) {
            if (!take_integers(values, &n, 2, text) || n != 2 || values[0] > values[1] || values[1] > SIZE_MAX)
                return false;
            field = OFFSETS;
            entry->begin = (size_t)values[0];
            entry->end = (size_t)values[1];
        }
        if (field == 0 || seen & field)
            return false;
        seen |= field;
    } while (take(text, ","));
    return seen == ALL && take(text, "}");
}

static fnn_status check_place(const fnn_entry *entry, size_t expected_begin, fnn_detail *detail)
{
    size_t bytes;
    if (!fnn_size_multiply(&bytes, entry->rows, entry->columns) ||
        !fnn_size_multiply(&bytes, bytes, fnn_item_size(entry->dtype)) || entry->end - entry->begin != bytes)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s': its offsets do not suit its shape", entry->name);
    if (entry->begin != expected_begin)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' begins at byte %zu of the data, expected %zu", entry->name,
                       entry->begin, expected_begin);
    return FNN_OK;
}

/* ---- the whole ---- */

/* Metadata into pairs, which may be NULL where they are only counted: those behind MOST_PAIRS as well. */
static bool take_metadata(fnn_header *header, fnn_span *text)
{
    if (!take(text, "{"))
        return false;
    if (take(text, "}"))
        return true;
    do {
        fnn_pair pair;
        if (!take_string(&pair.key, text) || !take(text, ":") || !take_string(&pair.value, text))
            return false;
        if (header->pairs)
            header->pairs[header->n_pairs] = pair;
        header->n_pairs++;
    } while (take(text, ","));
    return take(text, "}");
}

static fnn_status malformed(const fnn_span *text, const char *begin, fnn_detail *detail)
{
    return fnn_say(detail, FNN_EFORMAT, "the header is not the JSON of this format at byte %zu of it",
                   (size_t)(text->at - begin));
}

/* Counts pairs and entries where there is no room for them yet; else stores them and checks the entries' places. */
static fnn_status parse(fnn_header *header, char *begin, size_t size, size_t data_size, fnn_detail *detail)
{
    fnn_span text = {begin, begin + size};
    size_t data_end = 0;
    bool metadata = false;
    header->n_pairs = header->n_entries = 0;
    if (!fnn_accept(&text, "{"))
        return malformed(&text, begin, detail);
    do {
        fnn_span name;
        fnn_entry entry = {0};
        if (!take_string(&name, &text) || !take(&text, ":"))
            return malformed(&text, begin, detail);
        if (fnn_span_is(name, "__metadata__")) {
            if (metadata || !take_metadata(header, &text))
                return malformed(&text, begin, detail);
            if (header->n_pairs > MOST_PAIRS)
                return fnn_say(detail, FNN_EFORMAT, "more than %d pairs of metadata", MOST_PAIRS);
            metadata = true;
            continue;
        }
        if (!fnn_valid_name(name) || !take_entry(&entry, &text))
            return malformed(&text, begin, detail);
        if (++header->n_entries > MOST_TENSORS)
            return fnn_say(detail, FNN_EFORMAT, "more than %d tensors", MOST_TENSORS);
        if (!header->entries)
            continue;
        begin[name.end - begin] = 0; /* over its closing quote */
        entry.name = name.at;
        fnn_status status = check_place(&entry, data_end, detail);
        if (status != FNN_OK)
            return status;
        data_end = entry.end;
        header->entries[header->n_entries - 1] = entry;
    } while (take(&text, ","));
    if (!take(&text, "}") || text.at != text.end)
        return malformed(&text, begin, detail);
    if (header->entries && data_end != data_size)
        return fnn_say(
            detail, FNN_EFORMAT,
            "the file has %zu bytes of data, the header declares %zu: incomplete copy or interrupted download?",
            data_size, data_end);
    return FNN_OK;
}

static int compare_spans(fnn_span a, fnn_span b)
{
    size_t lengths[] = {(size_t)(a.end - a.at), (size_t)(b.end - b.at)};
    int order = memcmp(a.at, b.at, lengths[0] < lengths[1] ? lengths[0] : lengths[1]);
    return order ? order : (lengths[0] > lengths[1]) - (lengths[0] < lengths[1]);
}

static int compare_pairs(const void *a, const void *b)
{
    return compare_spans(((const fnn_pair *)a)->key, ((const fnn_pair *)b)->key);
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const fnn_entry *)a)->name, ((const fnn_entry *)b)->name);
}

static fnn_status refuse_repetitions(const fnn_header *header, fnn_detail *detail)
{
    for (size_t i = 1; i < header->n_pairs; i++)
        if (compare_pairs(&header->pairs[i - 1], &header->pairs[i]) == 0)
            return fnn_say(detail, FNN_EFORMAT, "metadata '%.*s' stands twice in the header",
                           (int)(header->pairs[i].key.end - header->pairs[i].key.at), header->pairs[i].key.at);
    for (size_t i = 1; i < header->n_entries; i++)
        if (compare_entries(&header->entries[i - 1], &header->entries[i]) == 0)
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' stands twice in the header", header->entries[i].name);
    return FNN_OK;
}

fnn_status fnn_read_header(fnn_header *header, char *text, size_t size, size_t data_size, fnn_detail *detail)
{
    size_t pairs_size, entries_size;
    *header = (fnn_header){0};
    if (!fnn_is_utf8((fnn_span){text, text + size}))
        return fnn_say(detail, FNN_EFORMAT, "the header is not UTF-8");
    fnn_status status = parse(header, text, size, data_size, detail);
    if (status != FNN_OK)
        return status;
    if (!fnn_size_multiply(&pairs_size, header->n_pairs, sizeof *header->pairs) ||
        !fnn_size_multiply(&entries_size, header->n_entries, sizeof *header->entries))
        return FNN_EOVERFLOW;
    header->pairs = fnn_allocate(pairs_size);
    header->entries = fnn_allocate(entries_size);
    if (!header->pairs || !header->entries)
        return FNN_ENOMEM;
    status = parse(header, text, size, data_size, detail);
    if (status != FNN_OK)
        return status;
    qsort(header->pairs, header->n_pairs, sizeof *header->pairs, compare_pairs);
    qsort(header->entries, header->n_entries, sizeof *header->entries, compare_entries);
    return refuse_repetitions(header, detail);
}

const fnn_pair *fnn_find_pair(const fnn_header *header, const char *key)
{
    const fnn_pair wanted = {.key = {key, key + strlen(key)}};
    return bsearch(&wanted, header->pairs, header->n_pairs, sizeof wanted, compare_pairs);
}

fnn_entry *fnn_find_entry(const fnn_header *header, const char *name)
{
    const fnn_entry wanted = {.name = name};
    return bsearch(&wanted, header->entries, header->n_entries, sizeof wanted, compare_entries);
}

/* The closed list of what a file may hold beside the net's own tensors, and what is demanded of it. */
#include <stdio.h>
#include <string.h>

#include "model.h"

enum { VECTOR = 1, MATRIX = 2, ANY_RANK = 0, ANY_DTYPE = -1 };

typedef struct family {
    const char *prefix, *suffix; /* of the name; what stands between is free, and must be there where `open` */
    bool open;
    int dtype;
    size_t rank;
    bool checkpoint; /* not in a model */
    fnn_demand demand;
    bool strings; /* needs its partner: bytes and offsets */
} family;

static const char utf8_suffix[] = ".utf8", offsets_suffix[] = ".offsets";

/* Strings are UTF-8 bytes end to end, string i from offsets[i] to offsets[i + 1]. */
#define STRINGS(prefix, open, checkpoint)                                                \
    {prefix, utf8_suffix, open, FNN_UINT8, VECTOR, checkpoint, FNN_ANY_VALUE, true},     \
    {                                                                                    \
        prefix, offsets_suffix, open, FNN_INT64, VECTOR, checkpoint, FNN_ANY_VALUE, true \
    }

static const family families[] = {
    STRINGS("class_names", false, false),
    STRINGS("feature_names", false, false),
    STRINGS("target_name", false, false),
    STRINGS("preprocess.kinds", false, false),
    {"preprocess.mean", "", false, FNN_FLOAT64, VECTOR, false, FNN_FINITE, false},
    {"preprocess.scale", "", false, FNN_FLOAT64, VECTOR, false, FNN_DIVISOR, false},
    {"preprocess.fill", "", false, FNN_FLOAT64, VECTOR, false, FNN_FINITE, false},
    STRINGS("preprocess.categories.", true, false),
    STRINGS("history.names", false, true),
    {"history.values", "", false, FNN_FLOAT64, MATRIX, true, FNN_ANY_VALUE, false},
    {"trainer.state", "", false, FNN_UINT8, VECTOR, true, FNN_ANY_VALUE, false},
    {"trainer.outputs", "", false, ANY_DTYPE, MATRIX, true, FNN_ANY_VALUE, false},
    {"callback.", "", true, ANY_DTYPE, ANY_RANK, true, FNN_ANY_VALUE, false},
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static bool belongs(const char *name, const family *f)
{
    size_t length = strlen(name), prefix = strlen(f->prefix), suffix = strlen(f->suffix);
    return length >= prefix + suffix + f->open && (f->open || length == prefix + suffix) &&
           memcmp(name, f->prefix, prefix) == 0 && memcmp(name + length - suffix, f->suffix, suffix) == 0;
}

static const family *family_of(const char *name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (belongs(name, &families[i]))
            return &families[i];
    return NULL;
}

bool fnn_partner_name(char partner[MOST_PARTNER], const char *name)
{
    const family *f = family_of(name);
    if (!f || !f->strings)
        return false;
    const char *suffix = f->suffix == utf8_suffix ? offsets_suffix : utf8_suffix;
    snprintf(partner, MOST_PARTNER, "%.*s%s", (int)(strlen(name) - strlen(f->suffix)), name, suffix);
    return true;
}

/* Bytes (NULL where all strings are empty) that the offsets divide into strings. */
static fnn_status check_strings(const fnn_attachment *offsets, const fnn_attachment *utf8, fnn_detail *detail)
{
    const char *bytes = utf8 ? utf8->data : NULL;
    size_t size = utf8 ? utf8->rows : 0, before = 0;
    for (size_t i = 0; i < offsets->rows; i++) {
        int64_t offset;
        memcpy(&offset, (const char *)offsets->data + i * sizeof offset, sizeof offset);
        if (offset < 0 || (uint64_t)offset > size || (size_t)offset < before || (i == 0 && offset != 0) ||
            (utf8 && !fnn_is_utf8((fnn_span){bytes + before, bytes + offset})))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s': string %zu is not UTF-8 within the bytes", offsets->name,
                           i);
        before = (size_t)offset;
    }
    if (before != size)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' ends at byte %zu of %zu", offsets->name, before, size);
    return FNN_OK;
}

fnn_status fnn_check_attachment(const fnn_attachment *a, const fnn_attachment *partner, fnn_contents contents,
                                fnn_detail *detail)
{
    const family *f = family_of(a->name);
    size_t rank = a->columns ? MATRIX : VECTOR;
    if (!f)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' is not one of the net", a->name);
    if ((f->dtype != ANY_DTYPE && (fnn_dtype)f->dtype != a->dtype) || (f->rank != ANY_RANK && f->rank != rank))
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has dtype %s and %zu dimensions", a->name,
                       fnn_dtype_name(a->dtype), rank);
    if (f->checkpoint && contents != FNN_CHECKPOINT)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' belongs in a checkpoint, not in a model", a->name);
    if (f->strings && f->suffix == offsets_suffix)
        return check_strings(a, partner, detail);
    if (f->strings && !partner)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has no offsets", a->name);
    return fnn_check_values(a->name, a->dtype, a->data, a->rows, f->demand, detail); /* only vectors demand anything */
}

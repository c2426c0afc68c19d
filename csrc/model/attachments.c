/* The closed list of what a file may hold beside the net's own tensors. */
#include <string.h>

#include "model.h"

enum { VECTOR = 1, MATRIX = 2, ANY_RANK = 0 };

typedef struct family {
    const char *prefix, *suffix; /* of the name; what stands between is free, and must be there where `open` */
    bool open;
    int dtype; /* -1: any */
    size_t rank;
    bool checkpoint; /* not in a model */
} family;

/* Strings are UTF-8 bytes end to end, string i from offsets[i] to offsets[i + 1]. */
#define STRINGS(prefix, open, checkpoint)                       \
    {prefix, ".utf8", open, FNN_UINT8, VECTOR, checkpoint},     \
    {                                                           \
        prefix, ".offsets", open, FNN_INT64, VECTOR, checkpoint \
    }

static const family families[] = {
    STRINGS("class_names", false, false),
    STRINGS("feature_names", false, false),
    {"preprocess.mean", "", false, FNN_FLOAT64, VECTOR, false},
    {"preprocess.scale", "", false, FNN_FLOAT64, VECTOR, false},
    {"preprocess.fill", "", false, FNN_FLOAT64, VECTOR, false},
    STRINGS("preprocess.categories.", true, false),
    STRINGS("history.names", false, true),
    {"history.values", "", false, FNN_FLOAT64, MATRIX, true},
    {"trainer.state", "", false, FNN_UINT8, VECTOR, true},
    {"trainer.outputs", "", false, -1, MATRIX, true},
    {"callback.", "", true, -1, ANY_RANK, true},
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static bool belongs(const char *name, const family *f)
{
    size_t length = strlen(name), prefix = strlen(f->prefix), suffix = strlen(f->suffix);
    return length >= prefix + suffix + f->open && (f->open || length == prefix + suffix) &&
           memcmp(name, f->prefix, prefix) == 0 && memcmp(name + length - suffix, f->suffix, suffix) == 0;
}

fnn_status fnn_check_attachment_name(const char *name, fnn_dtype dtype, size_t rank, fnn_contents contents,
                                     fnn_detail *detail)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        const family *f = &families[i];
        if (!belongs(name, f))
            continue;
        if ((f->dtype >= 0 && (fnn_dtype)f->dtype != dtype) || (f->rank != ANY_RANK && f->rank != rank))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has dtype %s and %zu dimensions", name,
                           fnn_dtype_name(dtype), rank);
        if (f->checkpoint && contents != FNN_CHECKPOINT)
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' belongs in a checkpoint, not in a model", name);
        return FNN_OK;
    }
    return fnn_say(detail, FNN_EFORMAT, "tensor '%s' is not one of the net", name);
}

/* Model files: safetensors files of "fastnn profile 1", which docs/model-file.md specifies. The writer emits nothing
 * that the reader refuses. The reader trusts no byte: every number is bounded before it is used, and what a net would
 * be built from is checked before memory for it is asked for. */
#ifndef FNN_MODEL_H
#define FNN_MODEL_H

#include <stdarg.h>

#include "fastnn.h"
#include "fnn_internal.h"
#include "net.h"
#include "runtime.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are read and written as they lie in memory: little-endian machines alone"
#endif

enum {
    MODEL_FORMAT = 1,
    LENGTH_BYTES = 8, /* the header's length, in front of it */
    MOST_HEADER = 1 << 20,
    MOST_TENSORS = 4096,
    MOST_LAYERS = 4096,
    MOST_PAIRS = 8192, /* of metadata */
    MOST_NAME = 128,
    DATA_ALIGNMENT = 64, /* of the first tensor in a file that we write */
    CRC_DIGITS = 8
};
#define MOST_COUNT ((uint64_t)INT64_MAX) /* of passes and updates */

/* ---- text.c: the sentence for the caller, text of a known most length, names in tables ---- */

/* Puts the sentence into detail, if there is one, and returns status. */
__attribute__((format(printf, 3, 4))) fnn_status fnn_say(fnn_detail *detail, fnn_status status, const char *format,
                                                         ...);

typedef struct fnn_text {
    char *begin;
    size_t size, capacity;
    bool overflow;
} fnn_text;

__attribute__((format(printf, 2, 3))) void fnn_append(fnn_text *text, const char *format, ...);

/* A stretch of the file's text, not ended by a zero. */
typedef struct fnn_span {
    const char *at, *end;
} fnn_span;

bool fnn_span_is(fnn_span span, const char *text);
/* Step over `text`, or stay and return false. */
bool fnn_accept(fnn_span *span, const char *text);
/* The whole span is a decimal number without a sign or leading zeros. */
bool fnn_span_integer(uint64_t *value, fnn_span span);
bool fnn_is_utf8(fnn_span span);

/* ---- arch.c: the layer list as text ---- */

void fnn_append_layers(fnn_text *text, const fnn_layer *layers, size_t n);
/* Most records that the text may hold. */
size_t fnn_count_layers(fnn_span text);
/* Layers (as many as were counted have room) from text. */
fnn_status fnn_read_layers(fnn_layer *layers, size_t *n, fnn_span text, fnn_detail *detail);

/* ---- header.c: JSON as far as safetensors needs it ---- */

typedef struct fnn_pair {
    fnn_span key, value;
} fnn_pair;

typedef struct fnn_entry {
    const char *name; /* ended by a zero */
    fnn_dtype dtype;
    size_t rank, rows, columns; /* columns is 1 for vectors */
    size_t begin, end;          /* bytes of the data section */
    bool taken;                 /* by the net */
} fnn_entry;

typedef struct fnn_header {
    size_t n_pairs, n_entries;
    fnn_pair *pairs;    /* sorted by key */
    fnn_entry *entries; /* sorted by name */
} fnn_header;

/* Parses and checks all that does not depend on what the file is for: syntax, limits, no key twice, entries that follow
 * each other without gaps up to data_size. The text is private and may be written to. */
fnn_status fnn_read_header(fnn_header *header, char *text, size_t size, size_t data_size, fnn_detail *detail);
bool fnn_valid_name(fnn_span name); /* of a tensor */
const fnn_pair *fnn_find_pair(const fnn_header *header, const char *key);
fnn_entry *fnn_find_entry(const fnn_header *header, const char *name);
const char *fnn_dtype_name(fnn_dtype dtype); /* "F32" */

/* ---- values.c: what the numbers must be ---- */

typedef enum fnn_demand {
    FNN_ANY_VALUE,
    FNN_FINITE,
    FNN_NOT_NEGATIVE,
    FNN_DIVISOR,        /* a normal number: its inverse is one too, or nearly */
    FNN_DIVISOR_OR_NONE /* or zeros everywhere, which say that there are none yet */
} fnn_demand;

/* The dtype is one of the net unless any value will do. */
fnn_status fnn_check_values(const char *name, fnn_dtype dtype, const void *values, size_t n, fnn_demand demand,
                            fnn_detail *detail);
fnn_demand fnn_demand_of(const fnn_net *net, const fnn_tensor *tensor);

/* ---- attachments.c: what may stand in a file beside the net ---- */

enum { MOST_PARTNER = MOST_NAME + 8 };

/* The other half of a list of strings: NAME.offsets for NAME.utf8 and the other way round; false for all else. */
bool fnn_partner_name(char partner[MOST_PARTNER], const char *name);
/* Name, dtype, rank and values; `partner` is NULL where the file has none. */
fnn_status fnn_check_attachment(const fnn_attachment *a, const fnn_attachment *partner, fnn_contents contents,
                                fnn_detail *detail);

/* ---- file.c: whole files through the table of I/O functions ---- */

/* A regular file and its size. */
fnn_status fnn_open_file(int *file, size_t *size, const char *path, fnn_detail *detail);
/* The next `size` bytes. A file that became shorter meanwhile is EIO. */
fnn_status fnn_read_bytes(int file, void *bytes, size_t size, fnn_detail *detail);

/* Where a file's bytes go; the first failure stays. */
typedef struct fnn_sink {
    fnn_status (*write)(struct fnn_sink *sink, const void *bytes, size_t size);
    fnn_status status;
    int system_error;
    /* each kind of sink uses its own */
    uint32_t crc;
    char *memory;
    int file;
    size_t buffered;
} fnn_sink;

void fnn_put(fnn_sink *sink, const void *bytes, size_t size);
/* Lets `emit` write a temporary file, which then takes the path's place. */
fnn_status fnn_replace_file(const char *path, void (*emit)(fnn_sink *sink, const void *argument), const void *argument,
                            fnn_detail *detail);

/* ---- the parts of the profile that reader and writer share ---- */

static const char *const fnn_moment_prefixes[2] = {"optimizer.momentum.", "optimizer.second_moment."};
static const char *const fnn_optimizer_names[] = {"sgd", "rmsprop", "adam"};
static const char *const fnn_link_names[] = {"none", "identity", "sigmoid", "softmax", "exp"};
static const char *const fnn_contents_names[] = {"model", "checkpoint"};

/* A vector in the net's list of tensors; anything else is a weight matrix. */
static inline bool fnn_is_vector(const fnn_net *net, const fnn_tensor *tensor)
{
    return !(net->layers[tensor->layer].kind == FNN_DENSE && strcmp(strchr(tensor->name, '.'), ".weight") == 0);
}

#endif

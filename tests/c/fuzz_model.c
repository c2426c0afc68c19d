/* Mutants of model files, made with the format in mind: names, shapes, offsets, layer records, metadata, tensors and
 * their order are changed, and the CRCs put right again, so that what lies behind them is reached. Often the tensors
 * are made to fit the changed layers, so that the file is accepted; then the net predicts, is saved, read back, and
 * trained for a step.
 *
 *   fuzz_model run MUTANTS SEED [CORPUS FILES]   mutants of the sample nets and these files; the same for a given seed
 *   fuzz_model replay FILES                      the files as they are
 *   fuzz_model seeds FOLDER                      the files of the sample nets, to start a corpus with
 *   fuzz_model write FOLDER MUTANTS SEED         mutants into files, "accepted-..." or "refused-...", for other readers
 *
 * A failure leaves the mutant in fuzz-SEED-NUMBER.safetensors and ends the program: a crash, a sanitizer's report, too
 * much memory, or a file that we wrote and then refuse. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "counted_memory.h"
#include "model.h"
#include "sample_nets.h"

enum {
    MOST_FILE = 1 << 22,
    MOST_SEEDS = 256,
    LARGE = 50000,       /* bytes of a file that few mutants are made from */
    MOST_TEXT = 1 << 16, /* of an arch that is still edited */
    MOST_WIDTH = 4096,   /* of a net that is run */
    REPAIRABLE = 80,     /* inputs and units for which tensors are made */
    MOST_PARSED = 64,    /* layers of an arch whose tensors are made to fit */
    SLACK = 16 << 20,    /* memory that any file may take */
    SCRATCH = 64 << 20,  /* for the parts of one mutant */
    MOST_PARTS = 8200    /* pairs, entries */
};

/* ---- random numbers: a function of the seed and the number of the mutant ---- */

static uint64_t state;

static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(size_t n)
{
    return (size_t)(draw() % n);
}

static bool chance(int percent)
{
    return below(100) < (size_t)percent;
}

#define ONE_OF(array) ((array)[below(sizeof(array) / sizeof *(array))])

/* ---- the mutant at hand, kept for the moment that something breaks ---- */

static char mutant[MOST_FILE];
static size_t mutant_size;
static uint64_t run_seed, mutant_number;

static void keep_mutant(void)
{
    char name[80], said[160];
    snprintf(name, sizeof name, "fuzz-%" PRIu64 "-%" PRIu64 ".safetensors", run_seed, mutant_number);
    FILE *file = fopen(name, "wb");
    if (file) {
        fwrite(mutant, 1, mutant_size, file);
        fclose(file);
    }
    int n =
        snprintf(said, sizeof said, "seed %" PRIu64 ", mutant %" PRIu64 " is in %s\n", run_seed, mutant_number, name);
    if (write(STDERR_FILENO, said, (size_t)n) < 0)
        _exit(2);
}

static void on_signal(int number)
{
    keep_mutant();
    signal(number, SIG_DFL);
    raise(number);
}

/* The sanitizers', where the program is built with one. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch_for_crashes(void)
{
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(keep_mutant);
        return;
    }
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], on_signal);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    keep_mutant();
    exit(1);
}

/* ---- a file in parts ---- */

static char scratch[SCRATCH];
static size_t scratch_used;

static void *room(size_t bytes)
{
    void *memory = scratch + scratch_used;
    scratch_used += (bytes + 15) / 16 * 16;
    if (scratch_used > SCRATCH)
        fail("a mutant needs more than %d bytes of scratch", SCRATCH);
    return memory;
}

typedef struct part {
    const char *text;
    size_t size;
} part;

typedef struct metadata {
    part key, value;
} metadata;

typedef struct entry {
    part name, dtype;
    size_t rank;
    uint64_t shape[4];
    char *data;
    size_t bytes;
    uint64_t shift_begin, shift_end; /* of the offsets, from those that follow from the order */
    bool without_crc;
} entry;

typedef struct document {
    metadata pairs[MOST_PARTS];
    entry entries[MOST_PARTS];
    size_t n_pairs, n_entries;
    int metadata_copies;
    bool metadata_last, spaces, header_crc;
    bool large;
} document;

static document parts[MOST_SEEDS]; /* of the files that mutants are made from */
static size_t n_seeds;
static document d; /* of the mutant */

static part text_of(const char *text)
{
    return (part){text, strlen(text)};
}

__attribute__((format(printf, 1, 2))) static part print(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    size_t n = (size_t)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    n = n < sizeof text ? n : sizeof text - 1;
    return (part){memcpy(room(n + 1), text, n + 1), n};
}

static bool is(part p, const char *text)
{
    return p.size == strlen(text) && memcmp(p.text, text, p.size) == 0;
}

static bool starts(part p, const char *text)
{
    return p.size >= strlen(text) && memcmp(p.text, text, strlen(text)) == 0;
}

static part copied(const char *text, size_t size)
{
    char *memory = malloc(size + 1);
    memcpy(memory, text, size);
    memory[size] = 0;
    return (part){memory, size};
}

/* A file that the library accepts, in parts; the CRCs are made anew when it is put together again. */
static bool take_apart(document *into, const char *bytes, size_t size)
{
    fnn_header header = {0};
    uint64_t length;
    if (size < LENGTH_BYTES)
        return false;
    memcpy(&length, bytes, LENGTH_BYTES);
    if (length > size - LENGTH_BYTES || length > MOST_HEADER)
        return false;
    char *text = malloc((size_t)length + 1);
    memcpy(text, bytes + LENGTH_BYTES, (size_t)length);
    const char *data = bytes + LENGTH_BYTES + length;
    bool whole = fnn_read_header(&header, text, (size_t)length, size - LENGTH_BYTES - (size_t)length, NULL) == FNN_OK;
    for (size_t i = 0; whole && i < header.n_pairs; i++) {
        fnn_span key = header.pairs[i].key, value = header.pairs[i].value, rest = key;
        if (!fnn_accept(&rest, "fastnn.crc.") && !fnn_span_is(key, "fastnn.header_crc"))
            into->pairs[into->n_pairs++] = (metadata){copied(key.at, (size_t)(key.end - key.at)),
                                                      copied(value.at, (size_t)(value.end - value.at))};
    }
    for (size_t i = 0; whole && i < header.n_entries; i++) {
        const fnn_entry *e = &header.entries[i];
        into->entries[into->n_entries++] = (entry){.name = copied(e->name, strlen(e->name)),
                                                   .dtype = text_of(fnn_dtype_name(e->dtype)),
                                                   .rank = e->rank,
                                                   .shape = {e->rows, e->columns},
                                                   .data = (char *)copied(data + e->begin, e->end - e->begin).text,
                                                   .bytes = e->end - e->begin};
    }
    into->large = size > LARGE;
    fnn_release(header.pairs);
    fnn_release(header.entries);
    free(text);
    return whole;
}

/* ---- putting it together, CRCs right ---- */

static void put(const char *bytes, size_t size)
{
    if (size > MOST_FILE - mutant_size)
        fail("a mutant has more than %d bytes", MOST_FILE);
    memcpy(mutant + mutant_size, bytes, size);
    mutant_size += size;
}

static void put_part(part p)
{
    put(p.text, p.size);
}

static void put_text(const char *text)
{
    put(text, strlen(text));
    if (d.spaces && chance(30))
        put(&" \t\r\n"[below(4)], 1);
}

static void put_metadata(void)
{
    put_text("\"__metadata__\":{");
    for (size_t i = 0; i < d.n_pairs; i++) {
        put_text(i ? ",\"" : "\"");
        put_part(d.pairs[i].key);
        put_text("\":\"");
        put_part(d.pairs[i].value);
        put("\"", 1);
    }
    for (size_t i = 0; i < d.n_entries; i++) {
        if (d.entries[i].without_crc)
            continue;
        part digits = print("\":\"%08x\"", (unsigned)fnn_crc32(0, d.entries[i].data, d.entries[i].bytes));
        put(",\"fastnn.crc.", 13);
        put_part(d.entries[i].name);
        put_part(digits);
    }
    if (d.header_crc)
        put(",\"fastnn.header_crc\":\"00000000\"", 31);
    put_text("}");
}

static void put_entry(const entry *e, uint64_t begin)
{
    put("\"", 1);
    put_part(e->name);
    put_text("\":{\"dtype\":\"");
    put_part(e->dtype);
    put_text("\",\"shape\":[");
    for (size_t i = 0; i < e->rank; i++)
        put_part(print("%s%" PRIu64, i ? "," : "", e->shape[i]));
    part offsets = print("%" PRIu64 ",%" PRIu64, begin + e->shift_begin, begin + e->bytes + e->shift_end);
    put_text("],\"data_offsets\":[");
    put_part(offsets);
    put_text("]}");
}

static void put_header(void)
{
    uint64_t begin = 0;
    bool comma = false;
    put_text("{");
    for (int i = 0; i < d.metadata_copies && !d.metadata_last; i++, comma = true) {
        put_text(comma ? "," : "");
        put_metadata();
    }
    for (size_t i = 0; i < d.n_entries; begin += d.entries[i++].bytes, comma = true) {
        put_text(comma ? "," : "");
        put_entry(&d.entries[i], begin);
    }
    if (d.metadata_last && d.metadata_copies) {
        put_text(comma ? "," : "");
        put_metadata();
    }
    put("}", 1);
    for (size_t pad = below(9); pad > 0; pad--)
        put(" ", 1);
}

static void damage_text(char *begin, size_t *size, size_t most)
{
    static const char characters[] = "{}[]\":,0123456789.eE+-_ax\\/ \n\t=();\x01\x7f\x80\xc3\xff";
    size_t place = below(*size);
    switch (below(4)) {
    case 0:
        begin[place] = characters[below(sizeof characters)];
        break;
    case 1: /* leave out */
        memmove(begin + place, begin + place + 1, *size - place - 1);
        --*size;
        break;
    case 2: /* put in */
        if (*size < most) {
            memmove(begin + place + 1, begin + place, *size - place);
            begin[place] = characters[below(sizeof characters)];
            ++*size;
        }
        break;
    case 3: /* a stretch again */
        if (*size > 16) {
            size_t n = 1 + below(12), from = below(*size - n), to = below(*size - n);
            memmove(begin + to, begin + from, n);
        }
    }
}

static char *find(char *text, size_t size, const char *wanted)
{
    size_t n = strlen(wanted);
    for (size_t i = 0; i + n <= size; i++)
        if (text[i] == *wanted && memcmp(text + i, wanted, n) == 0)
            return text + i;
    return NULL;
}

static void repair_header_crc(char *header, size_t size)
{
    static const char key[] = "\"fastnn.header_crc\":\"";
    enum { KEY = sizeof key - 1 };
    char *place = find(header, size, key);
    if (!place || (size_t)(header + size - place) < KEY + CRC_DIGITS)
        return;
    char digits[CRC_DIGITS + 1];
    memcpy(place + KEY, "00000000", CRC_DIGITS);
    snprintf(digits, sizeof digits, "%08x", (unsigned)fnn_crc32(0, header, size));
    memcpy(place + KEY, digits, CRC_DIGITS);
}

static void put_together(void)
{
    uint64_t length = 0;
    mutant_size = 0;
    put((char *)&length, LENGTH_BYTES);
    put_header();
    size_t size = mutant_size - LENGTH_BYTES;
    for (int i = 0; i < 3 && chance(2); i++)
        damage_text(mutant + LENGTH_BYTES, &size, MOST_FILE - LENGTH_BYTES);
    if (!chance(1))
        repair_header_crc(mutant + LENGTH_BYTES, size);
    length = size;
    mutant_size = LENGTH_BYTES + size;
    if (chance(1)) {
        const uint64_t others[] = {0,
                                   1,
                                   size - 1,
                                   size + 1,
                                   size + 8,
                                   MOST_HEADER,
                                   MOST_HEADER + 1,
                                   UINT64_MAX,
                                   (uint64_t)1 << 63,
                                   UINT64_MAX - 7};
        length = ONE_OF(others);
    }
    memcpy(mutant, &length, LENGTH_BYTES);
    for (size_t i = 0; i < d.n_entries; i++)
        put(d.entries[i].data, d.entries[i].bytes);
    if (chance(1))
        put(scratch, below(20));
    else if (chance(1))
        mutant_size -= below(mutant_size);
}

/* ---- mutations ---- */

/* clang-format off */
static const char *const numbers[] = {
    "0", "1", "2", "3", "5", "17", "64", /* likely to fit */
    "-1", "00", "01", "1.5", "0.5", "1e5", "-0", "1e-9", "1e-38", "1e-46", "1e308", "1e999", "nan", "inf", "0x10", "",
    "1.", ".5", "+1", "1e", "--1", "0.25", "0.999", "1e-37", "65535", "0.99999", "1234567", "2147483647", "2147483648",
    "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "99999999999999999999999999", "0.1234567890123456789012345",
};
enum { LIKELY_NUMBERS = 7 };
static const uint64_t integers[] = {
    0, 1, 2, 3, 4, 5, 7, 16, 64, 65535, 65536, INT32_MAX, (uint64_t)INT32_MAX + 1, UINT32_MAX, (uint64_t)1 << 32,
    (uint64_t)1 << 33, (uint64_t)1 << 61, (uint64_t)1 << 62, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 3, UINT64_MAX,
};
static const char *const words[] = {
    "identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid", "softmax", "default",
    "zeros", "constant", "uniform", "normal", "fan_in_uniform", "he_normal", "orthogonal", "l1", "proximal_l1", "l2",
    "elastic_net", /* the words of a layer, then others */
    "none", "exp", "model", "checkpoint", "sgd", "rmsprop", "adam", "F32", "F64", "U8", "I64", "BF16",
};
enum { WORDS_OF_LAYERS = 23 };
static const char *const records[] = {
    "dense(units=3,use_bias=1,activation=identity,alpha=0,init=default,init_value=0,penalty=default,lam=0,beta=0,"
    "trainable=1)",
    "dense(units=7,use_bias=0,activation=elu,alpha=0.5,init=normal,init_value=0.1,penalty=l1,lam=0.5,beta=0,"
    "trainable=0)",
    "batchnorm(eps=1e-05,decay=0.9,unbiased=1,trainable=1)", "batchnorm(eps=0.001,decay=0,unbiased=0,trainable=0)",
    "dropout(p=0.25,test_scaling=0)", "dropout(p=0.5,test_scaling=1)", "activation(function=relu,alpha=0)",
    "activation(function=softmax,alpha=0)", "activation(function=leaky_relu,alpha=0.01)",
    "activation(function=identity,alpha=0)", "scale(factor=0.5)", "scale(factor=1e+30)", "standardize(given=0)",
    "standardize(given=1)",
};
static const char *const names[] = {
    "0.weight", "0.bias", "1.weight", "1.gamma", "0.mean", "0.scale", "1.running_var", "class_names.utf8",
    "class_names.offsets", "feature_names.offsets", "target_name.utf8", "preprocess.kinds.offsets", "preprocess.mean", "preprocess.scale", "preprocess.categories.0.utf8",
    "preprocess.categories.0.offsets", "preprocess.categories..utf8", "callback.a", "callback.", "trainer.state",
    "trainer.outputs", "history.values", "history.names.utf8", "history.names.offsets", "optimizer.momentum.0.weight",
    "optimizer.second_moment.0.weight", "optimizer.momentum.9.weight", "../x", "a/b", "", "__metadata__", ".",
    "0.weight ", "00.weight",
};
static const char *const keys[] = {
    "fastnn.format", "fastnn.kind", "fastnn.created_by", "fastnn.dtype", "fastnn.input_size", "fastnn.seed",
    "fastnn.frozen", "fastnn.link", "fastnn.arch", "fastnn.optimizer", "fastnn.passes", "fastnn.updates",
    "fastnn.crc.x", "fastnn.other", "format", "", "fastnn.header_crc", "fastnn.",
};
/* clang-format on */

static metadata *pair_of(const char *key)
{
    for (size_t i = 0; i < d.n_pairs; i++)
        if (is(d.pairs[i].key, key))
            return &d.pairs[i];
    return NULL;
}

static part random_value(void)
{
    if (chance(60))
        return text_of(ONE_OF(numbers));
    return chance(70) ? text_of(ONE_OF(words)) : print("%" PRIu64, draw() >> below(64));
}

static void mutate_pairs(void)
{
    if (d.n_pairs == 0 || d.n_pairs + 2 > MOST_PARTS)
        return;
    size_t i = below(d.n_pairs);
    switch (below(7)) {
    case 0:
    case 1:
        d.pairs[i].value = random_value();
        break;
    case 2:
        d.pairs[i] = d.pairs[--d.n_pairs];
        break;
    case 3:
        d.pairs[d.n_pairs++] = d.pairs[i];
        break;
    case 4:
        d.pairs[d.n_pairs++] = (metadata){text_of(ONE_OF(keys)), random_value()};
        break;
    case 5: {
        metadata kept = d.pairs[i];
        size_t j = below(d.n_pairs);
        d.pairs[i] = d.pairs[j];
        d.pairs[j] = kept;
        break;
    }
    case 6:
        d.pairs[i].key = text_of(ONE_OF(keys));
    }
}

/* Another kind, dtype, optimizer or link, such as they may be. */
static void mutate_settings(void)
{
    static const struct {
        const char *key, *values[5];
    } settings[] = {{"fastnn.kind", {"model", "checkpoint"}},
                    {"fastnn.dtype", {"F32", "F64"}},
                    {"fastnn.optimizer", {"sgd", "rmsprop", "adam"}},
                    {"fastnn.link", {"none", "identity", "sigmoid", "softmax", "exp"}},
                    {"fastnn.frozen", {"0", "1"}},
                    {"fastnn.input_size", {"1", "3", "17", "33", "5"}},
                    {"fastnn.seed", {"0", "18446744073709551615"}},
                    {"fastnn.updates", {"0", "9223372036854775807", "1"}}};
    size_t i = below(sizeof settings / sizeof *settings), n = 1;
    metadata *pair = pair_of(settings[i].key);
    while (n < 5 && settings[i].values[n])
        n++;
    if (pair)
        pair->value = text_of(settings[i].values[below(n)]);
    if (i == 0 && pair && is(pair->value, "checkpoint") && !pair_of("fastnn.passes") && d.n_pairs + 3 < MOST_PARTS) {
        d.pairs[d.n_pairs++] = (metadata){text_of("fastnn.optimizer"), text_of("adam")};
        d.pairs[d.n_pairs++] = (metadata){text_of("fastnn.passes"), text_of("3")};
        d.pairs[d.n_pairs++] = (metadata){text_of("fastnn.updates"), text_of("3")};
    }
}

/* The records of the layer list, without their numbers. */
static size_t split_arch(part *found, size_t most, part arch)
{
    size_t n = 0;
    const char *at = arch.text, *end = arch.text + arch.size;
    while (at < end && n < most) {
        const char *stop = memchr(at, ';', (size_t)(end - at));
        stop = stop ? stop : end;
        const char *colon = memchr(at, ':', (size_t)(stop - at));
        at = colon ? colon + 1 : at;
        found[n++] = (part){at, (size_t)(stop - at)};
        at = stop + 1;
    }
    return n;
}

static part join_arch(const part *found, size_t n)
{
    size_t size = 1;
    for (size_t i = 0; i < n; i++)
        size += found[i].size + 24;
    char *text = room(size);
    size_t length = 0;
    for (size_t i = 0; i < n; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%zu:%.*s", i ? ";" : "", i, (int)found[i].size,
                                   found[i].text);
    return (part){text, length};
}

/* One attribute of one record. */
static part with_other_attribute(part record)
{
    size_t places[32], n = 0;
    for (size_t i = 0; i < record.size && n < 32; i++)
        if (record.text[i] == '=')
            places[n++] = i + 1;
    if (n == 0)
        return record;
    size_t begin = places[below(n)], end = begin;
    while (end < record.size && record.text[end] != ',' && record.text[end] != ')')
        end++;
    part value = random_value();
    if (chance(70)) { /* one of its own kind */
        bool word = record.text[begin] >= 'a' && record.text[begin] <= 'z';
        value = word ? text_of(words[below(WORDS_OF_LAYERS)]) : text_of(numbers[below(LIKELY_NUMBERS)]);
    }
    return print("%.*s%.*s%.*s", (int)begin, record.text, (int)value.size, value.text, (int)(record.size - end),
                 record.text + end);
}

static void mutate_arch(void)
{
    metadata *arch = pair_of("fastnn.arch");
    if (!arch || arch->value.size > MOST_TEXT)
        return;
    if (chance(5) && arch->value.size > 0) {
        size_t size = arch->value.size;
        char *text = room(size + 1);
        memcpy(text, arch->value.text, size);
        damage_text(text, &size, size);
        arch->value = (part){text, size};
        return;
    }
    enum { MOST = 1024 };
    part found[MOST + 1];
    size_t n = split_arch(found, MOST, arch->value), i = n ? below(n) : 0;
    if (n == 0)
        return;
    switch (below(6)) {
    case 0:
    case 1:
    case 2:
        found[i] = with_other_attribute(found[i]);
        break;
    case 3:
        memmove(found + i, found + i + 1, (n - i - 1) * sizeof *found);
        n--;
        break;
    case 4:
        memmove(found + i + 1, found + i, (n - i) * sizeof *found);
        found[i] = chance(70) ? text_of(ONE_OF(records)) : found[below(n)];
        n++;
        break;
    case 5:
        found[i] = text_of(ONE_OF(records));
    }
    arch->value = join_arch(found, n);
}

static void own_data(entry *e)
{
    e->data = memcpy(room(e->bytes + 1), e->data, e->bytes);
}

static void resize(entry *e, size_t bytes)
{
    char *data = room(bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        data[i] = i < e->bytes ? e->data[i] : 0;
    e->data = data;
    e->bytes = bytes;
}

static void mutate_data(entry *e)
{
    static const double values[] = {0,     -0.0,   1,    -1,     NAN,   INFINITY, -INFINITY,
                                    1e-40, 1e-320, 1e38, -1e300, 1e308, 1e-38};
    if (e->bytes == 0)
        return;
    own_data(e);
    bool is_double = is(e->dtype, "F64");
    size_t item = is_double ? sizeof(double) : sizeof(float), place = below(e->bytes);
    double value = ONE_OF(values);
    float narrow = (float)value;
    if (chance(20))
        memset(e->data, chance(70) ? 0 : (int)below(256), e->bytes);
    else if (chance(30) || e->bytes < item)
        e->data[place] = (char)draw();
    else
        memcpy(e->data + place / item * item * (place / item * item + item <= e->bytes),
               is_double ? (void *)&value : (void *)&narrow, item);
}

static void mutate_entries(void)
{
    static const char *const dtypes[] = {"F32", "F64", "U8",  "I8",  "U16",  "I16", "U32",
                                         "I32", "U64", "I64", "F16", "BOOL", "",    "f32"};
    if (d.n_entries == 0 || d.n_entries + 2 > MOST_PARTS)
        return;
    size_t i = below(d.n_entries), j = below(d.n_entries);
    entry *e = &d.entries[i], kept = *e;
    const document *other = &parts[below(n_seeds)];
    switch (below(12)) {
    case 0:
        e->name = chance(50) ? text_of(ONE_OF(names)) : d.entries[j].name;
        break;
    case 1:
        e->dtype = text_of(ONE_OF(dtypes));
        break;
    case 2:
        e->shape[below(2)] = chance(50) ? ONE_OF(integers) : below(9);
        break;
    case 3:
        e->rank = below(4);
        e->shape[2] = below(3);
        break;
    case 4:
        d.entries[i] = d.entries[j];
        d.entries[j] = kept;
        break;
    case 5:
        memmove(e, e + 1, (d.n_entries - i - 1) * sizeof *e);
        d.n_entries--;
        break;
    case 6:
        d.entries[d.n_entries++] = kept;
        break;
    case 7:
        resize(e, chance(50) ? below(100) : e->bytes + below(17));
        break;
    case 8:
        *(chance(50) ? &e->shift_begin : &e->shift_end) =
            chance(50) ? below(17) - 8 : ONE_OF(integers) - (chance(50) ? e->bytes : 0);
        break;
    case 9: /* a shape that overflows, with offsets that suit the product */
        e->shape[0] = ONE_OF(integers);
        e->shape[1] = ONE_OF(integers);
        e->rank = 2;
        e->shift_end = e->shape[0] * e->shape[1] * 4 - e->bytes;
        break;
    case 10:
        if (other->n_entries)
            d.entries[d.n_entries++] = other->entries[below(other->n_entries)];
        break;
    case 11:
        e->without_crc = true;
    }
}

static void mutate_strings(void)
{
    for (size_t i = 0; i < d.n_entries; i++) {
        entry *e = &d.entries[i];
        if (e->name.size < 8 || memcmp(e->name.text + e->name.size - 8, ".offsets", 8) != 0 || chance(50) ||
            e->bytes < 8)
            continue;
        static const int64_t values[] = {0, 1, 2, 3, 6, 12, 13, 14, -1, INT64_MAX, INT64_MIN, (int64_t)1 << 32};
        int64_t value = ONE_OF(values);
        own_data(e);
        memcpy(e->data + 8 * below(e->bytes / 8), &value, sizeof value);
    }
}

static void mutate_structure(void)
{
    switch (below(6)) {
    case 0:
        d.metadata_copies = (int)below(3);
        break;
    case 1:
        d.header_crc = false;
        break;
    default:
        d.metadata_last = chance(50);
        d.spaces = chance(50);
    }
}

/* ---- making the tensors fit the layers ---- */

static entry *entry_of(part name)
{
    for (size_t i = 0; i < d.n_entries; i++)
        if (d.entries[i].name.size == name.size && memcmp(d.entries[i].name.text, name.text, name.size) == 0)
            return &d.entries[i];
    return NULL;
}

static void fill(entry *e, bool is_double, bool positive)
{
    size_t item = is_double ? sizeof(double) : sizeof(float);
    for (size_t i = 0; i * item < e->bytes; i++) {
        double value = (double)(int64_t)draw() / (double)INT64_MAX;
        float narrow = (float)(value = positive ? fabs(value) + 0.01 : value);
        memcpy(e->data + i * item, is_double ? (void *)&value : (void *)&narrow, item);
    }
}

static void ensure(const fnn_net *net, const fnn_tensor *t, const char *prefix)
{
    bool is_double = fnn_net_dtype(net) == FNN_FLOAT64;
    part name = print("%s%s", prefix, t->name);
    const char *role = strchr(t->name, '.');
    bool vector = strcmp(role, ".weight") != 0;
    size_t bytes = t->rows * t->columns * (is_double ? 8 : 4);
    entry *e = entry_of(name);
    if (!e && d.n_entries + 1 < MOST_PARTS) {
        e = &d.entries[d.n_entries++];
        *e = (entry){.name = name};
    }
    if (!e)
        return;
    part dtype = text_of(is_double ? "F64" : "F32");
    bool fits = e->bytes == bytes && is(e->dtype, dtype.text);
    *e = (entry){.name = name,
                 .dtype = dtype,
                 .rank = vector ? 1 : 2,
                 .shape = {vector ? t->columns : t->rows, t->columns},
                 .data = e->data,
                 .bytes = bytes};
    if (!fits) {
        e->data = room(bytes + 1);
        fill(e, is_double, *prefix || strcmp(role, ".running_var") == 0 || strcmp(role, ".scale") == 0);
    }
}

static bool needed(const fnn_net *net, part name, bool checkpoint)
{
    bool moment = false;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(fnn_moment_prefixes[i]);
        if (starts(name, fnn_moment_prefixes[i])) {
            name = (part){name.text + n, name.size - n};
            moment = true;
        }
    }
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor t;
        fnn_net_tensor(net, i, &t);
        if (is(name, t.name))
            return !moment || (t.trainable && checkpoint);
    }
    return false;
}

static bool some_start(const char *prefix)
{
    for (size_t i = 0; i < d.n_entries; i++)
        if (starts(d.entries[i].name, prefix))
            return true;
    return false;
}

static void fit_tensors(void)
{
    static fnn_layer layers[MOST_PARSED];
    const metadata *arch = pair_of("fastnn.arch"), *dtype = pair_of("fastnn.dtype"),
                   *inputs = pair_of("fastnn.input_size"), *kind = pair_of("fastnn.kind");
    uint64_t input_size = 0;
    size_t n;
    fnn_net *net;
    if (!arch || !dtype || !inputs || !kind)
        return;
    fnn_span text = {arch->value.text, arch->value.text + arch->value.size};
    if (fnn_count_layers(text) > MOST_PARSED || fnn_read_layers(layers, &n, text, NULL) != FNN_OK)
        return;
    fnn_span_integer(&input_size, (fnn_span){inputs->value.text, inputs->value.text + inputs->value.size});
    for (size_t i = 0; i < n; i++)
        if (layers[i].kind == FNN_DENSE && layers[i].units > REPAIRABLE)
            layers[i].units = 0;
    if (input_size > REPAIRABLE || fnn_net_create(&net, layers, n, (size_t)input_size,
                                                  is(dtype->value, "F64") ? FNN_FLOAT64 : FNN_FLOAT32, 0) != FNN_OK)
        return;
    bool checkpoint = is(kind->value, "checkpoint");
    size_t kept = 0;
    for (size_t i = 0; i < d.n_entries; i++) {
        part name = d.entries[i].name;
        bool attached = starts(name, "class") || starts(name, "feature") || starts(name, "target") ||
                        starts(name, "preprocess"),
             of_training = starts(name, "history") || starts(name, "trainer") || starts(name, "callback");
        if (attached || (checkpoint && of_training) || needed(net, name, checkpoint))
            d.entries[kept++] = d.entries[i];
    }
    d.n_entries = kept;
    bool moments[] = {checkpoint && some_start("optimizer.momentum."),
                      checkpoint && some_start("optimizer.second_moment.")};
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor t;
        fnn_net_tensor(net, i, &t);
        ensure(net, &t, "");
        for (int j = 0; j < 2; j++)
            if (moments[j] && t.trainable)
                ensure(net, &t, fnn_moment_prefixes[j]);
    }
    fnn_net_free(net);
}

static void make_mutant(void)
{
    scratch_used = 0;
    size_t seed = below(n_seeds);
    while (parts[seed].large && !chance(1)) /* now and then */
        seed = below(n_seeds);
    d.metadata_copies = 1;
    d.header_crc = true;
    d.metadata_last = d.spaces = false;
    d.n_pairs = parts[seed].n_pairs;
    d.n_entries = parts[seed].n_entries;
    memcpy(d.pairs, parts[seed].pairs, d.n_pairs * sizeof *d.pairs);
    memcpy(d.entries, parts[seed].entries, d.n_entries * sizeof *d.entries);
    bool fit = chance(60);
    for (size_t i = 1 + below(fit ? 4 : 2); i > 0; i--) {
        size_t choice = below(100);
        if (choice < 45)
            mutate_arch();
        else if (choice < 60)
            mutate_settings();
        else if (choice < 70 && !fit)
            mutate_pairs();
        else
            mutate_entries();
    }
    if (fit)
        fit_tensors();
    if (chance(20) && d.n_entries)
        mutate_data(&d.entries[below(d.n_entries)]);
    if (chance(10))
        mutate_strings();
    if (chance(fit ? 4 : 15))
        mutate_entries();
    if (chance(4))
        mutate_pairs();
    if (chance(10))
        mutate_structure();
    put_together();
}

/* ---- what is done with a file ---- */

static struct {
    uint64_t files, accepted, run, trained, diverged, most_above;
    double slowest;
} counts;

static volatile unsigned touched;

static void touch(const void *bytes, size_t size)
{
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)bytes)[i];
    touched = sum;
}

/* The bytes of a model file of this net; an empty one where it may not be saved. */
static char *save(size_t *size, const fnn_net *net, const fnn_model *model, bool must)
{
    static fnn_attachment attachments[MOST_TENSORS];
    size_t n = fnn_model_attachment_count(model);
    fnn_detail detail;
    for (size_t i = 0; i < n; i++)
        attachments[i] = fnn_model_attachment(model, i);
    fnn_contents contents = fnn_model_contents(model);
    *size = 0;
    fnn_status status = fnn_model_save_memory(net, NULL, size, contents, attachments, n, &detail);
    if (*size == 0) {
        if (must && status != FNN_EOVERFLOW)
            fail("a net from a file cannot be saved: status %d, %s", status, detail.text);
        return NULL;
    }
    char *bytes = malloc(*size);
    status = fnn_model_save_memory(net, bytes, size, contents, attachments, n, &detail);
    if (status != FNN_OK)
        fail("status %d of the second saving: %s", status, detail.text);
    return bytes;
}

/* What we write is read, and gives the same bytes again. */
static void check_round_trip(const fnn_net *net, const fnn_model *model, bool must)
{
    size_t size, size_again;
    fnn_model *again;
    fnn_net *net_again;
    fnn_detail detail;
    char *bytes = save(&size, net, model, must);
    if (!bytes)
        return;
    if (fnn_model_open_memory(&again, bytes, size, &detail) != FNN_OK ||
        fnn_model_net(again, &net_again, &detail) != FNN_OK)
        fail("what was written is refused: %s", detail.text);
    char *bytes_again = save(&size_again, net_again, again, true);
    if (size != size_again || memcmp(bytes, bytes_again, size) != 0)
        fail("saved twice, the bytes differ");
    fnn_net_free(net_again);
    fnn_model_close(again);
    free(bytes_again);
    free(bytes);
}

static void run_net(fnn_net *net, const fnn_model *model)
{
    enum { ROWS = 5 };
    static double x[ROWS * MOST_WIDTH], out[ROWS * MOST_WIDTH], targets[ROWS * MOST_WIDTH];
    static const double scales[] = {1, 1, 1, 1e3, 1e30, 1e300, 1e-40};
    size_t inputs = fnn_net_input_size(net), outputs = fnn_net_output_size(net);
    if (inputs > MOST_WIDTH || outputs > MOST_WIDTH)
        return;
    counts.run++;
    double scale = ONE_OF(scales);
    for (size_t i = 0; i < ROWS * inputs; i++)
        x[i] = scale * (double)(int64_t)draw() / (double)INT64_MAX;
    memset(targets, 0, ROWS * outputs * sizeof *targets);
    const fnn_features features = {x, FNN_FLOAT64, (ptrdiff_t)(inputs * sizeof *x), sizeof *x, ROWS};
    fnn_status status = fnn_predict(net, out, &features, 1);
    if (status != FNN_OK && status != FNN_ENOTREADY)
        fail("predict: status %d", status);
    if (fnn_net_frozen(net))
        return;
    const int32_t labels[ROWS] = {0};
    const fnn_loss loss = {chance(50) ? FNN_MSE : FNN_CROSS_ENTROPY, 0};
    const fnn_targets y = {.labels = loss.kind == FNN_MSE ? NULL : labels,
                           .values = loss.kind == FNN_MSE ? targets : NULL};
    if (chance(50)) {
        const fnn_optimizer adam = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
        const fnn_clip clip = {.kind = FNN_CLIP_NORM, .high = 1};
        if (fnn_net_configure(net, &adam, chance(50) ? &clip : NULL, NULL) != FNN_OK)
            fail("configure");
    }
    status = fnn_train_step(net, &features, &y, &loss, 0.01, 1, NULL);
    counts.trained += status == FNN_OK;
    counts.diverged += status == FNN_EDIVERGED;
    if (status != FNN_OK && status != FNN_EDIVERGED && status != FNN_ENOTREADY)
        fail("train: status %d", status);
    check_round_trip(net, model, false);
}

static const fnn_attachment *attachment_named(const fnn_attachment *all, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    return NULL;
}

/* As one who reads them would. */
static void use_attachments(const fnn_model *model)
{
    static fnn_attachment all[MOST_TENSORS];
    size_t n = fnn_model_attachment_count(model);
    for (size_t i = 0; i < n; i++)
        all[i] = fnn_model_attachment(model, i);
    for (size_t i = 0; i < n; i++) {
        const fnn_attachment *a = &all[i];
        char name[MOST_PARTNER];
        touch(a->data, a->rows * (a->columns ? a->columns : 1) * fnn_item_size(a->dtype));
        if (!fnn_partner_name(name, a->name) || a->dtype != FNN_INT64)
            continue;
        const fnn_attachment *utf8 = attachment_named(all, n, name);
        int64_t begin = 0, end;
        for (size_t j = 0; j < a->rows; j++, begin = end) {
            memcpy(&end, (const char *)a->data + j * sizeof end, sizeof end);
            if (end < begin || end > (utf8 ? (int64_t)utf8->rows : 0))
                fail("string %zu of %s", j, a->name);
            touch(utf8 ? (const char *)utf8->data + begin : NULL, (size_t)(end - begin));
        }
    }
}

static bool use_file(const char *bytes, size_t size)
{
    fnn_model *model;
    fnn_net *net;
    fnn_detail detail;
    size_t before = live_bytes;
    double begun = fnn_clock();
    char *exact = malloc(size ? size : 1); /* so that a sanitizer sees the first byte behind it */
    memcpy(exact, bytes, size);
    peak_bytes = live_bytes;
    counts.files++;
    fnn_status status = fnn_model_open_memory(&model, exact, size, &detail);
    if (status == FNN_OK)
        status = fnn_model_net(model, &net, &detail);
    double seconds = fnn_clock() - begun;
    if (seconds > counts.slowest)
        counts.slowest = seconds;
    size_t taken = peak_bytes - before + size; /* a file is read into memory that counts */
    if (taken > 2 * size + SLACK)
        fail("%zu bytes taken for a file of %zu", taken, size);
    if (taken > 2 * size && taken - 2 * size > counts.most_above)
        counts.most_above = taken - 2 * size;
    if (status == FNN_OK) {
        counts.accepted++;
        use_attachments(model);
        check_round_trip(net, model, true);
        run_net(net, model);
        fnn_net_free(net);
        fnn_model_close(model);
    } else if (model && status != FNN_ENOMEM) {
        fail("status %d, %s, with a model", status, detail.text);
    } else if ((status != FNN_EFORMAT && status != FNN_EVERSION) || !detail.text[0]) {
        fail("status %d: %s", status, detail.text);
    }
    free(exact);
    if (live_bytes != before)
        fail("%zu bytes were not given back", live_bytes - before);
    return status == FNN_OK;
}

/* ---- the program ---- */

static void add_seed(const char *bytes, size_t size)
{
    if (n_seeds < MOST_SEEDS && take_apart(&parts[n_seeds], bytes, size))
        n_seeds++;
}

static bool read_whole(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return false;
    }
    mutant_size = fread(mutant, 1, MOST_FILE, file);
    fclose(file);
    return true;
}

/* The limits of the format, reached: layers, and tensors. */
static void add_large_seeds(void)
{
    static fnn_layer layers[MOST_LAYERS];
    for (int kind = 0; kind < 2; kind++) {
        fnn_net *net;
        size_t n = kind ? MOST_LAYERS / 4 : MOST_LAYERS, size = 0;
        for (size_t i = 0; i < n; i++)
            layers[i] = kind ? (fnn_layer){.kind = FNN_BATCHNORM, .eps = 1e-5, .trainable = 1}
                             : (fnn_layer){.kind = FNN_ACTIVATION, .activation = FNN_RELU};
        if (fnn_net_create(&net, layers, n, 2, FNN_FLOAT32, 0) != FNN_OK)
            continue;
        fnn_net_save_memory(net, NULL, &size, FNN_MODEL, NULL);
        char *bytes = malloc(size ? size : 1);
        if (size > 0 && fnn_net_save_memory(net, bytes, &size, FNN_MODEL, NULL) == FNN_OK)
            add_seed(bytes, size);
        free(bytes);
        fnn_net_free(net);
    }
}

static void add_samples(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        size_t size;
        char *bytes = sample_file(&size, &samples[i]);
        if (bytes)
            add_seed(bytes, size);
        fnn_release(bytes);
    }
}

static void make_numbered_mutant(uint64_t seed, uint64_t number)
{
    run_seed = seed;
    mutant_number = number;
    state = seed * 0xd1342543de82ef95u + number * 0x2545f4914f6cdd1du;
    make_mutant();
}

static int run(uint64_t mutants, uint64_t seed, int n_files, char **files)
{
    add_samples();
    add_large_seeds();
    for (int i = 0; i < n_files; i++) {
        if (!read_whole(files[i]))
            return 1;
        use_file(mutant, mutant_size);
        add_seed(mutant, mutant_size);
    }
    printf("%zu files to start from\n", n_seeds);
    memset(&counts, 0, sizeof counts);
    double begun = fnn_clock();
    for (uint64_t i = 0; i < mutants; i++) {
        make_numbered_mutant(seed, i);
        use_file(mutant, mutant_size);
    }
    printf("%" PRIu64 " mutants of seed %" PRIu64 ", %" PRIu64 " accepted (%.1f %%), %" PRIu64 " of them run, %" PRIu64
           " trained, %" PRIu64 " diverged\n",
           counts.files, seed, counts.accepted, 100.0 * (double)counts.accepted / (double)counts.files, counts.run,
           counts.trained, counts.diverged);
    printf("memory at most twice the file + %.2f MiB; slowest loading %.1f ms; %.0f mutants/s\n",
           (double)counts.most_above / (1 << 20), 1e3 * counts.slowest, (double)mutants / (fnn_clock() - begun));
    return 0;
}

static int replay(int n, char **files)
{
    for (int i = 0; i < n; i++) {
        if (!read_whole(files[i]))
            return 1;
        use_file(mutant, mutant_size);
    }
    printf("%d files replayed, %" PRIu64 " accepted\n", n, counts.accepted);
    return 0;
}

static int write_file(const char *path, const char *bytes, size_t size)
{
    FILE *file = bytes ? fopen(path, "wb") : NULL;
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        return perror(path), 1;
    return 0;
}

static int write_seeds(const char *folder)
{
    int failed = 0;
    for (int i = 0; i < SAMPLES && !failed; i++) {
        char path[4096];
        size_t size;
        char *bytes = sample_file(&size, &samples[i]);
        snprintf(path, sizeof path, "%s/%s.safetensors", folder, samples[i].name);
        failed = write_file(path, bytes, size);
        fnn_release(bytes);
    }
    return failed;
}

static int write_mutants(const char *folder, uint64_t mutants, uint64_t seed)
{
    int failed = 0;
    add_samples();
    for (uint64_t i = 0; i < mutants && !failed; i++) {
        char path[4096];
        make_numbered_mutant(seed, i);
        const char *what = use_file(mutant, mutant_size) ? "accepted" : "refused";
        snprintf(path, sizeof path, "%s/%s-%" PRIu64 "-%" PRIu64 ".safetensors", folder, what, seed, i);
        failed = write_file(path, mutant, mutant_size);
    }
    return failed;
}

int main(int argc, char **argv)
{
    fnn_memory = counted_memory;
    watch_for_crashes();
    if (argc > 3 && strcmp(argv[1], "run") == 0)
        return run(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), argc - 4, argv + 4);
    if (argc > 2 && strcmp(argv[1], "replay") == 0)
        return replay(argc - 2, argv + 2);
    if (argc == 3 && strcmp(argv[1], "seeds") == 0)
        return write_seeds(argv[2]);
    if (argc == 5 && strcmp(argv[1], "write") == 0)
        return write_mutants(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    fprintf(stderr, "usage: %s run MUTANTS SEED [FILES] | replay FILES | seeds FOLDER | write FOLDER MUTANTS SEED\n",
            argv[0]);
    return 2;
}

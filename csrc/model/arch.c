/* The layer list as text: one record `index:kind(attribute=value,...)` per entry, joined by semicolons. Every attribute
 * of a kind is written, in the order of its table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

typedef enum value_type { SIZE, FLAG, REAL, ACTIVATION, INIT, PENALTY } value_type;

typedef struct attribute {
    const char *name;
    value_type type;
    size_t place; /* in fnn_layer */
} attribute;

#define ATTRIBUTE(name, type, field) {name, type, offsetof(fnn_layer, field)}

static const attribute dense[] = {
    ATTRIBUTE("units", SIZE, units),
    ATTRIBUTE("use_bias", FLAG, use_bias),
    ATTRIBUTE("activation", ACTIVATION, activation),
    ATTRIBUTE("alpha", REAL, alpha),
    ATTRIBUTE("init", INIT, init),
    ATTRIBUTE("init_value", REAL, init_value),
    ATTRIBUTE("penalty", PENALTY, penalty.kind),
    ATTRIBUTE("lam", REAL, penalty.lam),
    ATTRIBUTE("beta", REAL, penalty.beta),
    ATTRIBUTE("trainable", FLAG, trainable),
};
static const attribute batchnorm[] = {
    ATTRIBUTE("eps", REAL, eps),
    ATTRIBUTE("decay", REAL, decay),
    ATTRIBUTE("unbiased", FLAG, unbiased),
    ATTRIBUTE("trainable", FLAG, trainable),
};
static const attribute dropout[] = {ATTRIBUTE("p", REAL, p), ATTRIBUTE("test_scaling", FLAG, test_scaling)};
static const attribute activation[] = {ATTRIBUTE("function", ACTIVATION, activation), ATTRIBUTE("alpha", REAL, alpha)};
static const attribute scale[] = {ATTRIBUTE("factor", REAL, alpha)};
static const attribute standardize[] = {ATTRIBUTE("given", FLAG, given)};

#define KIND(attributes) {#attributes, attributes, sizeof attributes / sizeof attributes[0]}

static const struct {
    const char *name;
    const attribute *attributes;
    size_t n;
} kinds[] = {
    [FNN_DENSE] = KIND(dense),           [FNN_BATCHNORM] = KIND(batchnorm), [FNN_DROPOUT] = KIND(dropout),
    [FNN_ACTIVATION] = KIND(activation), [FNN_SCALE] = KIND(scale),         [FNN_STANDARDIZE] = KIND(standardize),
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static const char *const activations[] = {"identity", "relu",     "leaky_relu", "elu",     "selu",    "gelu",
                                          "silu",     "softplus", "tanh",       "sigmoid", "softmax", NULL};
static const char *const inits[] = {
    "default",      "zeros",          "constant",      "uniform",    "normal",    "fan_in_uniform", "lecun_uniform",
    "lecun_normal", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "orthogonal",     NULL};
static const char *const penalties[] = {"default", "l1", "proximal_l1", "l2", "elastic_net", NULL};
static const char *const *const names_of[] = {[ACTIVATION] = activations, [INIT] = inits, [PENALTY] = penalties};

/* ---- numbers ---- */

enum { EXACT_DIGITS = 17, MOST_REAL = 24 /* -2.2250738585072014e-308 */, REAL_TEXT = 2 * MOST_REAL };

/* What stands between digits in the locale of the moment. */
static void decimal_point(char point[REAL_TEXT])
{
    snprintf(point, REAL_TEXT, "%.1f", 0.5);
    size_t length = strlen(point);
    memmove(point, point + 1, length - 2); /* without the 0 and the 5 */
    point[length - 2] = 0;
}

static void replace_once(char text[REAL_TEXT], const char *from, const char *to)
{
    char *at = strstr(text, from);
    if (!at)
        return;
    char rest[REAL_TEXT];
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, (size_t)(text + REAL_TEXT - at), "%s%s", to, rest);
}

/* The shortest decimal text that reads as the same number. */
static void append_real(fnn_text *text, double value)
{
    char digits[REAL_TEXT], point[REAL_TEXT];
    for (int precision = 1; precision <= EXACT_DIGITS; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    decimal_point(point);
    replace_once(digits, point, ".");
    fnn_append(text, "%s", digits);
}

static const char *skip_digits(const char *text)
{
    return text + strspn(text, "0123456789");
}

/* -?(0|[1-9][0-9]*)(.[0-9]+)?(e[-+]?[0-9]+)?, as in JSON */
static bool is_real(const char *text)
{
    text += *text == '-';
    const char *end = skip_digits(text);
    if (end == text || (*text == '0' && end > text + 1))
        return false;
    if (*end == '.') {
        text = end + 1;
        if ((end = skip_digits(text)) == text)
            return false;
    }
    if (*end == 'e') {
        text = end + 1;
        text += *text == '-' || *text == '+';
        if ((end = skip_digits(text)) == text)
            return false;
    }
    return *end == 0;
}

static bool read_real(double *value, fnn_span span)
{
    char digits[REAL_TEXT], point[REAL_TEXT];
    size_t length = (size_t)(span.end - span.at);
    if (length == 0 || length > MOST_REAL)
        return false;
    memcpy(digits, span.at, length);
    digits[length] = 0;
    if (!is_real(digits))
        return false;
    decimal_point(point);
    replace_once(digits, ".", point);
    *value = strtod(digits, NULL);
    return isfinite(*value);
}

/* ---- values ---- */

static void append_value(fnn_text *text, value_type type, const void *field)
{
    switch (type) {
    case SIZE:
        fnn_append(text, "%zu", *(const size_t *)field);
        break;
    case FLAG:
        fnn_append(text, "%d", *(const int *)field != 0);
        break;
    case REAL:
        append_real(text, *(const double *)field);
        break;
    case ACTIVATION:
    case INIT:
    case PENALTY: {
        unsigned number; /* every enumeration of a layer is as large */
        memcpy(&number, field, sizeof number);
        fnn_append(text, "%s", names_of[type][number]);
    }
    }
}

static bool read_value(void *field, value_type type, fnn_span span)
{
    uint64_t integer;
    switch (type) {
    case SIZE:
        if (!fnn_span_integer(&integer, span) || integer > INT32_MAX)
            return false;
        *(size_t *)field = (size_t)integer;
        return true;
    case FLAG:
        if (!fnn_span_integer(&integer, span) || integer > 1)
            return false;
        *(int *)field = (int)integer;
        return true;
    case REAL:
        return read_real(field, span);
    case ACTIVATION:
    case INIT:
    case PENALTY:
        for (unsigned number = 0; names_of[type][number]; number++)
            if (fnn_span_is(span, names_of[type][number])) {
                memcpy(field, &number, sizeof number);
                return true;
            }
    }
    return false;
}

/* ---- records ---- */

void fnn_append_layers(fnn_text *text, const fnn_layer *layers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *separator = "";
        fnn_layer_kind kind = layers[i].kind;
        fnn_append(text, "%s%zu:%s(", i ? ";" : "", i, kinds[kind].name);
        for (size_t j = 0; j < kinds[kind].n; j++, separator = ",") {
            const attribute *a = &kinds[kind].attributes[j];
            fnn_append(text, "%s%s=", separator, a->name);
            append_value(text, a->type, (const char *)&layers[i] + a->place);
        }
        fnn_append(text, ")");
    }
}

static fnn_span word(fnn_span *rest, const char *stops)
{
    fnn_span found = *rest;
    while (rest->at < rest->end && !strchr(stops, *rest->at))
        rest->at++;
    found.end = rest->at;
    return found;
}

static bool read_kind(fnn_layer_kind *kind, fnn_span span)
{
    for (int i = FNN_DENSE; i < N_KINDS; i++)
        if (fnn_span_is(span, kinds[i].name)) {
            *kind = (fnn_layer_kind)i;
            return true;
        }
    return false;
}

static fnn_status read_layer(fnn_layer *layer, size_t index, fnn_span *rest, fnn_detail *detail)
{
    uint64_t number;
    *layer = (fnn_layer){0};
    if (!fnn_span_integer(&number, word(rest, ":")) || number != index || !fnn_accept(rest, ":") ||
        !read_kind(&layer->kind, word(rest, "(")) || !fnn_accept(rest, "("))
        return fnn_say(detail, FNN_EFORMAT, "layer %zu: not 'index:kind(' of a known kind", index);
    for (size_t j = 0; j < kinds[layer->kind].n; j++) {
        const attribute *a = &kinds[layer->kind].attributes[j];
        if ((j > 0 && !fnn_accept(rest, ",")) || !fnn_accept(rest, a->name) || !fnn_accept(rest, "=") ||
            !read_value((char *)layer + a->place, a->type, word(rest, ",)")))
            return fnn_say(detail, FNN_EFORMAT, "layer %zu (%s): attribute %s is missing or out of range", index,
                           kinds[layer->kind].name, a->name);
    }
    if (!fnn_accept(rest, ")"))
        return fnn_say(detail, FNN_EFORMAT, "layer %zu (%s): an attribute that this version does not know", index,
                       kinds[layer->kind].name);
    return FNN_OK;
}

size_t fnn_count_layers(fnn_span text)
{
    size_t n = 1;
    for (; text.at < text.end; text.at++)
        n += *text.at == ';';
    return n;
}

fnn_status fnn_read_layers(fnn_layer *layers, size_t *n, fnn_span text, fnn_detail *detail)
{
    *n = 0;
    do {
        fnn_status status = read_layer(&layers[*n], *n, &text, detail);
        if (status != FNN_OK)
            return status;
        ++*n;
    } while (fnn_accept(&text, ";"));
    return text.at == text.end ? FNN_OK : fnn_say(detail, FNN_EFORMAT, "text behind layer %zu", *n - 1);
}

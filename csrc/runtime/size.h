/* Checked arithmetic for sizes. Every size that depends on an argument or a file goes through these; each returns
 * false, and leaves *result alone, where the exact value does not fit. */
#ifndef FNN_SIZE_H
#define FNN_SIZE_H

#include <stdbool.h>
#include <stddef.h>

static inline bool fnn_size_multiply(size_t *result, size_t a, size_t b)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *result = product;
    return true;
}

static inline bool fnn_size_add(size_t *result, size_t a, size_t b)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *result = sum;
    return true;
}

/* The smallest multiple of `multiple` (>= 1) that is >= a. */
static inline bool fnn_size_round_up(size_t *result, size_t a, size_t multiple)
{
    size_t rest = a % multiple;
    return fnn_size_add(result, a, rest == 0 ? 0 : multiple - rest);
}

#endif

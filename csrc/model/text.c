/* Text in and out of headers, without the locale having a say. */
#include <stdio.h>
#include <string.h>

#include "model.h"

fnn_status fnn_say(fnn_detail *detail, fnn_status status, const char *format, ...)
{
    if (detail) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(detail->text, sizeof detail->text, format, arguments);
        va_end(arguments);
        /* The file may have put anything between our words. */
        for (char *c = detail->text; *c; c++)
            if (*c < ' ' || *c > '~')
                *c = '?';
    }
    return status;
}

void fnn_append(fnn_text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = text->capacity - text->size;
    int length = vsnprintf(text->begin + text->size, room, format, arguments);
    va_end(arguments);
    if (text->overflow || length < 0 || (size_t)length >= room)
        text->overflow = true;
    else
        text->size += (size_t)length;
}

bool fnn_span_is(fnn_span span, const char *text)
{
    size_t length = (size_t)(span.end - span.at);
    return strlen(text) == length && memcmp(span.at, text, length) == 0;
}

bool fnn_accept(fnn_span *span, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(span->end - span->at) < length || memcmp(span->at, text, length) != 0)
        return false;
    span->at += length;
    return true;
}

bool fnn_span_integer(uint64_t *value, fnn_span span)
{
    if (span.at == span.end || (*span.at == '0' && span.end - span.at > 1))
        return false;
    uint64_t sum = 0;
    for (; span.at < span.end; span.at++)
        if (*span.at < '0' || *span.at > '9' || __builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*span.at - '0'), &sum))
            return false;
    *value = sum;
    return true;
}

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

bool fnn_is_utf8(fnn_span span)
{
    while (span.at < span.end) {
        size_t n = utf8_length((const unsigned char *)span.at, (size_t)(span.end - span.at));
        if (n == 0)
            return false;
        span.at += n;
    }
    return true;
}

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

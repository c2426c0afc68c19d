/* Texts of the statuses, and what this library is. */
#include "runtime.h"

const char *fnn_status_text(fnn_status status)
{
    switch (status) {
    case FNN_OK:
        return "success";
    case FNN_ENOMEM:
        return "not enough memory";
    case FNN_EINVAL:
        return "an argument is outside its documented range";
    case FNN_EOVERFLOW:
        return "a size does not fit the address space";
    case FNN_EDIVERGED:
        return "the loss or a gradient became non-finite; the weights are those before the failing step";
    case FNN_EINTERRUPTED:
        return "interrupted; the weights are those of the last finished step";
    case FNN_EIO:
        return "reading or writing a file failed";
    case FNN_ENOTREADY:
        return "statistics or a forward pass are missing";
    case FNN_ENOISA:
        return "the instruction set asked for is unknown, not built in, or not run by this machine";
    case FNN_EFORMAT:
        return "not a fastnn model file, or a damaged one";
    case FNN_EVERSION:
        return "a model file of a newer format: upgrade fastnn";
    }
    return "unknown status";
}

const char *fnn_version(void)
{
    return FNN_VERSION_STRING;
}

const char *fnn_compiler(void)
{
#ifdef __clang__
    return __VERSION__;
#else
    return "gcc " __VERSION__;
#endif
}

/* What the numbers of a file must be so that a net may run on them; asked by the reader and, before it writes what
 * could not be read, by the writer. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "model.h"

static double real_at(fnn_dtype dtype, const char *bytes, size_t i)
{
    if (dtype == FNN_FLOAT32) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        return value;
    }
    double value;
    memcpy(&value, bytes + i * sizeof value, sizeof value);
    return value;
}

static bool meets(double value, fnn_demand demand, double least_divisor)
{
    switch (demand) {
    case FNN_ANY_VALUE:
        return true;
    case FNN_FINITE:
        return isfinite(value);
    case FNN_NOT_NEGATIVE:
        return isfinite(value) && value >= 0;
    case FNN_DIVISOR:
        return isfinite(value) && fabs(value) >= least_divisor;
    case FNN_DIVISOR_OR_NONE:
        return isfinite(value) && (value == 0 || fabs(value) >= least_divisor);
    }
    return false;
}

fnn_status fnn_check_values(const char *name, fnn_dtype dtype, const void *values, size_t n, fnn_demand demand,
                            fnn_detail *detail)
{
    double least = dtype == FNN_FLOAT32 ? (double)FLT_MIN : DBL_MIN;
    size_t zeros = 0;
    if (demand == FNN_ANY_VALUE)
        return FNN_OK;
    for (size_t i = 0; i < n; i++) {
        double value = real_at(dtype, values, i);
        if (!meets(value, demand, least))
            return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has the value %g at element %zu", name, value, i);
        zeros += value == 0;
    }
    if (demand == FNN_DIVISOR_OR_NONE && zeros != 0 && zeros != n)
        return fnn_say(detail, FNN_EFORMAT, "tensor '%s' has zeros beside other values", name);
    return FNN_OK;
}

fnn_demand fnn_demand_of(const fnn_net *net, const fnn_tensor *tensor)
{
    const char *role = strchr(tensor->name, '.') + 1;
    if (strcmp(role, "running_var") == 0)
        return FNN_NOT_NEGATIVE;
    if (strcmp(role, "scale") == 0)
        return net->layers[tensor->layer].given ? FNN_DIVISOR : FNN_DIVISOR_OR_NONE;
    return FNN_FINITE;
}

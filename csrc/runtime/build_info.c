/* What this library was built with. */
#include <string.h>

#include "runtime.h"

const char *fnn_compiler(void)
{
#if defined(__clang__)
    return __VERSION__;
#else
    return "gcc " __VERSION__;
#endif
}

const char *fnn_available_isas(void)
{
    static const char *const names[] = {"avx512", "avx2", "neon", "baseline"};
    static _Thread_local char list[40];
    list[0] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!fnn_kernels_of(names[i], FNN_FLOAT32))
            continue;
        if (list[0])
            strcat(list, ",");
        strcat(list, names[i]);
    }
    return list;
}

/* The doors through which tests written in Python reach the kernels: exported by libfnn_test.so alone. */
#include "runtime.h"
#include "table.h"

#define FNN_EXPORT __attribute__((visibility("default")))

FNN_EXPORT const fnn_kernels *fnn_test_table(const char *isa, int bits);
FNN_EXPORT const char *fnn_test_kernel_names(void);

/* The table for real numbers of 32 or 64 bits; NULL where this build or this machine does not have it. */
const fnn_kernels *fnn_test_table(const char *isa, int bits)
{
    if (bits != 32 && bits != 64)
        return NULL;
    return fnn_kernels_of(isa, bits == 32 ? FNN_FLOAT32 : FNN_FLOAT64);
}

/* In the order of the table, one per line. */
const char *fnn_test_kernel_names(void)
{
#define FNN_KERNEL(result, name, arguments) #name "\n"
    return
#include "kernels.def"
        ;
#undef FNN_KERNEL
}

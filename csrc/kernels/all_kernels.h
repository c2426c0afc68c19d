/* Every kernel family, then the table that isa_*.c exports: fnn_kernels_<isa>_f<bits>. */
#include "table.h"

#include "simd.h"

#include "elementary.h"
#include "random.h"

#include "activation.h"
#include "batchnorm.h"
#include "dropout.h"
#include "gather.h"
#include "panels.h" /* its single row serves gemm.h */
#include "gemm.h"
#include "matrix.h"
#include "reduce.h" /* its 16 lanes of double serve draw.h and loss.h */
#include "draw.h"
#include "loss.h"
#include "optimizer.h"

#define FNN_PASTE(isa, bits) fnn_kernels_##isa##_f##bits
#define FNN_TABLE(isa, bits) FNN_PASTE(isa, bits)
#define FNN_STRING(isa) #isa
#define FNN_NAME(isa) FNN_STRING(isa)

#define FNN_KERNEL(result, name, arguments) .name = name,
const fnn_kernels FNN_TABLE(FNN_ISA, FNN_REAL_BITS) = {
    .isa = FNN_NAME(FNN_ISA),
#include "kernels.def"
};

/* AVX2 with FMA. Compiled once with FNN_REAL_BITS=32 and once with 64. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile with the flags that isa.flags gives for avx2"
#endif
#define FNN_ISA avx2
#define FNN_VBYTES 32
#include "all_kernels.h"

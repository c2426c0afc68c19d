/* AVX-512 (F, BW, CD, DQ, VL). Compiled once with FNN_REAL_BITS=32 and once with 64. */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "compile with the flags that isa.flags gives for avx512"
#endif
#define FNN_ISA avx512
#define FNN_VBYTES 64
#include "all_kernels.h"

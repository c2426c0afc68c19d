/* AArch64 Advanced SIMD with fused multiply-add. Compiled once with FNN_REAL_BITS=32 and once with 64. */
#if !defined(__ARM_NEON) || !defined(__aarch64__)
#error "NEON kernels are for aarch64"
#endif
#define FNN_NEON 1
#define FNN_ISA neon
#define FNN_VBYTES 16
#include "all_kernels.h"

/* The path for every CPU: 16-byte vectors without fused multiply-add (SSE2 on x86-64). Compiled once with
 * FNN_REAL_BITS=32 and once with 64. */
#define FNN_ISA baseline
#define FNN_VBYTES 16
#include "all_kernels.h"

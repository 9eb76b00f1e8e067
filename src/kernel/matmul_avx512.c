// SPDX-License-Identifier: Apache-2.0
// matmul for AVX-512 (F, BW, DQ, VL). Called through matmul.c only, on machines that have them.
#define LANES_AVX512
#define MATMUL_SUFFIX avx512
#include "kernel/matmul_body.h"

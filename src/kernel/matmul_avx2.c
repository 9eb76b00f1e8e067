// SPDX-License-Identifier: Apache-2.0
// matmul for AVX2 with FMA and F16C. Called through matmul.c only, on machines that have them.
#define MATMUL_SUFFIX avx2
#include "kernel/matmul_body.h"

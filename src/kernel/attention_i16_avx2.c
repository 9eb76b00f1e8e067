// SPDX-License-Identifier: Apache-2.0
// Attention's products in 16 bits for AVX2. Called through attention_i16.c only, on machines
// that have it.
#define ATTENTION_I16_SUFFIX avx2
#include "kernel/attention_i16_body.h"

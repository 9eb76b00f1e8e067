// SPDX-License-Identifier: Apache-2.0
// Attention's products in 16 bits for AVX-512 with VNNI. Called through attention_i16.c only, on
// machines that have it.
#define LANES_AVX512
#define LANES_VNNI
#define ATTENTION_I16_SUFFIX vnni
#include "kernel/attention_i16_body.h"

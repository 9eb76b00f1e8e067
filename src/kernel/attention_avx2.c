// SPDX-License-Identifier: Apache-2.0
// attention for AVX2 with FMA. Called through attention.c only, on machines that have them.
#define ATTENTION_SUFFIX avx2
#include "kernel/attention_body.h"

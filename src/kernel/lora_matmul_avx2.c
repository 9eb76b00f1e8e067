// SPDX-License-Identifier: Apache-2.0
// lora_matmul for AVX2 with FMA and F16C. Called through lora_matmul.c only, on machines that have
// them.
#define LORA_SUFFIX avx2
#include "kernel/lora_body.h"

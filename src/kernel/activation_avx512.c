// SPDX-License-Identifier: Apache-2.0
// Activations for AVX-512. Called through activation.c only, on machines that have it.
#define LANES_AVX512
#define ACTIVATION_SUFFIX avx512
#include "kernel/activation_body.h"

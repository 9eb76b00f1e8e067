// SPDX-License-Identifier: Apache-2.0
// Activations for AVX2 with FMA. Called through activation.c only, on machines that have them.
#define ACTIVATION_SUFFIX avx2
#include "kernel/activation_body.h"

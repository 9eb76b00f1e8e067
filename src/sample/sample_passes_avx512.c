// SPDX-License-Identifier: Apache-2.0
// The passes for AVX-512. Called through sample_passes() only, on machines that have it.
#include "sample/sample_blocks_avx2.h"

#define SAMPLE_PASSES sample_passes_avx512
#include "sample/sample_passes_body.h"

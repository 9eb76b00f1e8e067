// SPDX-License-Identifier: Apache-2.0
// The passes for AVX2. Called through sample_passes() only, on machines that have it.
#include <immintrin.h>
#include <stdint.h>

#include "sample/sample_passes.h"

static uint32_t band_bits(const float values[SAMPLE_BLOCK_TOKENS], float cut, float upper)
{
    uint32_t bits = 0;
    for (int i = 0; i < SAMPLE_BLOCK_TOKENS; i += 8) {
        const __m256 value = _mm256_loadu_ps(values + i);
        const __m256 in = _mm256_and_ps(_mm256_cmp_ps(value, _mm256_set1_ps(cut), _CMP_GE_OQ),
                                        _mm256_cmp_ps(value, _mm256_set1_ps(upper), _CMP_LT_OQ));
        bits |= (uint32_t)_mm256_movemask_ps(in) << i;
    }
    return bits;
}

#define SAMPLE_PASSES sample_passes_avx2
#include "sample/sample_passes_body.h"

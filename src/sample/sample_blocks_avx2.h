// SPDX-License-Identifier: Apache-2.0
// What sample_passes_body.h needs of an instruction set, in AVX2. Included by sample_passes_avx2.c
// and sample_passes_avx512.c, whose plain loops become vectors twice as wide.
#ifndef SAMPLE_BLOCKS_AVX2_H
#define SAMPLE_BLOCKS_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "sample/sample_math.h"
#include "sample/sample_passes.h"

static float tame_block(const float logits[SAMPLE_BLOCK_TOKENS], float work[SAMPLE_BLOCK_TOKENS])
{
    const __m256 lowest = _mm256_set1_ps(-INFINITY), highest = _mm256_set1_ps(FLT_MAX);
    __m256 largest = lowest;
    for (int i = 0; i < SAMPLE_BLOCK_TOKENS; i += 8) {
        const __m256 logit = _mm256_loadu_ps(logits + i);
        const __m256 number = _mm256_cmp_ps(logit, _mm256_set1_ps(-FLT_MAX), _CMP_GE_OQ);
        const __m256 tamed = _mm256_blendv_ps(lowest, _mm256_min_ps(logit, highest), number);
        _mm256_storeu_ps(work + i, tamed);
        largest = _mm256_max_ps(largest, tamed);
    }
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

static uint32_t reach_bits(const float values[SAMPLE_BLOCK_TOKENS], float cut)
{
    uint32_t bits = 0;
    for (int i = 0; i < SAMPLE_BLOCK_TOKENS; i += 8) {
        const __m256 value = _mm256_loadu_ps(values + i);
        const __m256 reaches = _mm256_cmp_ps(value, _mm256_set1_ps(cut), _CMP_GE_OQ);
        bits |= (uint32_t)_mm256_movemask_ps(reaches) << i;
    }
    return bits;
}

#endif

// SPDX-License-Identifier: Apache-2.0
// matmul_int8_panels for AVX2. A byte times a nibble is at most 15 * 127: eight pairs of them fit
// 16 bits, so that a block of 32 is summed there before it is widened and scaled at once. Called
// through matmul.c only, on machines that have it.
#include "kernel/lanes.h"

#define INT8_SUFFIX avx2
#define INT8_ROWS 4
LANES_FN ivec dot_nibbles(ivec sum, ivec w, ivec x)
{
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    LANES_KEEP_ORDER(sum);
    return sum;
}

LANES_FN vec nibbles_scaled(ivec sum, ivec factor, vec scale)
{
    (void)scale;
    return vec_from_int(_mm256_madd_epi16(sum, factor));
}

LANES_FN ivec dot_bytes(ivec sum, ivec w, ivec x)
{
    const ivec pairs = _mm256_maddubs_epi16(w, x);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    LANES_KEEP_ORDER(sum);
    return sum;
}

#define dot_pairs ivec_dot_pairs

#include "kernel/matmul_int8_body.h"

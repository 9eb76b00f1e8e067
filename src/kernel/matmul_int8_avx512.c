// SPDX-License-Identifier: Apache-2.0
// matmul_int8_panels for AVX-512 without VNNI: the AVX2 arithmetic in vectors of 16 outputs. Called
// through matmul.c only, on machines that have it.
#define LANES_AVX512
#include "kernel/lanes.h"

#define INT8_SUFFIX avx512
#define INT8_ROWS 8
LANES_FN ivec dot_nibbles(ivec sum, ivec w, ivec x)
{
    sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, x));
    LANES_KEEP_ORDER(sum);
    return sum;
}

LANES_FN vec nibbles_scaled(ivec sum, ivec factor, vec scale)
{
    (void)scale;
    return vec_from_int(_mm512_madd_epi16(sum, factor));
}

LANES_FN ivec dot_bytes(ivec sum, ivec w, ivec x)
{
    const ivec pairs = _mm512_maddubs_epi16(w, x);
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    LANES_KEEP_ORDER(sum);
    return sum;
}

#define dot_pairs ivec_dot_pairs

#include "kernel/matmul_int8_body.h"

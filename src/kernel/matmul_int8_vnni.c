// SPDX-License-Identifier: Apache-2.0
// matmul_int8_panels for AVX-512 with VNNI: four products and their sum in one instruction. Called
// through matmul.c only, on machines that have it.
#define LANES_AVX512
#include "kernel/lanes.h"

#define INT8_SUFFIX vnni
#define INT8_ROWS 8

LANES_FN ivec dot_nibbles(ivec sum, ivec w, ivec x)
{
    return _mm512_dpbusd_epi32(sum, w, x);
}

LANES_FN vec nibbles_scaled(ivec sum, ivec factor, vec scale)
{
    (void)factor;
    return vec_mul(vec_from_int(sum), scale);
}

LANES_FN ivec dot_bytes(ivec sum, ivec w, ivec x)
{
    return _mm512_dpbusd_epi32(sum, w, x);
}

LANES_FN ivec dot_pairs(ivec sum, ivec w, ivec x)
{
    return _mm512_dpwssd_epi32(sum, w, x);
}

#include "kernel/matmul_int8_body.h"

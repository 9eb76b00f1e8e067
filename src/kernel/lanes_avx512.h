// SPDX-License-Identifier: Apache-2.0
// Sixteen float lanes in one AVX-512 register: what matmul needs. Included by kernel/lanes.h only.
#ifndef KERNEL_LANES_AVX512_H
#define KERNEL_LANES_AVX512_H

#if defined(SORA_EMULATE_AVX512)
#include "kernel/avx512_emulated.h"
#else
#include <immintrin.h>
#endif

#define VEC_LANES 16
typedef __m512 vec;
typedef __m512i ivec;

LANES_FN vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
LANES_FN vec vec_set1(float value)
{
    return _mm512_set1_ps(value);
}
LANES_FN vec vec_load(const float *from)
{
    return _mm512_loadu_ps(from);
}
LANES_FN void vec_store(float *to, vec value)
{
    _mm512_storeu_ps(to, value);
}
LANES_FN vec vec_load_f16(const uint16_t *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
LANES_FN vec vec_load_bf16(const uint16_t *from)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
LANES_FN vec vec_load_i8(const int8_t *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
LANES_FN vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
LANES_FN vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
LANES_FN vec vec_from_int(ivec a)
{
    return _mm512_cvtepi32_ps(a);
}
LANES_FN ivec ivec_load(const void *from)
{
    return _mm512_loadu_si512(from);
}
LANES_FN void ivec_store(void *to, ivec value)
{
    _mm512_storeu_si512(to, value);
}
LANES_FN ivec ivec_set1(int32_t value)
{
    return _mm512_set1_epi32(value);
}
LANES_FN ivec ivec_and(ivec a, ivec b)
{
    return _mm512_and_si512(a, b);
}
LANES_FN ivec ivec_xor(ivec a, ivec b)
{
    return _mm512_xor_si512(a, b);
}
LANES_FN ivec ivec_add(ivec a, ivec b)
{
    return _mm512_add_epi32(a, b);
}
LANES_FN ivec ivec_sub(ivec a, ivec b)
{
    return _mm512_sub_epi32(a, b);
}
LANES_FN ivec ivec_sll(ivec a, int bits)
{
    return _mm512_slli_epi32(a, (unsigned int)bits);
}
LANES_FN ivec ivec_srl(ivec a, int bits)
{
    return _mm512_srli_epi32(a, (unsigned int)bits);
}
LANES_FN ivec ivec_sra(ivec a, int bits)
{
    return _mm512_srai_epi32(a, (unsigned)bits);
}

#endif

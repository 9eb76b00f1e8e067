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
LANES_FN vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
LANES_FN vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
LANES_FN vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
LANES_FN vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
LANES_FN vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
// Of a NaN and a number, max and min give the second argument.
LANES_FN vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
LANES_FN vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
LANES_FN ivec vec_bits(vec a)
{
    return _mm512_castps_si512(a);
}
LANES_FN vec vec_from_bits(ivec a)
{
    return _mm512_castsi512_ps(a);
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

// Lanes [from, to) of value, the others of other; either bound may lie outside.
LANES_FN vec vec_keep_lanes(vec value, vec other, int32_t from, int32_t to)
{
    const unsigned low = from < 0 ? 0 : from < VEC_LANES ? (unsigned)from : VEC_LANES;
    const unsigned high = to < 0 ? 0 : to < VEC_LANES ? (unsigned)to : VEC_LANES;
    const unsigned kept = ((1U << high) - 1) & ~((1U << low) - 1);
    return _mm512_mask_blend_ps((__mmask16)kept, other, value);
}

// Rounded to nearest; what is beyond 16 bits becomes the largest number of that sign.
LANES_FN void vec_store_i16(int16_t *to, vec value)
{
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(value)));
}

LANES_FN float vec_largest(vec value)
{
    float lanes[VEC_LANES];
    vec_store(lanes, value);
    const __m256 half = _mm256_max_ps(_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8));
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_shuffle_ps(most, most, 1)));
}

// The compiler would turn chains of integer sums into trees and run out of registers.
#if defined(SORA_EMULATE_AVX512)
#define LANES_KEEP_ORDER(sum) ((void)0)
#else
#define LANES_KEEP_ORDER(sum) __asm__("" : "+v"(sum))
#endif

// Adds both products of each word's signed 16-bit pairs to that word of sum.
LANES_FN ivec ivec_dot_pairs(ivec sum, ivec a, ivec b)
{
#if defined(LANES_VNNI) && defined(SORA_EMULATE_AVX512)
    return _mm512_dpwssd_epi32(sum, a, b);
#elif defined(LANES_VNNI)
    // Spelled out: GCC 12 would copy the sum before and after.
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
    LANES_KEEP_ORDER(sum);
    return sum;
#endif
}

#endif

// SPDX-License-Identifier: Apache-2.0
// Eight float lanes in one AVX2 register. Included by kernel/lanes.h only.
#ifndef KERNEL_LANES_AVX2_H
#define KERNEL_LANES_AVX2_H

#include <immintrin.h>

#define VEC_LANES 8
typedef __m256 vec;
typedef __m256i ivec;

LANES_FN vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
LANES_FN vec vec_set1(float value)
{
    return _mm256_set1_ps(value);
}
LANES_FN vec vec_load(const float *from)
{
    return _mm256_loadu_ps(from);
}
LANES_FN void vec_store(float *to, vec value)
{
    _mm256_storeu_ps(to, value);
}
LANES_FN vec vec_load_f16(const uint16_t *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}
LANES_FN void vec_store_f16(uint16_t *to, vec value)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
LANES_FN vec vec_load_bf16(const uint16_t *from)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
LANES_FN vec vec_load_i8(const int8_t *from)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}
LANES_FN vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
LANES_FN vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
LANES_FN vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
LANES_FN vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
LANES_FN vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
// Of a NaN and a number, max and min give the second argument.
LANES_FN vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
LANES_FN vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
LANES_FN ivec vec_bits(vec a)
{
    return _mm256_castps_si256(a);
}
LANES_FN vec vec_from_bits(ivec a)
{
    return _mm256_castsi256_ps(a);
}
LANES_FN vec vec_from_int(ivec a)
{
    return _mm256_cvtepi32_ps(a);
}
LANES_FN ivec ivec_load(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
LANES_FN void ivec_store(void *to, ivec value)
{
    _mm256_storeu_si256((__m256i *)to, value);
}
LANES_FN ivec ivec_set1(int32_t value)
{
    return _mm256_set1_epi32(value);
}
LANES_FN ivec ivec_and(ivec a, ivec b)
{
    return _mm256_and_si256(a, b);
}
LANES_FN ivec ivec_xor(ivec a, ivec b)
{
    return _mm256_xor_si256(a, b);
}
LANES_FN ivec ivec_add(ivec a, ivec b)
{
    return _mm256_add_epi32(a, b);
}
LANES_FN ivec ivec_sub(ivec a, ivec b)
{
    return _mm256_sub_epi32(a, b);
}
LANES_FN ivec ivec_sll(ivec a, int bits)
{
    return _mm256_slli_epi32(a, bits);
}
LANES_FN ivec ivec_srl(ivec a, int bits)
{
    return _mm256_srli_epi32(a, bits);
}
LANES_FN ivec ivec_sra(ivec a, int bits)
{
    return _mm256_srai_epi32(a, bits);
}

// Lanes [from, to) of value, the others of other; either bound may lie outside.
LANES_FN vec vec_keep_lanes(vec value, vec other, int32_t from, int32_t to)
{
    const ivec lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const ivec kept = _mm256_and_si256(_mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(from - 1)),
                                       _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lanes));
    return _mm256_blendv_ps(other, value, _mm256_castsi256_ps(kept));
}

LANES_FN float vec_largest(vec value)
{
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_shuffle_ps(most, most, 1)));
}

// The compiler would turn chains of integer sums into trees and run out of registers.
#define LANES_KEEP_ORDER(sum) __asm__("" : "+x"(sum))

// Adds both products of each word's signed 16-bit pairs to that word of sum.
LANES_FN ivec ivec_dot_pairs(ivec sum, ivec a, ivec b)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    LANES_KEEP_ORDER(sum);
    return sum;
}

// Rounded to nearest; what is beyond 16 bits becomes the largest number of that sign.
LANES_FN void vec_store_i16(int16_t *to, vec value)
{
    const ivec words = _mm256_cvtps_epi32(value);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packs_epi32(_mm256_castsi256_si128(words),
                                                            _mm256_extracti128_si256(words, 1)));
}

// The vec_sum of each of eight vectors, as the lanes of one.
LANES_FN vec vec_sum_each(const vec a[8])
{
    vec low = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    vec high = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

#endif

// SPDX-License-Identifier: Apache-2.0
// AVX-512 and VNNI by means of AVX2, for machines without them (SIMDe): the intrinsics that
// src/kernel uses, with the results of the real ones. Included by kernel/lanes_avx512.h in a build
// with SORA_EMULATE_AVX512, which is for tests alone: it is slow.
#ifndef KERNEL_AVX512_EMULATED_H
#define KERNEL_AVX512_EMULATED_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#define __m512 simde__m512
#define __m512i simde__m512i

// What SIMDe 0.7 lacks, or gives another meaning.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)

// The same AVX2 conversion on both halves of a vector.
#define EMULATED_HALVES(convert, low, high) \
    simde__m512i_from_private((simde__m512i_private){.m256i = {convert(low), convert(high)}})
#define EMULATED_FLOAT_HALVES(convert, low, high) \
    simde__m512_from_private((simde__m512_private){.m256 = {convert(low), convert(high)}})

static inline simde__m512 emulated_cvtepi32_ps(simde__m512i whole)
{
    const simde__m512i_private from = simde__m512i_to_private(whole);
    return EMULATED_FLOAT_HALVES(_mm256_cvtepi32_ps, from.m256i[0], from.m256i[1]);
}
static inline simde__m512i emulated_cvtps_epi32(simde__m512 whole)
{
    const simde__m512_private from = simde__m512_to_private(whole);
    return EMULATED_HALVES(_mm256_cvtps_epi32, from.m256[0], from.m256[1]);
}
static inline simde__m512i emulated_srai_epi32(simde__m512i whole, unsigned bits)
{
    const simde__m512i_private from = simde__m512i_to_private(whole);
    return simde__m512i_from_private(
        (simde__m512i_private){.m256i = {_mm256_srai_epi32(from.m256i[0], (int)bits),
                                         _mm256_srai_epi32(from.m256i[1], (int)bits)}});
}
static inline simde__m512 emulated_cvtph_ps(__m256i from)
{
    return EMULATED_FLOAT_HALVES(_mm256_cvtph_ps, _mm256_castsi256_si128(from),
                                 _mm256_extracti128_si256(from, 1));
}
static inline simde__m512i emulated_cvtepu16_epi32(__m256i from)
{
    return EMULATED_HALVES(_mm256_cvtepu16_epi32, _mm256_castsi256_si128(from),
                           _mm256_extracti128_si256(from, 1));
}
static inline simde__m512i emulated_cvtepi8_epi32(__m128i from)
{
    return EMULATED_HALVES(_mm256_cvtepi8_epi32, from, _mm_srli_si128(from, 8));
}
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtps_epi32
#undef _mm512_srai_epi32
#undef _mm512_cvtph_ps
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi32_ps(whole) emulated_cvtepi32_ps(whole)
#define _mm512_cvtps_epi32(whole) emulated_cvtps_epi32(whole)
#define _mm512_srai_epi32(whole, bits) emulated_srai_epi32(whole, bits)
#define _mm512_cvtph_ps(from) emulated_cvtph_ps(from)
#define _mm512_cvtepu16_epi32(from) emulated_cvtepu16_epi32(from)
#define _mm512_cvtepi8_epi32(from) emulated_cvtepi8_epi32(from)

#endif

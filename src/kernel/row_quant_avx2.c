// SPDX-License-Identifier: Apache-2.0
// row_quant_scan, _round and _wide for AVX2: the results of the portable ones, to the bit. Called
// through row_quant.c only, on machines that have it.
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>

#include "kernel/kernel_dispatch.h"

// The largest and the second largest over the lanes of pairs (top, next).
static inline void two_largest(__m256 top, __m256 next, float *high, float *low)
{
    const int swaps[3] = {0, 1, 2};
    for (int i = 0; i < 3; i++) {
        __m256 other_top, other_next;
        if (swaps[i] == 0) {
            other_top = _mm256_permute2f128_ps(top, top, 1);
            other_next = _mm256_permute2f128_ps(next, next, 1);
        } else if (swaps[i] == 1) {
            other_top = _mm256_permute_ps(top, 0x4e);
            other_next = _mm256_permute_ps(next, 0x4e);
        } else {
            other_top = _mm256_permute_ps(top, 0xb1);
            other_next = _mm256_permute_ps(next, 0xb1);
        }
        next = _mm256_max_ps(_mm256_min_ps(top, other_top), _mm256_max_ps(next, other_next));
        top = _mm256_max_ps(top, other_top);
    }
    *high = _mm256_cvtss_f32(top);
    *low = _mm256_cvtss_f32(next);
}

static inline int32_t sum_of(__m256i words)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

static inline void load_values(const float *x, __m256 value[4])
{
    for (int v = 0; v < 4; v++)
        value[v] = _mm256_loadu_ps(x + 8 * v);
}

// The block's values, and its two largest magnitudes. False: not all are finite.
static inline bool load_block(const float *x, __m256 value[4], float *high, float *low)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 top = _mm256_setzero_ps(), next = _mm256_setzero_ps();
    __m256 finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    load_values(x, value);
    for (int v = 0; v < 4; v++) {
        __m256 a = _mm256_andnot_ps(sign, value[v]);
        finite = _mm256_and_ps(finite, _mm256_cmp_ps(a, _mm256_set1_ps(FLT_MAX), _CMP_LE_OQ));
        next = _mm256_max_ps(_mm256_min_ps(a, top), next);
        top = _mm256_max_ps(a, top);
    }
    two_largest(top, next, high, low);
    return _mm256_movemask_ps(finite) == 0xff;
}

static inline int32_t place_of(const __m256 value[4], float magnitude)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    unsigned at = 0;
    for (int v = 3; v >= 0; v--) {
        __m256 same =
            _mm256_cmp_ps(_mm256_andnot_ps(sign, value[v]), _mm256_set1_ps(magnitude), _CMP_EQ_OQ);
        at = at << 8 | (unsigned)_mm256_movemask_ps(same);
    }
    return __builtin_ctz(at);
}

// The value at `place` becomes 0.
static inline void clear_value(__m256 value[4], int32_t place)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int v = 0; v < 4; v++) {
        __m256i same = _mm256_cmpeq_epi32(lanes, _mm256_set1_epi32(place - 8 * v));
        value[v] = _mm256_andnot_ps(_mm256_castsi256_ps(same), value[v]);
    }
}

// The largest sum of the two values of a pair of one sign.
static inline float largest_pair(const __m256 value[4])
{
    const __m256 zero = _mm256_setzero_ps();
    __m256 largest = zero;
    for (int v = 0; v < 4; v += 2) {
        const __m256 above[2] = {_mm256_max_ps(value[v], zero), _mm256_max_ps(value[v + 1], zero)};
        const __m256 below[2] = {_mm256_sub_ps(above[0], value[v]),
                                 _mm256_sub_ps(above[1], value[v + 1])};
        largest = _mm256_max_ps(largest, _mm256_hadd_ps(above[0], above[1]));
        largest = _mm256_max_ps(largest, _mm256_hadd_ps(below[0], below[1]));
    }
    float high, next;
    two_largest(largest, zero, &high, &next);
    return high;
}

static inline void round_block(const __m256 value[4], float inverse, __m256i q[4])
{
    for (int v = 0; v < 4; v++)
        q[v] = _mm256_cvtps_epi32(_mm256_mul_ps(value[v], _mm256_set1_ps(inverse)));
}

static inline void store_bytes(unsigned form, const __m256i q[4], int8_t *to)
{
    // Packing works on halves: words 0 4 1 5 ... put them back.
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m256i nibbles =
        _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, //
                         0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    if (form == ROW_QUANT_NARROW)
        bytes = _mm256_shuffle_epi8(bytes, nibbles);
    _mm256_storeu_si256((__m256i *)(void *)to, bytes);
}

static inline void scan_block(unsigned form, const float *x, float *largest, int32_t *spike)
{
    __m256 value[4];
    float high, low;
    const bool finite = load_block(x, value, &high, &low);
    const bool apart = finite && high > ROW_QUANT_SPIKE_RATIO * low;
    *spike = apart ? place_of(value, high) : -1;
    if (form == ROW_QUANT_PAIRS && apart)
        clear_value(value, *spike);
    *largest = !finite ? NAN : form == ROW_QUANT_PAIRS ? largest_pair(value) : apart ? low : high;
}

static inline __m256i round_to_bytes(unsigned form, const float *x, float inverse, int8_t *to)
{
    __m256 value[4];
    __m256i q[4];
    load_values(x, value);
    round_block(value, inverse, q);
    store_bytes(form, q, to);
    return _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
}

// --- runs of blocks: what goes across lanes is done for eight blocks at once ---

// How two vectors of a step become one: their lower and upper parts side by side.
static inline void halves(int step, __m256i a, __m256i b, __m256i *low, __m256i *high)
{
    const __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
    if (step == 0) {
        *low = _mm256_permute2x128_si256(a, b, 0x20);
        *high = _mm256_permute2x128_si256(a, b, 0x31);
    } else if (step == 1) {
        *low = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x44));
        *high = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xee));
    } else {
        *low = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88));
        *high = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd));
    }
}

// After three steps lanes are blocks 0 2 4 6 1 3 5 7.
static inline __m256i in_order(__m256i of_blocks)
{
    return _mm256_permutevar8x32_epi32(of_blocks, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// top[0], next[0]: the two largest of each block's lanes, as bits, which order magnitudes.
static inline void two_largest_each(__m256i top[8], __m256i next[8])
{
    for (int step = 0, count = 4; count > 0; step++, count /= 2)
        for (int i = 0; i < count; i++) {
            __m256i low, high, next_low, next_high;
            halves(step, top[2 * i], top[2 * i + 1], &low, &high);
            halves(step, next[2 * i], next[2 * i + 1], &next_low, &next_high);
            next[i] = _mm256_max_epi32(_mm256_max_epi32(next_low, next_high),
                                       _mm256_min_epi32(low, high));
            top[i] = _mm256_max_epi32(low, high);
        }
    top[0] = in_order(top[0]);
    next[0] = in_order(next[0]);
}

static inline __m256i sum_each(__m256i sums[8])
{
    for (int step = 0, count = 4; count > 0; step++, count /= 2)
        for (int i = 0; i < count; i++) {
            __m256i low, high;
            halves(step, sums[2 * i], sums[2 * i + 1], &low, &high);
            sums[i] = _mm256_add_epi32(low, high);
        }
    return in_order(sums[0]);
}

static inline void magnitudes(const float *x, __m256i *top, __m256i *next)
{
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    *top = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)x), mask);
    *next = _mm256_setzero_si256();
    for (int v = 1; v < 4; v++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + 8 * v));
        a = _mm256_and_si256(a, mask);
        *next = _mm256_max_epi32(*next, _mm256_min_epi32(a, *top));
        *top = _mm256_max_epi32(*top, a);
    }
}

// Eight blocks, form NARROW.
static inline void scan_run(const float *x, float *largest, int32_t *spikes)
{
    __m256i top[8], next[8];
    for (int b = 0; b < 8; b++)
        magnitudes(x + 32 * b, &top[b], &next[b]);
    two_largest_each(top, next);
    const __m256 high = _mm256_castsi256_ps(top[0]), low = _mm256_castsi256_ps(next[0]);
    const __m256 finite = _mm256_cmp_ps(high, _mm256_set1_ps(FLT_MAX), _CMP_LE_OQ);
    const __m256 over =
        _mm256_cmp_ps(high, _mm256_mul_ps(_mm256_set1_ps(ROW_QUANT_SPIKE_RATIO), low), _CMP_GT_OQ);
    const __m256 apart = _mm256_and_ps(finite, over);
    const __m256 found = _mm256_blendv_ps(high, low, apart);
    _mm256_storeu_ps(largest, _mm256_blendv_ps(_mm256_set1_ps(NAN), found, finite));
    _mm256_storeu_si256((__m256i *)(void *)spikes, _mm256_set1_epi32(-1));
    float highs[8];
    _mm256_storeu_ps(highs, high);
    for (unsigned left = (unsigned)_mm256_movemask_ps(apart); left != 0; left &= left - 1) {
        const int b = __builtin_ctz(left);
        __m256 value[4];
        load_values(x + 32 * b, value);
        spikes[b] = place_of(value, highs[b]);
    }
}

void row_quant_scan_avx2(unsigned form, const float *x, size_t blocks, float *largest,
                         int32_t *spikes)
{
    size_t b = 0;
    for (; form == ROW_QUANT_NARROW && b + 8 <= blocks; b += 8)
        scan_run(x + 32 * b, largest + b, spikes + b);
    for (; b < blocks; b++)
        scan_block(form, x + 32 * b, &largest[b], &spikes[b]);
}

void row_quant_round_avx2(unsigned form, const float *x, size_t blocks, const float *inverses,
                          int8_t *q, int32_t *sums)
{
    size_t b = 0;
    for (; b + 8 <= blocks; b += 8) {
        __m256i lanes[8];
        for (size_t i = b; i < b + 8; i++)
            lanes[i - b] = round_to_bytes(form, x + 32 * i, inverses[i], q + 32 * i);
        _mm256_storeu_si256((__m256i *)(void *)(sums + b), sum_each(lanes));
    }
    for (; b < blocks; b++)
        sums[b] = sum_of(round_to_bytes(form, x + 32 * b, inverses[b], q + 32 * b));
}

void row_quant_wide_avx2(const float *x, struct row_wide_block *out)
{
    __m256 value[4];
    __m256i q[4];
    float high, low;
    bool finite = load_block(x, value, &high, &low);
    float inverse = 32767.0f / high;
    if (!finite || !(inverse <= FLT_MAX)) {
        row_quant_wide_portable(x, out);
        return;
    }
    out->scale = high / 32767.0f;
    round_block(value, inverse, q);
    out->sum = sum_of(_mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])));
    const __m256i places = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, //
                                            0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    for (int v = 0; v < 4; v += 2) {
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[v], q[v + 1]), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out->q + 8 * v),
                            _mm256_shuffle_epi8(words, places));
    }
}

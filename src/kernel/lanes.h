// SPDX-License-Identifier: Apache-2.0
// Float lanes: the few vector operations that the kernels are written in, once per instruction
// set. A kernel's body is a header that is compiled for each of them; every operation here rounds
// the same way everywhere, so one body gives the same bits on every machine. Which set is chosen
// follows the flags of the including file: AVX2 with FMA and F16C, plain C otherwise, and AVX-512
// where LANES_AVX512 is defined first, of VNNI with LANES_VNNI. 8 lanes, 16 with AVX-512. Private
// to src/kernel.
#ifndef KERNEL_LANES_H
#define KERNEL_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "sora/lora.h"

#define LANES_FN static inline __attribute__((always_inline))

#if defined(LANES_AVX512)
#include "kernel/lanes_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernel/lanes_avx2.h"
#else
#include "kernel/lanes_portable.h"
#endif

// Before a loop over registers: without it they would live in memory. Plain C has none, and
// sanitizers only get slow.
#define LANES_PRAGMA(text) _Pragma(#text)
#if defined(LANES_PORTABLE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LANES_UNROLL(count)
#else
#define LANES_UNROLL(count) LANES_PRAGMA(GCC unroll count)
#endif

// The first `count` lanes of memory, zeros above; count may be VEC_LANES or more.
LANES_FN vec vec_load_part(const float *from, int32_t count)
{
    if (count >= VEC_LANES)
        return vec_load(from);
    float lanes[VEC_LANES] = {0};
    for (int32_t i = 0; i < count; i++)
        lanes[i] = from[i];
    return vec_load(lanes);
}

LANES_FN void vec_store_part(float *to, vec value, int32_t count)
{
    if (count >= VEC_LANES) {
        vec_store(to, value);
        return;
    }
    float lanes[VEC_LANES];
    vec_store(lanes, value);
    for (int32_t i = 0; i < count; i++)
        to[i] = lanes[i];
}

// Lanes from element `index` on of an array of `dtype`.
LANES_FN vec vec_load_as(enum sora_dtype dtype, const void *array, size_t index)
{
    if (dtype == SORA_F32)
        return vec_load((const float *)array + index);
    if (dtype == SORA_I8)
        return vec_load_i8((const int8_t *)array + index);
    const uint16_t *halves = (const uint16_t *)array + index;
    return dtype == SORA_F16 ? vec_load_f16(halves) : vec_load_bf16(halves);
}

LANES_FN vec vec_load_part_as(enum sora_dtype dtype, const void *array, size_t index, int32_t count)
{
    if (count >= VEC_LANES)
        return vec_load_as(dtype, array, index);
    if (dtype == SORA_F32)
        return vec_load_part((const float *)array + index, count);
    if (dtype == SORA_I8) {
        int8_t bytes[VEC_LANES] = {0};
        memcpy(bytes, (const int8_t *)array + index, (size_t)count);
        return vec_load_i8(bytes);
    }
    uint16_t halves[VEC_LANES] = {0};
    memcpy(halves, (const uint16_t *)array + index, (size_t)count * sizeof(uint16_t));
    return vec_load_as(dtype, halves, 0);
}

// Sum of eight, always as ((0+1)+(2+3)) + ((4+5)+(6+7)).
LANES_FN float sum_of_8(const float f[8])
{
    return ((f[0] + f[1]) + (f[2] + f[3])) + ((f[4] + f[5]) + (f[6] + f[7]));
}

#if VEC_LANES == 8
// Sum of the lanes, as sum_of_8.
LANES_FN float vec_sum(vec value)
{
    float f[8];
    vec_store(f, value);
    return sum_of_8(f);
}

// Sum of 16 lanes, in as many vectors as they take: the first eight and the others pairwise, then
// as sum_of_8.
LANES_FN float vec_sum_of_16(const vec lanes[2])
{
    return vec_sum(vec_add(lanes[0], lanes[1]));
}
#else
LANES_FN float vec_sum_of_16(const vec lanes[1])
{
    float f[16];
    vec_store(f, lanes[0]);
    for (int i = 0; i < 8; i++)
        f[i] += f[i + 8];
    return sum_of_8(f);
}
#endif

// e^r of x = n ln 2 + r, as Cephes' expf (S. Moshier) has it. *power: EXP_MAGIC + n.
#define EXP_MAGIC 12582912.0f // 1.5 * 2^23: adding it rounds to an integer, in the low bits
LANES_FN vec exp_reduced(vec x, ivec *power)
{
    const vec magic = vec_set1(EXP_MAGIC);
    vec t = vec_fma(x, vec_set1(1.44269504088896341f), magic);
    vec n = vec_sub(t, magic);
    vec r = vec_fma(n, vec_set1(-0.693359375f), x);
    r = vec_fma(n, vec_set1(2.12194440e-4f), r);
    vec p = vec_set1(1.9875691500e-4f);
    p = vec_fma(p, r, vec_set1(1.3981999507e-3f));
    p = vec_fma(p, r, vec_set1(8.3334519073e-3f));
    p = vec_fma(p, r, vec_set1(4.1665795894e-2f));
    p = vec_fma(p, r, vec_set1(1.6666665459e-1f));
    p = vec_fma(p, r, vec_set1(5.0000001201e-1f));
    *power = vec_bits(t);
    return vec_add(vec_fma(vec_mul(r, r), p, r), vec_set1(1.0f));
}

// e^x, by two exact scalings, so that results down to the subnormals and up to infinity come out
// right. Within 2 ulp; NaN stays NaN.
LANES_FN vec vec_exp(vec x)
{
    ivec power;
    vec p = exp_reduced(vec_min(vec_set1(89.0f), vec_max(vec_set1(-104.0f), x)), &power);
    power = ivec_sub(power, vec_bits(vec_set1(EXP_MAGIC)));
    ivec half = ivec_sra(power, 1);
    ivec rest = ivec_sub(power, half);
    vec scale_half = vec_from_bits(ivec_sll(ivec_add(half, ivec_set1(127)), 23));
    vec scale_rest = vec_from_bits(ivec_sll(ivec_add(rest, ivec_set1(127)), 23));
    return vec_mul(vec_mul(p, scale_half), scale_rest);
}

// e^x of x <= 0, the same but for x < -87, which count as -87 (1.6e-38): a third fewer steps, for
// sums that hold an e^0. NaN stays NaN.
LANES_FN vec vec_exp_of_negative(vec x)
{
    ivec power;
    vec p = exp_reduced(vec_max(vec_set1(-87.0f), x), &power);
    return vec_from_bits(ivec_add(vec_bits(p), ivec_sll(power, 23)));
}

#endif

// SPDX-License-Identifier: Apache-2.0
// Eight float lanes in plain C. Multiply-adds go through fmaf, so they round once, as the vector
// units do. Included by kernel/lanes.h only.
#ifndef KERNEL_LANES_PORTABLE_H
#define KERNEL_LANES_PORTABLE_H

#define LANES_PORTABLE
#define VEC_LANES 8
typedef struct {
    float f[VEC_LANES];
} vec;
typedef struct {
    uint32_t i[VEC_LANES];
} ivec;

// Kept a loop: unrolled, the kernels' bodies grow tenfold.
#define LANES_LOOP _Pragma("GCC unroll 1") for (int lane = 0; lane < VEC_LANES; lane++)
#define LANES_EACH(result_type, member, expression) \
    result_type out;                                \
    LANES_LOOP out.member[lane] = (expression);     \
    return out

LANES_FN vec vec_set1(float value)
{
    LANES_EACH(vec, f, value);
}
LANES_FN vec vec_zero(void)
{
    return vec_set1(0.0f);
}
LANES_FN vec vec_load(const float *from)
{
    LANES_EACH(vec, f, from[lane]);
}
LANES_FN void vec_store(float *to, vec value)
{
    memcpy(to, value.f, sizeof value.f);
}
LANES_FN vec vec_load_f16(const uint16_t *from)
{
    LANES_EACH(vec, f, half_from_f16(from[lane]));
}
LANES_FN void vec_store_f16(uint16_t *to, vec value)
{
    LANES_LOOP
    to[lane] = half_to_f16(value.f[lane]);
}
LANES_FN vec vec_load_bf16(const uint16_t *from)
{
    LANES_EACH(vec, f, half_from_bf16(from[lane]));
}
LANES_FN vec vec_load_i8(const int8_t *from)
{
    LANES_EACH(vec, f, (float)from[lane]);
}
LANES_FN vec vec_add(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] + b.f[lane]);
}
LANES_FN vec vec_sub(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] - b.f[lane]);
}
LANES_FN vec vec_mul(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] * b.f[lane]);
}
LANES_FN vec vec_div(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] / b.f[lane]);
}
LANES_FN vec vec_fma(vec a, vec b, vec c)
{
    LANES_EACH(vec, f, fmaf(a.f[lane], b.f[lane], c.f[lane]));
}
// Of a NaN and a number, max and min give the second argument.
LANES_FN vec vec_max(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] > b.f[lane] ? a.f[lane] : b.f[lane]);
}
LANES_FN vec vec_min(vec a, vec b)
{
    LANES_EACH(vec, f, a.f[lane] < b.f[lane] ? a.f[lane] : b.f[lane]);
}
LANES_FN ivec vec_bits(vec a)
{
    ivec out;
    memcpy(out.i, a.f, sizeof out.i);
    return out;
}
LANES_FN vec vec_from_bits(ivec a)
{
    vec out;
    memcpy(out.f, a.i, sizeof out.f);
    return out;
}
LANES_FN vec vec_from_int(ivec a)
{
    LANES_EACH(vec, f, (float)(int32_t)a.i[lane]);
}
LANES_FN ivec ivec_load(const void *from)
{
    ivec out;
    memcpy(out.i, from, sizeof out.i);
    return out;
}
LANES_FN void ivec_store(void *to, ivec value)
{
    memcpy(to, &value, sizeof value);
}
LANES_FN ivec ivec_set1(int32_t value)
{
    LANES_EACH(ivec, i, (uint32_t)value);
}
LANES_FN ivec ivec_and(ivec a, ivec b)
{
    LANES_EACH(ivec, i, a.i[lane] & b.i[lane]);
}
LANES_FN ivec ivec_xor(ivec a, ivec b)
{
    LANES_EACH(ivec, i, a.i[lane] ^ b.i[lane]);
}
LANES_FN ivec ivec_add(ivec a, ivec b)
{
    LANES_EACH(ivec, i, a.i[lane] + b.i[lane]);
}
LANES_FN ivec ivec_sub(ivec a, ivec b)
{
    LANES_EACH(ivec, i, a.i[lane] - b.i[lane]);
}
LANES_FN ivec ivec_sll(ivec a, int bits)
{
    LANES_EACH(ivec, i, a.i[lane] << bits);
}
LANES_FN ivec ivec_srl(ivec a, int bits)
{
    LANES_EACH(ivec, i, a.i[lane] >> bits);
}
LANES_FN ivec ivec_sra(ivec a, int bits)
{
    LANES_EACH(ivec, i, (uint32_t)((int32_t)a.i[lane] >> bits));
}

// Lanes [from, to) of value, the others of other; either bound may lie outside.
LANES_FN vec vec_keep_lanes(vec value, vec other, int32_t from, int32_t to)
{
    LANES_EACH(vec, f, lane >= from && lane < to ? value.f[lane] : other.f[lane]);
}
LANES_FN float vec_largest(vec value)
{
    LANES_LOOP
    value.f[0] = value.f[lane] > value.f[0] ? value.f[lane] : value.f[0];
    return value.f[0];
}

// Adds both products of each word's signed 16-bit pairs to that word of sum.
LANES_FN ivec ivec_dot_pairs(ivec sum, ivec a, ivec b)
{
    LANES_LOOP
    for (int i = 0; i < 32; i += 16)
        sum.i[lane] +=
            (uint32_t)((int16_t)(uint16_t)(a.i[lane] >> i) * (int16_t)(uint16_t)(b.i[lane] >> i));
    return sum;
}
// Rounded to nearest; what is beyond 16 bits becomes the largest number of that sign.
LANES_FN void vec_store_i16(int16_t *to, vec value)
{
    LANES_LOOP
    to[lane] = (int16_t)lrintf(fmaxf(-32768, fminf(value.f[lane], 32767)));
}

// The vec_sum of each of eight vectors, as the lanes of one.
LANES_FN vec vec_sum_each(const vec a[8])
{
    LANES_EACH(vec, f,
               ((a[lane].f[0] + a[lane].f[1]) + (a[lane].f[2] + a[lane].f[3])) +
                   ((a[lane].f[4] + a[lane].f[5]) + (a[lane].f[6] + a[lane].f[7])));
}

#endif

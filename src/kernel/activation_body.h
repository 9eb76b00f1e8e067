// SPDX-License-Identifier: Apache-2.0
// The bodies of swiglu, its backward and exp, compiled once per instruction set by activation.c and
// activation_avx2.c, which define ACTIVATION_SUFFIX. A ragged end goes through the same vector
// operations as the rest, so a value's place does not matter.
#ifndef KERNEL_ACTIVATION_BODY_H
#define KERNEL_ACTIVATION_BODY_H

#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"

#define ACTIVATION_PASTE_AGAIN(name, suffix) name##_##suffix
#define ACTIVATION_PASTE(name, suffix) ACTIVATION_PASTE_AGAIN(name, suffix)

LANES_FN int32_t lanes_left(size_t count, size_t i)
{
    return count - i < VEC_LANES ? (int32_t)(count - i) : VEC_LANES;
}

void ACTIVATION_PASTE(exp, ACTIVATION_SUFFIX)(const float *x, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += VEC_LANES) {
        int32_t left = lanes_left(count, i);
        vec_store_part(out + i, vec_exp(vec_load_part(x + i, left)), left);
    }
}

// 1 + e^-z: what silu and its slope divide by.
LANES_FN vec silu_divisor(vec z)
{
    return vec_add(vec_set1(1.0f), vec_exp(vec_sub(vec_zero(), z)));
}

void ACTIVATION_PASTE(swiglu, ACTIVATION_SUFFIX)(const float *gate, const float *up, size_t count,
                                                 float *out)
{
    for (size_t i = 0; i < count; i += VEC_LANES) {
        int32_t left = lanes_left(count, i);
        vec z = vec_load_part(gate + i, left);
        vec silu = vec_div(z, silu_divisor(z));
        vec_store_part(out + i, vec_mul(silu, vec_load_part(up + i, left)), left);
    }
}

// silu'(z) = s (1 + z (1 - s)) with s = 1 / (1 + e^-z).
void ACTIVATION_PASTE(swiglu_backward, ACTIVATION_SUFFIX)(const float *gate, const float *up,
                                                          const float *dout, size_t count,
                                                          float *dgate, float *dup)
{
    const vec one = vec_set1(1.0f);
    for (size_t i = 0; i < count; i += VEC_LANES) {
        int32_t left = lanes_left(count, i);
        vec z = vec_load_part(gate + i, left), u = vec_load_part(up + i, left);
        vec d = vec_load_part(dout + i, left);
        vec s = vec_div(one, silu_divisor(z));
        vec silu = vec_mul(z, s);
        vec slope = vec_fma(silu, vec_sub(one, s), s);
        vec_store_part(dgate + i, vec_mul(vec_mul(d, u), slope), left);
        vec_store_part(dup + i, vec_mul(d, silu), left);
    }
}

#endif

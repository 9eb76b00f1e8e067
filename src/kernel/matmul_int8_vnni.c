// SPDX-License-Identifier: Apache-2.0
// matmul_int8_panels for AVX-512 with VNNI: four products and their sum in one instruction. Called
// through matmul.c only, on machines that have it.
#define LANES_AVX512
#include "kernel/lanes.h"

#define INT8_SUFFIX vnni
#define INT8_ROWS 8
#define INT8_WORDS_IN_MEMORY

// Adds the products of w and the word at x, which goes to every lane. Spelled out, because GCC 12
// would broadcast the word to a register first: one instruction more for each product, where the
// front end is the bound.
#if !defined(SORA_EMULATE_AVX512)
typedef int32_t word_in_memory __attribute__((may_alias, aligned(1)));
#define DOT(name, sum, w, x)                  \
    __asm__("vp" #name " %2%{1to16%}, %1, %0" \
            : "+v"(sum)                       \
            : "v"(w), "m"(*(const word_in_memory *)(x)))
#else
#define DOT(name, sum, w, x)                                    \
    do {                                                        \
        int32_t word;                                           \
        memcpy(&word, x, sizeof word);                          \
        (sum) = _mm512_##name##_epi32(sum, w, ivec_set1(word)); \
    } while (0)
#endif

LANES_FN ivec dot_nibbles(ivec sum, ivec w, const void *x)
{
    DOT(dpbusd, sum, w, x);
    return sum;
}

LANES_FN vec nibbles_scaled(ivec sum, ivec factor, vec scale)
{
    (void)factor;
    return vec_mul(vec_from_int(sum), scale);
}

LANES_FN ivec dot_bytes(ivec sum, ivec w, const void *x)
{
    DOT(dpbusd, sum, w, x);
    return sum;
}

LANES_FN ivec dot_pairs(ivec sum, ivec w, const void *x)
{
    DOT(dpwssd, sum, w, x);
    return sum;
}

#include "kernel/matmul_int8_body.h"

// SPDX-License-Identifier: Apache-2.0
// The layout of a packed panel: 16 output rows side by side. Shared by weight.c, which writes it,
// and the matmul bodies, which read it. Private to src/kernel.
//
// F32, F16, BF16: [d_in][16] elements.
// Quantized types: one panel block per 32 k, as many bytes as its 16 source blocks:
//   scales  [16] f16, and for Q4_1 the minimums [16] f16 after them,
//   quants  words of 4 bytes, [words][16 rows]: word w of a row holds, from its low bits up,
//           k = 8w .. 8w+7 as nibbles (Q4_0, Q4_1; unsigned as in GGML), or
//           k = 4w .. 4w+3 as bytes, 128 added to each (Q8_0).
// A vector of words is a vector of rows, and each k is one shift or mask away.
#ifndef KERNEL_PANEL_H
#define KERNEL_PANEL_H

#include <stdbool.h>

#include "kernel/weight.h"

#define PANEL_BLOCK_VALUES 32

static inline bool panel_type_quantized(enum weight_type type)
{
    return type == WEIGHT_Q4_0 || type == WEIGHT_Q4_1 || type == WEIGHT_Q8_0;
}

// Bytes before the quants of a panel block of a quantized type.
static inline size_t panel_scale_bytes(enum weight_type type)
{
    return (type == WEIGHT_Q4_1 ? 2 : 1) * WEIGHT_PANEL_ROWS * sizeof(uint16_t);
}

// Spelled out, so that it is a constant where the type is one.
static inline size_t panel_block_bytes(enum weight_type type)
{
    size_t quant_bytes = type == WEIGHT_Q8_0 ? PANEL_BLOCK_VALUES : PANEL_BLOCK_VALUES / 2;
    return panel_scale_bytes(type) + WEIGHT_PANEL_ROWS * quant_bytes;
}

static inline const uint8_t *panel_data(const struct weight *weight, int32_t panel)
{
    size_t bytes = WEIGHT_PANEL_ROWS * weight_type_row_bytes(weight->type, weight->d_in);
    return (const uint8_t *)weight->panels + (size_t)panel * bytes;
}

// k of panel data in [k_first, k_first + k_count) as f32, out [k_count][16]. For quantized types
// both are multiples of 32. panel_unpack takes the fastest that this machine has.
typedef void panel_unpack_fn(const struct weight *weight, int32_t panel, int32_t k_first,
                             int32_t k_count, float *out);
panel_unpack_fn panel_unpack, panel_unpack_portable, panel_unpack_avx2, panel_unpack_avx512;

#endif

// SPDX-License-Identifier: Apache-2.0
// GGML's weight types as they lie in a file: sizes, names, and one row to f32. Pure functions; any
// thread.
#ifndef BASE_QUANT_H
#define BASE_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Numbers are GGML's type ids, the names the ones GGUF and HF users know.
enum weight_type {
    WEIGHT_F32 = 0,
    WEIGHT_F16 = 1,
    WEIGHT_Q4_0 = 2,
    WEIGHT_Q4_1 = 3,
    WEIGHT_Q8_0 = 8,
    WEIGHT_BF16 = 30
};

// NULL for an unknown type id.
const char *weight_type_name(int32_t type);
bool weight_type_known(int32_t type);
bool weight_type_quantized(enum weight_type type);
int32_t weight_type_block_values(enum weight_type type); // 1 or 32
int32_t weight_type_block_bytes(enum weight_type type);
// Bytes of one source row of d_in values; 0 when d_in is no multiple of the block.
size_t weight_type_row_bytes(enum weight_type type, int32_t d_in);

// One source row of any type to f32: out [d_in]. Bit-exact with GGML's dequantization. `row` needs
// no alignment.
void quant_row_to_f32(enum weight_type type, const void *row, int32_t d_in, float *out);

#endif

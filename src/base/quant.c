// SPDX-License-Identifier: Apache-2.0
// Block layouts are those of ggml's ggml-common.h: Q4_0 {f16 d; 16 bytes},
// Q4_1 {f16 d, m; 16 bytes}, Q8_0 {f16 d; 32 signed bytes}; byte j of a 4-bit block holds value j
// in its low and value j + 16 in its high half.
#include "base/quant.h"

#include <string.h>

#include "base/assert.h"
#include "base/half.h"

#define BLOCK_VALUES 32 // of every quantized type here

struct type_row {
    enum weight_type type;
    const char *name;
    int32_t block_values, block_bytes;
};

static const struct type_row type_rows[] = {
    {WEIGHT_F32, "F32", 1, 4},     {WEIGHT_F16, "F16", 1, 2},     {WEIGHT_BF16, "BF16", 1, 2},
    {WEIGHT_Q4_0, "Q4_0", 32, 18}, {WEIGHT_Q4_1, "Q4_1", 32, 20}, {WEIGHT_Q8_0, "Q8_0", 32, 34},
};

static const struct type_row *find_type(int32_t type)
{
    for (size_t i = 0; i < sizeof type_rows / sizeof type_rows[0]; i++)
        if ((int32_t)type_rows[i].type == type)
            return &type_rows[i];
    return NULL;
}

const char *weight_type_name(int32_t type)
{
    const struct type_row *row = find_type(type);
    return row == NULL ? NULL : row->name;
}

bool weight_type_known(int32_t type)
{
    return find_type(type) != NULL;
}

bool weight_type_quantized(enum weight_type type)
{
    return weight_type_block_values(type) > 1;
}

int32_t weight_type_block_values(enum weight_type type)
{
    const struct type_row *row = find_type((int32_t)type);
    ASSERT(row != NULL);
    return row->block_values;
}

int32_t weight_type_block_bytes(enum weight_type type)
{
    const struct type_row *row = find_type((int32_t)type);
    ASSERT(row != NULL);
    return row->block_bytes;
}

size_t weight_type_row_bytes(enum weight_type type, int32_t d_in)
{
    int32_t values = weight_type_block_values(type);
    if (d_in <= 0 || d_in % values != 0)
        return 0;
    return (size_t)(d_in / values) * (size_t)weight_type_block_bytes(type);
}

static float f16_at(const uint8_t *bytes)
{
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return half_from_f16(bits);
}

static void q4_block_to_f32(const uint8_t *block, bool has_min, float *out)
{
    float d = f16_at(block);
    float m = has_min ? f16_at(block + 2) : 0.0f;
    const uint8_t *quants = block + (has_min ? 4 : 2);
    for (int j = 0; j < 16; j++) {
        int low = quants[j] & 15, high = quants[j] >> 4;
        // A product of an f16 and a small integer is exact in f32.
        out[j] = has_min ? d * (float)low + m : d * (float)(low - 8);
        out[j + 16] = has_min ? d * (float)high + m : d * (float)(high - 8);
    }
}

static void q8_block_to_f32(const uint8_t *block, float *out)
{
    float d = f16_at(block);
    const int8_t *quants = (const int8_t *)(block + 2);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)quants[j];
}

static void halves_to_f32(enum weight_type type, const uint8_t *row, int32_t d_in, float *out)
{
    for (int32_t k = 0; k < d_in; k++) {
        uint16_t bits;
        memcpy(&bits, row + 2 * (size_t)k, sizeof bits);
        out[k] = type == WEIGHT_F16 ? half_from_f16(bits) : half_from_bf16(bits);
    }
}

void quant_row_to_f32(enum weight_type type, const void *row, int32_t d_in, float *out)
{
    const uint8_t *bytes = row;
    ASSERT(weight_type_row_bytes(type, d_in) > 0);
    if (type == WEIGHT_F32) {
        memcpy(out, bytes, (size_t)d_in * sizeof(float));
        return;
    }
    if (!weight_type_quantized(type)) {
        halves_to_f32(type, bytes, d_in, out);
        return;
    }
    size_t block_bytes = (size_t)weight_type_block_bytes(type);
    for (int32_t k = 0; k < d_in; k += BLOCK_VALUES, bytes += block_bytes) {
        if (type == WEIGHT_Q8_0)
            q8_block_to_f32(bytes, out + k);
        else
            q4_block_to_f32(bytes, type == WEIGHT_Q4_1, out + k);
    }
}

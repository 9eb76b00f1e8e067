// SPDX-License-Identifier: Apache-2.0
// Packing of weight matrices into panels (panel.h) and reading rows back. A struct weight is
// filled by one loader (different panels by different threads), then only read, by any thread.
#include "kernel/weight.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/cpu.h"
#include "base/half.h"
#include "kernel/panel.h"

sora_status weight_shape(struct weight *weight, enum weight_type type, int32_t d_out, int32_t d_in,
                         struct sora_error *err)
{
    *weight = (struct weight){.type = type, .d_out = d_out, .d_in = d_in};
    if (d_out <= 0 || d_in <= 0)
        return sora_fail(err, SORA_MISMATCH, "weight of shape %d x %d", (int)d_out, (int)d_in);
    size_t row_bytes = weight_type_row_bytes(type, d_in);
    if (row_bytes == 0)
        return sora_fail(err, SORA_MISMATCH, "%s weight: width %d is no multiple of its block, %d",
                         weight_type_name((int32_t)type), (int)d_in,
                         (int)weight_type_block_values(type));
    size_t rows = (size_t)weight_panel_count(weight) * WEIGHT_PANEL_ROWS;
    if (!checked_mul(rows, row_bytes, &weight->bytes))
        return sora_fail(err, SORA_LIMIT, "weight of shape %d x %d overflows", (int)d_out,
                         (int)d_in);
    return SORA_OK;
}

sora_status weight_init(struct weight *weight, enum weight_type type, int32_t d_out, int32_t d_in,
                        struct sora_error *err)
{
    sora_status status = weight_shape(weight, type, d_out, d_in, err);
    if (status != SORA_OK)
        return status;
    weight->panels = aligned_calloc(weight->bytes, 1);
    if (weight->panels == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a weight of %zu bytes", weight->bytes);
    return SORA_OK;
}

void weight_deinit(struct weight *weight)
{
    free(weight->panels);
    *weight = (struct weight){0};
}

int32_t weight_panel_count(const struct weight *weight)
{
    // In 64 bits: d_out may be any positive int32.
    return (int32_t)(((int64_t)weight->d_out + WEIGHT_PANEL_ROWS - 1) / WEIGHT_PANEL_ROWS);
}

// [d_in] elements of one row to column `lane` of [d_in][16].
static inline __attribute__((always_inline)) void
pack_dense(uint8_t *to, const uint8_t *row, int lane, int32_t d_in, size_t element_bytes)
{
    for (int32_t k = 0; k < d_in; k++) {
        uint8_t *cell = to + ((size_t)k * WEIGHT_PANEL_ROWS + (size_t)lane) * element_bytes;
        if (row == NULL)
            memset(cell, 0, element_bytes);
        else
            memcpy(cell, row + (size_t)k * element_bytes, element_bytes);
    }
}

// One source block to its row of a panel block.
static void pack_block(enum weight_type type, uint8_t *to, const uint8_t *block, int lane)
{
    size_t scale_count = type == WEIGHT_Q4_1 ? 2 : 1;
    for (size_t i = 0; i < scale_count; i++)
        memcpy(to + 2 * (i * WEIGHT_PANEL_ROWS + (size_t)lane), block + 2 * i, 2);
    const uint8_t *quants = block + 2 * scale_count;
    uint8_t *words = to + panel_scale_bytes(type) + 4 * (size_t)lane;
    const size_t word_stride = 4 * WEIGHT_PANEL_ROWS;
    if (type == WEIGHT_Q8_0) {
        for (size_t k = 0; k < PANEL_BLOCK_VALUES; k++)
            words[k / 4 * word_stride + k % 4] = quants[k] ^ 0x80;
        return;
    }
    for (size_t k = 0; k < PANEL_BLOCK_VALUES; k += 2) {
        int shift = k < 16 ? 0 : 4;
        int low = (quants[k % 16] >> shift) & 15, high = (quants[k % 16 + 1] >> shift) & 15;
        words[k / 8 * word_stride + k % 8 / 2] = (uint8_t)(low | high << 4);
    }
}

void weight_pack_panel(struct weight *weight, int32_t panel,
                       const void *const rows[WEIGHT_PANEL_ROWS])
{
    static const uint8_t zeros[WEIGHT_PANEL_ROWS * 4] = {0}; // at least one block of any type
    ASSERT(panel >= 0 && panel < weight_panel_count(weight));
    enum weight_type type = weight->type;
    uint8_t *to = (uint8_t *)weight->panels +
                  (size_t)panel * WEIGHT_PANEL_ROWS * weight_type_row_bytes(type, weight->d_in);
    size_t source_bytes = (size_t)weight_type_block_bytes(type);
    _Static_assert(sizeof zeros >= 34, "a zero block of the largest type");
    for (int lane = 0; lane < WEIGHT_PANEL_ROWS; lane++) {
        if (type == WEIGHT_F32) {
            pack_dense(to, rows[lane], lane, weight->d_in, sizeof(float));
            continue;
        }
        if (!panel_type_quantized(type)) {
            pack_dense(to, rows[lane], lane, weight->d_in, sizeof(uint16_t));
            continue;
        }
        for (int32_t b = 0; b < weight->d_in / PANEL_BLOCK_VALUES; b++) {
            const uint8_t *block =
                rows[lane] == NULL ? zeros : (const uint8_t *)rows[lane] + (size_t)b * source_bytes;
            pack_block(type, to + (size_t)b * panel_block_bytes(type), block, lane);
        }
    }
}

static uint16_t u16_at(const uint8_t *bytes, size_t index)
{
    uint16_t bits;
    memcpy(&bits, bytes + 2 * index, sizeof bits);
    return bits;
}

static void quantized_row_to_f32(enum weight_type type, const uint8_t *data, size_t lane,
                                 int32_t d_in, float *out)
{
    const size_t word_stride = 4 * WEIGHT_PANEL_ROWS;
    for (int32_t block = 0; block < d_in / PANEL_BLOCK_VALUES; block++) {
        float d = half_from_f16(u16_at(data, lane));
        float m = type == WEIGHT_Q4_1 ? half_from_f16(u16_at(data, WEIGHT_PANEL_ROWS + lane)) : 0;
        const uint8_t *words = data + panel_scale_bytes(type) + 4 * lane;
        for (size_t k = 0; k < PANEL_BLOCK_VALUES; k++) {
            if (type == WEIGHT_Q8_0) {
                *out++ = d * (float)(words[k / 4 * word_stride + k % 4] - 128);
                continue;
            }
            int q = (words[k / 8 * word_stride + k % 8 / 2] >> (k % 2 * 4)) & 15;
            *out++ = type == WEIGHT_Q4_1 ? d * (float)q + m : d * (float)(q - 8);
        }
        data += panel_block_bytes(type);
    }
}

void weight_row_to_f32(const struct weight *weight, int32_t row, float *out)
{
    ASSERT(row >= 0 && row < weight->d_out);
    const uint8_t *data = panel_data(weight, row / WEIGHT_PANEL_ROWS);
    size_t lane = (size_t)(row % WEIGHT_PANEL_ROWS);
    if (panel_type_quantized(weight->type)) {
        quantized_row_to_f32(weight->type, data, lane, weight->d_in, out);
        return;
    }
    for (int32_t k = 0; k < weight->d_in; k++) {
        size_t index = (size_t)k * WEIGHT_PANEL_ROWS + lane;
        if (weight->type == WEIGHT_F32)
            memcpy(&out[k], data + 4 * index, sizeof(float));
        else if (weight->type == WEIGHT_F16)
            out[k] = half_from_f16(u16_at(data, index));
        else
            out[k] = half_from_bf16(u16_at(data, index));
    }
}

void panel_unpack(const struct weight *weight, int32_t panel, int32_t k_first, int32_t k_count,
                  float *out)
{
    static panel_unpack_fn *const by_isa[] = {panel_unpack_portable, panel_unpack_avx2,
                                              panel_unpack_avx512, panel_unpack_avx512};
    by_isa[cpu_isa()](weight, panel, k_first, k_count, out);
}

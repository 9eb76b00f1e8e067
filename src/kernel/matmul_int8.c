// SPDX-License-Identifier: Apache-2.0
// See matmul_int8.h. The portable body and the reference.
#include "kernel/matmul_int8.h"

#include "kernel/lanes.h"

#define INT8_SUFFIX portable
#define INT8_ROWS 4

static int32_t byte_at(uint32_t word, int i)
{
    return (int8_t)(uint8_t)(word >> (8 * i));
}

// Nibbles are the same as signed bytes.
LANES_FN ivec dot_nibbles(ivec sum, ivec w, ivec x)
{
    LANES_LOOP
    for (int i = 0; i < 4; i++)
        sum.i[lane] += (uint32_t)(byte_at(w.i[lane], i) * byte_at(x.i[lane], i));
    return sum;
}

LANES_FN vec nibbles_scaled(ivec sum, ivec factor, vec scale)
{
    (void)factor;
    return vec_mul(vec_from_int(sum), scale);
}

LANES_FN ivec dot_bytes(ivec sum, ivec w, ivec x)
{
    LANES_LOOP
    for (int i = 0; i < 4; i++)
        sum.i[lane] += (uint32_t)((int32_t)(w.i[lane] >> 8 * i & 255) * byte_at(x.i[lane], i));
    return sum;
}

#define dot_pairs ivec_dot_pairs

#include "kernel/matmul_int8_body.h"

bool matmul_int8_takes(const struct weight *weight)
{
    return panel_type_quantized(weight->type);
}

unsigned matmul_int8_form(const struct weight *weight, bool coarse)
{
    if (!matmul_int8_takes(weight))
        return 0;
    if (weight->type != WEIGHT_Q8_0)
        return ROW_QUANT_NARROW;
    return coarse ? ROW_QUANT_PAIRS : ROW_QUANT_WIDE;
}

// Scale, minimum and quants [32] of one block of row `row`: w = d * q + m.
static void block_of(const struct weight *weight, int32_t row, int32_t block, float *d, float *m,
                     int32_t *q)
{
    const uint8_t *data = panel_data(weight, row / WEIGHT_PANEL_ROWS) +
                          (size_t)block * panel_block_bytes(weight->type);
    const size_t lane = (size_t)(row % WEIGHT_PANEL_ROWS);
    const uint16_t *scales = (const uint16_t *)(const void *)data;
    const uint8_t *words = data + panel_scale_bytes(weight->type) + 4 * lane;
    *d = half_from_f16(scales[lane]);
    *m = weight->type == WEIGHT_Q4_1   ? half_from_f16(scales[WEIGHT_PANEL_ROWS + lane])
         : weight->type == WEIGHT_Q4_0 ? -8 * *d
                                       : 0;
    for (int k = 0; k < PANEL_BLOCK_VALUES; k++) {
        if (weight->type == WEIGHT_Q8_0) {
            q[k] = words[k / 4 * 4 * WEIGHT_PANEL_ROWS + k % 4] - 128;
            continue;
        }
        q[k] = words[k / 8 * 4 * WEIGHT_PANEL_ROWS + k % 8 / 2] >> (k % 2 * 4) & 15;
    }
}

static float narrow_ref(const struct weight *weight, const struct row_quant *quant, int32_t row,
                        int32_t output, const float *weights)
{
    const struct row_narrow *narrow = &quant->narrow;
    const size_t blocks = (size_t)quant->d_in / PANEL_BLOCK_VALUES, first = (size_t)row * blocks;
    float sum = 0;
    for (size_t b = 0; b < blocks; b++) {
        int32_t q[PANEL_BLOCK_VALUES], dot = 0;
        float d, m, scale = narrow->scales[first + b];
        const int8_t *x = narrow->q + (first + b) * PANEL_BLOCK_VALUES;
        block_of(weight, output, (int32_t)b, &d, &m, q);
        for (int k = 0; k < PANEL_BLOCK_VALUES; k++)
            dot += q[k] * x[k / 8 * 8 + row_quant_place(quant->forms, k % 8)];
        if (weight->type == WEIGHT_Q8_0) {
            sum = fmaf((float)dot, d * scale, sum);
            continue;
        }
        sum = fmaf((float)dot * scale, d, sum);
        sum = fmaf(m, narrow->offsets[first + b], sum);
    }
    sum *= narrow->row_scales[row];
    for (int32_t i = 0; i < narrow->spike_counts[row]; i++) {
        const struct row_spike *spike = &narrow->spikes[first + (size_t)i];
        sum = fmaf(weights[spike->k], spike->value, sum);
    }
    return sum;
}

static float wide_ref(const struct weight *weight, const struct row_quant *quant, int32_t row,
                      int32_t output)
{
    static const uint8_t places[4] = {0, 2, 1, 3};
    const size_t blocks = (size_t)quant->d_in / PANEL_BLOCK_VALUES, first = (size_t)row * blocks;
    float sum = 0;
    for (size_t b = 0; b < blocks; b++) {
        int32_t q[PANEL_BLOCK_VALUES], dot = 0;
        float d, m;
        const int16_t *x = quant->wide.q + (first + b) * PANEL_BLOCK_VALUES;
        block_of(weight, output, (int32_t)b, &d, &m, q);
        for (int k = 0; k < PANEL_BLOCK_VALUES; k++)
            dot += q[k] * x[k / 4 * 4 + places[k % 4]];
        sum = fmaf((float)dot, d * quant->wide.scales[first + b], sum);
    }
    return sum;
}

void matmul_int8_ref(const struct weight *weight, const struct row_quant *quant, float *y,
                     float *scratch)
{
    const bool wide = weight->type == WEIGHT_Q8_0 && (quant->forms & ROW_QUANT_PAIRS) == 0;
    for (int32_t output = 0; output < weight->d_out; output++) {
        weight_row_to_f32(weight, output, scratch);
        for (int32_t row = 0; row < quant->m; row++)
            y[(size_t)row * (size_t)weight->d_out + (size_t)output] =
                wide ? wide_ref(weight, quant, row, output)
                     : narrow_ref(weight, quant, row, output, scratch);
    }
}

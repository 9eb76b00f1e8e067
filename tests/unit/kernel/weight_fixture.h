// SPDX-License-Identifier: Apache-2.0
// Random weight matrices of every type, with the source rows they were packed from. Included by
// the kernel tests only.
#ifndef TEST_WEIGHT_FIXTURE_H
#define TEST_WEIGHT_FIXTURE_H

#include "kernel/weight.h"
#include "kernel_fixture.h"

static const enum weight_type weight_types[] = {WEIGHT_F32,  WEIGHT_F16,  WEIGHT_BF16,
                                                WEIGHT_Q4_0, WEIGHT_Q4_1, WEIGHT_Q8_0};
#define WEIGHT_TYPE_COUNT (sizeof weight_types / sizeof weight_types[0])

// d_out source rows in the layout of the type; scales of both signs, now and then zero or tiny.
static inline uint8_t *random_rows(struct rng *rng, enum weight_type type, int32_t d_out,
                                   int32_t d_in)
{
    size_t bytes = (size_t)d_out * weight_type_row_bytes(type, d_in);
    size_t block = (size_t)weight_type_block_bytes(type);
    uint8_t *rows = calloc(bytes + 1, 1);
    assert_non_null(rows);
    for (size_t i = 0; i < bytes; i++)
        rows[i] = (uint8_t)rng_u64(rng);
    for (size_t i = 0; i < bytes; i += block) {
        float value = (float)rng_normal(rng);
        float scale = rng_below(rng, 50) == 0 ? 0.0f : value * (rng_below(rng, 9) ? 0.05f : 1e-6f);
        uint16_t halves[2] = {half_to_f16(scale), half_to_f16((float)rng_normal(rng))};
        uint16_t bf16 = half_to_bf16(value);
        if (type == WEIGHT_F32)
            memcpy(rows + i, &value, 4);
        else if (type == WEIGHT_BF16)
            memcpy(rows + i, &bf16, 2);
        else if (type == WEIGHT_F16)
            memcpy(rows + i, &halves[1], 2);
        else
            memcpy(rows + i, halves, type == WEIGHT_Q4_1 ? 4 : 2);
    }
    return rows;
}

static inline void pack_rows(struct weight *weight, const uint8_t *rows)
{
    size_t row_bytes = weight_type_row_bytes(weight->type, weight->d_in);
    for (int32_t panel = 0; panel < weight_panel_count(weight); panel++) {
        const void *sixteen[WEIGHT_PANEL_ROWS];
        for (int32_t i = 0; i < WEIGHT_PANEL_ROWS; i++) {
            int32_t row = panel * WEIGHT_PANEL_ROWS + i;
            sixteen[i] = row < weight->d_out ? rows + (size_t)row * row_bytes : NULL;
        }
        weight_pack_panel(weight, panel, sixteen);
    }
}

static inline struct weight random_weight(struct rng *rng, enum weight_type type, int32_t d_out,
                                          int32_t d_in)
{
    struct weight weight;
    struct sora_error err;
    assert_int_equal(weight_init(&weight, type, d_out, d_in, &err), SORA_OK);
    uint8_t *rows = random_rows(rng, type, d_out, d_in);
    pack_rows(&weight, rows);
    free(rows);
    return weight;
}

#endif

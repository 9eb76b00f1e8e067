// SPDX-License-Identifier: Apache-2.0
// A chunk of attention with keys and values of 16 bits by instruction set, how they are stored, and
// the portable body.
#define ATTENTION_I16_SUFFIX portable
#include "kernel/attention_i16_body.h"

static const struct i16_kernels {
    attention_i16_fn *score, *soften, *weigh;
    attention_to_i16_fn *to_i16;
} kernels[] = {
    {attention_score_i16_portable, attention_soften_i16_portable, attention_weigh_i16_portable,
     attention_to_i16_portable},
    {attention_score_i16_avx2, attention_soften_i16_avx2, attention_weigh_i16_avx2,
     attention_to_i16_avx2},
    {attention_score_i16_avx512, attention_soften_i16_avx512, attention_weigh_i16_avx512,
     attention_to_i16_avx512},
    {attention_score_i16_vnni, attention_soften_i16_vnni, attention_weigh_i16_vnni,
     attention_to_i16_vnni},
};

static void quantize_queries(const struct i16_kernels *with, const struct attention_chunk *work)
{
    const struct attention_shape *shape = work->shape;
    const size_t d = (size_t)shape->head_dim;
    const float sum_max = I16_SUM_MAX(ATTENTION_KEY_LEVELS, shape->head_dim);
    for (size_t h = 0; h < (size_t)(shape->head_count / shape->kv_head_count); h++)
        work->i16->q_scales[h] =
            shape->scale * with->to_i16(work->q + h * d, shape->head_dim, INT16_MAX, sum_max,
                                        work->i16->q + h * d);
}

void attention_chunk_i16(enum cpu_isa isa, const struct attention_chunk *work)
{
    int32_t first, end;
    seen_positions(work, &first, &end);
    quantize_queries(&kernels[isa], work);
    kernels[isa].score(work, first, end);
    kernels[isa].soften(work, first, end);
    kernels[isa].weigh(work, first, end);
}

void attention_store_i16(enum cpu_isa isa, const struct attention_shape *shape,
                         const struct attention_cache *cache, int32_t slot, const float *key,
                         const float *value)
{
    attention_to_i16_fn *to_i16 = kernels[isa].to_i16;
    const size_t d = (size_t)shape->head_dim, token = (size_t)(slot % SORA_KV_BLOCK_TOKENS);
    const size_t start = (size_t)(slot / SORA_KV_BLOCK_TOKENS) * cache->block_stride;
    const size_t head = attention_head_elements(SORA_I16, shape->head_dim);
    int16_t q[SORA_HEAD_DIM_MAX];
    for (size_t g = 0; g < (size_t)shape->kv_head_count; g++) {
        int16_t *keys = (int16_t *)cache->keys + start + g * head;
        int16_t *values = (int16_t *)cache->values + start + g * head;
        float scale = to_i16(key + g * d, shape->head_dim, ATTENTION_KEY_LEVELS, FLT_MAX, q);
        for (size_t i = 0; i < d; i++)
            keys[2 * (i / 2 * SORA_KV_BLOCK_TOKENS + token) + i % 2] = q[i];
        memcpy(keys + d * SORA_KV_BLOCK_TOKENS + 2 * token, &scale, sizeof scale);
        scale = to_i16(value + g * d, shape->head_dim, ATTENTION_VALUE_LEVELS, FLT_MAX, q);
        for (size_t i = 0; i < d; i++)
            values[2 * (token / 2 * d + i) + token % 2] = q[i];
        memcpy(values + d * SORA_KV_BLOCK_TOKENS + 2 * token, &scale, sizeof scale);
    }
}

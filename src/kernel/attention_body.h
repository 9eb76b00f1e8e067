// SPDX-License-Identifier: Apache-2.0
// The body of attention_task, compiled once per instruction set by attention.c and
// attention_avx2.c, which define ATTENTION_SUFFIX. Two passes over the cache, block by block, all
// query heads of a kv head on each block while it is near: scores, then the weighted values.
// Orders: a score is one vector of 8 lanes over D (lane l takes d = l, l + 8, ...), summed as
// vec_sum does; the softmax's sum has position start + i in lane i mod 8; an output is one chain
// of fused multiply-adds over the positions.
#ifndef KERNEL_ATTENTION_BODY_H
#define KERNEL_ATTENTION_BODY_H

#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"

#define ATTENTION_PASTE_AGAIN(name, suffix) name##_##suffix
#define ATTENTION_PASTE(name, suffix) ATTENTION_PASTE_AGAIN(name, suffix)

// Up to 8 scores: q [d] with `count` keys [count][d].
LANES_FN void score_eight(const float *q, const float *keys, int32_t d, int32_t count, float scale,
                          float *scores)
{
    const float *key[8];
    vec acc[8];
    LANES_UNROLL(8)
    for (int i = 0; i < 8; i++) {
        key[i] = keys + (size_t)(i < count ? i : count - 1) * (size_t)d;
        acc[i] = vec_zero();
    }
    int32_t k = 0;
    for (; k + VEC_LANES <= d; k += VEC_LANES) {
        vec each = vec_load(q + k);
        LANES_UNROLL(8)
        for (int i = 0; i < 8; i++)
            acc[i] = vec_fma(each, vec_load(key[i] + k), acc[i]);
    }
    if (k < d) {
        vec each = vec_load_part(q + k, d - k);
        for (int i = 0; i < 8; i++)
            acc[i] = vec_fma(each, vec_load_part(key[i] + k, d - k), acc[i]);
    }
    vec_store_part(scores, vec_mul(vec_sum_each(acc), vec_set1(scale)), count);
}

// scores [count] become probabilities; room up to the next multiple of 8 is overwritten.
LANES_FN void softmax_scores(float *scores, int32_t count)
{
    const int32_t padded = (count + VEC_LANES - 1) / VEC_LANES * VEC_LANES;
    for (int32_t i = count; i < padded; i++)
        scores[i] = -INFINITY; // whose e^x is 0
    vec max = vec_set1(-INFINITY);
    for (int32_t i = 0; i < padded; i += VEC_LANES)
        max = vec_max(max, vec_load(scores + i));
    float lanes[VEC_LANES];
    vec_store(lanes, max);
    for (int i = 1; i < VEC_LANES; i++)
        lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    max = vec_set1(lanes[0]);
    vec sum = vec_zero();
    for (int32_t i = 0; i < padded; i += VEC_LANES) {
        vec e = vec_exp(vec_sub(vec_load(scores + i), max));
        vec_store(scores + i, e);
        sum = vec_add(sum, e);
    }
    vec inverse = vec_set1(1.0f / vec_sum(sum));
    for (int32_t i = 0; i < padded; i += VEC_LANES)
        vec_store(scores + i, vec_mul(vec_load(scores + i), inverse));
}

// out[0 .. 8 vecs) += weights [count] x values [count][d]; the last vector may be ragged.
LANES_FN void weigh_tile(int vecs, const float *weights, const float *values, size_t d,
                         int32_t count, int32_t left, float *out)
{
    vec acc[8];
    LANES_UNROLL(8)
    for (int v = 0; v < vecs; v++)
        acc[v] = vec_load_part(out + v * VEC_LANES, left - v * VEC_LANES);
    for (int32_t i = 0; i < count; i++) {
        const float *value = values + (size_t)i * d;
        vec weight = vec_set1(weights[i]);
        LANES_UNROLL(8)
        for (int v = 0; v < vecs; v++)
            acc[v] =
                vec_fma(weight, vec_load_part(value + v * VEC_LANES, left - v * VEC_LANES), acc[v]);
    }
    LANES_UNROLL(8)
    for (int v = 0; v < vecs; v++)
        vec_store_part(out + v * VEC_LANES, acc[v], left - v * VEC_LANES);
}

LANES_FN void weigh_values(const float *weights, const float *values, int32_t d, int32_t count,
                           float *out)
{
    int32_t k = 0;
    for (; k + 8 * VEC_LANES <= d; k += 8 * VEC_LANES)
        weigh_tile(8, weights, values + k, (size_t)d, count, 8 * VEC_LANES, out + k);
    for (; k + 4 * VEC_LANES <= d; k += 4 * VEC_LANES)
        weigh_tile(4, weights, values + k, (size_t)d, count, 4 * VEC_LANES, out + k);
    for (; k < d; k += VEC_LANES)
        weigh_tile(1, weights, values + k, (size_t)d, count, d - k, out + k);
}

void ATTENTION_PASTE(attention_task, ATTENTION_SUFFIX)(const struct attention_shape *shape,
                                                       const struct attention_cache *cache,
                                                       const struct attention_row *row,
                                                       int32_t kv_head, const float *q, float *out,
                                                       float *scores, size_t score_stride)
{
    const int32_t d = shape->head_dim, block_tokens = SORA_KV_BLOCK_TOKENS;
    const int32_t heads = shape->head_count / shape->kv_head_count, head_first = kv_head * heads;
    const int32_t start = attention_start(shape, row->pos), end = row->pos + 1;
    const size_t head_offset = (size_t)kv_head * SORA_KV_BLOCK_TOKENS * (size_t)d;
    q += (size_t)head_first * (size_t)d;
    out += (size_t)head_first * (size_t)d;
    for (int32_t p = start, next; p < end; p = next) {
        next = p / block_tokens * block_tokens + block_tokens;
        next = next < end ? next : end;
        const float *keys = cache->keys +
                            (size_t)row->blocks[p / block_tokens] * cache->block_stride +
                            head_offset + (size_t)(p % block_tokens) * (size_t)d;
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < next - p; i += 8)
                score_eight(q + (size_t)h * (size_t)d, keys + (size_t)i * (size_t)d, d,
                            next - p - i < 8 ? next - p - i : 8, shape->scale,
                            scores + (size_t)h * score_stride + (p - start) + i);
    }
    for (int32_t h = 0; h < heads; h++)
        softmax_scores(scores + (size_t)h * score_stride, end - start);
    memset(out, 0, (size_t)heads * (size_t)d * sizeof(float));
    for (int32_t p = start, next; p < end; p = next) {
        next = p / block_tokens * block_tokens + block_tokens;
        next = next < end ? next : end;
        const float *values = cache->values +
                              (size_t)row->blocks[p / block_tokens] * cache->block_stride +
                              head_offset + (size_t)(p % block_tokens) * (size_t)d;
        for (int32_t h = 0; h < heads; h++)
            weigh_values(scores + (size_t)h * score_stride + (p - start), values, d, next - p,
                         out + (size_t)h * (size_t)d);
    }
}

#endif

// SPDX-License-Identifier: Apache-2.0
// The bodies of attention's kernels, compiled once per instruction set by attention.c and
// attention_avx2.c, which define ATTENTION_SUFFIX. Two passes over a chunk of the cache, block by
// block, all rows and query heads of a kv head on each block while it is near: scores, then the
// weighted values.
// Orders: a score is one vector of 8 lanes over D (lane l takes d = l, l + 8, ...), summed as
// vec_sum does; the softmax's sum has the row's i-th position of the chunk in lane i mod 8; an
// output is one chain of fused multiply-adds over the chunk's positions.
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

// scores [count] become e^(score - max); room up to the next multiple of 8 is overwritten.
LANES_FN void exponentials(float *scores, int32_t count, float *max_out, float *sum_out)
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
    *max_out = lanes[0];
    *sum_out = vec_sum(sum);
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

// Tokens [first, end) of one kv head's part of a block as f32, at tile + first * D; asks for the
// next block's, which no hardware can foresee.
LANES_FN const float *block_tile(const struct attention_chunk *work, const void *cells,
                                 int32_t block, int32_t next_block, int32_t first, int32_t end)
{
    const size_t d = (size_t)work->shape->head_dim;
    const size_t offset = (size_t)work->kv_head * SORA_KV_BLOCK_TOKENS * d;
    const size_t at = (size_t)block * work->cache->block_stride + offset;
    const size_t next = (size_t)next_block * work->cache->block_stride + offset;
    const size_t width = work->cache->dtype == SORA_F32 ? sizeof(float) : sizeof(uint16_t);
    const uint8_t *ahead = (const uint8_t *)cells + next * width;
    for (size_t line = 0; line < SORA_KV_BLOCK_TOKENS * d * width; line += 64)
        __builtin_prefetch(ahead + line, 0, 3);
    if (work->cache->dtype == SORA_F32)
        return (const float *)cells + at;
    const uint16_t *from = (const uint16_t *)cells + at;
    for (size_t i = (size_t)first * d; i < (size_t)end * d; i += VEC_LANES) {
        size_t left = (size_t)end * d - i;
        vec_store_part(work->tile + i,
                       vec_load_part_as(SORA_F16, from, i, left < VEC_LANES ? (int32_t)left : 8),
                       left < VEC_LANES ? (int32_t)left : VEC_LANES);
    }
    return work->tile;
}

struct reach {
    int32_t first, end; // positions of a row in the chunk
};

// One pass over the chunk's blocks: scores (of keys) or weighted sums (of values).
LANES_FN void pass_blocks(const struct attention_chunk *work, const struct reach *reach,
                          const void *cells, bool values)
{
    const struct attention_shape *shape = work->shape;
    const int32_t d = shape->head_dim, heads = shape->head_count / shape->kv_head_count;
    const size_t row_width = (size_t)shape->head_count * (size_t)d;
    int32_t first = reach[0].first, end = reach[0].end;
    for (int32_t r = 1; r < work->row_count; r++) {
        first = reach[r].first < first ? reach[r].first : first;
        end = reach[r].end > end ? reach[r].end : end;
    }
    for (int32_t p = first, next; p < end; p = next) {
        const int32_t number = p / SORA_KV_BLOCK_TOKENS, start = number * SORA_KV_BLOCK_TOKENS;
        next = start + SORA_KV_BLOCK_TOKENS < end ? start + SORA_KV_BLOCK_TOKENS : end;
        const int32_t *blocks = work->rows[0].blocks;
        const float *tile =
            block_tile(work, cells, blocks[number], blocks[next < end ? number + 1 : number],
                       p - start, next - start);
        for (int32_t r = 0; r < work->row_count; r++) {
            const int32_t low = reach[r].first > p ? reach[r].first : p;
            const int32_t high = reach[r].end < next ? reach[r].end : next;
            const float *entries = tile + (size_t)(low - start) * (size_t)d;
            const float *q =
                work->q + (size_t)r * row_width + (size_t)(work->kv_head * heads) * (size_t)d;
            float *part = work->parts + (size_t)r * attention_part_floats(shape);
            for (int32_t h = 0; h < heads && low < high; h++) {
                float *scores = work->scores + (size_t)(r * heads + h) * ATTENTION_CHUNK_TOKENS +
                                (low - reach[r].first);
                if (values) {
                    weigh_values(scores, entries, d, high - low,
                                 part + 2 * heads + (size_t)h * (size_t)d);
                    continue;
                }
                for (int32_t i = 0; i < high - low; i += 8)
                    score_eight(q + (size_t)h * (size_t)d, entries + (size_t)i * (size_t)d, d,
                                high - low - i < 8 ? high - low - i : 8, shape->scale, scores + i);
            }
        }
    }
}

void ATTENTION_PASTE(attention_chunk, ATTENTION_SUFFIX)(const struct attention_chunk *work)
{
    const struct attention_shape *shape = work->shape;
    const int32_t heads = shape->head_count / shape->kv_head_count;
    struct reach reach[ATTENTION_RUN_ROWS_MAX] = {{0, 0}};
    for (int32_t r = 0; r < work->row_count; r++) {
        int32_t start = attention_start(shape, work->rows[r].pos), end = work->rows[r].pos + 1;
        reach[r].first = start > work->first ? start : work->first;
        reach[r].end = end < work->end ? end : work->end;
    }
    pass_blocks(work, reach, work->cache->keys, false);
    for (int32_t r = 0; r < work->row_count; r++) {
        float *part = work->parts + (size_t)r * attention_part_floats(shape);
        memset(part, 0, attention_part_floats(shape) * sizeof(float));
        for (int32_t h = 0; h < heads && reach[r].first < reach[r].end; h++)
            exponentials(work->scores + (size_t)(r * heads + h) * ATTENTION_CHUNK_TOKENS,
                         reach[r].end - reach[r].first, &part[h], &part[heads + h]);
    }
    pass_blocks(work, reach, work->cache->values, true);
}

LANES_FN float exp_one(float x)
{
    float lanes[VEC_LANES];
    vec_store(lanes, vec_exp(vec_set1(x)));
    return lanes[0];
}

// A part without positions has the sum 0.
void ATTENTION_PASTE(attention_merge, ATTENTION_SUFFIX)(const struct attention_shape *shape,
                                                        float *into, const float *part)
{
    const int32_t d = shape->head_dim, heads = shape->head_count / shape->kv_head_count;
    for (int32_t h = 0; h < heads; h++) {
        if (part[heads + h] == 0)
            continue;
        const float max = into[heads + h] == 0 || part[h] > into[h] ? part[h] : into[h];
        const float kept = into[heads + h] == 0 ? 0 : exp_one(into[h] - max);
        const float added = exp_one(part[h] - max);
        float *to = into + 2 * heads + (size_t)h * (size_t)d;
        const float *from = part + 2 * heads + (size_t)h * (size_t)d;
        into[heads + h] = into[heads + h] * kept + part[heads + h] * added;
        into[h] = max;
        for (int32_t i = 0; i < d; i += VEC_LANES) {
            vec sum = vec_mul(vec_load_part(to + i, d - i), vec_set1(kept));
            sum = vec_fma(vec_load_part(from + i, d - i), vec_set1(added), sum);
            vec_store_part(to + i, sum, d - i);
        }
    }
}

void ATTENTION_PASTE(attention_finish, ATTENTION_SUFFIX)(const struct attention_shape *shape,
                                                         const float *part, float *out)
{
    const int32_t d = shape->head_dim, heads = shape->head_count / shape->kv_head_count;
    for (int32_t h = 0; h < heads; h++) {
        const vec inverse = vec_set1(1.0f / part[heads + h]);
        const float *from = part + 2 * heads + (size_t)h * (size_t)d;
        for (int32_t i = 0; i < d; i += VEC_LANES)
            vec_store_part(out + (size_t)h * (size_t)d + i,
                           vec_mul(vec_load_part(from + i, d - i), inverse), d - i);
    }
}

void ATTENTION_PASTE(attention_to_f16, ATTENTION_SUFFIX)(const float *from, size_t count,
                                                         uint16_t *to)
{
    const vec most = vec_set1(65504.0f), least = vec_set1(-65504.0f);
    for (size_t i = 0; i < count; i += VEC_LANES) {
        int32_t left = count - i < VEC_LANES ? (int32_t)(count - i) : VEC_LANES;
        vec value = vec_min(most, vec_max(least, vec_load_part(from + i, left)));
        if (left == VEC_LANES) {
            vec_store_f16(to + i, value);
            continue;
        }
        uint16_t halves[VEC_LANES];
        vec_store_f16(halves, value);
        memcpy(to + i, halves, (size_t)left * sizeof *to);
    }
}

#endif

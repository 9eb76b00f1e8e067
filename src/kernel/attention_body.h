// SPDX-License-Identifier: Apache-2.0
// The bodies of attention's kernels, compiled once per instruction set by attention.c and
// attention_avx2.c, which define ATTENTION_SUFFIX. Two passes over a chunk of the cache: scores of
// whole blocks, for all query heads of a kv head at once, then the weighted values.
// Orders: a score is one chain of fused multiply-adds over D; the softmax's sum has position p in
// lane p mod 8; an output is one chain over the chunk's positions.
#ifndef KERNEL_ATTENTION_BODY_H
#define KERNEL_ATTENTION_BODY_H

#include "kernel/attention_cells.h"
#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"

#define ATTENTION_PASTE_AGAIN(name, suffix) name##_##suffix
#define ATTENTION_PASTE(name, suffix) ATTENTION_PASTE_AGAIN(name, suffix)

LANES_FN vec load_cell(enum sora_dtype dtype, const void *cells, size_t index)
{
    return dtype == SORA_F32 ? vec_load((const float *)cells + index)
                             : vec_load_f16((const uint16_t *)cells + index);
}

// Scores of `count` whole blocks of the row, from `number` on, for `heads` heads: q [heads][D],
// keys [D][T] of each block. Block i's scores of head h go to
// scores + h * ATTENTION_CHUNK_TOKENS + i * T. first: position where the chunk begins for the row.
LANES_FN void score_blocks(enum sora_dtype dtype, int heads, int count,
                           const struct attention_chunk *work, int32_t number, int32_t first,
                           const float *q, float *scores)
{
    const size_t d = (size_t)work->shape->head_dim;
    size_t at[4];
    const uint8_t *next[4];
    vec acc[16];
    for (int i = 0; i < count; i++) {
        at[i] = head_offset(dtype, work, work->row->blocks[number + i], work->kv_head);
        next[i] = next_cells(dtype, work, work->cache->keys, number + i, first);
    }
    LANES_UNROLL(16)
    for (int i = 0; i < heads * count * BLOCK_VECS; i++)
        acc[i] = vec_zero();
    for (size_t k = 0; k < d; k++) {
        const size_t byte = k * SORA_KV_BLOCK_TOKENS * dtype_bytes(dtype);
        if (byte % 64 == 0) {
            LANES_UNROLL(4)
            for (int i = 0; i < count; i++)
                __builtin_prefetch(next[i] + byte, 0, 2);
        }
        vec each[3]; // 12 sums, 3 queries and a key are all the registers
        LANES_UNROLL(4)
        for (int h = 0; h < heads; h++)
            each[h] = vec_set1(q[(size_t)h * d + k]);
        LANES_UNROLL(8)
        for (int i = 0; i < count * BLOCK_VECS; i++) {
            vec key = load_cell(dtype, work->cache->keys,
                                at[i / BLOCK_VECS] + k * SORA_KV_BLOCK_TOKENS +
                                    (size_t)(i % BLOCK_VECS * VEC_LANES));
            LANES_UNROLL(4)
            for (int h = 0; h < heads; h++)
                acc[h * count * BLOCK_VECS + i] =
                    vec_fma(each[h], key, acc[h * count * BLOCK_VECS + i]);
        }
    }
    const vec scale = vec_set1(work->shape->scale);
    LANES_UNROLL(16)
    for (int i = 0; i < heads * count * BLOCK_VECS; i++)
        vec_store(scores + (size_t)(i / (count * BLOCK_VECS)) * ATTENTION_CHUNK_TOKENS +
                      i % (count * BLOCK_VECS) * VEC_LANES,
                  vec_mul(acc[i], scale));
}

// All blocks of the chunk that hold positions of the row, `count` at a time.
LANES_FN void score_heads(enum sora_dtype dtype, int heads, int count,
                          const struct attention_chunk *work, int32_t first, int32_t end,
                          const float *q, float *scores)
{
    int32_t number = first / SORA_KV_BLOCK_TOKENS;
    const int32_t last = (end - 1) / SORA_KV_BLOCK_TOKENS;
    const int32_t *blocks = work->row->blocks;
    const int32_t base = work->first / SORA_KV_BLOCK_TOKENS;
    while (number <= last) {
        const int taken = last - number + 1 >= count ? count : 1;
        for (int32_t i = 0; i < taken && work->cold; i++) {
            prefetch_block(dtype, work, work->cache->values, blocks[number + i]);
            if (number + taken + i <= last)
                prefetch_block(dtype, work, work->cache->keys, blocks[number + taken + i]);
        }
        float *to = scores + (number - base) * SORA_KV_BLOCK_TOKENS;
        if (taken == count)
            score_blocks(dtype, heads, count, work, number, first, q, to);
        else
            score_blocks(dtype, heads, 1, work, number, first, q, to);
        number += taken;
    }
}

// As many blocks at a time as the registers hold sums for.
LANES_FN void score_row(enum sora_dtype dtype, const struct attention_chunk *work, int32_t first,
                        int32_t end)
{
    const int32_t heads = work->shape->head_count / work->shape->kv_head_count;
    for (int32_t h = 0; h < heads;) {
        const float *q = work->q + (size_t)h * (size_t)work->shape->head_dim;
        float *scores = work->scores + (size_t)h * ATTENTION_CHUNK_TOKENS;
        if (heads - h >= 3) {
            score_heads(dtype, 3, 2, work, first, end, q, scores);
            h += 3;
        } else if (heads - h == 2) {
            score_heads(dtype, 2, 2, work, first, end, q, scores);
            h += 2;
        } else {
            score_heads(dtype, 1, 4, work, first, end, q, scores);
            h++;
        }
    }
}

// The scores of positions [first, end) of a chunk become e^(score - max), those beside them in
// their vectors what a sum does not feel. scores is that of the chunk's first position.
LANES_FN void exponentials(float *scores, int32_t first, int32_t end, float *max_out,
                           float *sum_out)
{
    const int32_t low = first / VEC_LANES * VEC_LANES;
    const int32_t high = (end + VEC_LANES - 1) / VEC_LANES * VEC_LANES;
    for (int32_t i = low; i < first; i++)
        scores[i] = -INFINITY;
    for (int32_t i = end; i < high; i++)
        scores[i] = -INFINITY;
    vec max = vec_set1(-INFINITY);
    for (int32_t i = low; i < high; i += VEC_LANES)
        max = vec_max(max, vec_load(scores + i));
    *max_out = vec_largest(max);
    max = vec_set1(*max_out);
    vec sum = vec_zero();
    for (int32_t i = low; i < high; i += VEC_LANES) {
        vec e = vec_exp_of_negative(vec_sub(vec_load(scores + i), max));
        vec_store(scores + i, e);
        sum = vec_add(sum, e);
    }
    *sum_out = vec_sum(sum);
}

// out [heads][D], from element k on, `vecs` vectors wide (the last may be ragged): the weighted
// values of positions [first, end). weights: of the chunk's first position.
LANES_FN void weigh_tile(enum sora_dtype dtype, int heads, int vecs,
                         const struct attention_chunk *work, size_t k, int32_t first, int32_t end,
                         const float *weights, float *out)
{
    const size_t d = (size_t)work->shape->head_dim;
    const int32_t left = (int32_t)(d - k);
    vec acc[16];
    LANES_UNROLL(16)
    for (int i = 0; i < heads * vecs; i++)
        acc[i] = vec_zero();
    for (int32_t p = first, next; p < end; p = next) {
        const int32_t number = p / SORA_KV_BLOCK_TOKENS, start = number * SORA_KV_BLOCK_TOKENS;
        next = start + SORA_KV_BLOCK_TOKENS < end ? start + SORA_KV_BLOCK_TOKENS : end;
        const size_t in_block = (size_t)(p - start) * d + k;
        size_t cell = head_offset(dtype, work, work->row->blocks[number], work->kv_head) + in_block;
        const uint8_t *ahead = next_cells(dtype, work, work->cache->values, number, first) +
                               in_block * dtype_bytes(dtype);
        for (int32_t i = p - work->first; i < next - work->first; i++, cell += d) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += d * dtype_bytes(dtype);
            vec weight[3];
            LANES_UNROLL(4)
            for (int h = 0; h < heads; h++)
                weight[h] = vec_set1(weights[h * ATTENTION_CHUNK_TOKENS + i]);
            LANES_UNROLL(4)
            for (int v = 0; v < vecs; v++) {
                vec value =
                    vecs > 1 ? load_cell(dtype, work->cache->values, cell + (size_t)(v * VEC_LANES))
                             : vec_load_part_as(dtype, work->cache->values, cell, left);
                LANES_UNROLL(4)
                for (int h = 0; h < heads; h++)
                    acc[h * vecs + v] = vec_fma(weight[h], value, acc[h * vecs + v]);
            }
        }
    }
    LANES_UNROLL(16)
    for (int i = 0; i < heads * vecs; i++) {
        float *to = out + (size_t)(i / vecs) * d + k + (size_t)(i % vecs * VEC_LANES);
        if (vecs > 1)
            vec_store(to, acc[i]);
        else
            vec_store_part(to, acc[i], left);
    }
}

LANES_FN void weigh_heads(enum sora_dtype dtype, int heads, const struct attention_chunk *work,
                          int32_t first, int32_t end, const float *weights, float *out)
{
    const size_t d = (size_t)work->shape->head_dim;
    size_t k = 0;
    for (; k + 4 * VEC_LANES <= d; k += 4 * VEC_LANES)
        weigh_tile(dtype, heads, 4, work, k, first, end, weights, out);
    for (; k < d; k += VEC_LANES)
        weigh_tile(dtype, heads, 1, work, k, first, end, weights, out);
}

LANES_FN void weigh_row(enum sora_dtype dtype, const struct attention_chunk *work, int32_t first,
                        int32_t end, float *out)
{
    const int32_t heads = work->shape->head_count / work->shape->kv_head_count;
    for (int32_t h = 0; h < heads;) {
        const float *weights = work->scores + (size_t)h * ATTENTION_CHUNK_TOKENS;
        float *to = out + (size_t)h * (size_t)work->shape->head_dim;
        if (heads - h >= 3) {
            weigh_heads(dtype, 3, work, first, end, weights, to);
            h += 3;
        } else if (heads - h == 2) {
            weigh_heads(dtype, 2, work, first, end, weights, to);
            h += 2;
        } else {
            weigh_heads(dtype, 1, work, first, end, weights, to);
            h++;
        }
    }
}

void ATTENTION_PASTE(attention_chunk, ATTENTION_SUFFIX)(const struct attention_chunk *work)
{
    const struct attention_shape *shape = work->shape;
    const int32_t heads = shape->head_count / shape->kv_head_count;
    int32_t first, end;
    seen_positions(work, &first, &end);
    const bool f16 = work->cache->dtype == SORA_F16;
    if (f16)
        score_row(SORA_F16, work, first, end);
    else
        score_row(SORA_F32, work, first, end);
    for (int32_t h = 0; h < heads; h++)
        exponentials(work->scores + (size_t)h * ATTENTION_CHUNK_TOKENS, first - work->first,
                     end - work->first, &work->part[h], &work->part[heads + h]);
    if (f16)
        weigh_row(SORA_F16, work, first, end, work->part + 2 * heads);
    else
        weigh_row(SORA_F32, work, first, end, work->part + 2 * heads);
}

LANES_FN float exp_one(float x)
{
    float lanes[VEC_LANES];
    vec_store(lanes, vec_exp(vec_set1(x)));
    return lanes[0];
}

// The first merge is into zeros.
void ATTENTION_PASTE(attention_merge, ATTENTION_SUFFIX)(const struct attention_shape *shape,
                                                        float *into, const float *part)
{
    const int32_t d = shape->head_dim, heads = shape->head_count / shape->kv_head_count;
    for (int32_t h = 0; h < heads; h++) {
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

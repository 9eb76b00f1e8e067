// SPDX-License-Identifier: Apache-2.0
// The bodies of attention with keys and values of 16 bits, compiled once per instruction set by
// attention_i16.c, _avx2.c, _avx512.c and _vnni.c, which define ATTENTION_I16_SUFFIX. Products are
// sums of integers, exact, so that no order and no width counts; softmax between them sums in 16
// lanes everywhere.
#ifndef KERNEL_ATTENTION_I16_BODY_H
#define KERNEL_ATTENTION_I16_BODY_H

#include <float.h>

#include "kernel/attention_cells.h"

#define I16_PASTE_AGAIN(name, suffix) name##_##suffix
#define I16_PASTE(name, suffix) I16_PASTE_AGAIN(name, suffix)

#define HEADS_EACH 3 // heads that read a key or value together
#define VECS_EACH 4  // vectors of outputs beside that: with them all sums are in registers
#define WORD_BYTES 4 // two elements

// Calls run(heads, work, head, first, end) for all heads of the kv head, as many together as go,
// a number that is known where it is compiled.
#define BY_HEADS(run, work, first, end)                                               \
    do {                                                                              \
        const int32_t all = (work)->shape->head_count / (work)->shape->kv_head_count; \
        int32_t head = 0;                                                             \
        for (; head + HEADS_EACH <= all; head += HEADS_EACH)                          \
            run(HEADS_EACH, work, head, first, end);                                  \
        if (all - head == 2)                                                          \
            run(2, work, head, first, end);                                           \
        else if (all - head == 1)                                                     \
            run(1, work, head, first, end);                                           \
    } while (0)

LANES_FN ivec pair_at(const int16_t *pair)
{
    int32_t word;
    memcpy(&word, pair, sizeof word);
    return ivec_set1(word);
}

// --- products with keys ---

// Scores of `count` whole blocks of the row, from `number` on, for heads [head, head + heads).
// Block i's go to scores + h * ATTENTION_CHUNK_TOKENS + i * T. first: position where the chunk
// begins for the row.
LANES_FN void score_blocks(int heads, int count, const struct attention_chunk *work, int32_t head,
                           int32_t number, int32_t first, float *scores)
{
    const size_t d = (size_t)work->shape->head_dim, line = SORA_KV_BLOCK_TOKENS * WORD_BYTES;
    const int16_t *q = work->i16->q + (size_t)head * d;
    const uint8_t *keys[VECS_EACH], *next[VECS_EACH];
    ivec sums[HEADS_EACH * VECS_EACH];
    for (int i = 0; i < count; i++) {
        keys[i] = head_cells(SORA_I16, work, work->cache->keys, work->row->blocks[number + i],
                             work->kv_head);
        next[i] = next_cells(SORA_I16, work, work->cache->keys, number + i, first);
    }
    LANES_UNROLL(16)
    for (int i = 0; i < heads * count * BLOCK_VECS; i++)
        sums[i] = ivec_set1(0);
    for (size_t k = 0; k < d / 2; k++) {
        LANES_UNROLL(4)
        for (int i = 0; i < count; i++)
            __builtin_prefetch(next[i] + k * line, 0, 2);
        ivec each[HEADS_EACH];
        LANES_UNROLL(4)
        for (int h = 0; h < heads; h++)
            each[h] = pair_at(q + (size_t)h * d + 2 * k);
        LANES_UNROLL(8)
        for (int i = 0; i < count * BLOCK_VECS; i++) {
            const ivec key = ivec_load(keys[i / BLOCK_VECS] + k * line +
                                       (size_t)(i % BLOCK_VECS * VEC_LANES * WORD_BYTES));
            LANES_UNROLL(4)
            for (int h = 0; h < heads; h++) {
                ivec *sum = &sums[h * count * BLOCK_VECS + i];
                *sum = ivec_dot_pairs(*sum, key, each[h]);
            }
        }
    }
    LANES_UNROLL(4)
    for (int i = 0; i < count; i++)
        __builtin_prefetch(next[i] + d / 2 * line, 0, 2);
    LANES_UNROLL(16)
    for (int i = 0; i < heads * count * BLOCK_VECS; i++) {
        const int h = i / (count * BLOCK_VECS), v = i % (count * BLOCK_VECS);
        const float *scales = (const float *)(const void *)(keys[v / BLOCK_VECS] + d / 2 * line);
        vec score = vec_mul(vec_from_int(sums[i]), vec_set1(work->i16->q_scales[head + h]));
        score = vec_mul(score, vec_load(scales + v % BLOCK_VECS * VEC_LANES));
        vec_store(scores + h * ATTENTION_CHUNK_TOKENS + v * VEC_LANES, score);
    }
}

// All blocks that hold positions [first, end), several at a time.
LANES_FN void score_heads(int heads, const struct attention_chunk *work, int32_t head,
                          int32_t first, int32_t end)
{
    enum { COUNT = VECS_EACH / BLOCK_VECS };
    const int32_t last = (end - 1) / SORA_KV_BLOCK_TOKENS;
    const int32_t base = work->first / SORA_KV_BLOCK_TOKENS;
    const int32_t *blocks = work->row->blocks;
    float *scores = work->scores + (size_t)head * ATTENTION_CHUNK_TOKENS;
    for (int32_t number = first / SORA_KV_BLOCK_TOKENS, taken; number <= last; number += taken) {
        taken = last - number + 1 >= COUNT ? COUNT : 1;
        for (int32_t i = number; i < number + taken && work->cold; i++) {
            prefetch_block(SORA_I16, work, work->cache->values, blocks[i]);
            if (i + taken <= last)
                prefetch_block(SORA_I16, work, work->cache->keys, blocks[i + taken]);
        }
        float *to = scores + (number - base) * SORA_KV_BLOCK_TOKENS;
        if (taken == COUNT)
            score_blocks(heads, COUNT, work, head, number, first, to);
        else
            score_blocks(heads, 1, work, head, number, first, to);
    }
}

void I16_PASTE(attention_score_i16, ATTENTION_I16_SUFFIX)(const struct attention_chunk *work,
                                                          int32_t first, int32_t end)
{
    BY_HEADS(score_heads, work, first, end);
}

// --- softmax: a block of positions at a time, whatever the vectors' width ---

// What 1 stands for, so that of values with this largest magnitude and this sum of magnitudes none
// is above levels and the sum not above sum_max. NaN when not all are finite.
LANES_FN float scale_of(float largest, float sum, float levels, float sum_max)
{
    const float by_sum = sum * (1 / sum_max), by_largest = largest * (1 / levels);
    const float scale = by_largest > by_sum ? by_largest : by_sum;
    return scale <= FLT_MAX ? scale : NAN;
}

LANES_FN vec inverse_or_0(float scale)
{
    const float inverse = 1 / scale;
    return vec_set1(inverse <= FLT_MAX ? inverse : 0);
}

// The scales of the values of positions [first, end); 0 beside them in their blocks.
LANES_FN void gather_value_scales(const struct attention_chunk *work, int32_t first, int32_t end)
{
    const size_t cells = (size_t)SORA_KV_BLOCK_TOKENS * (size_t)work->shape->head_dim;
    for (int32_t p = first / SORA_KV_BLOCK_TOKENS * SORA_KV_BLOCK_TOKENS; p < end;
         p += SORA_KV_BLOCK_TOKENS) {
        const int32_t block = work->row->blocks[p / SORA_KV_BLOCK_TOKENS];
        const int16_t *values = (const int16_t *)(const void *)head_cells(
            SORA_I16, work, work->cache->values, block, work->kv_head);
        const float *scales = (const float *)(const void *)(values + cells);
        LANES_UNROLL(2)
        for (int32_t i = 0; i < SORA_KV_BLOCK_TOKENS; i += VEC_LANES)
            vec_store(work->i16->value_scales + (p - work->first) + i,
                      vec_keep_lanes(vec_load(scales + i), vec_zero(), first - p - i, end - p - i));
    }
}

// Scores of the blocks of positions [first, end) of a chunk: what is beside the positions becomes
// -infinity. Returns the largest.
LANES_FN float largest_score(float *scores, int32_t first, int32_t end)
{
    const vec none = vec_set1(-INFINITY);
    vec largest[BLOCK_VECS];
    LANES_UNROLL(2)
    for (int v = 0; v < BLOCK_VECS; v++)
        largest[v] = none;
    for (int32_t i = first / 16 * 16; i < end; i += 16) {
        LANES_UNROLL(2)
        for (int v = 0; v < BLOCK_VECS; v++) {
            const int32_t at = i + v * VEC_LANES;
            vec score = vec_load(scores + at);
            if (i < first || i + 16 > end) {
                score = vec_keep_lanes(score, none, first - at, end - at);
                vec_store(scores + at, score);
            }
            largest[v] = vec_max(largest[v], score);
        }
    }
    return vec_largest(vec_max(largest[0], largest[BLOCK_VECS - 1]));
}

// Of one head: scores of positions [first, end) of the chunk to weights e^(score - max) times their
// values' scales, as integers; weights beside them in their blocks are 0. Returns what 1 stands
// for.
LANES_FN float soften_head(float *scores, const float *scales, int32_t first, int32_t end,
                           float *max_out, float *sum_out, int16_t *weights)
{
    *max_out = largest_score(scores, first, end);
    const vec max = vec_set1(*max_out);
    vec sum[BLOCK_VECS], scaled_sum[BLOCK_VECS], largest = vec_zero();
    LANES_UNROLL(2)
    for (int v = 0; v < BLOCK_VECS; v++)
        sum[v] = scaled_sum[v] = vec_zero();
    for (int32_t i = first / 16 * 16; i < end; i += 16) {
        LANES_UNROLL(2)
        for (int v = 0; v < BLOCK_VECS; v++) {
            float *score = scores + i + v * VEC_LANES;
            const vec e = vec_exp_of_negative(vec_sub(vec_load(score), max));
            const vec scaled = vec_mul(e, vec_load(scales + i + v * VEC_LANES));
            vec_store(score, scaled);
            sum[v] = vec_add(sum[v], e);
            scaled_sum[v] = vec_add(scaled_sum[v], scaled);
            largest = vec_max(scaled, largest);
        }
    }
    *sum_out = vec_sum_of_16(sum);
    const float scale = scale_of(vec_largest(largest), vec_sum_of_16(scaled_sum), INT16_MAX,
                                 I16_SUM_MAX(ATTENTION_VALUE_LEVELS, ATTENTION_CHUNK_TOKENS));
    const vec factor = inverse_or_0(scale);
    for (int32_t i = first / 16 * 16; i < end; i += VEC_LANES)
        vec_store_i16(weights + i, vec_mul(vec_load(scores + i), factor));
    return scale;
}

void I16_PASTE(attention_soften_i16, ATTENTION_I16_SUFFIX)(const struct attention_chunk *work,
                                                           int32_t first, int32_t end)
{
    const int32_t heads = work->shape->head_count / work->shape->kv_head_count;
    const struct attention_i16 *i16 = work->i16;
    gather_value_scales(work, first, end);
    for (int32_t h = 0; h < heads; h++) {
        const size_t at = (size_t)h * ATTENTION_CHUNK_TOKENS;
        i16->weight_scales[h] = soften_head(work->scores + at, i16->value_scales,
                                            first - work->first, end - work->first, &work->part[h],
                                            &work->part[heads + h], i16->weights + at);
    }
}

// --- integers ---

float I16_PASTE(attention_to_i16, ATTENTION_I16_SUFFIX)(const float *x, int32_t count, float levels,
                                                        float sum_max, int16_t *q)
{
    vec sum[BLOCK_VECS], largest = vec_zero();
    LANES_UNROLL(2)
    for (int v = 0; v < BLOCK_VECS; v++)
        sum[v] = vec_zero();
    for (int32_t i = 0; i < count; i += 16) {
        LANES_UNROLL(2)
        for (int v = 0; v < BLOCK_VECS; v++) {
            const int32_t at = i + v * VEC_LANES;
            if (at >= count)
                break;
            const vec value = vec_load_part(x + at, count - at);
            const vec magnitude = vec_max(value, vec_sub(vec_zero(), value));
            largest = vec_max(magnitude, largest);
            sum[v] = vec_add(sum[v], magnitude);
        }
    }
    const float scale = scale_of(vec_largest(largest), vec_sum_of_16(sum), levels, sum_max);
    const vec factor = inverse_or_0(scale);
    int32_t i = 0;
    for (; i + VEC_LANES <= count; i += VEC_LANES)
        vec_store_i16(q + i, vec_mul(vec_load(x + i), factor));
    if (i < count) {
        int16_t words[VEC_LANES];
        vec_store_i16(words, vec_mul(vec_load_part(x + i, count - i), factor));
        memcpy(q + i, words, (size_t)(count - i) * sizeof *words);
    }
    return scale;
}

// --- products with values ---

// The weighted values of positions [first, end), `vecs` vectors of elements from k on, for heads
// [head, head + heads). The last vector may be ragged: what is read beyond the values of a block is
// still its scales.
LANES_FN void weigh_tile(int heads, int vecs, const struct attention_chunk *work, int32_t head,
                         size_t k, int32_t first, int32_t end)
{
    const size_t d = (size_t)work->shape->head_dim;
    const struct attention_i16 *i16 = work->i16;
    const int16_t *weights = i16->weights + (size_t)head * ATTENTION_CHUNK_TOKENS;
    ivec sums[HEADS_EACH * VECS_EACH];
    LANES_UNROLL(16)
    for (int i = 0; i < heads * vecs; i++)
        sums[i] = ivec_set1(0);
    for (int32_t p = first / 2 * 2, next; p < end; p = next) {
        const int32_t number = p / SORA_KV_BLOCK_TOKENS, start = number * SORA_KV_BLOCK_TOKENS;
        const size_t offset = ((size_t)(p - start) / 2 * d + k) * WORD_BYTES;
        const uint8_t *values = head_cells(SORA_I16, work, work->cache->values,
                                           work->row->blocks[number], work->kv_head) +
                                offset;
        const uint8_t *ahead = next_cells(SORA_I16, work, work->cache->values, number, first);
        ahead += offset;
        next = start + SORA_KV_BLOCK_TOKENS < end ? start + SORA_KV_BLOCK_TOKENS : end;
        for (int32_t i = p - work->first; i < next - work->first; i += 2) {
            LANES_UNROLL(4)
            for (int line = 0; line < vecs * VEC_LANES * WORD_BYTES; line += 64)
                __builtin_prefetch(ahead + line, 0, 2);
            ivec weight[HEADS_EACH];
            LANES_UNROLL(4)
            for (int h = 0; h < heads; h++)
                weight[h] = pair_at(weights + h * ATTENTION_CHUNK_TOKENS + i);
            LANES_UNROLL(4)
            for (int v = 0; v < vecs; v++) {
                const ivec value = ivec_load(values + (size_t)(v * VEC_LANES * WORD_BYTES));
                LANES_UNROLL(4)
                for (int h = 0; h < heads; h++) {
                    ivec *sum = &sums[h * vecs + v];
                    *sum = ivec_dot_pairs(*sum, value, weight[h]);
                }
            }
            values += d * WORD_BYTES;
            ahead += d * WORD_BYTES;
        }
    }
    float *out = work->part + 2 * (work->shape->head_count / work->shape->kv_head_count);
    LANES_UNROLL(16)
    for (int i = 0; i < heads * vecs; i++) {
        const int h = i / vecs;
        const size_t at = k + (size_t)(i % vecs * VEC_LANES);
        vec_store_part(out + (size_t)(head + h) * d + at,
                       vec_mul(vec_from_int(sums[i]), vec_set1(i16->weight_scales[head + h])),
                       (int32_t)(d - at));
    }
}

LANES_FN void weigh_heads(int heads, const struct attention_chunk *work, int32_t head,
                          int32_t first, int32_t end)
{
    const size_t d = (size_t)work->shape->head_dim;
    size_t k = 0;
    for (; k + VECS_EACH * VEC_LANES <= d; k += VECS_EACH * VEC_LANES)
        weigh_tile(heads, VECS_EACH, work, head, k, first, end);
    for (; k < d; k += VEC_LANES)
        weigh_tile(heads, 1, work, head, k, first, end);
}

void I16_PASTE(attention_weigh_i16, ATTENTION_I16_SUFFIX)(const struct attention_chunk *work,
                                                          int32_t first, int32_t end)
{
    BY_HEADS(weigh_heads, work, first, end);
}

#endif

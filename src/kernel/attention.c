// SPDX-License-Identifier: Apache-2.0
// attention: the split over threads, the portable body and the reference. One caller at a time per
// pool; the scratch is the caller's.
#include "kernel/attention.h"

#include "base/assert.h"

#define ATTENTION_SUFFIX portable
#include "kernel/attention_body.h"

// Multiply-adds below which waking other threads costs more than it saves.
#define SHARED_WORK_MIN 65536

// Floats between the scores of two heads: whole cache lines.
static size_t score_stride_of(int32_t context_max)
{
    return ((size_t)context_max + 15) / 16 * 16;
}

static size_t thread_stride_of(const struct attention_shape *shape, int32_t context_max)
{
    return (size_t)(shape->head_count / shape->kv_head_count) * score_stride_of(context_max);
}

size_t attention_scratch_count(const struct attention_shape *shape, int32_t context_max,
                               int32_t threads)
{
    ASSERT(context_max > 0 && threads > 0);
    return (size_t)threads * thread_stride_of(shape, context_max);
}

struct attention_split {
    const struct attention_shape *shape;
    const struct attention_cache *cache;
    const struct attention_row *rows;
    const float *q;
    float *out, *scratch;
    int32_t context_max;
    attention_task_fn *run;
};

static void run_row_head(void *context, int32_t index, int32_t thread)
{
    const struct attention_split *split = context;
    const struct attention_shape *shape = split->shape;
    const int32_t row = index / shape->kv_head_count;
    const size_t offset = (size_t)row * (size_t)shape->head_count * (size_t)shape->head_dim;
    split->run(shape, split->cache, &split->rows[row], index % shape->kv_head_count,
               split->q + offset, split->out + offset,
               split->scratch + (size_t)thread * thread_stride_of(shape, split->context_max),
               score_stride_of(split->context_max));
}

void attention_on(enum cpu_isa isa, struct pool *pool, const struct attention_shape *shape,
                  const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
                  const float *q, float *out, float *scratch, int32_t context_max)
{
    int64_t positions = 0;
    for (int32_t row = 0; row < m; row++) {
        ASSERT(rows[row].pos >= 0 && rows[row].pos < context_max);
        positions += rows[row].pos + 1 - attention_start(shape, rows[row].pos);
    }
    struct attention_split split = {
        .shape = shape,
        .cache = cache,
        .rows = rows,
        .q = q,
        .out = out,
        .scratch = scratch,
        .context_max = context_max,
        .run = isa == CPU_PORTABLE ? attention_task_portable : attention_task_avx2,
    };
    int64_t work = 2 * positions * shape->head_count * shape->head_dim;
    pool_run(work < SHARED_WORK_MIN ? NULL : pool, m * shape->kv_head_count, run_row_head, &split);
}

void attention(struct pool *pool, const struct attention_shape *shape,
               const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
               const float *q, float *out, float *scratch, int32_t context_max)
{
    attention_on(cpu_isa(), pool, shape, cache, rows, m, q, out, scratch, context_max);
}

// The key (or value) of one position.
static const float *entry_ref(const struct attention_shape *shape, const float *entries,
                              size_t block_stride, const struct attention_row *row, int32_t kv_head,
                              int32_t p)
{
    size_t block = (size_t)row->blocks[p / SORA_KV_BLOCK_TOKENS];
    size_t place = (size_t)kv_head * SORA_KV_BLOCK_TOKENS + (size_t)(p % SORA_KV_BLOCK_TOKENS);
    return entries + block * block_stride + place * (size_t)shape->head_dim;
}

static void head_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                     const struct attention_row *row, int32_t head, const float *q, float *out,
                     float *scores)
{
    const int32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    const int32_t start = attention_start(shape, row->pos);
    float max = -INFINITY;
    double sum = 0;
    for (int32_t p = start; p <= row->pos; p++) {
        const float *key = entry_ref(shape, cache->keys, cache->block_stride, row, kv_head, p);
        double score = 0;
        for (int32_t i = 0; i < shape->head_dim; i++)
            score += (double)q[i] * (double)key[i];
        scores[p - start] = (float)(score * (double)shape->scale);
        max = fmaxf(max, scores[p - start]);
    }
    for (int32_t p = start; p <= row->pos; p++) {
        scores[p - start] = expf(scores[p - start] - max);
        sum += (double)scores[p - start];
    }
    for (int32_t i = 0; i < shape->head_dim; i++) {
        double weighted = 0;
        for (int32_t p = start; p <= row->pos; p++)
            weighted +=
                (double)scores[p - start] *
                (double)entry_ref(shape, cache->values, cache->block_stride, row, kv_head, p)[i];
        out[i] = (float)(weighted / sum);
    }
}

void attention_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                   const struct attention_row *rows, int32_t m, const float *q, float *out,
                   float *scratch)
{
    for (int32_t row = 0; row < m; row++)
        for (int32_t head = 0; head < shape->head_count; head++) {
            size_t offset =
                ((size_t)row * (size_t)shape->head_count + (size_t)head) * (size_t)shape->head_dim;
            head_ref(shape, cache, &rows[row], head, q + offset, out + offset, scratch);
        }
}

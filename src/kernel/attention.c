// SPDX-License-Identifier: Apache-2.0
// attention: the split over threads, the portable body and the reference. One caller at a time per
// pool; the scratch is the caller's.
#include "kernel/attention.h"

#include <stdbool.h>

#include "base/assert.h"

#define ATTENTION_SUFFIX portable
#include "kernel/attention_body.h"

// Multiply-adds below which waking other threads costs more than it saves.
#define SHARED_WORK_MIN 65536
// Rows of more than one chunk are split over threads while all parts together are no more: with
// more rows there is enough to share without.
#define SPLIT_PARTS_MAX 128

// Work that pool tasks take, once for each kv head: some rows over all their chunks (chunk -1), or
// one row over one chunk, whose part is kept for the merge.
struct item {
    int32_t row, row_count, chunk, part;
};

struct attention_split {
    const struct attention_shape *shape;
    const struct attention_cache *cache;
    const struct attention_row *rows;
    const float *q;
    float *out;
    attention_chunk_fn *chunk;
    attention_merge_fn *merge;
    attention_finish_fn *finish;
    struct item *items; // [m + SPLIT_PARTS_MAX]
    int32_t item_count;
    struct item *merges; // [m]: rows whose parts are merged: row_count parts from `part` on
    int32_t merge_count;
    float *parts;   // [SPLIT_PARTS_MAX][G] parts
    float *threads; // scratch of each thread
};

static size_t to_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

// Scores, tile, running parts and a chunk's parts.
static size_t thread_bytes(const struct attention_shape *shape)
{
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    const size_t scores = ATTENTION_RUN_ROWS_MAX * heads * ATTENTION_CHUNK_TOKENS;
    const size_t tile = SORA_KV_BLOCK_TOKENS * (size_t)shape->head_dim;
    const size_t parts = 2 * ATTENTION_RUN_ROWS_MAX * attention_part_floats(shape);
    return to_lines((scores + tile + parts) * sizeof(float));
}

static size_t item_bytes(int32_t rows_max)
{
    return to_lines(((size_t)rows_max + SPLIT_PARTS_MAX) * sizeof(struct item)) +
           to_lines((size_t)rows_max * sizeof(struct item));
}

static size_t part_bytes(const struct attention_shape *shape)
{
    return to_lines((size_t)SPLIT_PARTS_MAX * (size_t)shape->kv_head_count *
                    attention_part_floats(shape) * sizeof(float));
}

size_t attention_scratch_bytes(const struct attention_shape *shape, int32_t rows_max,
                               int32_t threads)
{
    ASSERT(rows_max > 0 && threads > 0);
    return item_bytes(rows_max) + part_bytes(shape) + (size_t)threads * thread_bytes(shape);
}

static int32_t chunk_first(const struct attention_split *split, int32_t row)
{
    return attention_start(split->shape, split->rows[row].pos) / ATTENTION_CHUNK_TOKENS;
}

static int32_t chunk_last(const struct attention_split *split, int32_t row)
{
    return split->rows[row].pos / ATTENTION_CHUNK_TOKENS;
}

static int32_t chunk_count(const struct attention_split *split, int32_t row)
{
    return chunk_last(split, row) - chunk_first(split, row) + 1;
}

// Lists the work: neighbours of one sequence together, long rows by chunk where that helps.
static void list_items(struct attention_split *split, int32_t m)
{
    int32_t chunks = 0, parts = 0;
    for (int32_t row = 0; row < m && chunks <= SPLIT_PARTS_MAX; row++)
        chunks += chunk_count(split, row) > 1 ? chunk_count(split, row) : 0;
    const bool by_chunk = chunks <= SPLIT_PARTS_MAX;
    for (int32_t row = 0, next; row < m; row = next) {
        const struct attention_row *first = &split->rows[row];
        next = row + 1;
        if (by_chunk && chunk_count(split, row) > 1) {
            split->merges[split->merge_count++] =
                (struct item){row, chunk_count(split, row), -1, parts};
            for (int32_t c = chunk_first(split, row); c <= chunk_last(split, row); c++)
                split->items[split->item_count++] = (struct item){row, 1, c, parts++};
            continue;
        }
        while (next < m && next - row < ATTENTION_RUN_ROWS_MAX &&
               split->rows[next].blocks == first->blocks &&
               split->rows[next].pos == first->pos + (next - row) &&
               !(by_chunk && chunk_count(split, next) > 1))
            next++;
        split->items[split->item_count++] = (struct item){row, next - row, -1, -1};
    }
}

// The scratch of one thread, laid out for some rows.
static struct attention_chunk chunk_work(const struct attention_split *split,
                                         const struct item *item, int32_t kv_head, int32_t thread)
{
    const struct attention_shape *shape = split->shape;
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    float *scratch = split->threads + (size_t)thread * (thread_bytes(shape) / sizeof(float));
    float *tile = scratch + ATTENTION_RUN_ROWS_MAX * heads * ATTENTION_CHUNK_TOKENS;
    return (struct attention_chunk){
        .shape = shape,
        .cache = split->cache,
        .rows = split->rows + item->row,
        .row_count = item->row_count,
        .kv_head = kv_head,
        .q = split->q + (size_t)item->row * (size_t)shape->head_count * (size_t)shape->head_dim,
        .scores = scratch,
        .tile = tile,
        .parts = tile + SORA_KV_BLOCK_TOKENS * (size_t)shape->head_dim,
    };
}

static float *out_of(const struct attention_split *split, int32_t row, int32_t kv_head)
{
    const struct attention_shape *shape = split->shape;
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    return split->out + ((size_t)row * (size_t)shape->head_count + (size_t)kv_head * heads) *
                            (size_t)shape->head_dim;
}

static float *part_of(const struct attention_split *split, int32_t part, int32_t kv_head)
{
    return split->parts + ((size_t)part * (size_t)split->shape->kv_head_count + (size_t)kv_head) *
                              attention_part_floats(split->shape);
}

static void run_all_chunks(const struct attention_split *split, const struct item *item,
                           struct attention_chunk *work)
{
    const size_t floats = attention_part_floats(split->shape);
    const int32_t last = chunk_last(split, item->row + item->row_count - 1);
    float *running = work->parts + ATTENTION_RUN_ROWS_MAX * floats;
    memset(running, 0, ATTENTION_RUN_ROWS_MAX * floats * sizeof(float));
    for (int32_t c = chunk_first(split, item->row); c <= last; c++) {
        work->first = c * ATTENTION_CHUNK_TOKENS;
        work->end = work->first + ATTENTION_CHUNK_TOKENS;
        split->chunk(work);
        for (int32_t r = 0; r < item->row_count; r++)
            split->merge(split->shape, running + (size_t)r * floats,
                         work->parts + (size_t)r * floats);
    }
    for (int32_t r = 0; r < item->row_count; r++)
        split->finish(split->shape, running + (size_t)r * floats,
                      out_of(split, item->row + r, work->kv_head));
}

static void run_item(void *context, int32_t index, int32_t thread)
{
    const struct attention_split *split = context;
    const int32_t kv_head = index % split->shape->kv_head_count;
    const struct item *item = &split->items[index / split->shape->kv_head_count];
    struct attention_chunk work = chunk_work(split, item, kv_head, thread);
    if (item->chunk < 0) {
        run_all_chunks(split, item, &work);
        return;
    }
    work.first = item->chunk * ATTENTION_CHUNK_TOKENS;
    work.end = work.first + ATTENTION_CHUNK_TOKENS;
    work.parts = part_of(split, item->part, kv_head);
    split->chunk(&work);
}

// The same merges as run_all_chunks does.
static void merge_row(void *context, int32_t index, int32_t thread)
{
    const struct attention_split *split = context;
    const int32_t kv_head = index % split->shape->kv_head_count;
    const struct item *item = &split->merges[index / split->shape->kv_head_count];
    struct item one = {.row = item->row, .row_count = 1};
    float *running = chunk_work(split, &one, kv_head, thread).parts;
    memset(running, 0, attention_part_floats(split->shape) * sizeof(float));
    for (int32_t i = 0; i < item->row_count; i++)
        split->merge(split->shape, running, part_of(split, item->part + i, kv_head));
    split->finish(split->shape, running, out_of(split, item->row, kv_head));
}

void attention_on(enum cpu_isa isa, struct pool *pool, const struct attention_shape *shape,
                  const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
                  const float *q, float *out, void *scratch)
{
    const bool plain = isa == CPU_PORTABLE;
    if (m == 0)
        return;
    uint8_t *items = scratch, *parts = items + item_bytes(m);
    struct attention_split split = {
        .shape = shape,
        .cache = cache,
        .rows = rows,
        .q = q,
        .out = out,
        .chunk = plain ? attention_chunk_portable : attention_chunk_avx2,
        .merge = plain ? attention_merge_portable : attention_merge_avx2,
        .finish = plain ? attention_finish_portable : attention_finish_avx2,
        .items = (struct item *)(void *)items,
        .merges = (struct item *)(void *)(parts - to_lines((size_t)m * sizeof(struct item))),
        .parts = (float *)(void *)parts,
        .threads = (float *)(void *)(parts + part_bytes(shape)),
    };
    list_items(&split, m);
    int64_t positions = 0;
    for (int32_t row = 0; row < m; row++)
        positions += rows[row].pos + 1 - attention_start(shape, rows[row].pos);
    int64_t work = 2 * positions * shape->head_count * shape->head_dim;
    struct pool *shared = work < SHARED_WORK_MIN ? NULL : pool;
    pool_run(shared, split.item_count * shape->kv_head_count, run_item, &split);
    if (split.merge_count > 0)
        pool_run(shared, split.merge_count * shape->kv_head_count, merge_row, &split);
}

void attention(struct pool *pool, const struct attention_shape *shape,
               const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
               const float *q, float *out, void *scratch)
{
    attention_on(cpu_isa(), pool, shape, cache, rows, m, q, out, scratch);
}

static void store_head(const struct attention_cache *cache, void *cells, size_t at, size_t d,
                       const float *from)
{
    if (cache->dtype == SORA_F32)
        memcpy((float *)cells + at, from, d * sizeof(float));
    else if (cpu_isa() == CPU_PORTABLE)
        attention_to_f16_portable(from, d, (uint16_t *)cells + at);
    else
        attention_to_f16_avx2(from, d, (uint16_t *)cells + at);
}

void attention_store(const struct attention_shape *shape, const struct attention_cache *cache,
                     int32_t slot, const float *key, const float *value)
{
    const size_t d = (size_t)shape->head_dim;
    const size_t start = (size_t)(slot / SORA_KV_BLOCK_TOKENS) * cache->block_stride;
    const size_t offset = (size_t)(slot % SORA_KV_BLOCK_TOKENS);
    for (size_t head = 0; head < (size_t)shape->kv_head_count; head++) {
        const size_t at = start + (head * SORA_KV_BLOCK_TOKENS + offset) * d;
        store_head(cache, cache->keys, at, d, key + head * d);
        store_head(cache, cache->values, at, d, value + head * d);
    }
}

// Element i of the key (or value) of one position.
static double entry_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                        const void *cells, const struct attention_row *row, int32_t kv_head,
                        int32_t p, int32_t i)
{
    size_t block = (size_t)row->blocks[p / SORA_KV_BLOCK_TOKENS];
    size_t place = (size_t)kv_head * SORA_KV_BLOCK_TOKENS + (size_t)(p % SORA_KV_BLOCK_TOKENS);
    size_t at = block * cache->block_stride + place * (size_t)shape->head_dim + (size_t)i;
    if (cache->dtype == SORA_F32)
        return (double)((const float *)cells)[at];
    return (double)half_from_f16(((const uint16_t *)cells)[at]);
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
        double score = 0;
        for (int32_t i = 0; i < shape->head_dim; i++)
            score += (double)q[i] * entry_ref(shape, cache, cache->keys, row, kv_head, p, i);
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
            weighted += (double)scores[p - start] *
                        entry_ref(shape, cache, cache->values, row, kv_head, p, i);
        out[i] = (float)(weighted / sum);
    }
}

void attention_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                   const struct attention_row *rows, int32_t m, const float *q, float *out,
                   float *scores)
{
    for (int32_t row = 0; row < m; row++)
        for (int32_t head = 0; head < shape->head_count; head++) {
            size_t offset =
                ((size_t)row * (size_t)shape->head_count + (size_t)head) * (size_t)shape->head_dim;
            head_ref(shape, cache, &rows[row], head, q + offset, out + offset, scores);
        }
}

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

// Work that pool tasks take, once for each kv head: a row over all its chunks (chunk -1), or over
// one chunk, whose part is kept for the merge.
struct item {
    int32_t row, chunk, part;
};

struct attention_split {
    const struct attention_shape *shape;
    const struct attention_cache *cache;
    const struct attention_row *rows;
    const float *q;
    float *out;
    enum cpu_isa isa;
    attention_chunk_fn *chunk;
    attention_merge_fn *merge;
    attention_finish_fn *finish;
    struct item *items; // [m + SPLIT_PARTS_MAX]
    int32_t item_count;
    int32_t threads_taking; // tasks: about as far is it from one of a thread's to its next
    struct item *merges;    // [m]: rows whose parts, from `part` on, are merged
    int32_t merge_count;
    float *parts;   // [SPLIT_PARTS_MAX][G] parts
    float *threads; // scratch of each thread
};

static size_t to_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

// Of struct attention_i16: the floats, then the integers.
static size_t i16_floats(const struct attention_shape *shape)
{
    return ATTENTION_CHUNK_TOKENS + 2 * (size_t)(shape->head_count / shape->kv_head_count);
}

static size_t i16_bytes(const struct attention_shape *shape)
{
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    return i16_floats(shape) * sizeof(float) +
           heads * (ATTENTION_CHUNK_TOKENS + (size_t)shape->head_dim) * sizeof(int16_t);
}

// Scores, the running part and a chunk's.
static size_t float_bytes(const struct attention_shape *shape)
{
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    return (heads * ATTENTION_CHUNK_TOKENS + 2 * attention_part_floats(shape)) * sizeof(float);
}

static size_t thread_bytes(const struct attention_shape *shape)
{
    return to_lines(float_bytes(shape) + i16_bytes(shape));
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

// Lists the work: long rows by chunk where that helps.
static void list_items(struct attention_split *split, int32_t m)
{
    int32_t chunks = 0, parts = 0;
    for (int32_t row = 0; row < m && chunks <= SPLIT_PARTS_MAX; row++)
        chunks += chunk_count(split, row) > 1 ? chunk_count(split, row) : 0;
    for (int32_t row = 0; row < m; row++) {
        if (chunks > SPLIT_PARTS_MAX || chunk_count(split, row) == 1) {
            split->items[split->item_count++] = (struct item){row, -1, -1};
            continue;
        }
        split->merges[split->merge_count++] = (struct item){row, -1, parts};
        for (int32_t c = chunk_first(split, row); c <= chunk_last(split, row); c++)
            split->items[split->item_count++] = (struct item){row, c, parts++};
    }
}

static struct attention_chunk chunk_work(const struct attention_split *split, int32_t row,
                                         int32_t kv_head, int32_t thread)
{
    const struct attention_shape *shape = split->shape;
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    const size_t head = (size_t)row * (size_t)shape->head_count + (size_t)kv_head * heads;
    float *scratch = split->threads + (size_t)thread * (thread_bytes(shape) / sizeof(float));
    return (struct attention_chunk){
        .shape = shape,
        .cache = split->cache,
        .row = &split->rows[row],
        .kv_head = kv_head,
        .q = split->q + head * (size_t)shape->head_dim,
        .scores = scratch,
        .part = scratch + heads * ATTENTION_CHUNK_TOKENS,
    };
}

static struct attention_i16 i16_scratch(const struct attention_split *split, int32_t thread)
{
    const struct attention_shape *shape = split->shape;
    const size_t heads = (size_t)(shape->head_count / shape->kv_head_count);
    uint8_t *scratch = (uint8_t *)split->threads + (size_t)thread * thread_bytes(shape);
    float *floats = (float *)(void *)(scratch + float_bytes(shape));
    int16_t *integers = (int16_t *)(void *)(floats + i16_floats(shape));
    return (struct attention_i16){
        .q = integers + heads * ATTENTION_CHUNK_TOKENS,
        .q_scales = floats + ATTENTION_CHUNK_TOKENS,
        .value_scales = floats,
        .weights = integers,
        .weight_scales = floats + ATTENTION_CHUNK_TOKENS + heads,
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

// Whether a row's keys and values are not those of the row before.
static bool is_cold(const struct attention_split *split, int32_t row)
{
    return row == 0 || split->rows[row - 1].blocks != split->rows[row].blocks;
}

// What the thread will read next: a chunk of a row.
static void set_next(const struct attention_split *split, struct attention_chunk *work, int32_t row,
                     int32_t kv_head, int32_t chunk)
{
    const struct attention_row *of = &split->rows[row];
    const int32_t start = attention_start(split->shape, of->pos);
    const int32_t low = chunk * ATTENTION_CHUNK_TOKENS, high = low + ATTENTION_CHUNK_TOKENS - 1;
    const int32_t first = (start > low ? start : low) / SORA_KV_BLOCK_TOKENS;
    const int32_t last = (of->pos < high ? of->pos : high) / SORA_KV_BLOCK_TOKENS;
    work->next_blocks = of->blocks + first;
    work->next_count = is_cold(split, row) ? last - first + 1 : 0;
    work->next_kv_head = kv_head;
}

// The same of an item, as far as can be foreseen of what threads take in turn.
static void set_next_item(const struct attention_split *split, struct attention_chunk *work,
                          int32_t index)
{
    const int32_t kv_heads = split->shape->kv_head_count;
    work->next_count = 0;
    if (index >= split->item_count * kv_heads)
        return;
    const struct item *item = &split->items[index / kv_heads];
    set_next(split, work, item->row, index % kv_heads,
             item->chunk >= 0 ? item->chunk : chunk_first(split, item->row));
}

// One chunk of the row of task `index`.
static void run_chunk(const struct attention_split *split, struct attention_chunk *work,
                      int32_t index, int32_t chunk, int32_t thread)
{
    const struct item *item = &split->items[index / split->shape->kv_head_count];
    const int32_t begins = item->chunk >= 0 ? item->chunk : chunk_first(split, item->row);
    work->first = chunk * ATTENTION_CHUNK_TOKENS;
    work->end = work->first + ATTENTION_CHUNK_TOKENS;
    work->cold = index < split->threads_taking && chunk == begins && is_cold(split, item->row);
    if (item->chunk < 0 && chunk < chunk_last(split, item->row))
        set_next(split, work, item->row, work->kv_head, chunk + 1);
    else
        set_next_item(split, work, index + split->threads_taking);
    if (split->cache->dtype != SORA_I16) {
        split->chunk(work);
        return;
    }
    const struct attention_i16 i16 = i16_scratch(split, thread);
    work->i16 = &i16;
    attention_chunk_i16(split->isa, work);
}

static void run_item(void *context, int32_t index, int32_t thread)
{
    const struct attention_split *split = context;
    const struct attention_shape *shape = split->shape;
    const int32_t kv_head = index % shape->kv_head_count;
    const struct item *item = &split->items[index / shape->kv_head_count];
    struct attention_chunk work = chunk_work(split, item->row, kv_head, thread);
    if (item->chunk >= 0) {
        work.part = part_of(split, item->part, kv_head);
        run_chunk(split, &work, index, item->chunk, thread);
        return;
    }
    if (chunk_count(split, item->row) == 1) {
        run_chunk(split, &work, index, chunk_first(split, item->row), thread);
        split->finish(shape, work.part, out_of(split, item->row, kv_head));
        return;
    }
    float *running = work.part + attention_part_floats(shape);
    memset(running, 0, attention_part_floats(shape) * sizeof(float));
    for (int32_t c = chunk_first(split, item->row); c <= chunk_last(split, item->row); c++) {
        run_chunk(split, &work, index, c, thread);
        split->merge(shape, running, work.part);
    }
    split->finish(shape, running, out_of(split, item->row, kv_head));
}

// The same merges as run_item does for a row of all chunks.
static void merge_row(void *context, int32_t index, int32_t thread)
{
    const struct attention_split *split = context;
    const struct attention_shape *shape = split->shape;
    const int32_t kv_head = index % shape->kv_head_count;
    const struct item *item = &split->merges[index / shape->kv_head_count];
    float *running = chunk_work(split, item->row, kv_head, thread).part;
    memset(running, 0, attention_part_floats(shape) * sizeof(float));
    for (int32_t i = 0; i < chunk_count(split, item->row); i++)
        split->merge(shape, running, part_of(split, item->part + i, kv_head));
    split->finish(shape, running, out_of(split, item->row, kv_head));
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
        .isa = isa,
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
    split.threads_taking = pool_threads(shared);
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

#define STORE_VALUES 64 // converted at a time

// [count] elements to cells `stride` apart.
static void store_cells(const struct attention_cache *cache, void *cells, size_t at, size_t stride,
                        const float *from, size_t count)
{
    uint16_t halves[STORE_VALUES];
    for (size_t i = 0; i < count; i += STORE_VALUES) {
        const size_t left = count - i < STORE_VALUES ? count - i : STORE_VALUES;
        if (cache->dtype == SORA_F32) {
            for (size_t j = 0; j < left; j++)
                ((float *)cells)[at + (i + j) * stride] = from[i + j];
            continue;
        }
        (cpu_isa() == CPU_PORTABLE ? attention_to_f16_portable
                                   : attention_to_f16_avx2)(from + i, left, halves);
        for (size_t j = 0; j < left; j++)
            ((uint16_t *)cells)[at + (i + j) * stride] = halves[j];
    }
}

void attention_store(const struct attention_shape *shape, const struct attention_cache *cache,
                     int32_t slot, const float *key, const float *value)
{
    const size_t d = (size_t)shape->head_dim;
    if (cache->dtype == SORA_I16) {
        attention_store_i16(cpu_isa(), shape, cache, slot, key, value);
        return;
    }
    const size_t start = (size_t)(slot / SORA_KV_BLOCK_TOKENS) * cache->block_stride;
    const size_t offset = (size_t)(slot % SORA_KV_BLOCK_TOKENS);
    for (size_t head = 0; head < (size_t)shape->kv_head_count; head++) {
        const size_t at = start + head * d * SORA_KV_BLOCK_TOKENS;
        store_cells(cache, cache->keys, at + offset, SORA_KV_BLOCK_TOKENS, key + head * d, d);
        store_cells(cache, cache->values, at + offset * d, 1, value + head * d, d);
    }
}

static double cell_ref(const struct attention_cache *cache, const void *cells, size_t at)
{
    if (cache->dtype == SORA_F32)
        return (double)((const float *)cells)[at];
    return (double)half_from_f16(((const uint16_t *)cells)[at]);
}

// An element of a pair, times its token's scale. cells: keys or values of a head in a block.
static double i16_ref(const int16_t *cells, int32_t head_dim, size_t pair, int32_t which,
                      int32_t token)
{
    float scale;
    memcpy(&scale, cells + (size_t)SORA_KV_BLOCK_TOKENS * (size_t)head_dim + 2 * token,
           sizeof scale);
    return (double)scale * (double)cells[2 * pair + (size_t)which];
}

static const int16_t *i16_cells(const struct attention_shape *shape,
                                const struct attention_cache *cache, const void *cells,
                                int32_t block, int32_t kv_head)
{
    return (const int16_t *)cells + (size_t)block * cache->block_stride +
           (size_t)kv_head * attention_head_elements(SORA_I16, shape->head_dim);
}

// Element i of the key of one position.
static double key_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                      const struct attention_row *row, int32_t kv_head, int32_t p, int32_t i)
{
    const int32_t token = p % SORA_KV_BLOCK_TOKENS;
    if (cache->dtype == SORA_I16)
        return i16_ref(
            i16_cells(shape, cache, cache->keys, row->blocks[p / SORA_KV_BLOCK_TOKENS], kv_head),
            shape->head_dim, (size_t)(i / 2 * SORA_KV_BLOCK_TOKENS + token), i % 2, token);
    size_t block = (size_t)row->blocks[p / SORA_KV_BLOCK_TOKENS];
    size_t line = (size_t)kv_head * (size_t)shape->head_dim + (size_t)i;
    return cell_ref(cache, cache->keys,
                    block * cache->block_stride + line * SORA_KV_BLOCK_TOKENS +
                        (size_t)(p % SORA_KV_BLOCK_TOKENS));
}

static double value_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                        const struct attention_row *row, int32_t kv_head, int32_t p, int32_t i)
{
    const int32_t token = p % SORA_KV_BLOCK_TOKENS;
    if (cache->dtype == SORA_I16)
        return i16_ref(
            i16_cells(shape, cache, cache->values, row->blocks[p / SORA_KV_BLOCK_TOKENS], kv_head),
            shape->head_dim, (size_t)(token / 2 * shape->head_dim + i), token % 2, token);
    size_t block = (size_t)row->blocks[p / SORA_KV_BLOCK_TOKENS];
    size_t line = (size_t)kv_head * SORA_KV_BLOCK_TOKENS + (size_t)(p % SORA_KV_BLOCK_TOKENS);
    return cell_ref(cache, cache->values,
                    block * cache->block_stride + line * (size_t)shape->head_dim + (size_t)i);
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
            score += (double)q[i] * key_ref(shape, cache, row, kv_head, p, i);
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
            weighted += (double)scores[p - start] * value_ref(shape, cache, row, kv_head, p, i);
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

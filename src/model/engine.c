// SPDX-License-Identifier: Apache-2.0
// The engine: sequences over a KV cache, and steps that lay spans out as one batch of rows.
#include "sora/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/pool.h"
#include "kernel/matmul_int8.h"
#include "model/forward.h"
#include "model/kvcache.h"
#include "model/weights.h"
#include "sora/limits.h"

#define KV_BYTES_DEFAULT_MAX ((size_t)2 << 30)

struct sora_engine {
    const struct sora_model *model;
    struct pool *pool;
    bool shares_prefixes;
    struct kvcache cache;
    struct forward forward;
};

const char *sora_compute_name(enum sora_compute compute)
{
    static const char *const names[] = {"auto", "f32", "int8"};
    return names[compute];
}

enum sora_compute sora_engine_compute(const sora_engine *engine)
{
    return engine->forward.projector.compute;
}

struct sora_engine_options sora_engine_options_defaults(const sora_model *model)
{
    int32_t context = model->info.context_length;
    return (struct sora_engine_options){
        .compute = SORA_COMPUTE_AUTO,
        .kv = SORA_KV_AUTO,
        .prefix_cache = true,
        .threads = 0,
        .seqs_max = SORA_SEQS_DEFAULT,
        .rows_max = SORA_STEP_ROWS_MAX,
        .logit_rows_max = SORA_STEP_LOGIT_ROWS_MAX,
        .context_max = context < SORA_CONTEXT_MAX ? context : SORA_CONTEXT_MAX,
        .kv_bytes = 0,
    };
}

static sora_status check_options(const struct sora_engine_options *options, int32_t context_length,
                                 struct sora_error *err)
{
    int32_t context_limit = context_length < SORA_CONTEXT_MAX ? context_length : SORA_CONTEXT_MAX;
    const struct {
        const char *name;
        int32_t value, min, max;
    } fields[] = {
        {"threads", options->threads, 0, SORA_THREADS_MAX},
        {"sequences", options->seqs_max, 1, SORA_SEQS_MAX},
        {"rows of a step", options->rows_max, 1, SORA_STEP_ROWS_MAX},
        {"logit rows of a step", options->logit_rows_max, 1, SORA_STEP_ROWS_MAX},
        {"context length", options->context_max, 1, context_limit},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value < fields[i].min || fields[i].value > fields[i].max)
            return sora_fail(err, SORA_LIMIT, "%s: %d is not in %d .. %d", fields[i].name,
                             fields[i].value, fields[i].min, fields[i].max);
    }
    return SORA_OK;
}

// After choose_compute: where activations are integers, 16 bits lose nothing that counts.
static enum sora_dtype kv_dtype(const struct sora_engine_options *options)
{
    if (options->kv == SORA_KV_AUTO)
        return options->compute == SORA_COMPUTE_INT8 ? SORA_I16 : SORA_F32;
    return options->kv == SORA_KV_I16 ? SORA_I16 : options->kv == SORA_KV_F16 ? SORA_F16 : SORA_F32;
}

// Blocks for the memory asked for; never more than all sequences at full length can use.
static sora_status count_blocks(const struct sora_engine_options *options,
                                const struct sora_base *base, int32_t *block_count,
                                struct sora_error *err)
{
    size_t block_bytes = kvcache_block_bytes(kv_dtype(options), base->layer_count,
                                             base->kv_head_count, base->head_dim);
    size_t per_seq =
        ((size_t)options->context_max + SORA_KV_BLOCK_TOKENS - 1) / SORA_KV_BLOCK_TOKENS;
    size_t useful = per_seq * (size_t)options->seqs_max;
    size_t bytes = options->kv_bytes > 0 ? options->kv_bytes : KV_BYTES_DEFAULT_MAX;
    size_t blocks = bytes / block_bytes;
    if (blocks > useful)
        blocks = useful;
    if (blocks < 1)
        return sora_fail(err, SORA_LIMIT,
                         "KV memory of %zu bytes is less than one block of %zu bytes", bytes,
                         block_bytes);
    *block_count = (int32_t)blocks;
    return SORA_OK;
}

// Projections that int8 has a kernel for.
static int32_t int8_projections(const struct sora_model *model)
{
    int32_t with = 0;
    for (int32_t i = 0; i < model->weights.layer_count * SORA_PROJ_COUNT; i++)
        with += matmul_int8_takes(
            &model->weights.layers[i / SORA_PROJ_COUNT].projections[i % SORA_PROJ_COUNT]);
    return with;
}

enum sora_compute sora_compute_for(const sora_model *model, enum sora_compute asked)
{
    if (asked != SORA_COMPUTE_AUTO)
        return asked;
    const int32_t all = model->weights.layer_count * SORA_PROJ_COUNT;
    return int8_projections(model) == all ? SORA_COMPUTE_INT8 : SORA_COMPUTE_F32;
}

static sora_status check_compute(const struct sora_model *model, enum sora_compute compute,
                                 struct sora_error *err)
{
    if (compute == SORA_COMPUTE_INT8 && int8_projections(model) == 0)
        return sora_fail(err, SORA_MISMATCH,
                         "compute int8 needs weights of type Q4_0, Q4_1 or Q8_0; this model's are "
                         "%s: use f32, or a quantized file of the model",
                         model->info.base.weight_type);
    return SORA_OK;
}

sora_status sora_engine_create(const sora_model *model, const struct sora_engine_options *asked,
                               sora_engine **engine, struct sora_error *err)
{
    struct sora_engine_options chosen = *asked;
    const struct sora_engine_options *options = &chosen;
    const struct sora_base *base = &model->info.base;
    int32_t block_count = 0;
    sora_status status = check_options(options, model->info.context_length, err);
    chosen.compute = sora_compute_for(model, chosen.compute);
    if (status == SORA_OK)
        status = check_compute(model, chosen.compute, err);
    if (status == SORA_OK)
        status = count_blocks(options, base, &block_count, err);
    if (status != SORA_OK)
        return status;
    struct sora_engine *created = calloc(1, sizeof *created);
    if (created == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    created->model = model;
    created->shares_prefixes = options->prefix_cache;
    status =
        pool_create(options->threads > 0 ? options->threads : cpu_count(), &created->pool, err);
    if (status == SORA_OK)
        status =
            kvcache_init(&created->cache, kv_dtype(options), base->layer_count, base->kv_head_count,
                         base->head_dim, block_count, options->seqs_max, options->context_max, err);
    if (status == SORA_OK)
        status =
            forward_init(&created->forward, model, created->pool, &created->cache, options, err);
    if (status != SORA_OK) {
        sora_engine_destroy(created);
        return status;
    }
    *engine = created;
    return SORA_OK;
}

void sora_engine_destroy(sora_engine *engine)
{
    if (engine == NULL)
        return;
    forward_deinit(&engine->forward);
    kvcache_deinit(&engine->cache);
    pool_destroy(engine->pool);
    free(engine);
}

struct sora_kv_stats sora_engine_kv_stats(const sora_engine *engine)
{
    return (struct sora_kv_stats){
        .blocks_total = engine->cache.block_count,
        .blocks_used = engine->cache.block_count - kvcache_available(&engine->cache),
        .block_tokens = SORA_KV_BLOCK_TOKENS,
    };
}

int32_t sora_engine_seq_open(sora_engine *engine)
{
    return kvcache_open(&engine->cache);
}

int32_t sora_engine_seq_open_prefix(sora_engine *engine, const struct sora_prefix_view *view,
                                    const int32_t *tokens, int32_t token_count, int32_t *cached)
{
    *cached = 0;
    if (!engine->shares_prefixes)
        return kvcache_open(&engine->cache);
    return kvcache_open_prefix(&engine->cache, view, tokens, token_count, cached);
}

void sora_engine_seq_close(sora_engine *engine, int32_t seq)
{
    kvcache_close(&engine->cache, seq);
}

int32_t sora_engine_seq_length(const sora_engine *engine, int32_t seq)
{
    ASSERT(seq >= 0 && seq < engine->cache.seq_count && engine->cache.seqs[seq].open);
    return engine->cache.seqs[seq].length;
}

bool sora_engine_seq_reserve(sora_engine *engine, int32_t seq, int32_t token_count)
{
    return token_count <= engine->forward.context_max &&
           kvcache_reserve(&engine->cache, seq, token_count);
}

static void add_rows_of_span(struct sora_engine *engine, const struct sora_span *span)
{
    struct forward_batch *batch = &engine->forward.batch;
    struct kvcache *cache = &engine->cache;
    ASSERT(span->seq >= 0 && span->seq < cache->seq_count && cache->seqs[span->seq].open);
    ASSERT(span->token_count >= 1);
    ASSERT(span->token_count <= engine->forward.rows_max - batch->row_count);
    struct kv_seq *seq = &cache->seqs[span->seq];
    ASSERT((int64_t)seq->block_count * SORA_KV_BLOCK_TOKENS >=
           (int64_t)seq->length + span->token_count);
    for (int32_t i = 0; i < span->token_count; i++) {
        int32_t row = batch->row_count++, pos = seq->length + i;
        ASSERT(span->tokens[i] >= 0 && span->tokens[i] < engine->model->info.base.vocab_size);
        batch->tokens[row] = span->tokens[i];
        batch->positions[row] = pos;
        batch->rows[row] = (struct attention_row){.blocks = seq->blocks, .pos = pos};
        batch->slots[row] = seq->blocks[pos / SORA_KV_BLOCK_TOKENS] * SORA_KV_BLOCK_TOKENS +
                            pos % SORA_KV_BLOCK_TOKENS;
        bool last = i + 1 == span->token_count;
        if (span->want == SORA_LOGITS_ALL || (span->want == SORA_LOGITS_LAST && last)) {
            ASSERT(batch->logit_row_count < engine->forward.logit_rows_max);
            batch->logit_rows[batch->logit_row_count++] = row;
        }
    }
    seq->length += span->token_count;
}

static bool is_group(const struct lora_group *group, const struct sora_span *span, int32_t part)
{
    if (part >= span->part_count)
        return false;
    const struct sora_lora_part *of = &span->parts[part];
    return group->lora == of->lora && group->scale == of->scale && group->rank_max == of->rank_max;
}

// A new group of the rows of all spans whose `part` is that of `span`; returns the rows.
static int32_t add_group(struct forward_batch *batch, const struct sora_span *spans,
                         int32_t span_count, const struct sora_span *span, int32_t part,
                         int32_t *rows)
{
    struct lora_group *group = &batch->groups[batch->group_count++];
    const struct sora_lora_part *of = &span->parts[part];
    *group = (struct lora_group){
        .lora = of->lora, .scale = of->scale, .rank_max = of->rank_max, .rows = rows};
    for (int32_t j = 0, row = 0; j < span_count; row += spans[j++].token_count) {
        for (int32_t t = 0; is_group(group, &spans[j], part) && t < spans[j].token_count; t++)
            rows[group->row_count++] = row + t;
    }
    return group->row_count;
}

// Lists the rows of each adapter view; base rows are in no group. First parts stand before second
// ones and so on, so that every row meets its adapters in the order of its own list, whatever the
// others' lists are.
static void group_rows(struct forward_batch *batch, const struct sora_span *spans,
                       int32_t span_count)
{
    int32_t filled = 0, part_count = 0;
    batch->group_count = 0;
    for (int32_t i = 0; i < span_count; i++) {
        ASSERT(spans[i].part_count >= 0 && spans[i].part_count <= LORA_PARTS_MAX);
        part_count = spans[i].part_count > part_count ? spans[i].part_count : part_count;
    }
    for (int32_t part = 0; part < part_count; part++) {
        const int32_t first = batch->group_count;
        for (int32_t i = 0; i < span_count; i++) {
            if (part >= spans[i].part_count)
                continue;
            int32_t known = first;
            while (known < batch->group_count && !is_group(&batch->groups[known], &spans[i], part))
                known++;
            if (known == batch->group_count) // otherwise taken along when its view came first
                filled += add_group(batch, spans, span_count, &spans[i], part,
                                    batch->group_rows + filled);
        }
    }
}

static void hand_out_logits(struct sora_engine *engine, struct sora_span *spans, int32_t span_count)
{
    const float *next = engine->forward.logits;
    size_t vocab = (size_t)engine->model->info.base.vocab_size;
    for (int32_t i = 0; i < span_count; i++) {
        int32_t rows = spans[i].want == SORA_LOGITS_ALL    ? spans[i].token_count
                       : spans[i].want == SORA_LOGITS_LAST ? 1
                                                           : 0;
        spans[i].logits = rows > 0 ? next : NULL;
        next += (size_t)rows * vocab;
    }
}

void sora_engine_step(sora_engine *engine, struct sora_span *spans, int32_t span_count,
                      struct sora_step_stats *stats)
{
    int64_t start_us = clock_now_us();
    struct sora_step_stats own = {0};
    struct forward_batch *batch = &engine->forward.batch;
    alloc_guard_enter();
    batch->row_count = 0;
    batch->logit_row_count = 0;
    for (int32_t i = 0; i < span_count; i++)
        add_rows_of_span(engine, &spans[i]);
    group_rows(batch, spans, span_count);
    own.rows = batch->row_count;
    forward_run(&engine->forward, &own);
    hand_out_logits(engine, spans, span_count);
    for (int32_t i = 0; i < span_count; i++)
        kvcache_computed(&engine->cache, spans[i].seq, spans[i].tokens, spans[i].token_count);
    alloc_guard_leave();
    own.total_us = clock_now_us() - start_us;
    if (stats != NULL)
        *stats = own;
}

int32_t sora_engine_threads(const sora_engine *engine)
{
    return pool_threads(engine->pool);
}

void sora_engine_share(sora_engine *engine, int32_t count,
                       void (*task)(void *context, int32_t index, int32_t thread), void *context)
{
    pool_run(engine->pool, count, task, context);
}

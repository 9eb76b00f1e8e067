// SPDX-License-Identifier: Apache-2.0
// One decoder layer after another: norm, q k v (+ adapters), RoPE, cache, attention, o, norm,
// SwiGLU MLP. Rows never mix but in attention, and there only with their own sequence.
#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "kernel/activation.h"
#include "kernel/norm.h"
#include "kernel/rope.h"

// Rows of one pool task. The cells of a block's keys lie side by side: many rows go by whole
// blocks, so that threads do not write the same cache lines.
#define STORE_ROWS 4
#define STORE_ROWS_MANY SORA_KV_BLOCK_TOKENS

static sora_status alloc_floats(struct forward *forward, const struct sora_engine_options *options,
                                struct sora_error *err)
{
    const struct sora_base *base = &forward->model->info.base;
    size_t rows = (size_t)options->rows_max;
    size_t logit_rows = (size_t)options->logit_rows_max;
    const struct {
        float **out;
        size_t count, width;
    } buffers[] = {
        {&forward->rope, (size_t)options->context_max, (size_t)base->head_dim},
        {&forward->x, rows, (size_t)base->hidden},
        {&forward->normed, rows, (size_t)base->hidden},
        {&forward->q, rows, (size_t)base->d_out[SORA_PROJ_Q]},
        {&forward->k, rows, (size_t)base->d_out[SORA_PROJ_K]},
        {&forward->v, rows, (size_t)base->d_out[SORA_PROJ_V]},
        {&forward->attended, rows, (size_t)base->d_out[SORA_PROJ_Q]},
        {&forward->gate, rows, (size_t)base->intermediate},
        {&forward->up, rows, (size_t)base->intermediate},
        {&forward->logits, logit_rows, (size_t)base->vocab_size},
    };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        size_t count = 0;
        if (checked_mul(buffers[i].count, buffers[i].width, &count))
            *buffers[i].out = aligned_calloc(count + 1, sizeof(float));
        if (*buffers[i].out == NULL)
            return sora_fail(err, SORA_NO_MEMORY, "a step buffer of %zu x %zu does not fit",
                             buffers[i].count, buffers[i].width);
    }
    forward->attention_scratch = aligned_calloc(
        attention_scratch_bytes(&forward->shape, options->rows_max, pool_threads(forward->pool)),
        1);
    if (forward->attention_scratch == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the attention of a step");
    return SORA_OK;
}

sora_status forward_init(struct forward *forward, const struct sora_model *model, struct pool *pool,
                         struct kvcache *cache, const struct sora_engine_options *options,
                         struct sora_error *err)
{
    memset(forward, 0, sizeof *forward);
    const struct sora_base *base = &model->info.base;
    forward->model = model;
    forward->pool = pool;
    forward->cache = cache;
    forward->rows_max = options->rows_max;
    forward->logit_rows_max = options->logit_rows_max;
    forward->context_max = options->context_max;
    forward->shape = (struct attention_shape){.head_count = base->head_count,
                                              .kv_head_count = base->kv_head_count,
                                              .head_dim = base->head_dim,
                                              .window = model->config.sliding_window};
    // As torch does: 1 / sqrt in double, then f32.
    forward->shape.scale = (float)(1.0 / __builtin_sqrt((double)base->head_dim));

    size_t rows = (size_t)options->rows_max, uses = rows * LORA_PARTS_MAX;
    struct forward_batch *batch = &forward->batch;
    batch->tokens = calloc(rows, sizeof *batch->tokens);
    batch->positions = calloc(rows, sizeof *batch->positions);
    batch->rows = calloc(rows, sizeof *batch->rows);
    batch->slots = calloc(rows, sizeof *batch->slots);
    batch->groups = calloc(uses, sizeof *batch->groups);
    batch->group_rows = calloc(uses, sizeof *batch->group_rows);
    batch->logit_rows = calloc((size_t)options->logit_rows_max, sizeof *batch->logit_rows);
    sora_status status = SORA_OK;
    if (batch->tokens == NULL || batch->positions == NULL || batch->rows == NULL ||
        batch->slots == NULL || batch->groups == NULL || batch->group_rows == NULL ||
        batch->logit_rows == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    if (status == SORA_OK)
        status = alloc_floats(forward, options, err);
    if (status == SORA_OK)
        status = project_init(&forward->projector, &model->info.base, pool, options->rows_max,
                              options->compute, err);
    if (status != SORA_OK) {
        forward_deinit(forward);
        return status;
    }
    rope_table(model->inv_freq, base->head_dim, options->context_max, forward->rope);
    return SORA_OK;
}

void forward_deinit(struct forward *forward)
{
    struct forward_batch *batch = &forward->batch;
    void *memory[] = {forward->rope,
                      forward->x,
                      forward->normed,
                      forward->q,
                      forward->k,
                      forward->v,
                      forward->attended,
                      forward->gate,
                      forward->up,
                      forward->logits,
                      forward->attention_scratch,
                      batch->tokens,
                      batch->positions,
                      batch->rows,
                      batch->slots,
                      batch->groups,
                      batch->group_rows,
                      batch->logit_rows};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
    project_deinit(&forward->projector);
    memset(forward, 0, sizeof *forward);
}

static void project(struct forward *forward, int32_t layer, const struct project_out *outs,
                    int32_t count, const struct project_in *in)
{
    const struct forward_batch *of = &forward->batch;
    const struct sora_base *base = &forward->model->info.base;
    struct ahead *ahead = &forward->ahead;
    const int32_t half = of->row_count / 2;
    ahead_clear(ahead);
    if (outs[0].proj == SORA_PROJ_Q)
        ahead_add_cache(ahead, forward->cache, of->rows, half, layer);
    ahead_add_adapters(ahead, base, of->groups, of->group_count, layer, outs[0].proj);
    if (outs[0].proj == SORA_PROJ_DOWN && layer + 1 < base->layer_count)
        ahead_add_cache(ahead, forward->cache, of->rows + half, of->row_count - half, layer + 1);
    const struct project_batch batch = {.row_count = of->row_count,
                                        .groups = of->groups,
                                        .group_count = of->group_count,
                                        .ahead = ahead->list.bytes > 0 ? &ahead->list : NULL};
    project_run(&forward->projector, &forward->model->weights, layer, &batch, outs, count, in);
}

static void add_bias(float *y, const float *bias, int32_t m, int32_t width)
{
    if (bias == NULL)
        return;
    for (int32_t i = 0; i < m; i++)
        for (int32_t j = 0; j < width; j++)
            y[(size_t)i * (size_t)width + (size_t)j] += bias[j];
}

static void add_rows(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] += y[i];
}

// What makes the rows that a projection reads.
struct fill_context {
    struct forward *forward;
    const float *norm;
    bool adds; // first x gains what the projection before made, which is in `normed`
};

static void fill_normed(void *context, int32_t first, int32_t end)
{
    const struct fill_context *fill = context;
    struct forward *forward = fill->forward;
    const size_t hidden = (size_t)forward->model->info.base.hidden;
    float *x = forward->x + (size_t)first * hidden;
    float *normed = forward->normed + (size_t)first * hidden;
    if (fill->adds)
        add_rows(x, normed, (size_t)(end - first) * hidden);
    rmsnorm(x, fill->norm, forward->model->config.norm_eps, end - first, (int32_t)hidden, normed);
}

static void fill_swiglu(void *context, int32_t first, int32_t end)
{
    const struct fill_context *fill = context;
    const size_t width = (size_t)fill->forward->model->info.base.intermediate;
    float *gate = fill->forward->gate + (size_t)first * width;
    swiglu(gate, fill->forward->up + (size_t)first * width, (size_t)(end - first) * width, gate);
}

static struct attention_cache layer_cache(const struct forward *forward, int32_t layer)
{
    const struct kvcache *cache = forward->cache;
    const size_t offset = (size_t)layer * cache->layer_bytes;
    return (struct attention_cache){.dtype = cache->dtype,
                                    .keys = cache->keys + offset,
                                    .values = cache->values + offset,
                                    .block_stride = cache->block_stride};
}

struct store_context {
    struct forward *forward;
    int32_t layer;
};

// Biases, norms and positions of queries and keys; keys and values into the cache.
static void store_rows(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct store_context *store = context;
    struct forward *forward = store->forward;
    const struct sora_base *base = &forward->model->info.base;
    const struct weights_layer *weights = &forward->model->weights.layers[store->layer];
    const struct attention_cache cache = layer_cache(forward, store->layer);
    const float eps = forward->model->config.norm_eps;
    const int32_t q_width = base->d_out[SORA_PROJ_Q], k_width = base->d_out[SORA_PROJ_K];
    const int32_t m = end - first;
    const int32_t *positions = forward->batch.positions + first;
    float *q = forward->q + (size_t)first * (size_t)q_width;
    float *k = forward->k + (size_t)first * (size_t)k_width;
    float *v = forward->v + (size_t)first * (size_t)k_width;
    add_bias(q, weights->q_bias, m, q_width);
    add_bias(k, weights->k_bias, m, k_width);
    add_bias(v, weights->v_bias, m, k_width);
    if (weights->q_norm != NULL)
        rmsnorm(q, weights->q_norm, eps, m * base->head_count, base->head_dim, q);
    if (weights->k_norm != NULL)
        rmsnorm(k, weights->k_norm, eps, m * base->kv_head_count, base->head_dim, k);
    rope_apply(q, m, base->head_count, base->head_dim, forward->rope, positions);
    rope_apply(k, m, base->kv_head_count, base->head_dim, forward->rope, positions);
    for (int32_t i = 0; i < m; i++)
        attention_store(&forward->shape, &cache, forward->batch.slots[first + i],
                        k + (size_t)i * (size_t)k_width, v + (size_t)i * (size_t)k_width);
}

static void store(struct forward *forward, int32_t layer)
{
    const int32_t m = forward->batch.row_count;
    struct store_context store = {forward, layer};
    pool_run_rows(forward->pool, m, forward->model->info.base.hidden,
                  m < 4 * STORE_ROWS_MANY ? STORE_ROWS : STORE_ROWS_MANY, store_rows, &store);
}

static void attend(struct forward *forward, int32_t layer)
{
    const struct attention_cache cache = layer_cache(forward, layer);
    attention(forward->pool, &forward->shape, &cache, forward->batch.rows, forward->batch.row_count,
              forward->q, forward->attended, forward->attention_scratch);
}

static void move_rows(float *values, const int32_t *from, int32_t count, int32_t width)
{
    const size_t bytes = (size_t)width * sizeof *values;
    for (int32_t i = 0; i < count; i++)
        memmove(values + (size_t)i * (size_t)width, values + (size_t)from[i] * (size_t)width,
                bytes);
}

// After the last keys and values, rows without logits have nothing more to give.
static void keep_logit_rows(struct forward *forward)
{
    struct forward_batch *batch = &forward->batch;
    const struct sora_base *base = &forward->model->info.base;
    if (batch->logit_row_count == batch->row_count)
        return;
    forward_batch_keep_logit_rows(batch);
    move_rows(forward->x, batch->logit_rows, batch->row_count, base->hidden);
    move_rows(forward->q, batch->logit_rows, batch->row_count, base->d_out[SORA_PROJ_Q]);
}

static void attention_part(struct forward *forward, int32_t layer, struct sora_step_stats *stats)
{
    const float *norm = forward->model->weights.layers[layer].attention_norm;
    struct fill_context fill = {forward, norm, layer > 0};
    const struct project_out qkv[] = {
        {SORA_PROJ_Q, forward->q}, {SORA_PROJ_K, forward->k}, {SORA_PROJ_V, forward->v}};
    project(forward, layer, qkv, 3, &(struct project_in){forward->normed, fill_normed, &fill});
    int64_t start_us = clock_now_us();
    store(forward, layer);
    if (layer + 1 == forward->model->info.base.layer_count)
        keep_logit_rows(forward);
    attend(forward, layer);
    stats->attention_us += clock_now_us() - start_us;
    const struct project_out o = {SORA_PROJ_O, forward->normed};
    project(forward, layer, &o, 1, &(struct project_in){.x = forward->attended});
}

static void mlp_part(struct forward *forward, int32_t layer)
{
    struct fill_context fill = {forward, forward->model->weights.layers[layer].mlp_norm, true};
    const struct project_out gate_up[] = {{SORA_PROJ_GATE, forward->gate},
                                          {SORA_PROJ_UP, forward->up}};
    project(forward, layer, gate_up, 2, &(struct project_in){forward->normed, fill_normed, &fill});
    const struct project_out down = {SORA_PROJ_DOWN, forward->normed};
    project(forward, layer, &down, 1, &(struct project_in){forward->gate, fill_swiglu, &fill});
}

static void logits_part(struct forward *forward)
{
    const struct sora_model *model = forward->model;
    const int32_t m = forward->batch.row_count, hidden = model->info.base.hidden;
    if (m == 0)
        return;
    add_rows(forward->x, forward->normed, (size_t)m * (size_t)hidden); // of the last layer
    rmsnorm(forward->x, model->weights.output_norm, model->config.norm_eps, m, hidden,
            forward->normed);
    project_logits(&forward->projector, &model->weights, forward->normed, m, forward->logits);
}

void forward_run(struct forward *forward, struct sora_step_stats *stats)
{
    const struct sora_base *base = &forward->model->info.base;
    project_begin(&forward->projector);
    for (int32_t i = 0; i < forward->batch.row_count; i++)
        weight_row_to_f32(&forward->model->weights.embedding, forward->batch.tokens[i],
                          forward->x + (size_t)i * (size_t)base->hidden);
    for (int32_t layer = 0; layer < base->layer_count; layer++) {
        attention_part(forward, layer, stats);
        mlp_part(forward, layer);
    }
    logits_part(forward);
    stats->base_matmul_us += forward->projector.base_ns / 1000;
    stats->adapter_us += forward->projector.adapter_ns / 1000;
    stats->rank_sum += forward->projector.rank_sum;
}

// SPDX-License-Identifier: Apache-2.0
// The forward pass of the serving engine: a batch of rows (tokens of several sequences) through
// all layers, each row with its own adapter view. Owned by one engine and used by its thread; all
// buffers are made at init, nothing is allocated in a pass.
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "base/pool.h"
#include "kernel/attention.h"
#include "kernel/lora_matmul.h"
#include "model/ahead.h"
#include "model/kvcache.h"
#include "model/project.h"
#include "model/weights.h"
#include "sora/engine.h"

// What a pass computes: filled by the engine from the spans of a step. M rows, L logit rows.
struct forward_batch {
    int32_t row_count;
    int32_t *tokens;            // [M]
    int32_t *positions;         // [M]
    struct attention_row *rows; // [M]
    int32_t *slots;             // [M]: KV slot of the row, block * T + offset
    int32_t group_count;        // adapter views in use
    struct lora_group *groups;  // of first parts, of second parts, ...; rows in ascending order
    int32_t *group_rows;        // [M * LORA_PARTS_MAX], the groups' row lists one after another
    int32_t plain_count;
    int32_t *plain_rows; // [M]: rows in no group
    int32_t logit_row_count;
    int32_t *logit_rows; // [L]: rows whose logits are wanted
};

struct forward {
    const struct sora_model *model;
    struct pool *pool;
    struct kvcache *cache;
    int32_t rows_max, logit_rows_max, context_max;
    struct attention_shape shape;
    struct forward_batch batch;
    float *rope; // [context_max][head_dim]
    float *x, *normed, *q, *k, *v, *attended, *gate, *up, *logit_x;
    float *logits; // [L, vocab] of the last pass
    void *attention_scratch;
    struct projector projector;
    struct ahead ahead;
};

SORA_CHECKED sora_status forward_init(struct forward *forward, const struct sora_model *model,
                                      struct pool *pool, struct kvcache *cache,
                                      const struct sora_engine_options *options,
                                      struct sora_error *err);
void forward_deinit(struct forward *forward);

// Runs forward->batch. Adds times and ranks to *stats.
void forward_run(struct forward *forward, struct sora_step_stats *stats);

#endif

// SPDX-License-Identifier: Apache-2.0
// The forward pass of the serving engine: a batch of rows (tokens of several sequences) through
// all layers, each row with its own adapter view. Owned by one engine and used by its thread; all
// buffers are made at init, nothing is allocated in a pass.
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "base/pool.h"
#include "kernel/attention.h"
#include "model/ahead.h"
#include "model/forward_batch.h"
#include "model/kvcache.h"
#include "model/project.h"
#include "model/weights.h"
#include "sora/engine.h"

struct forward {
    const struct sora_model *model;
    struct pool *pool;
    struct kvcache *cache;
    int32_t rows_max, logit_rows_max, context_max;
    struct attention_shape shape;
    struct forward_batch batch;
    float *rope; // [context_max][head_dim]
    float *x, *normed, *q, *k, *v, *attended, *gate, *up;
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

// SPDX-License-Identifier: Apache-2.0
// The projections of a layer for a batch of rows: the base's products, each row's adapter added.
// Projections that read the same x go through the pool together. Owned by a forward pass and used
// by its thread; allocates nothing after init.
#ifndef MODEL_PROJECT_H
#define MODEL_PROJECT_H

#include "base/pool.h"
#include "kernel/lora_matmul.h"
#include "kernel/matmul.h"
#include "model/weights.h"
#include "sora/engine.h"

struct project_thread {
    _Alignas(64) int64_t adapter_ticks; // a cache line each: threads add at the same time
    int64_t fill_ticks, quant_ticks;
};

struct projector {
    struct pool *pool;
    enum sora_compute compute; // F32 or INT8
    float *matmul_scratch, *lora_scratch;
    void *quant_memory;             // of x as integers, with INT8
    struct project_thread *threads; // [pool_threads]
    // Since project_begin.
    int64_t base_ns, adapter_ns, rank_sum;
};

// The rows of a step and the adapters they carry.
struct project_batch {
    int32_t row_count;
    const struct lora_group *groups;
    int32_t group_count;
    const struct matmul_ahead *ahead; // read after these projections
};

// What the projections read, x [M, d_in]. fill, when not NULL, makes its rows [first, end) before
// they are read; different rows at the same time, by any thread.
struct project_in {
    const float *x;
    void (*fill)(void *context, int32_t first, int32_t end);
    void *context;
};

struct project_out {
    enum sora_proj proj;
    float *y; // [M, d_out]
};

// compute: F32 or INT8.
SORA_CHECKED sora_status project_init(struct projector *projector, const struct sora_base *base,
                                      struct pool *pool, int32_t rows_max,
                                      enum sora_compute compute, struct sora_error *err);
void project_deinit(struct projector *projector);

// A new step: the counters start at zero.
void project_begin(struct projector *projector);
// Every out of `count`: y = W x + scale B A x for each row.
void project_run(struct projector *projector, const struct weights *weights, int32_t layer,
                 const struct project_batch *batch, const struct project_out *outs, int32_t count,
                 const struct project_in *in);
// The output matrix for m rows: logits [m, vocab].
void project_logits(struct projector *projector, const struct weights *weights, const float *x,
                    int32_t m, float *logits);

#endif

// SPDX-License-Identifier: Apache-2.0
// The trainable numbers of a run, see params.h. One thread at a time.
#include "train/params.h"

#include <math.h>

#include "base/rng.h"
#include "sora/adapter.h"

static sora_status check_rank(const struct sora_base *base, const bool targets[SORA_PROJ_COUNT],
                              int32_t rank, struct sora_error *err)
{
    bool any = false;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        if (!targets[proj])
            continue;
        any = true;
        if (rank > base->d_in[proj] || rank > base->d_out[proj])
            return sora_fail(err, SORA_LIMIT, "rank %d exceeds %s's widths %d and %d", rank,
                             sora_proj_name((enum sora_proj)proj), base->d_in[proj],
                             base->d_out[proj]);
    }
    return any ? SORA_OK : sora_fail(err, SORA_MALFORMED, "no projection is targeted");
}

// Floats of A and B of one layer.
static int64_t layer_floats(const struct sora_base *base, const bool targets[SORA_PROJ_COUNT],
                            int32_t rank)
{
    int64_t sum = 0;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        if (targets[proj])
            sum += (int64_t)rank * ((int64_t)base->d_in[proj] + base->d_out[proj]);
    return sum;
}

static void bind_module(struct params *params, const struct sora_base *base, int32_t layer,
                        enum sora_proj proj, double scale, int64_t *matrix_at, int64_t *gate_at)
{
    struct train_module *module = params_module(params, layer, proj);
    const int64_t a_count = (int64_t)params->rank * base->d_in[proj];
    const int64_t b_count = (int64_t)params->rank * base->d_out[proj];
    module->rank = params->rank;
    module->scale = (float)scale;
    module->a = params->values + *matrix_at;
    module->da = params->grads + *matrix_at;
    module->b = module->a + a_count;
    module->db = module->da + a_count;
    *matrix_at += a_count + b_count;
    if (params->gate_count == 0)
        return;
    module->g = params->values + *gate_at;
    module->dg = params->grads + *gate_at;
    *gate_at += params->rank;
}

sora_status params_init(struct params *params, const struct sora_base *base,
                        const bool targets[SORA_PROJ_COUNT], int32_t rank, double scale, bool gated,
                        struct sora_error *err)
{
    *params = (struct params){.layer_count = base->layer_count, .rank = rank};
    arena_init(&params->arena, SIZE_MAX);
    sora_status status = check_rank(base, targets, rank, err);
    if (status != SORA_OK)
        return status;
    int64_t target_count = 0;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        target_count += targets[proj];
    params->matrix_count = layer_floats(base, targets, rank) * base->layer_count;
    params->gate_count = gated ? target_count * rank * base->layer_count : 0;
    const size_t count = (size_t)(params->matrix_count + params->gate_count);
    params->values = arena_alloc(&params->arena, count, sizeof(float));
    params->grads = arena_alloc(&params->arena, count, sizeof(float));
    params->moments1 = arena_alloc(&params->arena, count, sizeof(float));
    params->moments2 = arena_alloc(&params->arena, count, sizeof(float));
    params->modules = arena_alloc(&params->arena, (size_t)base->layer_count * SORA_PROJ_COUNT,
                                  sizeof(*params->modules));
    if (params->values == NULL || params->grads == NULL || params->moments1 == NULL ||
        params->moments2 == NULL || params->modules == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to train %zu parameters", count);
    int64_t matrix_at = 0, gate_at = params->matrix_count;
    for (int32_t layer = 0; layer < base->layer_count; layer++)
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
            if (targets[proj])
                bind_module(params, base, layer, (enum sora_proj)proj, scale, &matrix_at, &gate_at);
    return SORA_OK;
}

void params_deinit(struct params *params)
{
    arena_deinit(&params->arena);
}

void params_randomize(struct params *params, const struct sora_base *base, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int32_t layer = 0; layer < params->layer_count; layer++) {
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
            struct train_module *module = params_module(params, layer, (enum sora_proj)proj);
            const int64_t a_count = (int64_t)module->rank * base->d_in[proj];
            const double bound = 1.0 / sqrt((double)base->d_in[proj]);
            for (int64_t i = 0; i < a_count; i++)
                module->a[i] = (float)((2.0 * rng_uniform(&rng) - 1.0) * bound);
            for (int32_t i = 0; module->g != NULL && i < module->rank; i++)
                module->g[i] = (float)rng_normal(&rng);
        }
    }
}

struct train_module *params_module(const struct params *params, int32_t layer, enum sora_proj proj)
{
    return &params->modules[layer * SORA_PROJ_COUNT + (int32_t)proj];
}

int64_t params_ranks(const struct params *params)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < params->layer_count * SORA_PROJ_COUNT; i++)
        sum += params->modules[i].rank;
    return sum;
}

int64_t params_ranks_kept(const struct params *params)
{
    if (params->gate_count == 0)
        return params_ranks(params);
    int64_t kept = 0;
    for (int64_t i = 0; i < params->gate_count; i++)
        kept += params->values[params->matrix_count + i] != 0.0f;
    return kept;
}

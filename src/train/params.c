// SPDX-License-Identifier: Apache-2.0
// The trainable numbers of a run, see params.h. One thread at a time.
#include "train/params.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "sora/adapter.h"
#include "sora/limits.h"

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

static void bind_module(struct params *params, const struct sora_base *base, int32_t index,
                        int32_t rank, int64_t *matrix_at, int64_t *gate_at)
{
    const int32_t proj = index % SORA_PROJ_COUNT;
    struct train_module *module = &params->modules[index];
    const int64_t a_count = (int64_t)rank * base->d_in[proj];
    const int64_t b_count = (int64_t)rank * base->d_out[proj];
    if (rank == 0)
        return;
    module->rank = rank;
    module->scale = (float)params->scale;
    module->a = params->values + *matrix_at;
    module->da = params->grads + *matrix_at;
    module->b = module->a + a_count;
    module->db = module->da + a_count;
    *matrix_at += a_count + b_count;
    if (!params->gated)
        return;
    module->g = params->values + *gate_at;
    module->dg = params->grads + *gate_at;
    *gate_at += rank;
}

// Memory and views for these ranks; the arena is empty before.
static sora_status lay_out(struct params *params, const struct sora_base *base,
                           const int32_t *ranks, struct sora_error *err)
{
    const int32_t module_count = base->layer_count * SORA_PROJ_COUNT;
    params->matrix_count = params->gate_count = 0;
    for (int32_t i = 0; i < module_count; i++) {
        const int32_t proj = i % SORA_PROJ_COUNT;
        params->matrix_count += (int64_t)ranks[i] * ((int64_t)base->d_in[proj] + base->d_out[proj]);
        params->gate_count += params->gated ? ranks[i] : 0;
    }
    const size_t count = (size_t)(params->matrix_count + params->gate_count);
    const size_t room = count > 0 ? count : 1;
    params->values = arena_alloc(&params->arena, room, sizeof(float));
    params->grads = arena_alloc(&params->arena, room, sizeof(float));
    params->moments1 = arena_alloc(&params->arena, room, sizeof(float));
    params->moments2 = arena_alloc(&params->arena, room, sizeof(float));
    params->modules = arena_alloc(&params->arena, (size_t)module_count, sizeof(*params->modules));
    if (params->values == NULL || params->grads == NULL || params->moments1 == NULL ||
        params->moments2 == NULL || params->modules == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to train %zu parameters", count);
    int64_t matrix_at = 0, gate_at = params->matrix_count;
    for (int32_t i = 0; i < module_count; i++)
        bind_module(params, base, i, ranks[i], &matrix_at, &gate_at);
    return SORA_OK;
}

sora_status params_init(struct params *params, const struct sora_base *base,
                        const bool targets[SORA_PROJ_COUNT], int32_t rank, double scale, bool gated,
                        struct sora_error *err)
{
    *params = (struct params){
        .layer_count = base->layer_count, .rank = rank, .gated = gated, .scale = scale};
    arena_init(&params->arena, SIZE_MAX);
    int32_t ranks[SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT] = {0};
    sora_status status = check_rank(base, targets, rank, err);
    if (status != SORA_OK)
        return status;
    for (int32_t i = 0; i < base->layer_count * SORA_PROJ_COUNT; i++)
        ranks[i] = targets[i % SORA_PROJ_COUNT] ? rank : 0;
    status = lay_out(params, base, ranks, err);
    params->matrix_count_full = params->matrix_count;
    params->rank_count_full = status == SORA_OK ? params_ranks(params) : 0;
    return status;
}

sora_status params_resize(struct params *params, const struct sora_base *base, const int32_t *ranks,
                          struct sora_error *err)
{
    for (int32_t i = 0; i < params->layer_count * SORA_PROJ_COUNT; i++)
        if (ranks[i] < 0 || ranks[i] > params->modules[i].rank)
            return sora_fail(err, SORA_MALFORMED, "layer %d %s: rank %d is outside 0 to %d",
                             i / SORA_PROJ_COUNT,
                             sora_proj_name((enum sora_proj)(i % SORA_PROJ_COUNT)), ranks[i],
                             params->modules[i].rank);
    struct params made = *params;
    arena_init(&made.arena, SIZE_MAX);
    const sora_status status = lay_out(&made, base, ranks, err);
    if (status != SORA_OK) {
        arena_deinit(&made.arena);
        return status;
    }
    arena_deinit(&params->arena);
    *params = made;
    return SORA_OK;
}

// One of the flat arrays: the kept ranks of a module from their old places to their new ones.
static void copy_kept(const struct params *from, const float *from_array, const struct params *to,
                      float *to_array, const struct sora_base *base, int32_t index)
{
    const struct train_module *old = &from->modules[index], *new = &to->modules[index];
    const size_t d_in = (size_t)base->d_in[index % SORA_PROJ_COUNT];
    const size_t d_out = (size_t)base->d_out[index % SORA_PROJ_COUNT];
    if (new->rank == 0)
        return;
    const float *a = from_array + (old->a - from->values),
                *b = from_array + (old->b - from->values);
    const float *g = from_array + (old->g - from->values);
    float *a_to = to_array + (new->a - to->values), *b_to = to_array + (new->b - to->values);
    float *g_to = to_array + (new->g - to->values);
    int32_t kept = 0;
    for (int32_t j = 0; j < old->rank; j++) {
        if (old->g[j] == 0.0f)
            continue;
        memcpy(a_to + (size_t)kept * d_in, a + (size_t)j * d_in, d_in * sizeof(float));
        for (size_t o = 0; o < d_out; o++)
            b_to[o * (size_t) new->rank + (size_t)kept] = b[o * (size_t)old->rank + (size_t)j];
        g_to[kept++] = g[j];
    }
}

sora_status params_cut(struct params *params, const struct sora_base *base, struct sora_error *err)
{
    int32_t ranks[SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT] = {0};
    const int32_t module_count = params->layer_count * SORA_PROJ_COUNT;
    if (!params->gated)
        return SORA_OK;
    for (int32_t i = 0; i < module_count; i++) {
        const struct train_module *module = &params->modules[i];
        ranks[i] = 0;
        for (int32_t j = 0; j < module->rank; j++)
            ranks[i] += module->g[j] != 0.0f;
    }
    struct params made = *params;
    arena_init(&made.arena, SIZE_MAX);
    const sora_status status = lay_out(&made, base, ranks, err);
    for (int32_t i = 0; status == SORA_OK && i < module_count; i++) {
        copy_kept(params, params->values, &made, made.values, base, i);
        copy_kept(params, params->moments1, &made, made.moments1, base, i);
        copy_kept(params, params->moments2, &made, made.moments2, base, i);
    }
    arena_deinit(status == SORA_OK ? &params->arena : &made.arena);
    if (status == SORA_OK)
        *params = made;
    return status;
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
    if (!params->gated)
        return params_ranks(params);
    int64_t kept = 0;
    for (int64_t i = 0; i < params->gate_count; i++)
        kept += params->values[params->matrix_count + i] != 0.0f;
    return kept;
}

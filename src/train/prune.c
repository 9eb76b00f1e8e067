// SPDX-License-Identifier: Apache-2.0
// Pruning, see prune.h. One thread at a time per struct.
#include "train/prune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"

struct rank_order {
    int32_t index;
    double importance;
};

// Largest importance first; equal ones keep their order.
static int compare_ranks(const void *a, const void *b)
{
    const struct rank_order *x = a, *y = b;
    if (x->importance != y->importance)
        return x->importance > y->importance ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static double norm(const float *values, int32_t count, int32_t stride)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        const double value = values[(size_t)i * (size_t)stride];
        sum += value * value;
    }
    return sqrt(sum);
}

// Ranks with a gate other than zero, sorted; returns how many.
static int32_t order_ranks(const struct train_module *module, int32_t d_in, int32_t d_out,
                           struct rank_order *order)
{
    int32_t count = 0;
    for (int32_t j = 0; j < module->rank; j++) {
        const double gate = module->g != NULL ? (double)module->g[j] : 1.0;
        if (gate == 0.0)
            continue;
        order[count].index = j;
        order[count++].importance = fabs(gate) *
                                    norm(module->a + (size_t)j * (size_t)d_in, d_in, 1) *
                                    norm(module->b + j, d_out, module->rank);
    }
    qsort(order, (size_t)count, sizeof(*order), compare_ranks);
    return count;
}

static bool copy_ranks(struct arena *arena, const struct train_module *module,
                       const struct rank_order *order, int32_t d_in, int32_t d_out,
                       struct sora_adapter_tensor_pair *pair)
{
    const size_t rank = (size_t)pair->rank;
    float *a = arena_alloc(arena, rank * (size_t)d_in, sizeof(float));
    float *b = arena_alloc(arena, rank * (size_t)d_out, sizeof(float));
    if (a == NULL || b == NULL)
        return false;
    for (size_t i = 0; i < rank; i++) {
        const int32_t from = order[i].index;
        const float gate = module->g != NULL ? module->g[from] : 1.0f;
        memcpy(a + i * (size_t)d_in, module->a + (size_t)from * (size_t)d_in,
               (size_t)d_in * sizeof(float));
        for (size_t o = 0; o < (size_t)d_out; o++)
            b[o * rank + i] = gate * module->b[o * (size_t)module->rank + (size_t)from];
    }
    pair->a = a;
    pair->b = b;
    return true;
}

static bool prune_module(struct prune *prune, const struct params *params,
                         const struct sora_base *base, int32_t layer, enum sora_proj proj,
                         double scale)
{
    const struct train_module *module = params_module(params, layer, proj);
    const int32_t d_in = base->d_in[proj], d_out = base->d_out[proj];
    struct rank_order order[SORA_TRAIN_RANK_MAX];
    struct sora_adapter_tensor_pair pair = {.layer = layer, .proj = proj, .scale = scale};
    pair.rank = order_ranks(module, d_in, d_out, order);
    prune->parameters += (int64_t)pair.rank * ((int64_t)d_in + d_out);
    if (pair.rank == 0)
        return true;
    if (!copy_ranks(&prune->arena, module, order, d_in, d_out, &pair))
        return false;
    prune->pairs[prune->pair_count++] = pair;
    return true;
}

sora_status prune_init(struct prune *prune, const struct params *params,
                       const struct sora_base *base, double scale, struct sora_error *err)
{
    *prune = (struct prune){.parameters_full = params->matrix_count_full};
    arena_init(&prune->arena, SIZE_MAX);
    prune->pairs = arena_alloc(&prune->arena, (size_t)params->layer_count * SORA_PROJ_COUNT,
                               sizeof(*prune->pairs));
    bool ok = prune->pairs != NULL;
    for (int32_t layer = 0; ok && layer < params->layer_count; layer++)
        for (int32_t proj = 0; ok && proj < SORA_PROJ_COUNT; proj++)
            ok = prune_module(prune, params, base, layer, (enum sora_proj)proj, scale);
    if (ok)
        return SORA_OK;
    prune_deinit(prune);
    return sora_fail(err, SORA_NO_MEMORY, "no memory to prune %lld parameters",
                     (long long)params->matrix_count);
}

void prune_deinit(struct prune *prune)
{
    arena_deinit(&prune->arena);
    *prune = (struct prune){0};
}

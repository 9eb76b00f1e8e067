// SPDX-License-Identifier: Apache-2.0
// See ahead.h.
#include "model/ahead.h"

#include "kernel/dtype.h"

void ahead_clear(struct ahead *ahead)
{
    ahead->list = (struct matmul_ahead){.regions = ahead->regions};
}

// What lies right behind the last region becomes part of it. False: the list is full.
static bool add(struct ahead *ahead, const void *first, size_t bytes)
{
    struct matmul_ahead *list = &ahead->list;
    if (list->bytes + bytes > AHEAD_BYTES_MAX)
        return false;
    if (list->region_count > 0) {
        struct matmul_region *last = &ahead->regions[list->region_count - 1];
        const uintptr_t start = (uintptr_t)first, end = (uintptr_t)last->first + last->bytes;
        if (start >= end && start - end < 64) {
            list->bytes += start - end + bytes;
            last->bytes += start - end + bytes;
            return true;
        }
    }
    if (list->region_count == AHEAD_REGIONS_MAX)
        return false;
    ahead->regions[list->region_count++] = (struct matmul_region){first, bytes, list->bytes};
    list->bytes += bytes;
    return true;
}

static bool add_module(struct ahead *ahead, const struct sora_base *base,
                       const struct lora_group *group, int32_t layer, enum sora_proj proj)
{
    const struct sora_lora_module *module =
        &group->lora->modules[(size_t)layer * SORA_PROJ_COUNT + (size_t)proj];
    int32_t rank = module->rank;
    if (group->rank_max > 0 && group->rank_max < rank)
        rank = group->rank_max;
    if (rank == 0)
        return true;
    const size_t width = dtype_bytes(module->dtype);
    // Columns of an I8 module's B^T are fetched beside their own product (lora_expand_reads).
    return add(ahead, module->a, (size_t)rank * (size_t)base->d_in[proj] * width) &&
           (module->dtype == SORA_I8 ||
            add(ahead, module->bt, (size_t)rank * (size_t)base->d_out[proj] * width));
}

// A layer's records are a few lines for each adapter, far from those of the others.
static void prefetch_modules(const struct sora_lora *lora, int32_t layer)
{
    const uint8_t *first = (const uint8_t *)&lora->modules[(size_t)layer * SORA_PROJ_COUNT];
    for (size_t line = 0; line < SORA_PROJ_COUNT * sizeof *lora->modules; line += 64)
        __builtin_prefetch(first + line, 0, 3);
}

void ahead_add_adapters(struct ahead *ahead, const struct sora_base *base,
                        const struct lora_group *groups, int32_t group_count, int32_t layer,
                        enum sora_proj proj)
{
    static const struct {
        int32_t layers, count;
        enum sora_proj projs[LORA_CALLS_MAX];
    } after[SORA_PROJ_COUNT] = {
        [SORA_PROJ_Q] = {0, 1, {SORA_PROJ_O}},
        [SORA_PROJ_O] = {0, 2, {SORA_PROJ_GATE, SORA_PROJ_UP}},
        [SORA_PROJ_GATE] = {0, 1, {SORA_PROJ_DOWN}},
        [SORA_PROJ_DOWN] = {1, 3, {SORA_PROJ_Q, SORA_PROJ_K, SORA_PROJ_V}},
    };
    if (proj == SORA_PROJ_O && layer + 1 < base->layer_count)
        for (int32_t g = 0; g < group_count; g++)
            prefetch_modules(groups[g].lora, layer + 1);
    layer += after[proj].layers;
    if (layer >= base->layer_count)
        return;
    for (int32_t g = 0; g < group_count; g++)
        for (int32_t i = 0; i < after[proj].count; i++)
            if (!add_module(ahead, base, &groups[g], layer, after[proj].projs[i]))
                return;
}

void ahead_add_cache(struct ahead *ahead, const struct kvcache *cache,
                     const struct attention_row *rows, int32_t m, int32_t layer)
{
    const size_t bytes = cache->layer_bytes, of_layer = (size_t)layer * bytes;
    const size_t stride = bytes * (size_t)cache->layer_count;
    for (int32_t i = 0; i < m; i++) {
        if (i > 0 && rows[i].blocks == rows[i - 1].blocks)
            continue;
        for (int32_t block = 0; block <= rows[i].pos / SORA_KV_BLOCK_TOKENS; block++) {
            const size_t offset = of_layer + (size_t)rows[i].blocks[block] * stride;
            if (!add(ahead, cache->keys + offset, bytes) ||
                !add(ahead, cache->values + offset, bytes))
                return;
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
// What a layer reads after a product: the adapters of the projections that come next and, before
// attention, the sequences' keys and values. The product fetches it meanwhile (matmul_ahead).
// Owned by a forward pass and used by its thread; allocates nothing.
#ifndef MODEL_AHEAD_H
#define MODEL_AHEAD_H

#include "kernel/attention.h"
#include "kernel/lora_matmul.h"
#include "kernel/matmul.h"
#include "model/kvcache.h"

#define AHEAD_REGIONS_MAX 1024
#define AHEAD_BYTES_MAX (1u << 20) // what the second caches of two cores hold

struct ahead {
    struct matmul_region regions[AHEAD_REGIONS_MAX];
    struct matmul_ahead list;
};

void ahead_clear(struct ahead *ahead);
// The groups' modules that are read by the projections after `proj` of a layer. Asks at once for
// the records of modules that later calls will look at.
void ahead_add_adapters(struct ahead *ahead, const struct sora_base *base,
                        const struct lora_group *groups, int32_t group_count, int32_t layer,
                        enum sora_proj proj);
// Keys and values that m rows attend to in a layer; rows of one sequence stand together. They are
// more than one product hides: half is fetched in the layer before.
void ahead_add_cache(struct ahead *ahead, const struct kvcache *cache,
                     const struct attention_row *rows, int32_t m, int32_t layer);

#endif

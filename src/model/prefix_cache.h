// SPDX-License-Identifier: Apache-2.0
// Which KV blocks hold the keys and values of which tokens: an index over full blocks, by the block
// before them, the view they were computed with (the digest, scale and ranks of each adapter, in
// their order) and their tokens.
// All of these are compared, not just hashed, and a block's stamp is never given twice, so a stale
// or foreign block cannot be found. Blocks that no sequence holds wait in order of last use and are
// given away oldest first. Owned by a KV cache, used by the engine's thread; allocates nothing
// after init.
#ifndef MODEL_PREFIX_CACHE_H
#define MODEL_PREFIX_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/engine.h"
#include "sora/limits.h"
#include "sora/status.h"

struct prefix_entry; // of one block

struct prefix_cache {
    struct prefix_entry *entries; // [block_count]
    int32_t *buckets;             // [bucket_count] first block of each chain, -1: none
    int32_t block_count, bucket_count;
    int32_t idle_first, idle_last, idle_count; // listed blocks that nobody holds, oldest first
    uint64_t stamps;
};

SORA_CHECKED sora_status prefix_cache_init(struct prefix_cache *cache, int32_t block_count,
                                           struct sora_error *err);
void prefix_cache_deinit(struct prefix_cache *cache);

// The block that follows `parent` (-1: the first of a sequence) with these tokens [T]; -1: none.
int32_t prefix_cache_find(const struct prefix_cache *cache, const struct sora_prefix_view *view,
                          int32_t parent, const int32_t *tokens);
// Lists a held block under these tokens [T], unless another one is already. parent must be listed.
// Returns the block that is listed.
int32_t prefix_cache_list(struct prefix_cache *cache, int32_t block,
                          const struct sora_prefix_view *view, int32_t parent,
                          const int32_t *tokens);

// Holds of a block by sequences. A new block has none.
void prefix_cache_hold(struct prefix_cache *cache, int32_t block);
// True: nobody holds it and it is not listed: it is free.
bool prefix_cache_release(struct prefix_cache *cache, int32_t block);
// Takes the idle block that was used longest ago out of the index; -1: there is none.
int32_t prefix_cache_evict(struct prefix_cache *cache);

#endif

// SPDX-License-Identifier: Apache-2.0
// See prefix_cache.h. Engine thread only.
#include "model/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define TOKENS SORA_KV_BLOCK_TOKENS

struct prefix_entry {
    bool listed;
    int32_t holds;
    uint64_t stamp, parent_stamp; // parent_stamp 0: the first block of a sequence
    struct sora_prefix_view view;
    int32_t tokens[TOKENS];
    int32_t chain_next;
    int32_t idle_prev, idle_next;
};

sora_status prefix_cache_init(struct prefix_cache *cache, int32_t block_count,
                              struct sora_error *err)
{
    memset(cache, 0, sizeof *cache);
    cache->block_count = block_count;
    cache->bucket_count = block_count + block_count / 2 + 1;
    cache->idle_first = cache->idle_last = -1;
    cache->entries = calloc((size_t)block_count, sizeof *cache->entries);
    cache->buckets = calloc((size_t)cache->bucket_count, sizeof *cache->buckets);
    if (cache->entries == NULL || cache->buckets == NULL) {
        prefix_cache_deinit(cache);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the index of %d blocks", block_count);
    }
    memset(cache->buckets, 0xff, (size_t)cache->bucket_count * sizeof *cache->buckets);
    return SORA_OK;
}

void prefix_cache_deinit(struct prefix_cache *cache)
{
    free(cache->entries);
    free(cache->buckets);
    memset(cache, 0, sizeof *cache);
}

static uint64_t stamp_of(const struct prefix_cache *cache, int32_t block)
{
    ASSERT(block < cache->block_count);
    return block < 0 ? 0 : cache->entries[block].stamp;
}

// FNV-1a over words: only a place to start looking.
static int32_t bucket_of(const struct prefix_cache *cache, uint64_t parent_stamp,
                         const struct sora_prefix_view *view, const int32_t *tokens)
{
    uint64_t hash = 1469598103934665603u ^ parent_stamp ^ ((uint64_t)(uint32_t)view->tenant << 32);
    for (int32_t part = 0; part < view->part_count; part++) {
        uint32_t scale;
        memcpy(&scale, &view->parts[part].scale, sizeof scale);
        hash = (hash ^ scale) * 1099511628211u;
        for (int i = 0; i < 16; i++)
            hash = (hash ^ (uint8_t)view->parts[part].digest[i]) * 1099511628211u;
    }
    for (int i = 0; i < TOKENS; i++)
        hash = (hash ^ (uint32_t)tokens[i]) * 1099511628211u;
    hash ^= hash >> 32;
    return (int32_t)(hash % (uint64_t)cache->bucket_count);
}

// Of views that were filled with zeros first.
static bool same_view(const struct sora_prefix_view *a, const struct sora_prefix_view *b)
{
    if (a->tenant != b->tenant || a->part_count != b->part_count)
        return false;
    for (int32_t i = 0; i < a->part_count; i++) {
        const struct sora_prefix_part *left = &a->parts[i], *right = &b->parts[i];
        if (strcmp(left->digest, right->digest) != 0 || left->rank_max != right->rank_max ||
            memcmp(&left->scale, &right->scale, sizeof left->scale) != 0)
            return false;
    }
    return true;
}

int32_t prefix_cache_find(const struct prefix_cache *cache, const struct sora_prefix_view *view,
                          int32_t parent, const int32_t *tokens)
{
    const uint64_t parent_stamp = stamp_of(cache, parent);
    int32_t block = cache->buckets[bucket_of(cache, parent_stamp, view, tokens)];
    for (; block >= 0; block = cache->entries[block].chain_next) {
        const struct prefix_entry *entry = &cache->entries[block];
        if (entry->parent_stamp == parent_stamp &&
            memcmp(entry->tokens, tokens, sizeof entry->tokens) == 0 &&
            same_view(&entry->view, view))
            return block;
    }
    return -1;
}

int32_t prefix_cache_list(struct prefix_cache *cache, int32_t block,
                          const struct sora_prefix_view *view, int32_t parent,
                          const int32_t *tokens)
{
    struct prefix_entry *entry = &cache->entries[block];
    ASSERT(entry->holds > 0 && !entry->listed);
    ASSERT(parent < 0 || cache->entries[parent].listed);
    int32_t known = prefix_cache_find(cache, view, parent, tokens);
    if (known >= 0)
        return known;
    entry->listed = true;
    entry->stamp = ++cache->stamps;
    entry->parent_stamp = stamp_of(cache, parent);
    entry->view = *view;
    memcpy(entry->tokens, tokens, sizeof entry->tokens);
    int32_t *bucket = &cache->buckets[bucket_of(cache, entry->parent_stamp, view, tokens)];
    entry->chain_next = *bucket;
    *bucket = block;
    return block;
}

static void idle_remove(struct prefix_cache *cache, int32_t block)
{
    struct prefix_entry *entry = &cache->entries[block];
    *(entry->idle_prev >= 0 ? &cache->entries[entry->idle_prev].idle_next : &cache->idle_first) =
        entry->idle_next;
    *(entry->idle_next >= 0 ? &cache->entries[entry->idle_next].idle_prev : &cache->idle_last) =
        entry->idle_prev;
    cache->idle_count--;
}

static void idle_append(struct prefix_cache *cache, int32_t block)
{
    struct prefix_entry *entry = &cache->entries[block];
    entry->idle_prev = cache->idle_last;
    entry->idle_next = -1;
    *(cache->idle_last >= 0 ? &cache->entries[cache->idle_last].idle_next : &cache->idle_first) =
        block;
    cache->idle_last = block;
    cache->idle_count++;
}

void prefix_cache_hold(struct prefix_cache *cache, int32_t block)
{
    struct prefix_entry *entry = &cache->entries[block];
    if (entry->holds++ == 0 && entry->listed)
        idle_remove(cache, block);
}

bool prefix_cache_release(struct prefix_cache *cache, int32_t block)
{
    struct prefix_entry *entry = &cache->entries[block];
    ASSERT(entry->holds > 0);
    if (--entry->holds > 0)
        return false;
    if (!entry->listed)
        return true;
    idle_append(cache, block);
    return false;
}

int32_t prefix_cache_evict(struct prefix_cache *cache)
{
    const int32_t block = cache->idle_first;
    if (block < 0)
        return -1;
    struct prefix_entry *entry = &cache->entries[block];
    idle_remove(cache, block);
    int32_t *link =
        &cache->buckets[bucket_of(cache, entry->parent_stamp, &entry->view, entry->tokens)];
    while (*link != block)
        link = &cache->entries[*link].chain_next;
    *link = entry->chain_next;
    entry->listed = false;
    entry->stamp = 0;
    return block;
}

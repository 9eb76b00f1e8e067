// SPDX-License-Identifier: Apache-2.0
// See kvcache.h. Engine thread only; nothing is allocated after init.
#include "model/kvcache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/pages.h"
#include "kernel/attention.h"
#include "kernel/dtype.h"
#include "sora/limits.h"

size_t kvcache_block_bytes(enum sora_dtype dtype, int32_t layer_count, int32_t kv_head_count,
                           int32_t head_dim)
{
    return (size_t)2 * (size_t)layer_count * (size_t)kv_head_count *
           attention_head_elements(dtype, head_dim) * dtype_bytes(dtype);
}

sora_status kvcache_init(struct kvcache *cache, enum sora_dtype dtype, int32_t layer_count,
                         int32_t kv_head_count, int32_t head_dim, int32_t block_count,
                         int32_t seq_count, int32_t context_max, struct sora_error *err)
{
    memset(cache, 0, sizeof *cache);
    cache->dtype = dtype;
    cache->layer_count = layer_count;
    cache->block_count = block_count;
    cache->seq_count = seq_count;
    cache->blocks_per_seq_max = (context_max + SORA_KV_BLOCK_TOKENS - 1) / SORA_KV_BLOCK_TOKENS;
    const size_t elements = (size_t)kv_head_count * attention_head_elements(dtype, head_dim);
    cache->layer_bytes = elements * dtype_bytes(dtype);
    cache->block_stride = elements * (size_t)layer_count;

    size_t table_count = 0;
    bool fits = checked_mul(cache->layer_bytes * (size_t)layer_count, (size_t)block_count,
                            &cache->map_bytes) &&
                checked_mul((size_t)seq_count, (size_t)cache->blocks_per_seq_max, &table_count);
    if (fits) {
        cache->keys = pages_map(cache->map_bytes);
        cache->values = pages_map(cache->map_bytes);
        cache->free_blocks = calloc((size_t)block_count, sizeof *cache->free_blocks);
        cache->block_table = calloc(table_count, sizeof *cache->block_table);
        cache->seqs = calloc((size_t)seq_count, sizeof *cache->seqs);
    }
    if (!fits || cache->keys == NULL || cache->values == NULL || cache->free_blocks == NULL ||
        cache->block_table == NULL || cache->seqs == NULL) {
        kvcache_deinit(cache);
        return sora_fail(err, SORA_NO_MEMORY, "a KV cache of %d blocks does not fit in memory",
                         block_count);
    }
    sora_status status = prefix_cache_init(&cache->prefix, block_count, err);
    if (status != SORA_OK) {
        kvcache_deinit(cache);
        return status;
    }
    // Low numbers are handed out first, so that memory is touched from the front.
    for (int32_t i = 0; i < block_count; i++)
        cache->free_blocks[i] = block_count - 1 - i;
    cache->free_count = block_count;
    for (int32_t i = 0; i < seq_count; i++)
        cache->seqs[i].blocks = cache->block_table + (size_t)i * (size_t)cache->blocks_per_seq_max;
    return SORA_OK;
}

void kvcache_deinit(struct kvcache *cache)
{
    pages_unmap(cache->keys, cache->map_bytes);
    pages_unmap(cache->values, cache->map_bytes);
    free(cache->free_blocks);
    free(cache->block_table);
    free(cache->seqs);
    prefix_cache_deinit(&cache->prefix);
    memset(cache, 0, sizeof *cache);
}

int32_t kvcache_open(struct kvcache *cache)
{
    for (int32_t i = 0; i < cache->seq_count; i++) {
        struct kv_seq *seq = &cache->seqs[i];
        if (!seq->open) {
            int32_t *blocks = seq->blocks;
            *seq = (struct kv_seq){.open = true, .blocks = blocks, .listed_last = -1};
            return i;
        }
    }
    return -1;
}

int32_t kvcache_open_prefix(struct kvcache *cache, const struct sora_prefix_view *view,
                            const int32_t *tokens, int32_t token_count, int32_t *cached)
{
    const int32_t index = kvcache_open(cache);
    *cached = 0;
    if (index < 0)
        return -1;
    struct kv_seq *seq = &cache->seqs[index];
    seq->has_view = true;
    seq->view = *view;
    // The last token is always computed: its logits are wanted.
    while ((seq->block_count + 1) * SORA_KV_BLOCK_TOKENS < token_count &&
           seq->block_count < cache->blocks_per_seq_max) {
        int32_t block = prefix_cache_find(&cache->prefix, view, seq->listed_last,
                                          tokens + seq->block_count * SORA_KV_BLOCK_TOKENS);
        if (block < 0)
            break;
        prefix_cache_hold(&cache->prefix, block);
        seq->blocks[seq->block_count++] = block;
        seq->listed_last = block;
    }
    seq->listed_count = seq->block_count;
    seq->length = *cached = seq->block_count * SORA_KV_BLOCK_TOKENS;
    return index;
}

void kvcache_computed(struct kvcache *cache, int32_t index, const int32_t *tokens, int32_t count)
{
    struct kv_seq *seq = &cache->seqs[index];
    for (int32_t i = 0; seq->has_view && i < count; i++) {
        seq->tail[seq->tail_count++] = tokens[i];
        if (seq->tail_count < SORA_KV_BLOCK_TOKENS)
            continue;
        int32_t *block = &seq->blocks[seq->listed_count++];
        int32_t listed =
            prefix_cache_list(&cache->prefix, *block, &seq->view, seq->listed_last, seq->tail);
        if (listed != *block) { // computed twice at the same time: the same bits, kept once
            prefix_cache_hold(&cache->prefix, listed);
            if (prefix_cache_release(&cache->prefix, *block))
                cache->free_blocks[cache->free_count++] = *block;
            *block = listed;
        }
        seq->listed_last = listed;
        seq->tail_count = 0;
    }
}

int32_t kvcache_available(const struct kvcache *cache)
{
    return cache->free_count + cache->prefix.idle_count;
}

void kvcache_close(struct kvcache *cache, int32_t index)
{
    ASSERT(index >= 0 && index < cache->seq_count);
    struct kv_seq *seq = &cache->seqs[index];
    ASSERT(seq->open);
    // From the end, so that a block is given away before those that it can only be found by.
    for (int32_t i = seq->block_count - 1; i >= 0; i--)
        if (prefix_cache_release(&cache->prefix, seq->blocks[i]))
            cache->free_blocks[cache->free_count++] = seq->blocks[i];
    seq->open = false;
    seq->block_count = 0;
    seq->length = 0;
}

static int32_t take_block(struct kvcache *cache)
{
    int32_t block = cache->free_count > 0 ? cache->free_blocks[--cache->free_count]
                                          : prefix_cache_evict(&cache->prefix);
    ASSERT(block >= 0);
    prefix_cache_hold(&cache->prefix, block);
    return block;
}

bool kvcache_reserve(struct kvcache *cache, int32_t index, int32_t token_count)
{
    ASSERT(index >= 0 && index < cache->seq_count);
    struct kv_seq *seq = &cache->seqs[index];
    ASSERT(seq->open && token_count >= 0);
    int32_t wanted =
        (int32_t)(((int64_t)token_count + SORA_KV_BLOCK_TOKENS - 1) / SORA_KV_BLOCK_TOKENS);
    if (wanted > cache->blocks_per_seq_max || wanted - seq->block_count > kvcache_available(cache))
        return false;
    while (seq->block_count < wanted)
        seq->blocks[seq->block_count++] = take_block(cache);
    return true;
}

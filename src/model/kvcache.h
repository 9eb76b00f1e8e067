// SPDX-License-Identifier: Apache-2.0
// Keys and values in blocks of SORA_KV_BLOCK_TOKENS tokens, handed to sequences from one pool.
// A block number means the same slot in every layer; a block's layers lie side by side, so that
// what sequences use is dense. Memory is mapped, not touched, until used.
// Owned by one engine, used by its thread alone.
#ifndef MODEL_KVCACHE_H
#define MODEL_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/prefix_cache.h"
#include "sora/lora.h"
#include "sora/status.h"

struct kv_seq {
    bool open;
    int32_t length;      // tokens whose keys and values are in the cache
    int32_t block_count; // blocks taken
    int32_t *blocks;     // [blocks_per_seq_max]
    // With a view: its blocks are listed when they are full.
    bool has_view;
    struct sora_prefix_view view;
    int32_t listed_count;               // blocks of it that are listed, or shared
    int32_t listed_last;                // the last of them, -1: none
    int32_t tail[SORA_KV_BLOCK_TOKENS]; // tokens after them
    int32_t tail_count;
};

struct kvcache {
    int32_t layer_count, block_count, seq_count, blocks_per_seq_max;
    enum sora_dtype dtype; // SORA_F32, SORA_F16 or SORA_I16
    size_t layer_bytes;    // of one block in one layer, keys or values
    size_t block_stride;   // elements from one block to the next: of all layers
    uint8_t *keys, *values;
    size_t map_bytes;     // of each of the two
    int32_t *free_blocks; // a stack
    int32_t free_count;
    int32_t *block_table;
    struct kv_seq *seqs;
    struct prefix_cache prefix;
};

// Bytes of one block over all layers, keys and values.
size_t kvcache_block_bytes(enum sora_dtype dtype, int32_t layer_count, int32_t kv_head_count,
                           int32_t head_dim);

SORA_CHECKED sora_status kvcache_init(struct kvcache *cache, enum sora_dtype dtype,
                                      int32_t layer_count, int32_t kv_head_count, int32_t head_dim,
                                      int32_t block_count, int32_t seq_count, int32_t context_max,
                                      struct sora_error *err);
void kvcache_deinit(struct kvcache *cache);

int32_t kvcache_open(struct kvcache *cache); // -1: all sequences are open
// A sequence that begins with `tokens` and shares the blocks known for them, but for the last
// token's. *cached: tokens that are in it.
int32_t kvcache_open_prefix(struct kvcache *cache, const struct sora_prefix_view *view,
                            const int32_t *tokens, int32_t token_count, int32_t *cached);
// Tells that the next `count` tokens of the sequence were computed.
void kvcache_computed(struct kvcache *cache, int32_t seq, const int32_t *tokens, int32_t count);
// Blocks that can be had: free ones and those that are only kept in case they are asked for.
int32_t kvcache_available(const struct kvcache *cache);
void kvcache_close(struct kvcache *cache, int32_t seq);
// Takes blocks for token_count tokens in all; false, nothing taken, when they are not there.
bool kvcache_reserve(struct kvcache *cache, int32_t seq, int32_t token_count);

#endif

// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention of a batch of rows over a block-wise KV cache.
// Letters: H heads, G kv heads, D head_dim, T = SORA_KV_BLOCK_TOKENS tokens in a block.
// Head h reads kv head h / (H / G). Scores are scaled by `scale`, softmax over positions
// max(0, pos - window + 1) .. pos (window 0: from 0).
// Positions are computed in chunks of ATTENTION_CHUNK_TOKENS, counted from position 0, each to its
// own maximum, sum and weighted values; chunks are merged in order (as in Flash-Decoding, Dao et
// al. 2023). So a long context is shared by threads, and a row's result depends on its own query
// and history alone, to the bit. With an I16 cache queries and weights are rounded to 16 bits too:
// products are sums of integers, exact, two at a time; softmax is in f32 always.
#ifndef KERNEL_ATTENTION_H
#define KERNEL_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "sora/limits.h"
#include "sora/lora.h"

#define ATTENTION_CHUNK_TOKENS 512

struct attention_shape {
    int32_t head_count, kv_head_count, head_dim;
    int32_t window; // sliding window in tokens; 0: none
    float scale;
};

// One layer's cache: block b at element b * block_stride holds keys [G][D][T], so that a vector is
// one element of many keys, and values [G][T][D]. I16: of each kv head [D/2][T][2] keys, two
// elements of one key together, or [T/2][D][2] values, of two tokens; then the tokens' scales, [T]
// in f32. A token's elements are integers, of 15 bits in keys and 14 in values, times its scale.
struct attention_cache {
    enum sora_dtype dtype; // SORA_F32, SORA_F16 or SORA_I16
    void *keys, *values;
    size_t block_stride; // elements
};

// Elements of a kv head's keys, or values, in one block.
static inline size_t attention_head_elements(enum sora_dtype dtype, int32_t head_dim)
{
    const size_t scale = dtype == SORA_I16 ? sizeof(float) / sizeof(int16_t) : 0;
    return SORA_KV_BLOCK_TOKENS * ((size_t)head_dim + scale);
}

struct attention_row {
    const int32_t *blocks; // the sequence's block numbers; block_of(p) = blocks[p / T]
    int32_t pos;           // this row's position; its own key and value are already in the cache
};

// Writes one row's keys and values, [G*D] each, to slot block * T + offset. In f16 what is beyond
// its range becomes the largest number of that sign. In I16 what is not finite makes all that the
// row's kv head has to do with it NaN.
void attention_store(const struct attention_shape *shape, const struct attention_cache *cache,
                     int32_t slot, const float *key, const float *value);
// Bytes of scratch for up to rows_max rows and this many threads; 64-byte aligned.
size_t attention_scratch_bytes(const struct attention_shape *shape, int32_t rows_max,
                               int32_t threads);
// q [m, H*D], out [m, H*D]; must not overlap.
void attention(struct pool *pool, const struct attention_shape *shape,
               const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
               const float *q, float *out, void *scratch);
// The reference, in double. scores: as many floats as the longest row has positions.
void attention_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                   const struct attention_row *rows, int32_t m, const float *q, float *out,
                   float *scores);

#endif

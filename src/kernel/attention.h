// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention of a batch of rows over a block-wise KV cache.
// Letters: H heads, G kv heads, D head_dim, T = SORA_KV_BLOCK_TOKENS tokens in a block.
// Head h reads kv head h / (H / G). Scores are scaled by `scale`, softmax over positions
// max(0, pos - window + 1) .. pos (window 0: from 0). Sums run over positions in order within
// fixed chunks, so a row's result depends on its own query and history alone, to the bit.
#ifndef KERNEL_ATTENTION_H
#define KERNEL_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "sora/limits.h"

struct attention_shape {
    int32_t head_count, kv_head_count, head_dim;
    int32_t window; // sliding window in tokens; 0: none
    float scale;
};

// One layer's cache: block b at keys + b * block_stride holds [G][T][D]; values alike.
struct attention_cache {
    float *keys, *values;
    size_t block_stride; // floats
};

struct attention_row {
    const int32_t *blocks; // the sequence's block numbers; block_of(p) = blocks[p / T]
    int32_t pos;           // this row's position; its own key and value are already in the cache
};

// Floats of scratch for the longest context and this many threads.
size_t attention_scratch_count(const struct attention_shape *shape, int32_t context_max,
                               int32_t threads);
// q [m, H*D], out [m, H*D]; must not overlap. context_max as given to attention_scratch_count.
void attention(struct pool *pool, const struct attention_shape *shape,
               const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
               const float *q, float *out, float *scratch, int32_t context_max);
void attention_ref(const struct attention_shape *shape, const struct attention_cache *cache,
                   const struct attention_row *rows, int32_t m, const float *q, float *out,
                   float *scratch);

#endif

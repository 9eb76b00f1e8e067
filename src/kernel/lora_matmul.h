// SPDX-License-Identifier: Apache-2.0
// y += scale * B (A x) for rows that carry adapters, at each module's exact rank. Rows of one
// adapter are computed together, whatever their place in the batch; rank 0 and rows without an
// adapter cost nothing. A row's result depends on its own x and adapter alone, to the bit.
// Shrink (t = A x): one dot product per rank, in a fixed order over d_in. Expand: y[o] grows by
// scale * t[r] * B[o, r] for r = 0, 1, ... in turn.
#ifndef KERNEL_LORA_MATMUL_H
#define KERNEL_LORA_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "sora/lora.h"

// The rows of a batch that share one adapter view.
struct lora_group {
    const struct sora_lora *lora;
    float scale;      // multiplies the module's own
    int32_t rank_max; // first ranks only; 0: all
    int32_t row_count;
    const int32_t *rows; // indices into the batch
};

// Floats of scratch for up to m rows and a largest module rank.
size_t lora_matmul_scratch_count(int32_t m, int32_t rank_max);

// x [m, d_in], y [m, d_out] dense. Returns the sum over rows of the ranks computed.
int64_t lora_matmul(struct pool *pool, const struct lora_group *groups, int32_t group_count,
                    int32_t layer, enum sora_proj proj, const float *x, int32_t d_in, float *y,
                    int32_t d_out, float *scratch);
int64_t lora_matmul_ref(const struct lora_group *groups, int32_t group_count, int32_t layer,
                        enum sora_proj proj, const float *x, int32_t d_in, float *y, int32_t d_out,
                        float *scratch);

#endif

// SPDX-License-Identifier: Apache-2.0
// Products with frozen, packed base matrices in training: forward, and the gradient of the input
// (the matrices themselves have none), the low-rank module beside each included. The base stays
// quantized: 16 columns of a product at a time are unpacked to f32, a few hundred of k deep, and
// multiplied at once. Matrices that share an input go through the pool together. Tiles depend on
// the shapes alone and no sum is split between tasks, so results do not depend on the number of
// threads.
// Letters: n rows (tokens), W [d_out, d_in].
#ifndef KERNEL_FROZEN_LINEAR_H
#define KERNEL_FROZEN_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "kernel/lora_train.h"
#include "kernel/weight.h"

// One matrix in a product, with its module (rank 0: none).
struct frozen_part {
    const struct weight *weight;
    const float *bias; // [d_out] or NULL; forward only
    struct lora_train lora;
    const float *side; // [n, rank]: u in the forward, dt in the backward (lora_train.h)
    float *y;          // [n, d_out]; forward only, overwritten
    const float *dy;   // [n, d_out]; backward only
};
#define FROZEN_PARTS_MAX 3

// Floats of scratch for any weights.
size_t frozen_linear_scratch_count(int32_t threads);

// y = x W^T + bias + u B^T for every part; x [n, d_in], the same for all.
void frozen_linear(struct pool *pool, const struct frozen_part *parts, int32_t part_count,
                   const float *x, int32_t n, float *scratch);
// dx [n, d_in] is overwritten with the sum over the parts of dy W + dt A.
void frozen_linear_backward(struct pool *pool, const struct frozen_part *parts, int32_t part_count,
                            int32_t n, float *dx, float *scratch);

#endif

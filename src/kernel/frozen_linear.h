// SPDX-License-Identifier: Apache-2.0
// Products with a frozen, packed base matrix in training: forward, and the gradient of the input
// (the matrix itself has none). Rows of W are unpacked to f32 in chunks, then sgemm. Work is cut
// into tiles whose sizes depend on the shapes alone and no sum is split between tasks, so results
// do not depend on the number of threads.
// Letters: n rows (tokens), W [d_out, d_in].
#ifndef KERNEL_FROZEN_LINEAR_H
#define KERNEL_FROZEN_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "kernel/weight.h"

// Floats of scratch for a weight of this shape: one chunk of unpacked rows.
size_t frozen_linear_scratch_count(int32_t d_out, int32_t d_in);

// y = x W^T + bias. x [n, d_in], y [n, d_out], bias [d_out] or NULL; y is overwritten.
void frozen_linear(struct pool *pool, const struct weight *weight, const float *bias,
                   const float *x, int32_t n, float *y, float *scratch);
// dx (+)= dy W for the forward line above. dy [n, d_out], dx [n, d_in]; add: dx grows, otherwise
// it is overwritten.
void frozen_linear_backward(struct pool *pool, const struct weight *weight, const float *dy,
                            int32_t n, bool add, float *dx, float *scratch);

#endif

// SPDX-License-Identifier: Apache-2.0
// The gated low-rank module in training: y += scale * B (g o (A x)), and its gradients, in the
// pieces that the products with the frozen matrix beside it take along (frozen_linear.h). Pure;
// tiles depend on the shapes alone and no sum is split between tasks, so results do not depend on
// the number of threads.
// Letters: n rows (tokens), r rank; A [r, d_in], B [d_out, r], g [r].
#ifndef KERNEL_LORA_TRAIN_H
#define KERNEL_LORA_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

struct lora_train {
    int32_t rank, d_in, d_out;
    float scale;
    const float *a, *b, *g; // g NULL: all ones, and no gradient
    float *da, *db, *dg;    // gradients, added to
};

// x [n, d_in]: t = A x [n, r], kept for the backward, and u = scale (g o t) [n, r].
void lora_train_shrink(struct pool *pool, const struct lora_train *module, const float *x,
                       int32_t n, float *t, float *u);
// Rows [row, row + rows) and columns [first, end) of y [n, d_out] += u B^T; in one thread.
// first is a multiple of 16.
void lora_train_expand(const struct lora_train *module, const float *u, int32_t row, int32_t rows,
                       int32_t first, int32_t end, float *y);

// Floats of scratch for the backward.
size_t lora_train_scratch_count(int32_t n, int32_t rank);
// With x and t of the forward: da, db and dg grow by the gradients for dy [n, d_out], and
// dt [n, r] is overwritten with that of t.
void lora_train_backward(struct pool *pool, const struct lora_train *module, const float *x,
                         const float *t, int32_t n, const float *dy, float *dt, float *scratch);
// dx [n, d_in] is overwritten with dt A.
void lora_train_input_gradient(struct pool *pool, const struct lora_train *module, const float *dt,
                               int32_t n, float *dx);

// Inverted dropout: out[i] = x[i] / (1 - p) or 0, by a mask that only seed and i decide, so that
// the backward (dropout of the gradient with the same seed) needs no stored mask. out may be x.
void dropout(struct pool *pool, const float *x, size_t count, float p, uint64_t seed, float *out);
// dx += dropout(dout) with the forward's p and seed.
void dropout_backward(struct pool *pool, const float *dout, size_t count, float p, uint64_t seed,
                      float *dx);

#endif

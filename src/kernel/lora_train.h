// SPDX-License-Identifier: Apache-2.0
// The gated low-rank module in training: y += scale * B (g o (A x)), and its gradients. Pure;
// tiles depend on the shapes alone and no sum is split between tasks, so results do not depend on
// the number of threads.
// Letters: n rows (tokens), r rank; A [r, d_in], B [d_out, r], g [r].
#ifndef KERNEL_LORA_TRAIN_H
#define KERNEL_LORA_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

struct lora_train {
    int32_t rank, d_in, d_out;
    float scale;
    const float *a, *b, *g; // g NULL: all ones, and no gradient
    float *da, *db, *dg;    // gradients, added to
};

// Floats of scratch for both directions.
size_t lora_train_scratch_count(int32_t n, int32_t rank);

// x [n, d_in]; t = x A^T [n, r] is written, for the backward; y [n, d_out] grows.
void lora_train_forward(struct pool *pool, const struct lora_train *module, const float *x,
                        int32_t n, float *t, float *y, float *scratch);
// With x and t of the forward: da, db and dg grow by the gradients, and dx [n, d_in] (may be NULL)
// by that of the input. dy [n, d_out].
void lora_train_backward(struct pool *pool, const struct lora_train *module, const float *x,
                         const float *t, int32_t n, const float *dy, float *dx, float *scratch);

// Inverted dropout: out[i] = x[i] / (1 - p) or 0, by a mask that only seed and i decide, so that
// the backward (dropout of the gradient with the same seed) needs no stored mask. out may be x.
void dropout(struct pool *pool, const float *x, size_t count, float p, uint64_t seed, float *out);
// dx += dropout(dout) with the forward's p and seed.
void dropout_backward(struct pool *pool, const float *dout, size_t count, float p, uint64_t seed,
                      float *dx);

#endif

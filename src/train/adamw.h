// SPDX-License-Identifier: Apache-2.0
// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in PyTorch's order
// of operations. Pure; elementwise, so the split over threads changes nothing.
#ifndef TRAIN_ADAMW_H
#define TRAIN_ADAMW_H

#include <stdint.h>

#include "base/pool.h"

struct adamw_step {
    double lr, weight_decay; // lr already times the schedule's factor
    double beta1, beta2, eps;
    int64_t step;      // from 1
    double grad_scale; // multiplies every gradient: the clip
};
// beta 0.9 and 0.999, eps 1e-8, no decay, no clip.
struct adamw_step adamw_step_defaults(void);

// p *= 1 - lr decay;  m += (g - m)(1 - beta1);  v = beta2 v + (1 - beta2) g^2;
// p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps).  All [count].
void adamw_update(struct pool *pool, const struct adamw_step *step, const float *grads,
                  int64_t count, float *values, float *moments1, float *moments2);

// Sum of squares, in double and in order.
double adamw_square_sum(const float *grads, int64_t count);

#endif

// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of a softmax over logits, forward and backward in one sweep. Pure; rows are
// independent of each other and shared out over the pool.
#ifndef KERNEL_LOSS_H
#define KERNEL_LOSS_H

#include <stdint.h>

#include "base/pool.h"

// losses[i] = log(sum_v exp(logits[i, v])) - logits[i, targets[i]], natural log.
// logits [m, vocab] is overwritten with d(grad_scale * sum_i losses[i]) / d(logits):
// grad_scale * (softmax - onehot). 0 <= targets[i] < vocab. Sums run in double, in order.
void cross_entropy(struct pool *pool, float *logits, const int32_t *targets, int32_t m,
                   int32_t vocab, float grad_scale, double *losses);

// log-softmax of one row at one token: logits[token] - log(sum_v exp(logits[v])).
double token_logprob(const float *logits, int32_t vocab, int32_t token);

#endif

// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention over packed sequences, forward and backward, for training. No
// probabilities are kept: the backward computes them again, a block of queries at a time. Pure;
// one task owns each output, so results do not depend on the number of threads.
// Letters: N tokens, M queries, H heads, G kv heads, D head_dim. Sequence s is rows starts[s] ..
// starts[s + 1] - 1 of k and v [N, G*D] and, since not every token need be a query, rows
// query_starts[s] .. of q [M, H*D] (q and k already rotated); head h reads kv head h / (H / G). A
// query at position i sees positions max(0, i - window + 1) .. i of its own sequence.
#ifndef KERNEL_ATTENTION_TRAIN_H
#define KERNEL_ATTENTION_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "kernel/attention.h"

struct attention_train {
    const struct attention_shape *shape;
    const int32_t *starts;       // [sequence_count + 1]
    const int32_t *query_starts; // alike; `starts` itself when every token is a query
    const int32_t *positions;    // [M] of the queries, each in its sequence, ascending there
    int32_t sequence_count;
    int32_t length_max; // of a sequence
    const float *q, *k, *v;
    float *scratch;
};

// Floats of scratch for sequences up to length_max on this many threads, for both directions.
size_t attention_train_scratch_count(int32_t length_max, int32_t threads);

// out [M, H*D] is overwritten: softmax(scale q k^T) v.
void attention_train_forward(struct pool *pool, const struct attention_train *attention,
                             float *out);
// dq [M, H*D], dk and dv [N, G*D] are overwritten with the gradients for dout [M, H*D].
void attention_train_backward(struct pool *pool, const struct attention_train *attention,
                              const float *dout, float *dq, float *dk, float *dv);

#endif

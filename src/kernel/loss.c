// SPDX-License-Identifier: Apache-2.0
// Cross-entropy, see loss.h.
#include "kernel/loss.h"

#include <math.h>
#include <stddef.h>

#include "base/assert.h"

struct loss_job {
    float *logits;
    const int32_t *targets;
    int32_t vocab;
    float grad_scale;
    double *losses;
};

static float row_max(const float *row, int32_t count)
{
    float max = row[0];
    for (int32_t v = 1; v < count; v++)
        max = row[v] > max ? row[v] : max;
    return max;
}

static void loss_row(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct loss_job *job = context;
    float *row = job->logits + (size_t)index * (size_t)job->vocab;
    const int32_t target = job->targets[index];
    ASSERT(target >= 0 && target < job->vocab);
    const float max = row_max(row, job->vocab);
    const double target_logit = (double)row[target] - (double)max;
    double sum = 0.0;
    for (int32_t v = 0; v < job->vocab; v++) {
        row[v] = expf(row[v] - max);
        sum += (double)row[v];
    }
    job->losses[index] = log(sum) - target_logit;
    const float factor = (float)((double)job->grad_scale / sum);
    for (int32_t v = 0; v < job->vocab; v++)
        row[v] *= factor;
    row[target] -= job->grad_scale;
}

void cross_entropy(struct pool *pool, float *logits, const int32_t *targets, int32_t m,
                   int32_t vocab, float grad_scale, double *losses)
{
    struct loss_job job = {logits, targets, vocab, grad_scale, losses};
    pool_run(pool, m, loss_row, &job);
}

double token_logprob(const float *logits, int32_t vocab, int32_t token)
{
    ASSERT(token >= 0 && token < vocab);
    const float max = row_max(logits, vocab);
    double sum = 0.0;
    for (int32_t v = 0; v < vocab; v++)
        sum += (double)expf(logits[v] - max);
    return (double)logits[token] - (double)max - log(sum);
}

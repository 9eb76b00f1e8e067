// SPDX-License-Identifier: Apache-2.0
// AdamW, see adamw.h.
#include "train/adamw.h"

#include <math.h>
#include <stddef.h>

enum { BLOCK = 65536 }; // values of one task

struct adamw_job {
    const float *grads;
    float *values, *moments1, *moments2;
    int64_t count;
    float decay, keep1, keep2, gain2, grad_scale, step_size, root_scale, eps;
};

struct adamw_step adamw_step_defaults(void)
{
    return (struct adamw_step){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .grad_scale = 1.0};
}

static void update_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct adamw_job *job = context;
    const int64_t first = (int64_t)index * BLOCK;
    const int64_t end = first + BLOCK < job->count ? first + BLOCK : job->count;
    const float *restrict grads = job->grads;
    float *restrict values = job->values, *restrict m = job->moments1, *restrict v = job->moments2;
    for (int64_t i = first; i < end; i++) {
        const float g = grads[i] * job->grad_scale;
        m[i] += (g - m[i]) * job->keep1;
        v[i] = v[i] * job->keep2 + job->gain2 * g * g;
        const float denominator = sqrtf(v[i]) / job->root_scale + job->eps;
        values[i] = values[i] * job->decay - job->step_size * (m[i] / denominator);
    }
}

void adamw_update(struct pool *pool, const struct adamw_step *step, const float *grads,
                  int64_t count, float *values, float *moments1, float *moments2)
{
    struct adamw_job job = {.grads = grads,
                            .values = values,
                            .moments1 = moments1,
                            .moments2 = moments2,
                            .count = count,
                            .decay = (float)(1.0 - step->lr * step->weight_decay),
                            .keep1 = (float)(1.0 - step->beta1),
                            .keep2 = (float)step->beta2,
                            .gain2 = (float)(1.0 - step->beta2),
                            .grad_scale = (float)step->grad_scale,
                            .step_size =
                                (float)(step->lr / (1.0 - pow(step->beta1, (double)step->step))),
                            .root_scale = (float)sqrt(1.0 - pow(step->beta2, (double)step->step)),
                            .eps = (float)step->eps};
    pool_run(pool, (int32_t)((count + BLOCK - 1) / BLOCK), update_task, &job);
}

double adamw_square_sum(const float *grads, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)grads[i] * (double)grads[i];
    return sum;
}

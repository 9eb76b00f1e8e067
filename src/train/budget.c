// SPDX-License-Identifier: Apache-2.0
// Steering xi to a budget of parameters, see budget.h.
#include "train/budget.h"

#include <math.h>
#include <stdlib.h>

sora_status budget_init(struct budget *budget, struct params *params, const struct sora_base *base,
                        int64_t parameters_end, struct sora_error *err)
{
    *budget = (struct budget){.parameters_end = parameters_end};
    for (int32_t i = 0; i < params->layer_count * SORA_PROJ_COUNT; i++) {
        const int32_t proj = i % SORA_PROJ_COUNT;
        budget->parameters_full +=
            (int64_t)params->modules[i].rank * ((int64_t)base->d_in[proj] + base->d_out[proj]);
    }
    budget->gates = arena_alloc(&params->arena, (size_t)params->gate_count, sizeof(*budget->gates));
    if (budget->gates == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to steer %lld gates",
                         (long long)params->gate_count);
    return SORA_OK;
}

int64_t budget_allowed(const struct budget *budget, int64_t step, int64_t steps)
{
    const double fall = fmax(1.0, floor(0.8 * (double)steps));
    const double part = fmin(1.0, (double)(step + 1) / fall);
    const double surplus = (double)(budget->parameters_full - budget->parameters_end);
    return budget->parameters_full - (int64_t)ceil(part * surplus);
}

static int compare_gates(const void *a, const void *b)
{
    const struct budget_gate *x = a, *y = b;
    return (x->magnitude < y->magnitude) - (x->magnitude > y->magnitude);
}

// The smallest xi of f32 that takes a gate of this size to zero. The reference's threshold takes
// what is below 2 xi.
static double xi_to_zero(float magnitude, enum sora_threshold threshold)
{
    if (threshold == SORA_THRESHOLD_PAPER)
        return (double)magnitude;
    float xi = 0.5f * magnitude;
    while (magnitude - xi >= xi)
        xi = nextafterf(xi, INFINITY);
    return (double)xi;
}

double budget_xi(struct budget *budget, const struct params *params, const struct sora_base *base,
                 int64_t allowed, enum sora_threshold threshold)
{
    int64_t count = 0, left = 0;
    for (int32_t i = 0; i < params->layer_count * SORA_PROJ_COUNT; i++) {
        const struct train_module *module = &params->modules[i];
        const int32_t proj = i % SORA_PROJ_COUNT;
        for (int32_t j = 0; j < module->rank; j++)
            budget->gates[count++] =
                (struct budget_gate){fabsf(module->g[j]), base->d_in[proj] + base->d_out[proj]};
    }
    // Largest first; the first that does not fit, and all below it, go.
    qsort(budget->gates, (size_t)count, sizeof(*budget->gates), compare_gates);
    for (int64_t i = 0; i < count; i++) {
        left += budget->gates[i].parameters;
        if (left > allowed)
            return xi_to_zero(budget->gates[i].magnitude, threshold);
    }
    return 0.0;
}

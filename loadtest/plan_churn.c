// SPDX-License-Identifier: Apache-2.0
// Changes of adapters beside the load: a Poisson process of uploads, updates and deletions. Only
// what lives is updated or deleted. Pure.
#include "loadtest/plan_churn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "loadtest/plan_arrivals.h"

// Own names that live at some point of the plan.
struct live {
    int32_t *names;
    int32_t count, next;
};

static struct plan_churn draw(const struct plan *plan, struct live *live, const double sums[3],
                              struct rng *rng)
{
    struct plan_churn op = {.kind = (enum plan_churn_kind)weights_pick(sums, 3, rng_uniform(rng))};
    // Adapters that were there before are never changed: only made ones are.
    if (op.kind == CHURN_UPDATE && plan->scenario->churn_served && plan->models->made_count > 0) {
        op.served = true;
        op.name = (int32_t)rng_below(rng, (uint64_t)plan->models->made_count);
        return op;
    }
    if (op.kind != CHURN_UPLOAD && live->count == 0)
        op.kind = CHURN_UPLOAD;
    if (op.kind == CHURN_UPLOAD) {
        op.name = live->names[live->count++] = live->next++;
        return op;
    }
    int32_t slot = (int32_t)rng_below(rng, (uint64_t)live->count);
    op.name = live->names[slot];
    if (op.kind == CHURN_DELETE)
        live->names[slot] = live->names[--live->count];
    return op;
}

// Churn lasts as long as the plan sends; a closed loop without an end gets as much as fits.
static int64_t churn_end_us(const struct plan *plan)
{
    if (plan->send_us != INT64_MAX || plan->closed)
        return plan->send_us;
    return plan->requests[plan->request_count - 1].planned_us;
}

sora_status churn_plan(struct plan *plan, uint64_t seed, struct sora_error *err)
{
    double sums[3], at_s = 0;
    struct rng rng;
    struct live live = {0};
    int64_t end_us = churn_end_us(plan);
    sora_status status = scenario_churn_weights(plan->scenario->churn_mix, sums, err);
    if (status != SORA_OK)
        return status;
    weights_accumulate(sums, 3);
    rng_seed(&rng, seed);
    plan->churn = calloc(SORA_LOADTEST_CHURN_MAX, sizeof *plan->churn);
    live.names = calloc(SORA_LOADTEST_CHURN_MAX, sizeof *live.names);
    if (plan->churn == NULL || live.names == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a plan");
    while (status == SORA_OK && plan->churn_count < SORA_LOADTEST_CHURN_MAX) {
        at_s += arrivals_gap_s(ARRIVALS_POISSON, plan->scenario->churn_rate, 1, &rng);
        if (at_s * 1e6 >= (double)end_us)
            break;
        struct plan_churn op = draw(plan, &live, sums, &rng);
        op.at_us = (int64_t)llround(at_s * 1e6);
        op.number = plan->churn_count;
        plan->churn[plan->churn_count++] = op;
    }
    free(live.names);
    return status;
}

const char *plan_churn_kind_name(enum plan_churn_kind kind)
{
    static const char *const names[] = {"upload", "update", "delete"};
    return names[kind];
}

void plan_churn_name(const struct plan *plan, const struct plan_churn *op, char *out,
                     size_t out_bytes)
{
    if (op->served)
        snprintf(out, out_bytes, "%s", plan->models->names[op->name]);
    else
        snprintf(out, out_bytes, "loadtest-churn-%d", (int)op->name);
}

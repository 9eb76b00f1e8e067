// SPDX-License-Identifier: Apache-2.0
// The plan's own parts that live in files beside it (internal to plan*.c). Pure.
#ifndef LOADTEST_PLAN_CHURN_H
#define LOADTEST_PLAN_CHURN_H

#include <stdint.h>

#include "loadtest/plan.h"

// Fills plan->churn for the time in which the plan sends.
SORA_CHECKED sora_status churn_plan(struct plan *plan, uint64_t seed, struct sora_error *err);
// Where the words of a shared prefix come from.
uint64_t plan_prefix_seed(const struct plan *plan, const struct plan_request *request);

#endif

// SPDX-License-Identifier: Apache-2.0
// Steering xi so that a run ends with a given number of parameters: at each step, the smallest
// threshold after which no more than allowed are left. Beyond the paper, whose xi is given. Pure
// but for the scratch that a budget owns; one thread at a time.
#ifndef TRAIN_BUDGET_H
#define TRAIN_BUDGET_H

#include "sora/train.h"
#include "train/params.h"

struct budget_gate {
    float magnitude;
    int32_t parameters; // d_in + d_out of its module
};

struct budget {
    struct budget_gate *gates; // [params->gate_count], in the arena of the params
    int64_t parameters_full, parameters_end;
};

// parameters_end: what may be left at the end of the run.
SORA_CHECKED sora_status budget_init(struct budget *budget, struct params *params,
                                     const struct sora_base *base, int64_t parameters_end,
                                     struct sora_error *err);
// Falls evenly from all parameters to the end's over the first four fifths of the steps; in the
// last fifth the survivors train on undisturbed. step from 0.
int64_t budget_allowed(const struct budget *budget, int64_t step, int64_t steps);
// The xi that leaves at most `allowed` parameters when the gates are as they are now; 0 when so
// few are left already. The threshold decides how far a xi reaches.
double budget_xi(struct budget *budget, const struct params *params, const struct sora_base *base,
                 int64_t allowed, enum sora_threshold threshold);

#endif

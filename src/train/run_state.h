// SPDX-License-Identifier: Apache-2.0
// What a training run knows beside its parameters: where it is, its sums, its stages so far; and
// the text of it in a checkpoint, in which every number is exact. Pure; one owner.
#ifndef TRAIN_RUN_STATE_H
#define TRAIN_RUN_STATE_H

#include "sora/train.h"

struct run_state {
    int64_t step;         // of the plan: the next one to take
    int64_t steps_done;   // taken: fewer where stages ended early
    bool eval_pending;    // step - 1 is taken, its evaluation or end of stage is not done
    int64_t evals_stale;  // evaluations of this stage since the best one
    double xi;            // of the last step
    double seconds;       // of training
    double loss;          // of the last whole epoch
    double epoch_loss;    // sum over scored tokens of the current one
    int64_t epoch_scored; // those tokens
    int64_t tokens, scored_tokens;
    bool has_best;
    struct sora_train_rung best; // evaluation of this stage
    int32_t rung_count;
    struct sora_train_rung rungs[SORA_XI_COUNT_MAX];
};

// A JSON object, malloc'ed.
SORA_CHECKED sora_status run_state_encode(const struct run_state *state, char **json,
                                          struct sora_error *err);
// SORA_MALFORMED names the member that is missing, of a wrong type or out of its range.
SORA_CHECKED sora_status run_state_decode(const char *json, size_t bytes, struct run_state *state,
                                          struct sora_error *err);

#endif

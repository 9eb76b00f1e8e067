// SPDX-License-Identifier: Apache-2.0
// Options of a training run: their defaults and bounds, and the factor of the learning rates over
// time. (The text forms of xi and of the targets are parsed here too, see sora/train.h.) Pure.
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

#include <stdint.h>

#include "sora/train.h"

// Linear warm-up, then linear decay to zero; evaluated before step s = 0, 1, ...:
// min(s / warm, (steps - s) / (steps - warm)), with divisors of at least 1. The first step thus
// has the factor 0 even without a warm-up, as the reference runs have it.
double schedule_factor(int64_t step, int64_t steps, int64_t warmup_steps);
// A warm-up below 1 is a fraction of the steps, rounded down; from 1 on it is steps.
int64_t schedule_warmup_steps(double warmup, int64_t steps);
// SORA_MALFORMED or SORA_LIMIT, naming the option, its value and its range.
SORA_CHECKED sora_status schedule_check_options(const struct sora_train_options *options,
                                                struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// How long prompts and replies are, and how large the ranks of made adapters: a distribution over
// whole numbers. Also how often each of several things is asked for. Pure; any thread.
#ifndef LOADTEST_PLAN_LENGTH_H
#define LOADTEST_PLAN_LENGTH_H

#include <stdint.h>

#include "base/buf.h"
#include "base/rng.h"
#include "sora/status.h"

enum length_kind { LENGTH_FIXED, LENGTH_UNIFORM, LENGTH_LOGNORMAL };

struct length {
    enum length_kind kind;
    int32_t low, high; // every sample is in [low, high]
    double median, sigma;
};

// "64" or "fixed:64", "uniform:16:128", "lognormal:64:0.8" (median and sigma of the logarithm) or
// "lognormal:64:0.8:512" (and the largest; 8 medians otherwise). SORA_MALFORMED or SORA_LIMIT when
// a value is outside [min, max].
SORA_CHECKED sora_status length_parse(const char *text, int32_t min, int32_t max,
                                      struct length *length, struct sora_error *err);
int32_t length_sample(const struct length *length, struct rng *rng);
// The text that length_parse reads.
void length_print(const struct length *length, struct buf *out);

// Weights of `count` things from "uniform", "zipf:S" (the n-th has weight n^-S) or "given:5,3,1"
// (the last weight is repeated for those that follow). weights may be NULL: the text is checked.
SORA_CHECKED sora_status popularity_parse(const char *text, int32_t count, double *weights,
                                          struct sora_error *err);
// Running sums of weights, in place, ending at exactly 1.
void weights_accumulate(double *weights, int32_t count);
// The first index whose running sum exceeds u, u in [0, 1).
int32_t weights_pick(const double *sums, int32_t count, double u);

// A whole text as a finite number within [min, max].
SORA_CHECKED sora_status number_parse(const char *text, double min, double max, double *out,
                                      struct sora_error *err);

#endif

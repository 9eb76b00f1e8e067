// SPDX-License-Identifier: Apache-2.0
// The trainable numbers of a run: A, B and g of every adapted module, their gradients and AdamW
// moments. One arena, four flat arrays of the same layout; the gates come last, so that "all
// matrices" and "all gates" are ranges. Owned by a trainer; one thread at a time.
#ifndef TRAIN_PARAMS_H
#define TRAIN_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/train_pass.h"

struct params {
    struct arena arena;
    int32_t layer_count, rank;
    bool gated;                                  // false: plain LoRA, no gates
    double scale;                                // of every module
    int64_t matrix_count;                        // floats of all A and B
    int64_t gate_count;                          // 0 without gates
    int64_t matrix_count_full, rank_count_full;  // before any rank was cut
    float *values, *grads, *moments1, *moments2; // [matrix_count + gate_count]
    struct train_module *modules;                // [layer_count][SORA_PROJ_COUNT] views
};

// Zeroed parameters for the targeted projections of every layer. Errors: SORA_LIMIT when the rank
// exceeds a width of a target, SORA_NO_MEMORY.
SORA_CHECKED sora_status params_init(struct params *params, const struct sora_base *base,
                                     const bool targets[SORA_PROJ_COUNT], int32_t rank,
                                     double scale, bool gated, struct sora_error *err);
void params_deinit(struct params *params);
// Makes room for modules of these ranks [layer_count * SORA_PROJ_COUNT], none above what they were
// made with; all numbers are zero afterwards.
SORA_CHECKED sora_status params_resize(struct params *params, const struct sora_base *base,
                                       const int32_t *ranks, struct sora_error *err);
// Cuts the ranks whose gate is zero out of the values and the moments, for good. On failure
// nothing has changed.
SORA_CHECKED sora_status params_cut(struct params *params, const struct sora_base *base,
                                    struct sora_error *err);
// A: Kaiming uniform with a = sqrt(5), that is U(-1/sqrt(d_in), 1/sqrt(d_in)); B: zero; g: N(0, 1).
void params_randomize(struct params *params, const struct sora_base *base, uint64_t seed);
struct train_module *params_module(const struct params *params, int32_t layer, enum sora_proj proj);
// Gates that are not zero; all ranks of a plain LoRA.
int64_t params_ranks_kept(const struct params *params);
int64_t params_ranks(const struct params *params); // of all modules as they are now

#endif

// SPDX-License-Identifier: Apache-2.0
// One training step after another on explicit batches: gradients, clip, AdamW, proximal step
// (DESIGN.md section 4). What to feed and for how long is the caller's (train_run.c, or a test
// that replays a reference run). Belongs to one thread; allocates nothing inside a step.
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "sora/train.h"
#include "train/params.h"

struct trainer;

// Reads method, rank, alpha, targets, dropout, lambda, threshold, lr, gate_lr, weight_decay, clip,
// seed, threads, compute, recompute and group of the options, which are already checked.
SORA_CHECKED sora_status trainer_create(const sora_model *model,
                                        const struct sora_train_options *options,
                                        int32_t tokens_max, struct trainer **trainer,
                                        struct sora_error *err);
void trainer_destroy(struct trainer *trainer);
struct params *trainer_params(struct trainer *trainer);
// Steps taken, which AdamW, dropout and a budget go by. With the numbers of trainer_params they
// are all that a later step depends on, so a checkpoint keeps and sets both.
int64_t trainer_steps_done(const struct trainer *trainer);
void trainer_set_steps_done(struct trainer *trainer, int64_t steps);
// Cuts ranks with a zero gate, see params_cut. Not for a run that is steered to a budget.
SORA_CHECKED sora_status trainer_cut(struct trainer *trainer, struct sora_error *err);

// Of all processes of a group together.
struct trainer_outcome {
    int64_t tokens, scored;
    double cross_entropy, gate_l1; // gate_l1: mean |g| before the step
    double grad_norm;              // before the clip, of A, B and g together
    double xi;                     // of this step's proximal step
};

// Loss and gradients of cross-entropy + lambda mean |g| into params->grads, no update. In a group
// the batch is this process's share, which may be empty, and what comes out is the whole step's.
SORA_CHECKED sora_status trainer_gradients(struct trainer *trainer, const struct train_batch *batch,
                                           struct trainer_outcome *outcome, struct sora_error *err);
// From now on no step leaves more parameters than budget_allowed says for this end, by raising the
// xi it is given where that is too small.
SORA_CHECKED sora_status trainer_steer(struct trainer *trainer, int64_t parameters_end,
                                       int64_t steps, struct sora_error *err);
// The whole step. A loss or gradient that is not finite is SORA_LIMIT, before anything changed.
SORA_CHECKED sora_status trainer_step(struct trainer *trainer, const struct train_batch *batch,
                                      double lr_factor, double xi, struct trainer_outcome *outcome,
                                      struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Checkpoints of a training run: one safetensors file in a folder of the run's own, replaced
// atomically, so that a crash at any moment leaves the old or the new one. It holds A, B, g and
// AdamW's moments with the rank of every module, the run's state, and the run's identity. Owned by
// the running thread.
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "train/params.h"
#include "train/run_state.h"

// The best adapter of the running stage, where state->has_best says that there is one.
struct train_best {
    uint8_t *bytes; // malloc'ed
    size_t byte_count;
};

// Makes the folder and removes what a crash left half-written in it. *found: a checkpoint is there.
SORA_CHECKED sora_status train_checkpoint_open(const char *folder, bool *found,
                                               struct sora_error *err);
SORA_CHECKED sora_status train_checkpoint_save(const char *folder, const char *identity,
                                               const struct run_state *state,
                                               const struct params *params,
                                               const struct train_best *best,
                                               struct sora_error *err);
// SORA_MISMATCH when its identity is not this one, SORA_MALFORMED when a byte of it changed. params
// are those of a fresh run.
SORA_CHECKED sora_status train_checkpoint_load(const char *folder, const char *identity,
                                               const struct sora_base *base,
                                               struct run_state *state, struct params *params,
                                               struct train_best *best, struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Which examples make up which step: every epoch in a shuffled order of its own, packed one after
// another until the next does not fit into batch_tokens (a longer one is a step alone). Planned
// whole before training, so that the number of steps is known. One owner, one thread.
#ifndef TRAIN_BATCHES_H
#define TRAIN_BATCHES_H

#include "model/train_pass.h"
#include "sora/train.h"
#include "train/example_index.h"

struct batches_step {
    int64_t first; // into order
    int32_t count, stage;
    bool ends_epoch, ends_stage;
};

struct batches {
    struct example_index *data; // borrowed
    int32_t *order;             // examples
    struct batches_step *steps;
    int64_t step_count, step_capacity;
    int32_t tokens_max;                   // of the largest step
    const struct sora_train_group *group; // of the options
    // The current step's memory.
    int32_t *tokens, *starts, *scored, *costs;
};

// Stages, epochs, batch_tokens and seed of the options. A part of an epoch takes the first
// examples of its order, at least one. SORA_LIMIT beyond SORA_TRAIN_VISITS_MAX.
SORA_CHECKED sora_status batches_init(struct batches *batches, struct example_index *data,
                                      const struct sora_train_options *options,
                                      struct sora_error *err);
void batches_deinit(struct batches *batches);
// The tokens of this process's share of a step, valid until the next call; there may be none.
// Reads the examples from their file.
SORA_CHECKED sora_status batches_get(struct batches *batches, int64_t step,
                                     struct train_batch *batch, struct sora_error *err);

#endif

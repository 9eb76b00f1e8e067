// SPDX-License-Identifier: Apache-2.0
// A training run in progress. Private to train_run.c, which takes the steps, and train_stage.c,
// which evaluates and ends stages. The caller's thread.
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "sora/train.h"
#include "train/batches.h"
#include "train/dataset.h"
#include "train/example_index.h"
#include "train/run_state.h"
#include "train/train_checkpoint.h"
#include "train/trainer.h"

struct train_run {
    const sora_model *model;
    const sora_tokenizer *tokenizer;
    const struct sora_train_options *options;
    const struct sora_train_hooks *hooks; // never NULL
    struct example_index data;
    struct dataset eval_data;
    bool has_eval_data;
    struct batches batches;
    struct trainer *trainer;
    char *identity; // of the run, by which its checkpoints are known
    int64_t start_us;
    int64_t saved_us, saved_step; // of the last checkpoint
    int64_t warmup_steps;
    int64_t parameters_end; // of a budget; 0: none
    struct run_state state;
    struct train_best best; // the bytes of state.best
    struct sora_train_progress progress;
    struct sora_train_result result;
};

// Whether something follows the step that was just taken.
bool train_stage_evaluates(const struct train_run *run);
// Evaluates after the last step, and ends the stage where that step, or patience, does.
// SORA_CANCELLED leaves everything as it was, so that it can be done again.
SORA_CHECKED sora_status train_stage_finish(struct train_run *run, struct sora_error *err);

#endif

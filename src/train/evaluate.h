// SPDX-License-Identifier: Apache-2.0
// Evaluation of an adapter on an opened dataset by the serving engine, many sequences at a time.
// The caller's thread; it has an engine and a small pool of its own while it runs.
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include "sora/train.h"
#include "train/dataset.h"

// As sora_eval_run. cancel may be NULL; set: SORA_CANCELLED.
SORA_CHECKED sora_status evaluate_dataset(const sora_model *model, const sora_tokenizer *tokenizer,
                                          const struct sora_lora *lora,
                                          const struct dataset *dataset,
                                          const struct sora_eval_options *options,
                                          const atomic_bool *cancel,
                                          struct sora_eval_result *result, struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// The "training" record of an adapter file: how it was made, as a JSON object. Pure.
#ifndef TRAIN_RECORD_H
#define TRAIN_RECORD_H

#include "sora/train.h"

// The text, malloc'ed. The rung holds the metrics so far; data_digest is the data file's.
SORA_CHECKED sora_status train_record_encode(const struct sora_train_options *options,
                                             const struct sora_base *base, const char *data_digest,
                                             const struct sora_train_rung *rung, char **json,
                                             struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// What decides the numbers of a training run: model, data and options, as a JSON object of
// strings. A checkpoint carries it, so that a run is never continued as another one. Pure.
#ifndef TRAIN_IDENTITY_H
#define TRAIN_IDENTITY_H

#include "sora/train.h"

// malloc'ed. eval_digest "" without evaluation data. Threads and the folder of checkpoints are no
// part of it: they change nothing in the result.
SORA_CHECKED sora_status train_identity_encode(const struct sora_train_options *options,
                                               const struct sora_base *base,
                                               const char *data_digest, const char *eval_digest,
                                               char **json, struct sora_error *err);
// SORA_MISMATCH names every member that differs, with what was and what is (as many as fit into
// an error); `saved` is foreign text, `own` comes from train_identity_encode.
SORA_CHECKED sora_status train_identity_compare(const char *saved, const char *own,
                                                struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// A new adapter beside the base and an earlier adapter, such as a plain LoRA of the same data:
// size and measures on the same evaluation data. Main thread only.
#ifndef SERVER_TRAIN_COMPARE_H
#define SERVER_TRAIN_COMPARE_H

#include <stdio.h>

#include "base/buf.h"
#include "sora/adapter.h"
#include "sora/train.h"

struct train_compare_side {
    char name[64], method[16];
    int64_t parameters, ranks, bytes;
    bool has_eval;
    struct sora_eval_result eval;
};

struct train_compare {
    struct train_compare_side base, other, made;
};

struct train_compare_source {
    const sora_model *model;
    const sora_tokenizer *tokenizer;
    const char *eval_data; // NULL: sizes alone
    int32_t threads;
};

// `other` is the path of an adapter of this model. The `made` adapter is given with its
// evaluation (NULL: none); base and other are evaluated here by the serving engine.
SORA_CHECKED sora_status train_compare_run(const struct train_compare_source *source,
                                           const char *other, const sora_adapter *made,
                                           const struct sora_eval_result *eval,
                                           struct train_compare *compare, struct sora_error *err);
void train_compare_print(const struct train_compare *compare, FILE *out);
// ,"compare":{"base":{...},"other":{...}}
void train_compare_json(const struct train_compare *compare, struct buf *out);

#endif

// SPDX-License-Identifier: Apache-2.0
// From trained parameters to an adapter: zero gates are cut, the others folded into B, the ranks
// of a module sorted by |g| |a| |b|, largest first, so that any prefix is the best adapter of its
// size (DESIGN.md section 3). The parameters are only read.
#ifndef TRAIN_PRUNE_H
#define TRAIN_PRUNE_H

#include "sora/adapter.h"
#include "train/params.h"

struct prune {
    struct arena arena;
    struct sora_adapter_tensor_pair *pairs; // modules with rank > 0, by layer and projection
    int32_t pair_count;
    int64_t parameters, parameters_full; // floats of A and B after and at first
};

SORA_CHECKED sora_status prune_init(struct prune *prune, const struct params *params,
                                    const struct sora_base *base, double scale,
                                    struct sora_error *err);
void prune_deinit(struct prune *prune);

#endif

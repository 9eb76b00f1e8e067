// SPDX-License-Identifier: Apache-2.0
// The ladder of a schedule: which of its rungs is taken, and how it is shown: as a table, as JSON,
// as a picture. Main thread only.
#ifndef SERVER_TRAIN_PICK_H
#define SERVER_TRAIN_PICK_H

#include <stdio.h>

#include "base/buf.h"
#include "sora/train.h"

enum train_pick_rule { TRAIN_PICK_LAST, TRAIN_PICK_BEST, TRAIN_PICK_SMALLEST };
struct train_pick {
    enum train_pick_rule rule;
    double within; // SMALLEST: share of the best value that may be lost
};

// Reads "last", "best", "smallest-within" (0.5 %) or "smallest-within 2%", also with '=' or ':'.
SORA_CHECKED sora_status train_pick_parse(const char *text, struct train_pick *pick,
                                          struct sora_error *err);
// argv with `--pick smallest-within 0.5%` as one value, as it is written without quotes; malloc'ed,
// as is *joined, which argv may point to. NULL: out of memory.
char **train_pick_join(int *argc, char **argv, char **joined);
// Index of the rung. Rungs without an evaluation are compared by their training loss.
int32_t train_pick_choose(const struct train_pick *pick, enum sora_metric metric,
                          const struct sora_train_rung *rungs, int32_t count);

// "a.xi-0003.safetensors" for the third stage of "a.safetensors", and "a.ladder.svg"; malloc'ed.
char *train_ladder_path(const char *out, int32_t stage);
char *train_ladder_svg_path(const char *out);

struct train_ladder {
    const struct sora_train_rung *rungs;
    int32_t count, picked;
    enum sora_metric metric;
    const char *out; // --out
};
void train_ladder_print(const struct train_ladder *ladder, FILE *out);
// ,"stages":[...],"picked":N,"ladder":"..."
void train_ladder_json(const struct train_ladder *ladder, struct buf *out);
// The metric against the parameters, a self-contained picture.
void train_ladder_svg(const struct train_ladder *ladder, struct buf *out);

#endif

// SPDX-License-Identifier: Apache-2.0
// What a running training shows and writes: progress on stderr, the JSON-lines log, the files of a
// schedule's stages. Its functions are the hooks of sora_train_run. Main thread only.
#ifndef SERVER_TRAIN_VIEW_H
#define SERVER_TRAIN_VIEW_H

#include <stdio.h>

#include "server/cli_print.h"
#include "sora/train.h"

struct train_view {
    const char *log_path; // NULL: no log
    const char *out;      // --out
    bool quiet;
    bool has_stages; // each writes a file of its own
    struct cli_progress progress;
    FILE *log;
    struct sora_error log_error;
    bool log_failed;
    int64_t gates_kept, gates;
    struct sora_train_start start;
};

// Sees to it that the log can be written, and changes nothing in it.
SORA_CHECKED sora_status train_view_open(struct train_view *view, struct sora_error *err);
// SORA_IO when the log could not be written whole.
SORA_CHECKED sora_status train_view_close(struct train_view *view, struct sora_error *err);

// The hooks; context is the view. On a resumed run the log is cut back to what the checkpoint
// knows, and grows from there.
void train_view_on_start(void *context, const struct sora_train_start *start);
void train_view_on_step(void *context, const struct sora_train_progress *progress);
void train_view_on_eval(void *context, const struct sora_train_progress *progress,
                        const struct sora_eval_result *result);
sora_status train_view_on_rung(void *context, const struct sora_train_rung *rung,
                               const uint8_t *bytes, size_t byte_count, struct sora_error *err);

#endif

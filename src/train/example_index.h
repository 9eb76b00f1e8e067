// SPDX-License-Identifier: Apache-2.0
// Training data that may be larger than memory: every line is read, tokenized and checked once,
// and only its place and its counts are kept; the examples of a step are read again when it comes.
// One owner, one thread.
#ifndef TRAIN_EXAMPLE_INDEX_H
#define TRAIN_EXAMPLE_INDEX_H

#include "base/line_file.h"
#include "train/dataset.h"

struct example_entry {
    int64_t offset; // of the line in the file
    uint32_t bytes;
    int32_t token_count, scored_count, line;
    uint32_t check; // of its bytes, so that a change is noticed
};

struct example_index {
    struct line_file file;
    struct dataset_rules rules; // what they point to is borrowed
    const char *name;           // of the file in errors, a view into its path
    struct example_entry *entries;
    int32_t example_count;
    int64_t capacity;
    int64_t token_count, scored_count, cut_count;
    int32_t longest;
    char digest[65];
    struct dataset window; // the examples that were loaded last
};

// Errors name the file and the line; nothing is left open then.
SORA_CHECKED sora_status example_index_open(const char *path, const struct dataset_rules *rules,
                                            struct example_index *index, struct sora_error *err);
void example_index_close(struct example_index *index);
// Loads these examples into index->window, in this order. A line that has changed since the file
// was opened is SORA_IO.
SORA_CHECKED sora_status example_index_load(struct example_index *index, const int32_t *which,
                                            int32_t count, struct sora_error *err);

#endif

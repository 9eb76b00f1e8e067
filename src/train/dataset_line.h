// SPDX-License-Identifier: Apache-2.0
// One line of a data file into a dataset. Private to dataset*.c and example_index.c.
#ifndef TRAIN_DATASET_LINE_H
#define TRAIN_DATASET_LINE_H

#include <stdbool.h>

#include "train/dataset.h"

// Appends an example from one JSON object; the errors do not name the line yet.
SORA_CHECKED sora_status dataset_line_add(struct dataset *dataset, const char *text, size_t bytes,
                                          int32_t line, const struct dataset_rules *rules,
                                          struct sora_error *err);
// Nothing but white space.
bool dataset_line_is_blank(const char *text, size_t bytes);
// Makes room for `extra` more items of an array; false when out of memory.
bool dataset_grow(void **items, size_t item_bytes, int64_t count, int64_t extra, int64_t *capacity);

#endif

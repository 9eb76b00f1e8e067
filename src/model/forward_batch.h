// SPDX-License-Identifier: Apache-2.0
// The rows of a forward pass: lists that the engine fills from the spans of a step, in the memory
// of one `struct forward`.
#ifndef MODEL_FORWARD_BATCH_H
#define MODEL_FORWARD_BATCH_H

#include <stdint.h>

#include "kernel/attention.h"
#include "kernel/lora_matmul.h"

// M rows, L logit rows. Lists of rows are ascending.
struct forward_batch {
    int32_t row_count;
    int32_t *tokens;            // [M]
    int32_t *positions;         // [M]
    struct attention_row *rows; // [M]
    int32_t *slots;             // [M]: KV slot of the row, block * T + offset
    int32_t group_count;        // adapter views in use
    struct lora_group *groups;  // of first parts, of second parts, ...
    int32_t *group_rows;        // [M * LORA_PARTS_MAX], the groups' row lists one after another
    int32_t logit_row_count;
    int32_t *logit_rows; // [L]: rows whose logits are wanted
};

// Drops all rows but those whose logits are wanted: row i is then what logit_rows[i] was, and
// logit_rows stays as it is, so that the caller can move the rows' values. Groups without rows go.
void forward_batch_keep_logit_rows(struct forward_batch *batch);

#endif

// SPDX-License-Identifier: Apache-2.0
// See forward_batch.h.
#include "model/forward_batch.h"

// The rows of an ascending list that are kept, by their new numbers. Returns how many.
static int32_t keep_rows(const struct forward_batch *batch, int32_t *rows, int32_t count)
{
    int32_t kept = 0, logit_row = 0;
    for (int32_t i = 0; i < count; i++) {
        while (logit_row < batch->logit_row_count && batch->logit_rows[logit_row] < rows[i])
            logit_row++;
        if (logit_row < batch->logit_row_count && batch->logit_rows[logit_row] == rows[i])
            rows[kept++] = logit_row;
    }
    return kept;
}

void forward_batch_keep_logit_rows(struct forward_batch *batch)
{
    int32_t groups = 0;
    for (int32_t i = 0; i < batch->group_count; i++) {
        struct lora_group group = batch->groups[i];
        int32_t *rows = batch->group_rows + (group.rows - batch->group_rows); // may be written
        group.row_count = keep_rows(batch, rows, group.row_count);
        if (group.row_count > 0)
            batch->groups[groups++] = group;
    }
    batch->group_count = groups;
    for (int32_t i = 0; i < batch->logit_row_count; i++) {
        const int32_t row = batch->logit_rows[i];
        batch->tokens[i] = batch->tokens[row];
        batch->positions[i] = batch->positions[row];
        batch->rows[i] = batch->rows[row];
        batch->slots[i] = batch->slots[row];
    }
    batch->row_count = batch->logit_row_count;
}

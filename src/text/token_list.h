// SPDX-License-Identifier: Apache-2.0
// A growing array of token ids, for one encode call. One owner.
#ifndef TEXT_TOKEN_LIST_H
#define TEXT_TOKEN_LIST_H

#include <stdint.h>

#include "sora/status.h"

struct token_list {
    int32_t *ids; // malloc'ed
    int32_t count, capacity;
};

// Errors: SORA_NO_MEMORY. A text of SORA_TEXT_BYTES_MAX bytes bounds the count.
SORA_CHECKED sora_status token_list_push(struct token_list *list, int32_t id,
                                         struct sora_error *err);

#endif

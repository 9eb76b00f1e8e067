// SPDX-License-Identifier: Apache-2.0
// --verify: the same greedy request must get the same bytes, whatever it was batched with. Keeps
// the first whole reply to each distinct request and compares the later ones. The client's thread.
#ifndef LOADTEST_VERIFY_H
#define LOADTEST_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct verify;

// content_count: requests of the plan; contents are their indices.
SORA_CHECKED sora_status verify_create(int32_t content_count, struct verify **verify,
                                       struct sora_error *err);
void verify_destroy(struct verify *verify); // accepts NULL
// False when the reply differs from the one before; `text` then says where. A reply that no memory
// is left to keep is only counted.
bool verify_add(struct verify *verify, int32_t content, const char *reply, size_t bytes, char *text,
                size_t text_bytes);

struct verify_counts {
    int64_t kept, compared, different, forgotten;
};
struct verify_counts verify_counts(const struct verify *verify);

#endif

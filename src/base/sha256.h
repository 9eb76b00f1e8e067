// SPDX-License-Identifier: Apache-2.0
// SHA-256 by libcrypto, as lower-case hex.
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct sha256;

SORA_CHECKED sora_status sha256_create(struct sha256 **sha, struct sora_error *err);
void sha256_update(struct sha256 *sha, const void *data, size_t bytes);
void sha256_finish(struct sha256 *sha, char hex[65]); // and destroys it
void sha256_destroy(struct sha256 *sha);              // without a result; accepts NULL
// Digest of one piece of memory.
SORA_CHECKED sora_status sha256_of(const void *data, size_t bytes, char hex[65],
                                   struct sora_error *err);

#endif

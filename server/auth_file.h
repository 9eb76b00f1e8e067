// SPDX-License-Identifier: Apache-2.0
// The file of --api-key-file: one key a line, with its tenant and scopes if it has any. Pure
// functions on the file's bytes, any thread.
//
//     # key                            tenant   scopes
//     a-long-random-text-of-your-own
//     another-one-for-acme             acme     infer,adapters
//     the-operators-key                -        admin
//
// Without a tenant (or with "-") a key works on what everyone shares; without scopes it has infer
// and adapters.
#ifndef SERVER_AUTH_FILE_H
#define SERVER_AUTH_FILE_H

#include "sora/access.h"

// The keys in the order of their lines, malloc'ed; only their hashes are kept. Errors name the line
// and never the key.
SORA_CHECKED sora_status auth_file_parse(const char *text, size_t bytes, struct sora_key **keys,
                                         int32_t *key_count, struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Sends a freshly trained adapter to a running server: `train --upload`. Blocks its caller.
#ifndef SERVER_UPLOAD_H
#define SERVER_UPLOAD_H

#include <stddef.h>

#include "sora/status.h"

struct upload_target {
    const char *url;      // of the server, "http://host:port"
    const char *name;     // of the adapter there
    const char *key_file; // first line is the API key, or NULL
};

// Finds out before hours of training what would fail after them: the URL's form, the name, the key
// file. Says nothing about whether the server is there.
SORA_CHECKED sora_status upload_check(const struct upload_target *target, struct sora_error *err);

// PUT /v1/adapters/{name}. SORA_IO when the server cannot be reached, and with the server's own
// words when it refuses.
SORA_CHECKED sora_status upload_adapter(const struct upload_target *target, const void *bytes,
                                        size_t byte_count, struct sora_error *err);

#endif

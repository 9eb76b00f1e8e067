// SPDX-License-Identifier: Apache-2.0
// multipart/form-data (RFC 7578), as a PEFT pair is uploaded. The parts are views into the body.
// Pure; any thread.
#ifndef SERVER_MULTIPART_H
#define SERVER_MULTIPART_H

#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

#define MULTIPART_NAME_BYTES 64

struct multipart_part {
    char name[MULTIPART_NAME_BYTES]; // of the form field
    const char *data;
    size_t bytes;
};

struct multipart {
    struct multipart_part parts[SORA_MULTIPART_PARTS_MAX];
    int32_t count;
};

// content_type: the header's value with its boundary. SORA_UNSUPPORTED when it is no form data,
// SORA_MALFORMED when the body breaks the format, SORA_LIMIT beyond the maxima.
SORA_CHECKED sora_status multipart_parse(const char *content_type, const char *body, size_t bytes,
                                         struct multipart *form, struct sora_error *err);
// The part of a name, or NULL.
const struct multipart_part *multipart_find(const struct multipart *form, const char *name);

#endif

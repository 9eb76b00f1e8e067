// SPDX-License-Identifier: Apache-2.0
// Form data. The first line is the Content-Type, the rest the body.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t type_bytes = end != NULL ? (size_t)(end - data) : 0;
    char *type = calloc(type_bytes + 1, 1);
    struct multipart form;
    if (type == NULL || end == NULL) {
        free(type);
        return 0;
    }
    memcpy(type, data, type_bytes);
    const char *body = (const char *)end + 1;
    size_t bytes = size - type_bytes - 1;
    if (multipart_parse(type, body, bytes, &form, NULL) == SORA_OK) {
        for (int32_t i = 0; i < form.count; i++)
            if (form.parts[i].data < body ||
                form.parts[i].data + form.parts[i].bytes > body + bytes)
                abort();
    }
    free(type);
    return 0;
}

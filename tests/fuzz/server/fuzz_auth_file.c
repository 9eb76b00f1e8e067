// SPDX-License-Identifier: Apache-2.0
// The file of API keys. What is taken must be a key that the file could mean.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/auth_file.h"
#include "sora/tenant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_key *keys = NULL;
    struct sora_error err;
    int32_t count = 0;
    if (auth_file_parse((const char *)data, size, &keys, &count, &err) != SORA_OK) {
        if (keys != NULL || err.text[0] == '\0')
            abort();
        return 0;
    }
    if (count < 0 || (size_t)count > size / SORA_KEY_BYTES_MIN + 1)
        abort();
    for (int32_t i = 0; i < count; i++) {
        const struct sora_key *key = &keys[i];
        bool known = key->scopes > 0 && (key->scopes & ~(uint32_t)SORA_SCOPE_ALL) == 0;
        if (!known || strlen(key->hash) != 64 || key->revoked_s != 0)
            abort();
        if (key->tenant[0] != '\0' && sora_tenant_check(key->tenant, &err) != SORA_OK)
            abort();
    }
    free(keys);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// See secret.h.
#include "base/secret.h"

#include <openssl/crypto.h>

bool secret_equal(const void *a, const void *b, size_t bytes)
{
    return CRYPTO_memcmp(a, b, bytes) == 0;
}

void secret_wipe(void *memory, size_t bytes)
{
    OPENSSL_cleanse(memory, bytes);
}

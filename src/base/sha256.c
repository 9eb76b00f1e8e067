// SPDX-License-Identifier: Apache-2.0
// SHA-256 by OpenSSL's libcrypto. One owner at a time per struct sha256.
#include "base/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "base/assert.h"

struct sha256 {
    EVP_MD_CTX *context;
};

void sha256_destroy(struct sha256 *sha)
{
    if (sha == NULL)
        return;
    EVP_MD_CTX_free(sha->context);
    free(sha);
}

sora_status sha256_create(struct sha256 **sha, struct sora_error *err)
{
    struct sha256 *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->context = EVP_MD_CTX_new();
    if (made == NULL || made->context == NULL) {
        sha256_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a SHA-256 context");
    }
    if (EVP_DigestInit_ex(made->context, EVP_sha256(), NULL) != 1) {
        sha256_destroy(made);
        return sora_fail(err, SORA_INTERNAL, "libcrypto has no SHA-256");
    }
    *sha = made;
    return SORA_OK;
}

void sha256_update(struct sha256 *sha, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    int done = EVP_DigestUpdate(sha->context, data, bytes);
    ASSERT(done == 1);
}

void sha256_finish(struct sha256 *sha, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[32];
    int done = EVP_DigestFinal_ex(sha->context, digest, NULL);
    ASSERT(done == 1);
    for (int i = 0; i < 32; ++i) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = 0;
    sha256_destroy(sha);
}

sora_status sha256_of(const void *data, size_t bytes, char hex[65], struct sora_error *err)
{
    struct sha256 *sha = NULL;
    sora_status status = sha256_create(&sha, err);
    if (status != SORA_OK)
        return status;
    sha256_update(sha, data, bytes);
    sha256_finish(sha, hex);
    return SORA_OK;
}

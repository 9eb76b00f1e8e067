// SPDX-License-Identifier: Apache-2.0
// See sora/access.h. One mutex around a catalog connection.
#include "sora/access.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/secret.h"
#include "base/sha256.h"
#include "sora/store.h"
#include "sora/tenant.h"

#define KEY_PREFIX "sora-"
#define KEY_RANDOM_BYTES 32
#define KEY_ID_DIGITS 12

struct sora_access {
    struct catalog *catalog;
    pthread_mutex_t mutex;
};

static const struct {
    const char *name;
    enum sora_scope scope;
} scope_names[] = {
    {"infer", SORA_SCOPE_INFER},
    {"adapters", SORA_SCOPE_ADAPTERS},
    {"admin", SORA_SCOPE_ADMIN},
};
#define SCOPE_COUNT (sizeof scope_names / sizeof scope_names[0])

sora_status sora_scopes_parse(const char *text, uint32_t *scopes, struct sora_error *err)
{
    for (const char *at = text;; at++) {
        size_t bytes = strcspn(at, ","), i = 0;
        while (i < SCOPE_COUNT && (strlen(scope_names[i].name) != bytes ||
                                   memcmp(scope_names[i].name, at, bytes) != 0))
            i++;
        if (i == SCOPE_COUNT)
            return sora_fail(err, SORA_MALFORMED,
                             "scope \"%.*s\": expected infer, adapters or admin, with commas "
                             "between them",
                             (int)(bytes < 40 ? bytes : 40), at);
        *scopes |= (uint32_t)scope_names[i].scope;
        at += bytes;
        if (*at == '\0')
            return SORA_OK;
    }
}

const char *sora_scopes_print(uint32_t scopes, char out[SORA_SCOPES_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < SCOPE_COUNT; i++) {
        if ((scopes & (uint32_t)scope_names[i].scope) == 0)
            continue;
        snprintf(out + used, SORA_SCOPES_BYTES - used, "%s%s", used > 0 ? "," : "",
                 scope_names[i].name);
        used = strlen(out);
    }
    return out;
}

sora_status sora_key_identify(const char *text, size_t bytes, struct sora_key *key,
                              struct sora_error *err)
{
    sora_status status = sha256_of(text, bytes, key->hash, err);
    if (status == SORA_OK)
        snprintf(key->id, sizeof key->id, "key-%.*s", KEY_ID_DIGITS, key->hash);
    return status;
}

sora_status sora_key_check_adapters(const char *adapters, struct sora_error *err)
{
    char name[SORA_ADAPTER_NAME_BYTES_MAX + 2];
    sora_status status = SORA_OK;
    if (strlen(adapters) > SORA_KEY_ADAPTERS_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "the list of adapters has %zu bytes, the limit is %d",
                         strlen(adapters), SORA_KEY_ADAPTERS_BYTES_MAX);
    for (const char *at = adapters; *at != '\0' && status == SORA_OK;) {
        size_t bytes = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)bytes, at);
        status = sora_store_check_name(name, err);
        at += bytes;
        if (status == SORA_OK && *at == ',' && *++at == '\0')
            status = sora_fail(err, SORA_MALFORMED, "the list of adapters ends with a comma");
    }
    return status;
}

bool sora_key_allows(const char *adapters, const char *name)
{
    size_t name_bytes = strlen(name);
    if (adapters[0] == '\0')
        return true;
    for (const char *at = adapters; *at != '\0';) {
        size_t bytes = strcspn(at, ",");
        if (bytes == name_bytes && memcmp(at, name, bytes) == 0)
            return true;
        at += bytes;
        at += *at == ',';
    }
    return false;
}

sora_status sora_access_open(const char *folder, bool create, sora_access **access,
                             struct sora_error *err)
{
    sora_status status = SORA_OK;
    *access = NULL;
    char *path = file_join(folder, "catalog.sqlite");
    sora_access *made = calloc(1, sizeof *made);
    if (path == NULL || made == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a catalog");
    } else {
        pthread_mutex_init(&made->mutex, NULL);
        if (!create && !file_exists(path))
            status = sora_fail(err, SORA_NOT_FOUND, "there is no catalog here");
        else if (create)
            status = file_make_folder(folder, err);
        // A parent that is missing or no folder: nobody asked for what could be "not found".
        if (create && status == SORA_NOT_FOUND)
            status = sora_fail_within(err, SORA_IO, "not usable");
        if (status == SORA_OK)
            status = catalog_sqlite_open(path, &made->catalog, err);
    }
    free(path);
    if (status != SORA_OK) {
        sora_access_close(made);
        return sora_fail_within(err, status, "adapter store %s", folder);
    }
    *access = made;
    return SORA_OK;
}

sora_status sora_access_open_shared(const char *url, bool create, sora_access **access,
                                    struct sora_error *err)
{
    *access = NULL;
    sora_access *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a catalog");
    pthread_mutex_init(&made->mutex, NULL);
    sora_status status = catalog_postgres_open(url, create, &made->catalog, err);
    if (status != SORA_OK) {
        sora_access_close(made);
        return status;
    }
    *access = made;
    return SORA_OK;
}

void sora_access_close(sora_access *access)
{
    if (access == NULL)
        return;
    if (access->catalog != NULL)
        access->catalog->ops->close(access->catalog);
    pthread_mutex_destroy(&access->mutex);
    free(access);
}

// 32 bytes as 43 characters of base64url, without padding.
static void encode_random(const uint8_t random[KEY_RANDOM_BYTES], char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    int bit_count = 0;
    for (size_t i = 0; i < KEY_RANDOM_BYTES; i++) {
        bits = (bits << 8 | random[i]) & 0xffff;
        for (bit_count += 8; bit_count >= 6; bit_count -= 6)
            *out++ = digits[bits >> (bit_count - 6) & 63];
    }
    *out++ = digits[bits << (6 - bit_count) & 63];
    *out = '\0';
}

static sora_status check_key(const struct sora_key *key, struct sora_error *err)
{
    sora_status status = SORA_OK;
    if (key->scopes == 0 || (key->scopes & ~(uint32_t)SORA_SCOPE_ALL) != 0)
        return sora_fail(err, SORA_MALFORMED, "a key needs a scope: infer, adapters or admin");
    if (key->tenant[0] != '\0')
        status = sora_tenant_check(key->tenant, err);
    return status == SORA_OK ? sora_key_check_adapters(key->adapters, err) : status;
}

sora_status sora_access_make_key(sora_access *access, struct sora_key *key,
                                 char text[SORA_KEY_TEXT_BYTES], struct sora_error *err)
{
    uint8_t random[KEY_RANDOM_BYTES];
    text[0] = '\0';
    sora_status status = check_key(key, err);
    if (status != SORA_OK)
        return status;
    rng_system(random, sizeof random);
    memcpy(text, KEY_PREFIX, sizeof KEY_PREFIX);
    encode_random(random, text + sizeof KEY_PREFIX - 1);
    secret_wipe(random, sizeof random);
    status = sora_key_identify(text, strlen(text), key, err);
    key->created_s = clock_unix_s();
    key->revoked_s = 0;
    if (status == SORA_OK) {
        pthread_mutex_lock(&access->mutex);
        status = access->catalog->ops->add_key(access->catalog, key, err);
        pthread_mutex_unlock(&access->mutex);
    }
    if (status != SORA_OK)
        secret_wipe(text, SORA_KEY_TEXT_BYTES);
    return status;
}

sora_status sora_access_revoke_key(sora_access *access, const char *id, struct sora_error *err)
{
    pthread_mutex_lock(&access->mutex);
    sora_status status = access->catalog->ops->revoke_key(access->catalog, id, clock_unix_s(), err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_list_keys(sora_access *access, struct sora_key **keys, int32_t *key_count,
                                  struct sora_error *err)
{
    *keys = NULL;
    *key_count = 0;
    pthread_mutex_lock(&access->mutex);
    sora_status status = access->catalog->ops->list_keys(access->catalog, keys, key_count, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

static bool is_rate(int64_t value)
{
    return value >= 0 && value <= SORA_RATE_MAX;
}

sora_status sora_access_set_limits(sora_access *access, const struct sora_tenant_limits *limits,
                                   struct sora_error *err)
{
    sora_status status = sora_tenant_check(limits->tenant, err);
    if (status != SORA_OK)
        return status;
    if (!is_rate(limits->requests_per_minute) || !is_rate(limits->tokens_per_minute) ||
        !is_rate(limits->concurrent_requests) || !is_rate(limits->stored_bytes))
        return sora_fail(err, SORA_LIMIT, "a limit of tenant %s is not 0 to %lld", limits->tenant,
                         SORA_RATE_MAX);
    pthread_mutex_lock(&access->mutex);
    status = access->catalog->ops->set_limits(access->catalog, limits, clock_unix_s(), err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_list_limits(sora_access *access, struct sora_tenant_limits **limits,
                                    int32_t *limits_count, struct sora_error *err)
{
    *limits = NULL;
    *limits_count = 0;
    pthread_mutex_lock(&access->mutex);
    sora_status status =
        access->catalog->ops->list_limits(access->catalog, limits, limits_count, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_stamp(sora_access *access, int64_t *stamp, struct sora_error *err)
{
    pthread_mutex_lock(&access->mutex);
    sora_status status = access->catalog->ops->stamp(access->catalog, stamp, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_add_audit(sora_access *access, struct sora_audit *record,
                                  struct sora_error *err)
{
    record->time_s = clock_unix_s();
    pthread_mutex_lock(&access->mutex);
    sora_status status = access->catalog->ops->add_audit(access->catalog, record, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_list_audit(sora_access *access, int64_t after, int32_t limit,
                                   struct sora_audit **records, int32_t *record_count,
                                   struct sora_error *err)
{
    *records = NULL;
    *record_count = 0;
    if (limit < 1 || limit > SORA_AUDIT_PAGE_MAX)
        return sora_fail(err, SORA_LIMIT, "limit %d is not 1 to %d", (int)limit,
                         SORA_AUDIT_PAGE_MAX);
    pthread_mutex_lock(&access->mutex);
    sora_status status =
        access->catalog->ops->list_audit(access->catalog, after, limit, records, record_count, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

sora_status sora_access_stored(sora_access *access, const char *tenant, const char *digest,
                               int64_t *bytes, bool *has_digest, struct sora_error *err)
{
    *bytes = 0;
    pthread_mutex_lock(&access->mutex);
    sora_status status =
        access->catalog->ops->stored(access->catalog, tenant, digest, bytes, has_digest, err);
    pthread_mutex_unlock(&access->mutex);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// See sora/tenant.h. Pure functions, any thread.
#include "sora/tenant.h"

#include <stdio.h>
#include <string.h>

#include "sora/store.h"

#define MARK '~'

sora_status sora_tenant_check(const char *tenant, struct sora_error *err)
{
    static const char begins[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t bytes = strlen(tenant);
    if (bytes < 1 || bytes > SORA_TENANT_BYTES_MAX)
        return sora_fail(err, SORA_MALFORMED, "tenant of %zu bytes: expected 1 to %d", bytes,
                         SORA_TENANT_BYTES_MAX);
    size_t good = strspn(tenant, allowed);
    if (good < bytes)
        return sora_fail(err, SORA_MALFORMED,
                         "tenant \"%s\": byte %zu is not one of A-Z a-z 0-9 . _ -", tenant,
                         good + 1);
    if (strchr(begins, tenant[0]) == NULL)
        return sora_fail(err, SORA_MALFORMED, "tenant \"%s\" begins with '%c'", tenant, tenant[0]);
    return SORA_OK;
}

sora_status sora_tenant_check_stored(const char *stored, struct sora_error *err)
{
    char tenant[SORA_TENANT_BYTES_MAX + 2] = "";
    const char *mark = strchr(stored, MARK);
    if (mark == NULL)
        return sora_store_check_name(stored, err);
    snprintf(tenant, sizeof tenant, "%.*s", (int)(mark - stored), stored);
    sora_status status = sora_tenant_check(tenant, err);
    return status == SORA_OK ? sora_store_check_name(mark + 1, err) : status;
}

bool sora_tenant_join(const char *tenant, const char *name,
                      char out[SORA_STORED_NAME_BYTES_MAX + 1])
{
    const char *form = tenant[0] != '\0' ? "%s~%s" : "%s%s";
    int bytes = snprintf(out, SORA_STORED_NAME_BYTES_MAX + 1, form, tenant, name);
    bool fits = bytes >= 0 && bytes <= SORA_STORED_NAME_BYTES_MAX;
    if (!fits)
        out[0] = '\0';
    return fits;
}

const char *sora_tenant_bare(const char *stored)
{
    const char *mark = strchr(stored, MARK);
    return mark != NULL ? mark + 1 : stored;
}

void sora_tenant_of(const char *stored, char out[SORA_TENANT_BYTES_MAX + 1])
{
    const char *mark = strchr(stored, MARK);
    size_t bytes = mark != NULL ? (size_t)(mark - stored) : 0;
    if (bytes > SORA_TENANT_BYTES_MAX)
        bytes = SORA_TENANT_BYTES_MAX;
    memcpy(out, stored, bytes);
    out[bytes] = '\0';
}

bool sora_tenant_owns(const char *tenant, const char *stored)
{
    const char *mark = strchr(stored, MARK);
    size_t bytes = mark != NULL ? (size_t)(mark - stored) : 0;
    return strlen(tenant) == bytes && memcmp(tenant, stored, bytes) == 0;
}

// SPDX-License-Identifier: Apache-2.0
// See names.h.
#include "server/names.h"

#include <stdio.h>
#include <string.h>

#include "sora/store.h"
#include "sora/tenant.h"

// Splits "name@version" at the last '@'; *version is "@3" or "".
static bool split_version(const char *text, char name[SORA_STORED_NAME_BYTES_MAX + 1],
                          const char **version)
{
    const char *at = strrchr(text, '@');
    size_t bytes = at != NULL ? (size_t)(at - text) : strlen(text);
    *version = at != NULL ? at : "";
    if (bytes == 0 || bytes > SORA_STORED_NAME_BYTES_MAX || strlen(*version) > 15)
        return false;
    memcpy(name, text, bytes);
    name[bytes] = '\0';
    return true;
}

// Its own name when it has one there, otherwise the shared one. False: neither.
static bool find_stored(sora_registry *registry, const struct auth_caller *caller, const char *name,
                        char stored[SORA_STORED_NAME_BYTES_MAX + 1])
{
    bool qualified = strchr(name, '~') != NULL;
    if (qualified && !auth_is_admin(caller))
        return false;
    if (!sora_key_allows(caller->adapters, sora_tenant_bare(name)))
        return false;
    if (!qualified && sora_tenant_join(caller->tenant, name, stored) &&
        sora_registry_has(registry, stored))
        return true;
    memcpy(stored, name, strlen(name) + 1);
    return sora_registry_has(registry, stored);
}

static bool may_change(const struct auth_caller *caller, const char *stored)
{
    return auth_is_admin(caller) || sora_tenant_owns(caller->tenant, stored);
}

bool names_resolve(sora_registry *registry, const struct auth_caller *caller, const char *name,
                   char out[NAMES_BYTES], bool *changeable)
{
    char bare[SORA_STORED_NAME_BYTES_MAX + 1], stored[SORA_STORED_NAME_BYTES_MAX + 1];
    const char *version;
    out[0] = '\0';
    if (!split_version(name, bare, &version) || !find_stored(registry, caller, bare, stored))
        return false;
    snprintf(out, NAMES_BYTES, "%s%s", stored, version);
    if (changeable != NULL)
        *changeable = may_change(caller, stored);
    return true;
}

sora_status names_target(sora_registry *registry, const struct auth_caller *caller,
                         const char *name, char out[NAMES_BYTES], struct api_error *error)
{
    char stored[SORA_STORED_NAME_BYTES_MAX + 1];
    struct sora_error cause;
    sora_status status = auth_is_admin(caller) ? sora_tenant_check_stored(name, &cause)
                                               : sora_store_check_name(name, &cause);
    if (status != SORA_OK)
        return api_error_from(error, API_FROM_ADAPTER, &cause);
    if (!sora_key_allows(caller->adapters, sora_tenant_bare(name)))
        return api_error_set(error, API_FORBIDDEN, "adapter_not_allowed", "name",
                             "this key is held to the adapters %.200s", caller->adapters);
    bool there = find_stored(registry, caller, name, stored);
    if (there && !may_change(caller, stored))
        return api_error_set(error, API_FORBIDDEN, "shared_adapter", "name",
                             "the adapter \"%s\" is shared by everyone: only an admin's key "
                             "changes it; take another name",
                             name);
    if (!there && strchr(name, '~') == NULL)
        (void)sora_tenant_join(caller->tenant, name, stored);
    snprintf(out, NAMES_BYTES, "%s", stored);
    return SORA_OK;
}

bool names_visible(sora_registry *registry, const struct auth_caller *caller, const char *stored)
{
    char own[SORA_STORED_NAME_BYTES_MAX + 1];
    if (!sora_key_allows(caller->adapters, sora_tenant_bare(stored)))
        return false;
    if (auth_is_admin(caller) || sora_tenant_owns(caller->tenant, stored))
        return true;
    if (!sora_tenant_owns("", stored))
        return false;
    // Its own adapter of that name stands before the shared one.
    return !sora_tenant_join(caller->tenant, stored, own) || !sora_registry_has(registry, own);
}

const char *names_shown(const struct auth_caller *caller, const char *stored)
{
    return caller->tenant[0] != '\0' && sora_tenant_owns(caller->tenant, stored)
               ? sora_tenant_bare(stored)
               : stored;
}

void names_show_in(const struct auth_caller *caller, char *text)
{
    char mark[SORA_TENANT_BYTES_MAX + 3];
    if (caller->tenant[0] == '\0')
        return;
    snprintf(mark, sizeof mark, "\"%s~", caller->tenant); // names are in quotes
    size_t bytes = strlen(mark) - 1;
    for (char *at = text; (at = strstr(at, mark)) != NULL; at++)
        memmove(at + 1, at + 1 + bytes, strlen(at + 1 + bytes) + 1);
}

void names_mask(const struct auth_caller *caller, int64_t started_s,
                struct sora_registry_card *card)
{
    const struct sora_store_entry *entry = &card->entry;
    if (auth_is_admin(caller))
        return;
    if (!sora_tenant_owns(caller->tenant, entry->name))
        card->in_flight = card->requests = card->tokens = card->last_used_s = 0;
    // A file is in memory once for all tenants. One that this tenant has not brought there is
    // somebody else's doing.
    if (card->last_used_s > 0 || (entry->active && entry->created_s >= started_s))
        return;
    card->resident = false;
    card->load_ms = 0.0;
}

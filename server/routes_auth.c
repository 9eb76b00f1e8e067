// SPDX-License-Identifier: Apache-2.0
// What stands between the table of routes and the handlers: keys, scopes, limits, and what the name
// in a path means to the caller. HTTP workers only.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "server/audit.h"
#include "server/routes.h"
#include "sora/tenant.h"

#define STORAGE_RETRY_S 60 // no wait makes room; long enough to delete something

bool routes_admit(struct server *server, struct http_call *call, uint32_t scopes)
{
    struct api_error error;
    char needed[SORA_SCOPES_BYTES], has[SORA_SCOPES_BYTES];
    struct auth_caller *caller = &call->caller;
    if (auth_identify(server->auth, http_header(call, "Authorization"),
                      http_header(call, "X-Api-Key"), caller, &error) != SORA_OK) {
        http_add_header(call, "WWW-Authenticate", "Bearer");
        http_reply_error(call, &error);
        return false;
    }
    struct rate_tenant *rate = caller->rate;
    caller->rate = NULL; // until it has entered
    if (!auth_is_admin(caller) && (caller->scopes & scopes) == 0) {
        uint32_t wanted = scopes != 0 ? scopes : (uint32_t)SORA_SCOPE_ADMIN;
        (void)api_error_set(&error, API_FORBIDDEN, NULL, NULL,
                            "%s %s needs a key with the scope %s (one of them is enough); this "
                            "one has %s",
                            call->method, call->path, sora_scopes_print(wanted, needed),
                            sora_scopes_print(caller->scopes, has));
        http_reply_error(call, &error);
        return false;
    }
    if (!rate_enter(rate, clock_now_us(), &call->retry_after_s, &error)) {
        http_reply_error(call, &error);
        return false;
    }
    call->retry_after_s = 0;
    caller->rate = rate;
    return true;
}

void routes_leave(struct http_call *call)
{
    if (call->caller.rate != NULL)
        rate_leave(call->caller.rate);
}

void routes_reply_unknown(struct http_call *call, const char *name)
{
    struct api_error error;
    bool model = strncmp(call->path, "/v1/models/", 11) == 0;
    const char *shown = names_shown(&call->caller, name);
    (void)api_error_set(&error, API_NOT_FOUND, model ? "model_not_found" : "adapter_not_found",
                        model ? "model" : "name",
                        "there is no adapter \"%.200s\"; GET /v1/adapters lists them", shown);
    http_reply_error(call, &error);
}

// Whether changes can be made: while the shared catalog is known to be away, they are refused at
// once, before a body is read and without a wait for the database.
static bool catalog_is_there(struct server *server, struct http_call *call, struct api_error *error)
{
    struct sora_error cause;
    if (server->replica == NULL || replica_get_state(server->replica).connected)
        return true;
    (void)sora_fail(&cause, SORA_UNAVAILABLE, "the shared catalog is away");
    routes_say_status(call, API_FROM_ADAPTER, &cause, error);
    return false;
}

bool routes_find_target(struct server *server, struct http_call *call, const char *name,
                        char stored[NAMES_BYTES], struct api_error *error)
{
    if (!catalog_is_there(server, call, error))
        return false;
    if (names_target(server->registry, &call->caller, name, stored, error) == SORA_OK)
        return true;
    if (error->http == API_FORBIDDEN)
        audit_refused(server, call, "adapter.publish", name, error->message);
    return false;
}

bool routes_target(struct server *server, struct http_call *call, const char *name,
                   char stored[NAMES_BYTES])
{
    struct api_error error;
    if (routes_find_target(server, call, name, stored, &error))
        return true;
    http_reply_error(call, &error);
    return false;
}

bool routes_settle_name(struct server *server, struct http_call *call, enum route_use use,
                        const char *name, char stored[NAMES_BYTES])
{
    bool changeable = false;
    struct api_error error;
    if (use == ROUTE_MAKES)
        return routes_target(server, call, name, stored);
    if (strcmp(name, server->base_name) == 0) { // no adapter has this name
        snprintf(stored, NAMES_BYTES, "%s", name);
        return true;
    }
    if (!names_resolve(server->registry, &call->caller, name, stored, &changeable)) {
        routes_reply_unknown(call, name);
        return false;
    }
    if (use == ROUTE_READS)
        return true;
    if (!catalog_is_there(server, call, &error)) {
        http_reply_error(call, &error);
        return false;
    }
    if (changeable)
        return true;
    (void)api_error_set(&error, API_FORBIDDEN, "shared_adapter", "name",
                        "the adapter \"%s\" is shared by everyone: only an admin's key changes it",
                        name);
    bool deletes = strcmp(call->method, "DELETE") == 0;
    audit_refused(server, call, deletes ? "adapter.delete" : "adapter.change", stored,
                  error.message);
    http_reply_error(call, &error);
    return false;
}

int32_t routes_keep_visible(struct server *server, const struct http_call *call,
                            struct sora_registry_card *cards, int32_t count)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++)
        if (names_visible(server->registry, &call->caller, cards[i].entry.name))
            cards[kept++] = cards[i];
    return kept;
}

// The bytes of the tenant's own files, as far as they can be told.
static int64_t stored_bytes(struct server *server, const char *tenant)
{
    int64_t bytes = 0;
    if (sora_access_stored(auth_access(server->auth), tenant, NULL, &bytes, NULL, NULL) != SORA_OK)
        return 0;
    return bytes;
}

// What the name means now, for the record; version 0 when nothing is active.
static struct sora_store_entry active_entry(struct server *server, const char *stored)
{
    struct sora_registry_card *cards = NULL;
    struct sora_store_entry found = {.version = 0};
    int32_t count = 0;
    if (sora_registry_versions(server->registry, stored, &cards, &count, NULL) != SORA_OK)
        count = 0;
    for (int32_t i = 0; i < count; i++)
        if (cards[i].entry.active)
            found = cards[i].entry;
    free(cards);
    return found;
}

sora_status routes_remove(struct server *server, struct http_call *call, const char *stored,
                          size_t *freed_bytes, struct sora_error *cause)
{
    struct sora_audit record;
    struct sora_store_entry active = active_entry(server, stored);
    struct audit_change change = {"adapter.delete", stored, active.version, active.digest};
    bool admin = auth_is_admin(&call->caller);
    const char *tenant = call->caller.tenant;
    *freed_bytes = 0;
    sora_status status = audit_begin(server, call, &change, &record, cause);
    if (status != SORA_OK)
        return status;
    // What is freed on disk would tell whether another tenant has the same file: a tenant is told
    // what its own account got back.
    int64_t before = admin ? 0 : stored_bytes(server, tenant);
    status = sora_registry_remove(server->registry, stored, freed_bytes, cause);
    if (status == SORA_OK && !admin) {
        int64_t after = stored_bytes(server, tenant);
        *freed_bytes = before > after ? (size_t)(before - after) : 0;
    }
    audit_end(server, &record, status, NULL, cause);
    return status;
}

// Refuses what has no room. OpenAI's client repeats a 429 by itself unless it is told not to.
static void note_no_room(struct server *server, struct http_call *call, const char *stored,
                         const struct api_error *error)
{
    audit_refused(server, call, "adapter.publish", stored, error->message);
    if (error->http == API_TOO_MANY) {
        http_add_header(call, "x-should-retry", "false");
        call->retry_after_s = STORAGE_RETRY_S;
    }
}

bool routes_fits(struct server *server, struct http_call *call, const char *stored)
{
    struct api_error error;
    const char *announced = http_header(call, "Content-Length");
    int64_t limit = rate_stored_limit(call->caller.rate);
    long long bytes = announced != NULL ? strtoll(announced, NULL, 10) : 0;
    if (limit == 0 || bytes <= limit || !sora_tenant_owns(call->caller.tenant, stored))
        return true;
    (void)api_error_set(&error, API_TOO_MANY, "storage_limit_exceeded", NULL,
                        "an adapter of %lld bytes is more than the %lld that may be stored in all",
                        bytes, (long long)limit);
    note_no_room(server, call, stored, &error);
    http_reply_error(call, &error);
    return false;
}

// Whether the upload fits within the tenant's limit, which it has; error is filled otherwise.
static bool has_room(struct server *server, struct rate_tenant *rate,
                     const struct routes_upload *put, const char *digest, struct api_error *error)
{
    char tenant[SORA_TENANT_BYTES_MAX + 1];
    struct sora_error cause;
    int64_t used = 0;
    bool there = false;
    sora_tenant_of(put->stored, tenant);
    if (sora_access_stored(auth_access(server->auth), tenant, digest, &used, &there, &cause) !=
        SORA_OK) {
        (void)api_error_from(error, API_FROM_ADAPTER, &cause);
        return false;
    }
    // The same bytes again take no room.
    return there || rate_fits_bytes(rate, used, (int64_t)put->byte_count, error);
}

static sora_status put_into(sora_registry *registry, const struct routes_upload *put,
                            struct sora_registry_card *card, bool *created,
                            struct sora_error *cause)
{
    if (put->upload != NULL)
        return sora_registry_publish_upload(registry, put->stored, put->upload, put->if_match,
                                            put->activate, card, created, cause);
    return sora_registry_publish(registry, put->stored, put->bytes, put->byte_count, put->if_match,
                                 put->activate, card, created, cause);
}

static bool publish(struct server *server, struct http_call *call, const struct routes_upload *put,
                    const char *digest, struct sora_registry_card *card, bool *created,
                    struct api_error *error)
{
    struct sora_audit record;
    struct sora_error cause;
    struct audit_change change = {"adapter.publish", put->stored, 0, digest};
    sora_status status = audit_begin(server, call, &change, &record, &cause);
    if (status == SORA_OK) {
        status = put_into(server->registry, put, card, created, &cause);
        audit_end(server, &record, status, &card->entry, &cause);
    }
    if (status == SORA_OK)
        return true;
    routes_say_status(call, API_FROM_ADAPTER, &cause, error);
    return false;
}

bool routes_try_publish(struct server *server, struct http_call *call,
                        const struct routes_upload *put, struct sora_registry_card *card,
                        bool *created, struct api_error *error)
{
    struct sora_error cause;
    struct rate_tenant *rate = call->caller.rate;
    char digest[65];
    if (put->upload != NULL) {
        memcpy(digest, sora_upload_digest(put->upload), sizeof digest);
    } else if (sha256_of(put->bytes, put->byte_count, digest, &cause) != SORA_OK) {
        (void)api_error_from(error, API_FROM_ADAPTER, &cause);
        return false;
    }
    // An admin that uploads for a tenant is not held to the tenant's limit.
    if (!sora_tenant_owns(call->caller.tenant, put->stored) || rate_stored_limit(rate) == 0)
        return publish(server, call, put, digest, card, created, error);
    rate_lock_storage(rate);
    bool fits = has_room(server, rate, put, digest, error);
    bool good = fits && publish(server, call, put, digest, card, created, error);
    rate_unlock_storage(rate);
    if (!fits)
        note_no_room(server, call, put->stored, error);
    return good;
}

bool routes_publish(struct server *server, struct http_call *call, const struct routes_upload *put,
                    struct sora_registry_card *card, bool *created)
{
    struct api_error error;
    if (routes_try_publish(server, call, put, card, created, &error))
        return true;
    http_reply_error(call, &error);
    return false;
}

sora_status routes_set_pinned(struct server *server, struct http_call *call, const char *stored,
                              bool pinned, struct sora_registry_card *card,
                              struct sora_error *cause)
{
    struct sora_audit record;
    struct audit_change change = {pinned ? "adapter.pin" : "adapter.unpin", stored, 0, NULL};
    sora_status status = audit_begin(server, call, &change, &record, cause);
    if (status != SORA_OK)
        return status;
    status = sora_registry_set_pinned(server->registry, stored, pinned, card, cause);
    audit_end(server, &record, status, &card->entry, cause);
    return status;
}

sora_status routes_rollback(struct server *server, struct http_call *call, const char *stored,
                            int32_t version, struct sora_registry_card *card,
                            struct sora_error *cause)
{
    struct sora_audit record;
    struct audit_change change = {"adapter.rollback", stored, version, NULL};
    sora_status status = audit_begin(server, call, &change, &record, cause);
    if (status != SORA_OK)
        return status;
    status = sora_registry_rollback(server->registry, stored, version, card, cause);
    audit_end(server, &record, status, &card->entry, cause);
    return status;
}

#define AUDIT_DEFAULT 100

// A decimal query parameter within [min, max]; absent leaves *out. False: it is not.
static bool query_number(const struct http_call *call, const char *name, long long min,
                         long long max, long long *out)
{
    char text[24], *end;
    if (!http_query(call, name, text, sizeof text))
        return true;
    *out = strtoll(text, &end, 10);
    return end != text && *end == '\0' && *out >= min && *out <= max;
}

void routes_audit(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct sora_audit *records = NULL;
    struct sora_error cause;
    struct api_error error;
    struct buf out;
    int32_t count = 0;
    long long after = 0, limit = AUDIT_DEFAULT;
    if (!query_number(call, "after", 0, INT64_MAX - 1, &after) ||
        !query_number(call, "limit", 1, SORA_AUDIT_PAGE_MAX, &limit)) {
        (void)api_error_set(&error, API_BAD_REQUEST, "invalid_value", NULL,
                            "after must be a record's number, limit 1 to %d", SORA_AUDIT_PAGE_MAX);
        http_reply_error(call, &error);
        return;
    }
    if (sora_access_list_audit(auth_access(server->auth), after, (int32_t)limit, &records, &count,
                               &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_BODY, &cause);
        return;
    }
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    buf_text(&out, "{\"object\":\"list\",\"data\":[");
    for (int32_t i = 0; i < count; i++) {
        buf_text(&out, i > 0 ? "," : "");
        audit_encode(&records[i], &out);
    }
    // A full page may be the last one: the next is empty then.
    buf_printf(&out, "],\"has_more\":%s}", count == limit ? "true" : "false");
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
    free(records);
}

// SPDX-License-Identifier: Apache-2.0
// Keys, limits and the record of changes in a PostgreSQL catalog. One thread at a time.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_postgres.h"
#include "base/utf8.h"

// Connects, then reads all rows of a query without parameters.
static sora_status list_all(struct catalog_postgres *c, const char *sql, size_t row_bytes,
                            void (*read_row)(const PGresult *result, int row, void *out),
                            void **rows, int32_t *row_count, struct sora_error *err)
{
    PGresult *result = NULL;
    *rows = NULL;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_query(c, &result, err, sql, "");
    if (status == SORA_OK)
        status = catalog_postgres_rows(c, result, row_bytes, read_row, rows, row_count, err);
    PQclear(result);
    return status;
}

// --- the record of changes ---

// The database takes whole characters only, and a text that was cut may end in the middle of one.
static void whole_characters(const char *text, char *out, size_t out_bytes)
{
    size_t used = 0, bytes = strlen(text);
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t taken = utf8_next(text + at, bytes - at, &code);
        bool broken = code == UTF8_BROKEN;
        if (used + (broken ? 1 : taken) >= out_bytes)
            break;
        memcpy(out + used, broken ? "?" : text + at, broken ? 1 : taken);
        used += broken ? 1 : taken;
        at += taken;
    }
    out[used] = '\0';
}

// Numbers without gaps, in the order of the commits: who reads behind a number misses none.
static sora_status insert_audit(struct catalog_postgres *c, struct sora_audit *record,
                                struct sora_error *err)
{
    char outcome[sizeof record->outcome], object[sizeof record->object];
    whole_characters(record->outcome, outcome, sizeof outcome);
    whole_characters(record->object, object, sizeof object);
    return catalog_postgres_number(
        c, 0, &record->number, err,
        "WITH s AS (UPDATE sora_state SET audit_number = audit_number + 1 RETURNING audit_number)"
        " INSERT INTO sora_audit (number, time_s, key_id, tenant, request_id, action, object,"
        " version, digest, outcome) SELECT audit_number, $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM s"
        " RETURNING number",
        "ntttttntt", record->time_s, record->key_id, record->tenant, record->request_id,
        record->action, object, (int64_t)record->version, record->digest, outcome);
}

sora_status catalog_postgres_add_audit(struct catalog *catalog, struct sora_audit *record,
                                       struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    sora_status status = catalog_postgres_connect(c, err);
    return status == SORA_OK ? insert_audit(c, record, err) : status;
}

static void read_audit(const PGresult *result, int row, void *out)
{
    struct sora_audit *record = out;
    record->number = catalog_postgres_int(result, row, 0);
    record->time_s = catalog_postgres_int(result, row, 1);
    catalog_postgres_text(result, row, 2, record->key_id, sizeof record->key_id);
    catalog_postgres_text(result, row, 3, record->tenant, sizeof record->tenant);
    catalog_postgres_text(result, row, 4, record->request_id, sizeof record->request_id);
    catalog_postgres_text(result, row, 5, record->action, sizeof record->action);
    catalog_postgres_text(result, row, 6, record->object, sizeof record->object);
    record->version = (int32_t)catalog_postgres_int(result, row, 7);
    catalog_postgres_text(result, row, 8, record->digest, sizeof record->digest);
    catalog_postgres_text(result, row, 9, record->outcome, sizeof record->outcome);
}

sora_status catalog_postgres_list_audit(struct catalog *catalog, int64_t after, int32_t limit,
                                        struct sora_audit **records, int32_t *record_count,
                                        struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    PGresult *result = NULL;
    void *rows = NULL;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_query(
            c, &result, err,
            "SELECT number, time_s, key_id, tenant, request_id, action, object, version, digest,"
            " outcome FROM sora_audit WHERE number > $1 ORDER BY number LIMIT $2",
            "nn", after, (int64_t)limit);
    if (status == SORA_OK)
        status = catalog_postgres_rows(c, result, sizeof **records, read_audit, &rows, record_count,
                                       err);
    PQclear(result);
    *records = rows;
    return status;
}

// --- keys and limits ---

// What every change of keys and limits ends with: the stamp, and a record in the operator's name.
static sora_status note_change(struct catalog_postgres *c, const char *action, const char *object,
                               const char *tenant, int64_t now_s, const char *outcome,
                               struct sora_error *err)
{
    struct sora_audit record = {.time_s = now_s, .key_id = "operator"};
    snprintf(record.action, sizeof record.action, "%s", action);
    snprintf(record.object, sizeof record.object, "%s", object);
    snprintf(record.tenant, sizeof record.tenant, "%s", tenant);
    snprintf(record.outcome, sizeof record.outcome, "%s", outcome);
    sora_status status = catalog_postgres_change(
        c, err, "UPDATE sora_state SET access_stamp = access_stamp + 1", "");
    return status == SORA_OK ? insert_audit(c, &record, err) : status;
}

static sora_status insert_key(struct catalog_postgres *c, const struct sora_key *key,
                              struct sora_error *err)
{
    int64_t count = 0;
    sora_status status =
        catalog_postgres_number(c, 0, &count, err, "SELECT count(*) FROM sora_api_key", "");
    if (status == SORA_OK && count >= SORA_KEY_COUNT_MAX)
        status = sora_fail(err, SORA_LIMIT, "there are %d keys, the limit", SORA_KEY_COUNT_MAX);
    if (status != SORA_OK)
        return status;
    return catalog_postgres_change(
        c, err,
        "INSERT INTO sora_api_key (id, hash, tenant, scopes, name, adapters, created_s)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        "tttnttn", key->id, key->hash, key->tenant, (int64_t)key->scopes, key->name, key->adapters,
        key->created_s);
}

sora_status catalog_postgres_add_key(struct catalog *catalog, const struct sora_key *key,
                                     struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    char scopes[SORA_SCOPES_BYTES];
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = insert_key(c, key, err);
    if (status == SORA_OK)
        status = note_change(c, "key.make", key->id, key->tenant, key->created_s,
                             sora_scopes_print(key->scopes, scopes), err);
    return catalog_postgres_finish(c, status, err);
}

static sora_status mark_revoked(struct catalog_postgres *c, const char *id, int64_t now_s,
                                struct sora_error *err)
{
    int64_t known = 0, changed = 0;
    sora_status status = catalog_postgres_number(
        c, 0, &changed, err,
        "UPDATE sora_api_key SET revoked_s = $2 WHERE id = $1 AND revoked_s = 0 RETURNING 1", "tn",
        id, now_s);
    if (status != SORA_OK)
        return status;
    if (changed != 0)
        return note_change(c, "key.revoke", id, "", now_s, "done", err);
    status = catalog_postgres_number(c, 0, &known, err, "SELECT 1 FROM sora_api_key WHERE id = $1",
                                     "t", id);
    if (status == SORA_OK && known == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "there is no key \"%.40s\"", id);
    return status;
}

sora_status catalog_postgres_revoke_key(struct catalog *catalog, const char *id, int64_t now_s,
                                        struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    return catalog_postgres_finish(c, mark_revoked(c, id, now_s, err), err);
}

static void read_key(const PGresult *result, int row, void *out)
{
    struct sora_key *key = out;
    catalog_postgres_text(result, row, 0, key->id, sizeof key->id);
    catalog_postgres_text(result, row, 1, key->hash, sizeof key->hash);
    catalog_postgres_text(result, row, 2, key->tenant, sizeof key->tenant);
    key->scopes = (uint32_t)catalog_postgres_int(result, row, 3);
    catalog_postgres_text(result, row, 4, key->name, sizeof key->name);
    catalog_postgres_text(result, row, 5, key->adapters, sizeof key->adapters);
    key->created_s = catalog_postgres_int(result, row, 6);
    key->revoked_s = catalog_postgres_int(result, row, 7);
}

sora_status catalog_postgres_list_keys(struct catalog *catalog, struct sora_key **keys,
                                       int32_t *key_count, struct sora_error *err)
{
    void *rows = NULL;
    sora_status status =
        list_all(catalog_postgres_of(catalog),
                 "SELECT id, hash, tenant, scopes, name, adapters, created_s, revoked_s"
                 " FROM sora_api_key ORDER BY created_s, id",
                 sizeof **keys, read_key, &rows, key_count, err);
    *keys = rows;
    return status;
}

sora_status catalog_postgres_set_limits(struct catalog *catalog,
                                        const struct sora_tenant_limits *limits, int64_t now_s,
                                        struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    char text[SORA_AUDIT_OUTCOME_BYTES_MAX + 1];
    snprintf(text, sizeof text,
             "requests_per_minute=%lld tokens_per_minute=%lld concurrent_requests=%lld "
             "stored_bytes=%lld",
             (long long)limits->requests_per_minute, (long long)limits->tokens_per_minute,
             (long long)limits->concurrent_requests, (long long)limits->stored_bytes);
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = catalog_postgres_change(
        c, err,
        "INSERT INTO sora_tenant_limits (tenant, requests_per_minute, tokens_per_minute,"
        " concurrent_requests, stored_bytes) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (tenant) DO UPDATE SET requests_per_minute = $2, tokens_per_minute = $3,"
        " concurrent_requests = $4, stored_bytes = $5",
        "tnnnn", limits->tenant, limits->requests_per_minute, limits->tokens_per_minute,
        limits->concurrent_requests, limits->stored_bytes);
    if (status == SORA_OK)
        status = note_change(c, "tenant.limit", limits->tenant, limits->tenant, now_s, text, err);
    return catalog_postgres_finish(c, status, err);
}

static void read_limits(const PGresult *result, int row, void *out)
{
    struct sora_tenant_limits *limits = out;
    catalog_postgres_text(result, row, 0, limits->tenant, sizeof limits->tenant);
    limits->requests_per_minute = catalog_postgres_int(result, row, 1);
    limits->tokens_per_minute = catalog_postgres_int(result, row, 2);
    limits->concurrent_requests = catalog_postgres_int(result, row, 3);
    limits->stored_bytes = catalog_postgres_int(result, row, 4);
}

sora_status catalog_postgres_list_limits(struct catalog *catalog,
                                         struct sora_tenant_limits **limits, int32_t *limits_count,
                                         struct sora_error *err)
{
    void *rows = NULL;
    sora_status status =
        list_all(catalog_postgres_of(catalog),
                 "SELECT tenant, requests_per_minute, tokens_per_minute, concurrent_requests,"
                 " stored_bytes FROM sora_tenant_limits ORDER BY tenant",
                 sizeof **limits, read_limits, &rows, limits_count, err);
    *limits = rows;
    return status;
}

sora_status catalog_postgres_stamp(struct catalog *catalog, int64_t *stamp, struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    *stamp = 0;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status =
            catalog_postgres_number(c, 0, stamp, err, "SELECT access_stamp FROM sora_state", "");
    return status;
}

// --- stored bytes ---

// "tenant~" and all that begins with it lies between these two in the order of bytes.
#define OWNED " FROM sora_version WHERE name >= $1::text || '~' AND name < $1::text || chr(127)"
#define SHARED " FROM sora_version WHERE position('~' IN name) = 0 AND $1::text = ''"

sora_status catalog_postgres_stored(struct catalog *catalog, const char *tenant, const char *digest,
                                    int64_t *bytes, bool *has_digest, struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    bool shared = tenant[0] == '\0';
    int64_t known = 0;
    if (has_digest != NULL)
        *has_digest = false;
    *bytes = 0;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(
            c, 0, bytes, err,
            shared ? "SELECT sum(bytes)::bigint FROM (SELECT DISTINCT digest, bytes" SHARED ") d"
                   : "SELECT sum(bytes)::bigint FROM (SELECT DISTINCT digest, bytes" OWNED ") d",
            "t", tenant);
    if (status != SORA_OK || digest == NULL || has_digest == NULL)
        return status;
    status = catalog_postgres_number(c, 0, &known, err,
                                     shared ? "SELECT 1" SHARED " AND digest = $2 LIMIT 1"
                                            : "SELECT 1" OWNED " AND digest = $2 LIMIT 1",
                                     "tt", tenant, digest);
    *has_digest = known != 0;
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// Keys, limits and the record of changes in the SQLite catalog. One thread at a time.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_sqlite.h"

// A revoked key stays: the record of changes names it, and a store that had a key never becomes an
// open one again. The triggers keep the record as it was written.
const char catalog_sqlite_access_schema[] =
    "CREATE TABLE api_key (id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL UNIQUE,"
    " tenant TEXT NOT NULL, scopes INTEGER NOT NULL, name TEXT NOT NULL, adapters TEXT NOT NULL,"
    " created_s INTEGER NOT NULL, revoked_s INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE tenant_limits (tenant TEXT NOT NULL PRIMARY KEY,"
    " requests_per_minute INTEGER NOT NULL, tokens_per_minute INTEGER NOT NULL,"
    " concurrent_requests INTEGER NOT NULL, stored_bytes INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE access_stamp (stamp INTEGER NOT NULL);"
    "INSERT INTO access_stamp (stamp) VALUES (0);"
    "CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, time_s INTEGER NOT NULL,"
    " key_id TEXT NOT NULL, tenant TEXT NOT NULL, request_id TEXT NOT NULL, action TEXT NOT NULL,"
    " object TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,"
    " outcome TEXT NOT NULL);"
    "CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN"
    " SELECT RAISE(ABORT, 'the record of changes is append-only'); END;"
    "CREATE TRIGGER audit_is_final BEFORE UPDATE ON audit BEGIN"
    " SELECT RAISE(ABORT, 'the record of changes is append-only'); END;";

// A statement with its parameters bound in order: 't' a const char * that outlives it, 'n' an
// int64_t.
static sora_status prepare(struct catalog_sqlite *c, sqlite3_stmt **stmt, struct sora_error *err,
                           const char *sql, const char *kinds, ...)
{
    va_list args;
    if (sqlite3_prepare_v2(c->db, sql, -1, stmt, NULL) != SQLITE_OK)
        return catalog_sqlite_fail(c, "prepare a statement", err);
    int code = SQLITE_OK;
    va_start(args, kinds);
    for (int i = 0; kinds[i] != '\0' && code == SQLITE_OK; i++) {
        if (kinds[i] == 't')
            code = sqlite3_bind_text(*stmt, i + 1, va_arg(args, const char *), -1, SQLITE_STATIC);
        else
            code = sqlite3_bind_int64(*stmt, i + 1, va_arg(args, int64_t));
    }
    va_end(args);
    if (code == SQLITE_OK)
        return SORA_OK;
    sora_status status = catalog_sqlite_fail(c, "bind a statement", err);
    sqlite3_finalize(*stmt);
    *stmt = NULL;
    return status;
}

// Runs a statement without rows to its end and frees it. Takes the result of prepare on.
static sora_status finish_change(struct catalog_sqlite *c, sora_status status, sqlite3_stmt *stmt,
                                 struct sora_error *err)
{
    if (status == SORA_OK && sqlite3_step(stmt) != SQLITE_DONE)
        status = catalog_sqlite_fail(c, "write", err);
    sqlite3_finalize(stmt);
    return status;
}

// The rows of a statement in an array that read_row fills, at most row_max; frees the statement.
static sora_status collect(struct catalog_sqlite *c, sora_status status, sqlite3_stmt *stmt,
                           size_t row_bytes, size_t row_max,
                           void (*read_row)(sqlite3_stmt *stmt, void *row), void **rows,
                           int32_t *row_count, struct sora_error *err)
{
    size_t capacity = 0, count = 0;
    char *all = NULL;
    int code = status == SORA_OK ? sqlite3_step(stmt) : SQLITE_DONE;
    for (; status == SORA_OK && code == SQLITE_ROW; code = sqlite3_step(stmt)) {
        if (count == row_max) {
            status = sora_fail(err, SORA_LIMIT, "catalog %s: more than %zu rows", c->path, row_max);
            break;
        }
        if (count == capacity) {
            size_t larger = capacity > 0 ? 2 * capacity : 16;
            char *more = reallocarray(all, larger, row_bytes);
            if (more == NULL) {
                status = sora_fail(err, SORA_NO_MEMORY, "no memory for %zu rows", larger);
                break;
            }
            all = more;
            capacity = larger;
        }
        memset(all + count * row_bytes, 0, row_bytes);
        read_row(stmt, all + count++ * row_bytes);
    }
    if (status == SORA_OK && code != SQLITE_DONE)
        status = catalog_sqlite_fail(c, "read", err);
    sqlite3_finalize(stmt);
    if (status != SORA_OK) {
        free(all);
        return status;
    }
    *rows = all;
    *row_count = (int32_t)count;
    return SORA_OK;
}

static void read_number_row(sqlite3_stmt *stmt, void *row)
{
    *(int64_t *)row = sqlite3_column_int64(stmt, 0);
}

// The one number that a statement gives; 0 when it gives none.
static sora_status read_number(struct catalog_sqlite *c, sora_status status, sqlite3_stmt *stmt,
                               int64_t *number, struct sora_error *err)
{
    void *rows = NULL;
    int32_t row_count = 0;
    *number = 0;
    status = collect(c, status, stmt, sizeof *number, 1, read_number_row, &rows, &row_count, err);
    if (status == SORA_OK && row_count > 0)
        *number = *(int64_t *)rows;
    if (status == SORA_OK)
        free(rows);
    return status;
}

// --- the record of changes ---

static sora_status insert_audit(struct catalog_sqlite *c, struct sora_audit *record,
                                struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    sora_status status = prepare(
        c, &stmt, err,
        "INSERT INTO audit (time_s, key_id, tenant, request_id, action, object, version,"
        " digest, outcome) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        "ntttttntt", record->time_s, record->key_id, record->tenant, record->request_id,
        record->action, record->object, (int64_t)record->version, record->digest, record->outcome);
    status = finish_change(c, status, stmt, err);
    if (status == SORA_OK)
        record->number = sqlite3_last_insert_rowid(c->db);
    return status;
}

sora_status catalog_sqlite_add_audit(struct catalog *catalog, struct sora_audit *record,
                                     struct sora_error *err)
{
    return insert_audit(catalog_sqlite_of(catalog), record, err);
}

static void read_audit_row(sqlite3_stmt *stmt, void *row)
{
    struct sora_audit *record = row;
    record->number = sqlite3_column_int64(stmt, 0);
    record->time_s = sqlite3_column_int64(stmt, 1);
    catalog_sqlite_text(stmt, 2, record->key_id, sizeof record->key_id);
    catalog_sqlite_text(stmt, 3, record->tenant, sizeof record->tenant);
    catalog_sqlite_text(stmt, 4, record->request_id, sizeof record->request_id);
    catalog_sqlite_text(stmt, 5, record->action, sizeof record->action);
    catalog_sqlite_text(stmt, 6, record->object, sizeof record->object);
    record->version = sqlite3_column_int(stmt, 7);
    catalog_sqlite_text(stmt, 8, record->digest, sizeof record->digest);
    catalog_sqlite_text(stmt, 9, record->outcome, sizeof record->outcome);
}

sora_status catalog_sqlite_list_audit(struct catalog *catalog, int64_t after, int32_t limit,
                                      struct sora_audit **records, int32_t *record_count,
                                      struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sqlite3_stmt *stmt = NULL;
    void *rows = NULL;
    sora_status status =
        prepare(c, &stmt, err,
                "SELECT number, time_s, key_id, tenant, request_id, action, object, version,"
                " digest, outcome FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2",
                "nn", after, (int64_t)limit);
    status = collect(c, status, stmt, sizeof **records, (size_t)limit, read_audit_row, &rows,
                     record_count, err);
    *records = status == SORA_OK ? rows : NULL;
    return status;
}

// --- keys and limits ---

// What every change of keys and limits ends with: the stamp, and a record in the operator's name.
static sora_status note_change(struct catalog_sqlite *c, const char *action, const char *object,
                               const char *tenant, int64_t now_s, const char *outcome,
                               struct sora_error *err)
{
    struct sora_audit record = {.time_s = now_s, .key_id = "operator"};
    sqlite3_stmt *stmt = NULL;
    snprintf(record.action, sizeof record.action, "%s", action);
    snprintf(record.object, sizeof record.object, "%s", object);
    snprintf(record.tenant, sizeof record.tenant, "%s", tenant);
    snprintf(record.outcome, sizeof record.outcome, "%s", outcome);
    sora_status status = prepare(c, &stmt, err, "UPDATE access_stamp SET stamp = stamp + 1", "");
    status = finish_change(c, status, stmt, err);
    return status == SORA_OK ? insert_audit(c, &record, err) : status;
}

static sora_status insert_key(struct catalog_sqlite *c, const struct sora_key *key,
                              struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int64_t count = 0;
    sora_status status = prepare(c, &stmt, err, "SELECT count(*) FROM api_key", "");
    status = read_number(c, status, stmt, &count, err);
    if (status == SORA_OK && count >= SORA_KEY_COUNT_MAX)
        status = sora_fail(err, SORA_LIMIT, "there are %d keys, the limit", SORA_KEY_COUNT_MAX);
    if (status != SORA_OK)
        return status;
    status = prepare(c, &stmt, err,
                     "INSERT INTO api_key (id, hash, tenant, scopes, name, adapters, created_s)"
                     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                     "tttnttn", key->id, key->hash, key->tenant, (int64_t)key->scopes, key->name,
                     key->adapters, key->created_s);
    return finish_change(c, status, stmt, err);
}

sora_status catalog_sqlite_add_key(struct catalog *catalog, const struct sora_key *key,
                                   struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    char scopes[SORA_SCOPES_BYTES];
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = insert_key(c, key, err);
    if (status == SORA_OK)
        status = note_change(c, "key.make", key->id, key->tenant, key->created_s,
                             sora_scopes_print(key->scopes, scopes), err);
    return catalog_sqlite_finish(c, status, err);
}

static sora_status mark_revoked(struct catalog_sqlite *c, const char *id, int64_t now_s,
                                struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    sora_status status =
        prepare(c, &stmt, err, "UPDATE api_key SET revoked_s = ?2 WHERE id = ?1 AND revoked_s = 0",
                "tn", id, now_s);
    status = finish_change(c, status, stmt, err);
    if (status != SORA_OK)
        return status;
    if (sqlite3_changes(c->db) > 0)
        return note_change(c, "key.revoke", id, "", now_s, "done", err);
    int64_t known = 0;
    status = prepare(c, &stmt, err, "SELECT 1 FROM api_key WHERE id = ?1", "t", id);
    status = read_number(c, status, stmt, &known, err);
    if (status == SORA_OK && known == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "there is no key \"%.40s\"", id);
    return status;
}

sora_status catalog_sqlite_revoke_key(struct catalog *catalog, const char *id, int64_t now_s,
                                      struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    return catalog_sqlite_finish(c, mark_revoked(c, id, now_s, err), err);
}

static void read_key_row(sqlite3_stmt *stmt, void *row)
{
    struct sora_key *key = row;
    catalog_sqlite_text(stmt, 0, key->id, sizeof key->id);
    catalog_sqlite_text(stmt, 1, key->hash, sizeof key->hash);
    catalog_sqlite_text(stmt, 2, key->tenant, sizeof key->tenant);
    key->scopes = (uint32_t)sqlite3_column_int64(stmt, 3);
    catalog_sqlite_text(stmt, 4, key->name, sizeof key->name);
    catalog_sqlite_text(stmt, 5, key->adapters, sizeof key->adapters);
    key->created_s = sqlite3_column_int64(stmt, 6);
    key->revoked_s = sqlite3_column_int64(stmt, 7);
}

sora_status catalog_sqlite_list_keys(struct catalog *catalog, struct sora_key **keys,
                                     int32_t *key_count, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sqlite3_stmt *stmt = NULL;
    void *rows = NULL;
    sora_status status =
        prepare(c, &stmt, err,
                "SELECT id, hash, tenant, scopes, name, adapters, created_s, revoked_s"
                " FROM api_key ORDER BY created_s, id",
                "");
    status = collect(c, status, stmt, sizeof **keys, SORA_KEY_COUNT_MAX, read_key_row, &rows,
                     key_count, err);
    *keys = status == SORA_OK ? rows : NULL;
    return status;
}

sora_status catalog_sqlite_set_limits(struct catalog *catalog,
                                      const struct sora_tenant_limits *limits, int64_t now_s,
                                      struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    char text[SORA_AUDIT_OUTCOME_BYTES_MAX + 1];
    sqlite3_stmt *stmt = NULL;
    snprintf(text, sizeof text,
             "requests_per_minute=%lld tokens_per_minute=%lld concurrent_requests=%lld "
             "stored_bytes=%lld",
             (long long)limits->requests_per_minute, (long long)limits->tokens_per_minute,
             (long long)limits->concurrent_requests, (long long)limits->stored_bytes);
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = prepare(c, &stmt, err,
                     "INSERT OR REPLACE INTO tenant_limits (tenant, requests_per_minute,"
                     " tokens_per_minute, concurrent_requests, stored_bytes)"
                     " VALUES (?1, ?2, ?3, ?4, ?5)",
                     "tnnnn", limits->tenant, limits->requests_per_minute,
                     limits->tokens_per_minute, limits->concurrent_requests, limits->stored_bytes);
    status = finish_change(c, status, stmt, err);
    if (status == SORA_OK)
        status = note_change(c, "tenant.limit", limits->tenant, limits->tenant, now_s, text, err);
    return catalog_sqlite_finish(c, status, err);
}

static void read_limits_row(sqlite3_stmt *stmt, void *row)
{
    struct sora_tenant_limits *limits = row;
    catalog_sqlite_text(stmt, 0, limits->tenant, sizeof limits->tenant);
    limits->requests_per_minute = sqlite3_column_int64(stmt, 1);
    limits->tokens_per_minute = sqlite3_column_int64(stmt, 2);
    limits->concurrent_requests = sqlite3_column_int64(stmt, 3);
    limits->stored_bytes = sqlite3_column_int64(stmt, 4);
}

sora_status catalog_sqlite_list_limits(struct catalog *catalog, struct sora_tenant_limits **limits,
                                       int32_t *limits_count, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sqlite3_stmt *stmt = NULL;
    void *rows = NULL;
    sora_status status =
        prepare(c, &stmt, err,
                "SELECT tenant, requests_per_minute, tokens_per_minute, concurrent_requests,"
                " stored_bytes FROM tenant_limits ORDER BY tenant",
                "");
    status = collect(c, status, stmt, sizeof **limits, SORA_TENANT_COUNT_MAX, read_limits_row,
                     &rows, limits_count, err);
    *limits = status == SORA_OK ? rows : NULL;
    return status;
}

sora_status catalog_sqlite_stamp(struct catalog *catalog, int64_t *stamp, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sqlite3_stmt *stmt = NULL;
    sora_status status = prepare(c, &stmt, err, "SELECT stamp FROM access_stamp", "");
    return read_number(c, status, stmt, stamp, err);
}

// --- stored bytes ---

// "tenant~" and all that begins with it lies between these two in the order of bytes.
#define OWNED " FROM version WHERE name >= ?1 || '~' AND name < ?1 || char(127)"
#define SHARED " FROM version WHERE instr(name, '~') = 0 AND ?1 = ''"

sora_status catalog_sqlite_stored(struct catalog *catalog, const char *tenant, const char *digest,
                                  int64_t *bytes, bool *has_digest, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    bool shared = tenant[0] == '\0';
    sqlite3_stmt *stmt = NULL;
    int64_t known = 0;
    sora_status status =
        prepare(c, &stmt, err,
                shared ? "SELECT sum(bytes) FROM (SELECT DISTINCT digest, bytes" SHARED ")"
                       : "SELECT sum(bytes) FROM (SELECT DISTINCT digest, bytes" OWNED ")",
                "t", tenant);
    status = read_number(c, status, stmt, bytes, err);
    if (has_digest != NULL)
        *has_digest = false;
    if (status != SORA_OK || digest == NULL || has_digest == NULL)
        return status;
    status = prepare(c, &stmt, err,
                     shared ? "SELECT 1" SHARED " AND digest = ?2 LIMIT 1"
                            : "SELECT 1" OWNED " AND digest = ?2 LIMIT 1",
                     "tt", tenant, digest);
    status = read_number(c, status, stmt, &known, err);
    *has_digest = known != 0;
    return status;
}

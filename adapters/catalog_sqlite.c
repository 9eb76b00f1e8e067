// SPDX-License-Identifier: Apache-2.0
// The catalog in one SQLite file, in WAL mode with every commit synced. Owned by a store, which
// lets one thread in at a time.
#include "adapters/catalog_sqlite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA_VERSION 3
#define BUSY_MS 10000 // `keys`, another connection, holds the file for a moment

// next_version stays when a name is removed, so that a number never means two adapters.
static const char schema[] =
    "CREATE TABLE adapter (name TEXT NOT NULL PRIMARY KEY, next_version INTEGER NOT NULL,"
    " active INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE version (name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, created_s INTEGER NOT NULL, PRIMARY KEY (name, version))"
    " WITHOUT ROWID;"
    "CREATE INDEX version_digest ON version (digest);";

// Version 3: whether the name's active version is to stay in memory.
static const char pinned_schema[] =
    "ALTER TABLE adapter ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;";

#define ENTRY_COLUMNS                                                                          \
    "SELECT v.name, v.version, v.digest, v.bytes, v.created_s, v.version = a.active, a.pinned" \
    " FROM version v JOIN adapter a ON a.name = v.name"

sora_status catalog_sqlite_fail(const struct catalog_sqlite *c, const char *what,
                                struct sora_error *err)
{
    int code = sqlite3_errcode(c->db) & 0xff;
    sora_status status = SORA_IO;
    if (code == SQLITE_FULL || sqlite3_system_errno(c->db) == ENOSPC)
        status = SORA_FULL;
    else if (code == SQLITE_NOMEM)
        status = SORA_NO_MEMORY;
    else if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        status = SORA_MALFORMED;
    else if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        status = SORA_BUSY;
    return sora_fail(err, status, "catalog %s: cannot %s: %s", c->path, what,
                     sqlite3_errmsg(c->db));
}

static sora_status run(struct catalog_sqlite *c, const char *sql, const char *what,
                       struct sora_error *err)
{
    if (sqlite3_exec(c->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return catalog_sqlite_fail(c, what, err);
    return SORA_OK;
}

sora_status catalog_sqlite_begin(struct catalog_sqlite *c, struct sora_error *err)
{
    return run(c, "BEGIN IMMEDIATE", "begin a transaction", err);
}

// Commits when all went well so far; otherwise, or when that fails, nothing has happened.
sora_status catalog_sqlite_finish(struct catalog_sqlite *c, sora_status status,
                                  struct sora_error *err)
{
    if (status == SORA_OK)
        status = run(c, "COMMIT", "commit", err);
    if (status != SORA_OK && !sqlite3_get_autocommit(c->db))
        sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

// A statement with up to two texts and one number bound, in the order of its parameters
// ?1 (first), ?2 (second), ?3 (number). Texts must outlive it.
static sora_status prepare(struct catalog_sqlite *c, const char *sql, const char *first,
                           const char *second, int64_t number, sqlite3_stmt **stmt,
                           struct sora_error *err)
{
    if (sqlite3_prepare_v2(c->db, sql, -1, stmt, NULL) != SQLITE_OK)
        return catalog_sqlite_fail(c, "prepare a statement", err);
    int count = sqlite3_bind_parameter_count(*stmt), code = SQLITE_OK;
    if (count >= 1 && first)
        code = sqlite3_bind_text(*stmt, 1, first, -1, SQLITE_STATIC);
    if (code == SQLITE_OK && count >= 2 && second)
        code = sqlite3_bind_text(*stmt, 2, second, -1, SQLITE_STATIC);
    if (code == SQLITE_OK && count >= 3)
        code = sqlite3_bind_int64(*stmt, 3, number);
    if (code == SQLITE_OK)
        return SORA_OK;
    sora_status status = catalog_sqlite_fail(c, "bind a statement", err);
    sqlite3_finalize(*stmt);
    *stmt = NULL;
    return status;
}

// Runs a statement that returns no rows.
static sora_status change(struct catalog_sqlite *c, const char *sql, const char *first,
                          const char *second, int64_t number, struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    sora_status status = prepare(c, sql, first, second, number, &stmt, err);
    if (status == SORA_OK && sqlite3_step(stmt) != SQLITE_DONE)
        status = catalog_sqlite_fail(c, "write", err);
    sqlite3_finalize(stmt);
    return status;
}

void catalog_sqlite_text(sqlite3_stmt *stmt, int column, char *out, size_t out_bytes)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    size_t bytes = text ? strlen(text) : 0;
    if (bytes >= out_bytes)
        bytes = out_bytes - 1;
    if (bytes)
        memcpy(out, text, bytes);
    out[bytes] = 0;
}

static void read_entry(sqlite3_stmt *stmt, struct sora_store_entry *entry)
{
    memset(entry, 0, sizeof *entry);
    catalog_sqlite_text(stmt, 0, entry->name, sizeof entry->name);
    entry->version = sqlite3_column_int(stmt, 1);
    catalog_sqlite_text(stmt, 2, entry->digest, sizeof entry->digest);
    entry->bytes = (size_t)sqlite3_column_int64(stmt, 3);
    entry->created_s = sqlite3_column_int64(stmt, 4);
    entry->active = sqlite3_column_int(stmt, 5) != 0;
    entry->pinned = sqlite3_column_int(stmt, 6) != 0;
}

// The one row of an entry query; *found false when there is none.
static sora_status find_entry(struct catalog_sqlite *c, const char *sql, const char *name,
                              int64_t version, bool *found, struct sora_store_entry *entry,
                              struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    *found = false;
    sora_status status = prepare(c, sql, name, NULL, version, &stmt, err);
    if (status != SORA_OK)
        return status;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        read_entry(stmt, entry);
        *found = true;
    } else if (code != SQLITE_DONE) {
        status = catalog_sqlite_fail(c, "read", err);
    }
    sqlite3_finalize(stmt);
    return status;
}

// The first column of the first row, or `otherwise`.
static sora_status find_number(struct catalog_sqlite *c, const char *sql, const char *text,
                               int64_t otherwise, int64_t *out, struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    *out = otherwise;
    sora_status status = prepare(c, sql, text, NULL, 0, &stmt, err);
    if (status != SORA_OK)
        return status;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(stmt, 0);
    else if (code != SQLITE_DONE)
        status = catalog_sqlite_fail(c, "read", err);
    sqlite3_finalize(stmt);
    return status;
}

static sora_status find_version(struct catalog_sqlite *c, const char *name, int32_t version,
                                struct sora_store_entry *entry, struct sora_error *err)
{
    bool found;
    sora_status status = find_entry(c, ENTRY_COLUMNS " WHERE v.name = ?1 AND v.version = ?3", name,
                                    version, &found, entry, err);
    if (status == SORA_OK && !found)
        return sora_fail(err, SORA_NOT_FOUND, "adapter \"%s\" has no version %d", name,
                         (int)version);
    return status;
}

static sora_status set_active(struct catalog_sqlite *c, const char *name, int32_t version,
                              struct sora_error *err)
{
    return change(c, "UPDATE adapter SET active = ?3 WHERE name = ?1", name, NULL, version, err);
}

static sora_status check_if_match(struct catalog_sqlite *c, const struct catalog_put *put,
                                  struct sora_error *err)
{
    struct sora_store_entry active;
    bool found;
    if (!put->if_match)
        return SORA_OK;
    sora_status status = find_entry(c, ENTRY_COLUMNS " WHERE v.name = ?1 AND v.version = a.active",
                                    put->name, 0, &found, &active, err);
    if (status != SORA_OK)
        return status;
    if (!found)
        return sora_fail(err, SORA_PRECONDITION,
                         "adapter \"%s\" has no active version, expected one with digest %.80s",
                         put->name, put->if_match);
    if (strcmp(active.digest, put->if_match) != 0)
        return sora_fail(err, SORA_PRECONDITION, "adapter \"%s\" has digest %s, expected %.80s",
                         put->name, active.digest, put->if_match);
    return SORA_OK;
}

// Names are counted once: the next ones must not cost more the more there are. Only the process
// that holds the store's lock adds and removes names.
static sora_status count_names(struct catalog_sqlite *c, struct sora_error *err)
{
    if (c->names_known)
        return SORA_OK;
    sora_status status =
        find_number(c, "SELECT count(DISTINCT name) FROM version", NULL, 0, &c->name_count, err);
    c->names_known = status == SORA_OK;
    return status;
}

// A change that failed may have been counted.
static sora_status keep_count(struct catalog_sqlite *c, sora_status status)
{
    c->names_known = c->names_known && status == SORA_OK;
    return status;
}

static sora_status check_room(struct catalog_sqlite *c, const char *name, struct sora_error *err)
{
    int64_t versions;
    sora_status status =
        find_number(c, "SELECT 1 FROM version WHERE name = ?1 LIMIT 1", name, 0, &versions, err);
    if (status != SORA_OK || versions > 0)
        return status;
    status = count_names(c, err);
    if (status == SORA_OK && c->name_count >= SORA_ADAPTER_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "the store holds %d adapters, its limit",
                         SORA_ADAPTER_COUNT_MAX);
    return status;
}

static sora_status insert_version(struct catalog_sqlite *c, const struct catalog_put *put,
                                  int32_t version, struct sora_error *err)
{
    static const char sql[] = "INSERT INTO version (name, version, digest, bytes, created_s)"
                              " VALUES (?1, ?3, ?2, ?4, ?5)";
    sqlite3_stmt *stmt = NULL;
    sora_status status = prepare(c, sql, put->name, put->digest, version, &stmt, err);
    if (status != SORA_OK)
        return status;
    if (sqlite3_bind_int64(stmt, 4, (sqlite3_int64)put->bytes) != SQLITE_OK ||
        sqlite3_bind_int64(stmt, 5, put->created_s) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_DONE)
        status = catalog_sqlite_fail(c, "write", err);
    sqlite3_finalize(stmt);
    return status;
}

static sora_status add_version(struct catalog_sqlite *c, const struct catalog_put *put,
                               int32_t *version, struct sora_error *err)
{
    int64_t next;
    sora_status status = check_room(c, put->name, err);
    if (status == SORA_OK)
        status = find_number(c, "SELECT next_version FROM adapter WHERE name = ?1", put->name, 1,
                             &next, err);
    if (status != SORA_OK)
        return status;
    if (next > SORA_ADAPTER_VERSION_MAX)
        return sora_fail(err, SORA_LIMIT, "adapter \"%s\" has had %d versions, the limit",
                         put->name, SORA_ADAPTER_VERSION_MAX);
    *version = (int32_t)next;
    status = insert_version(c, put, *version, err);
    if (status != SORA_OK)
        return status;
    return change(c,
                  "INSERT INTO adapter (name, next_version, active) VALUES (?1, ?3 + 1, 0)"
                  " ON CONFLICT (name) DO UPDATE SET next_version = ?3 + 1",
                  put->name, NULL, next, err);
}

static sora_status put_inside(struct catalog_sqlite *c, const struct catalog_put *put,
                              struct sora_store_entry *entry, bool *created, struct sora_error *err)
{
    bool found;
    sora_status status = check_if_match(c, put, err);
    if (status == SORA_OK)
        status = find_entry(c, ENTRY_COLUMNS " WHERE v.name = ?1 ORDER BY v.version DESC LIMIT 1",
                            put->name, 0, &found, entry, err);
    if (status != SORA_OK)
        return status;
    int32_t version = entry->version;
    *created = !found || strcmp(entry->digest, put->digest) != 0;
    if (*created)
        status = add_version(c, put, &version, err);
    if (status == SORA_OK && put->activate)
        status = set_active(c, put->name, version, err);
    if (status == SORA_OK)
        status = find_version(c, put->name, version, entry, err);
    if (status == SORA_OK && !found)
        c->name_count++;
    return status;
}

static sora_status put(struct catalog *catalog, const struct catalog_put *what,
                       struct sora_store_entry *entry, bool *created, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    memset(entry, 0, sizeof *entry);
    *created = false;
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    return keep_count(c, catalog_sqlite_finish(c, put_inside(c, what, entry, created, err), err));
}

static sora_status activate(struct catalog *catalog, const char *name, int32_t version,
                            struct sora_store_entry *entry, struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = find_version(c, name, version, entry, err);
    if (status == SORA_OK)
        status = set_active(c, name, version, err);
    status = catalog_sqlite_finish(c, status, err);
    entry->active = true;
    return status;
}

static sora_status pin(struct catalog *catalog, const char *name, bool pinned,
                       struct sora_error *err)
{
    static const char sql[] = "UPDATE adapter SET pinned = ?3 WHERE name = ?1 AND EXISTS"
                              " (SELECT 1 FROM version WHERE name = ?1)";
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = change(c, sql, name, NULL, pinned, err);
    if (status == SORA_OK && sqlite3_changes(c->db) == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\"", name);
    return catalog_sqlite_finish(c, status, err);
}

// Rows of a query into a malloc'ed array that read_row fills.
static sora_status collect(struct catalog_sqlite *c, const char *sql, const char *name,
                           size_t row_bytes, void (*read_row)(sqlite3_stmt *stmt, void *row),
                           void **rows, int32_t *row_count, struct sora_error *err)
{
    sqlite3_stmt *stmt = NULL;
    size_t capacity = 64, count = 0;
    char *all = calloc(capacity, row_bytes);
    if (!all)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to list adapters");
    sora_status status = prepare(c, sql, name, NULL, 0, &stmt, err);
    while (status == SORA_OK) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_DONE)
            break;
        if (count == capacity) {
            char *more = reallocarray(all, 2 * capacity, row_bytes);
            if (more) {
                all = more;
                capacity *= 2;
            }
        }
        if (code != SQLITE_ROW)
            status = catalog_sqlite_fail(c, "read", err);
        else if (count == capacity || count >= INT32_MAX)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory to list %zu versions", count);
        else
            read_row(stmt, all + count++ * row_bytes);
    }
    sqlite3_finalize(stmt);
    if (status != SORA_OK) {
        free(all);
        return status;
    }
    *rows = all;
    *row_count = (int32_t)count;
    return SORA_OK;
}

static void read_entry_row(sqlite3_stmt *stmt, void *row)
{
    read_entry(stmt, row);
}

static void read_digest_row(sqlite3_stmt *stmt, void *row)
{
    struct catalog_digest *digest = row;
    catalog_sqlite_text(stmt, 0, digest->text, sizeof digest->text);
}

// A name without versions: it is not active and not pinned, but its next version is known.
static sora_status forget_adapter(struct catalog_sqlite *c, const char *name,
                                  struct sora_error *err)
{
    c->name_count--;
    return change(c, "UPDATE adapter SET active = 0, pinned = 0 WHERE name = ?1", name, NULL, 0,
                  err);
}

static sora_status remove_name(struct catalog *catalog, const char *name,
                               struct catalog_digest **orphans, int32_t *orphan_count,
                               struct sora_error *err)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    void *rows = NULL;
    *orphans = NULL;
    *orphan_count = 0;
    sora_status status = catalog_sqlite_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = collect(c,
                     "SELECT DISTINCT v.digest FROM version v WHERE v.name = ?1 AND NOT EXISTS"
                     " (SELECT 1 FROM version o WHERE o.digest = v.digest AND o.name <> v.name)",
                     name, sizeof **orphans, read_digest_row, &rows, orphan_count, err);
    if (status == SORA_OK)
        status = change(c, "DELETE FROM version WHERE name = ?1", name, NULL, 0, err);
    if (status == SORA_OK && sqlite3_changes(c->db) == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\"", name);
    if (status == SORA_OK)
        status = forget_adapter(c, name, err);
    status = keep_count(c, catalog_sqlite_finish(c, status, err));
    if (status != SORA_OK) {
        free(rows);
        *orphan_count = 0;
        return status;
    }
    *orphans = rows;
    return SORA_OK;
}

static sora_status list(struct catalog *catalog, const char *name,
                        struct sora_store_entry **entries, int32_t *entry_count,
                        struct sora_error *err)
{
    static const char all[] = ENTRY_COLUMNS " ORDER BY v.name, v.version";
    static const char one[] = ENTRY_COLUMNS " WHERE v.name = ?1 ORDER BY v.version";
    void *rows = NULL;
    sora_status status = collect(catalog_sqlite_of(catalog), name ? one : all, name,
                                 sizeof **entries, read_entry_row, &rows, entry_count, err);
    *entries = rows;
    return status;
}

static sora_status uses(struct catalog *catalog, const char *digest, bool *used,
                        struct sora_error *err)
{
    int64_t number = 0;
    sora_status status =
        find_number(catalog_sqlite_of(catalog), "SELECT 1 FROM version WHERE digest = ?1 LIMIT 1",
                    digest, 0, &number, err);
    *used = number != 0;
    return status;
}

static void close_catalog(struct catalog *catalog)
{
    struct catalog_sqlite *c = catalog_sqlite_of(catalog);
    if (!c)
        return;
    sqlite3_close(c->db);
    free(c->path);
    free(c);
}

// Inside a transaction: two processes may open a new file at once.
static sora_status upgrade_schema(struct catalog_sqlite *c, struct sora_error *err)
{
    int64_t version;
    sora_status status = find_number(c, "PRAGMA user_version", NULL, 0, &version, err);
    if (status == SORA_OK && version < 1)
        status = run(c, schema, "create the tables", err);
    if (status == SORA_OK && version < 2)
        status = run(c, catalog_sqlite_access_schema, "create the tables of keys", err);
    if (status == SORA_OK && version < 3)
        status = run(c, pinned_schema, "add the column of pins", err);
    if (status == SORA_OK && version < SCHEMA_VERSION)
        status = run(c, "PRAGMA user_version = 3", "write the schema's version", err);
    return status;
}

static sora_status prepare_schema(struct catalog_sqlite *c, struct sora_error *err)
{
    int64_t version;
    sora_status status = SORA_OK;
    if (sqlite3_busy_timeout(c->db, BUSY_MS) != SQLITE_OK)
        return catalog_sqlite_fail(c, "open", err);
    // Before anything is written: a newer program's file stays as it is.
    status = find_number(c, "PRAGMA user_version", NULL, 0, &version, err);
    if (status != SORA_OK)
        return status;
    if (version > SCHEMA_VERSION)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "catalog %s has schema version %d of a newer program; this one knows up "
                         "to %d",
                         c->path, (int)version, SCHEMA_VERSION);
    status = run(c,
                 "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                 "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;",
                 "open", err);
    if (status != SORA_OK)
        return status;
    if (version == SCHEMA_VERSION)
        return SORA_OK;
    status = catalog_sqlite_begin(c, err);
    if (status == SORA_OK)
        status = catalog_sqlite_finish(c, upgrade_schema(c, err), err);
    return status;
}

sora_status catalog_sqlite_open(const char *path, struct catalog **catalog, struct sora_error *err)
{
    static const struct catalog_ops ops = {
        .close = close_catalog,
        .put = put,
        .activate = activate,
        .pin = pin,
        .remove = remove_name,
        .list = list,
        .uses = uses,
        CATALOG_SQLITE_ACCESS_OPS,
    };
    struct catalog_sqlite *c = calloc(1, sizeof *c);
    sora_status status = SORA_OK;
    *catalog = NULL;
    if (!c || !(c->path = strdup(path))) {
        free(c);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the catalog");
    }
    c->base.ops = &ops;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &c->db, flags, NULL) != SQLITE_OK)
        status = catalog_sqlite_fail(c, "open", err);
    // SQLite falls back to reading, and then says of the file beside it that it cannot be opened.
    else if (sqlite3_db_readonly(c->db, "main") == 1)
        status = sora_fail(err, SORA_IO,
                           "catalog %s: it is read-only: this user may not write it, "
                           "or its disk is mounted so",
                           path);
    if (status == SORA_OK)
        status = prepare_schema(c, err);
    if (status != SORA_OK) {
        close_catalog(&c->base);
        return status;
    }
    *catalog = &c->base;
    return SORA_OK;
}

// SPDX-License-Identifier: Apache-2.0
// What the files of the SQLite catalog share. One thread at a time, as of every catalog.
#ifndef ADAPTERS_CATALOG_SQLITE_H
#define ADAPTERS_CATALOG_SQLITE_H

#include <sqlite3.h>

#include "adapters/catalog.h"

struct catalog_sqlite {
    struct catalog base;
    sqlite3 *db;
    char *path;
    int64_t name_count; // names with a version, once names_known
    bool names_known;
};

static inline struct catalog_sqlite *catalog_sqlite_of(struct catalog *catalog)
{
    return (struct catalog_sqlite *)catalog;
}

// What SQLite said last, as an error of ours: "catalog PATH: cannot WHAT: ...".
sora_status catalog_sqlite_fail(const struct catalog_sqlite *c, const char *what,
                                struct sora_error *err);
SORA_CHECKED sora_status catalog_sqlite_begin(struct catalog_sqlite *c, struct sora_error *err);
// Commits when all went well so far; otherwise, or when that fails, nothing has happened.
SORA_CHECKED sora_status catalog_sqlite_finish(struct catalog_sqlite *c, sora_status status,
                                               struct sora_error *err);
// A column's text, cut to fit, always terminated.
void catalog_sqlite_text(sqlite3_stmt *stmt, int column, char *out, size_t out_bytes);

// --- catalog_sqlite_access.c ---

extern const char catalog_sqlite_access_schema[]; // the tables that version 2 added

sora_status catalog_sqlite_add_key(struct catalog *catalog, const struct sora_key *key,
                                   struct sora_error *err);
sora_status catalog_sqlite_revoke_key(struct catalog *catalog, const char *id, int64_t now_s,
                                      struct sora_error *err);
sora_status catalog_sqlite_list_keys(struct catalog *catalog, struct sora_key **keys,
                                     int32_t *key_count, struct sora_error *err);
sora_status catalog_sqlite_set_limits(struct catalog *catalog,
                                      const struct sora_tenant_limits *limits, int64_t now_s,
                                      struct sora_error *err);
sora_status catalog_sqlite_list_limits(struct catalog *catalog, struct sora_tenant_limits **limits,
                                       int32_t *limits_count, struct sora_error *err);
sora_status catalog_sqlite_stamp(struct catalog *catalog, int64_t *stamp, struct sora_error *err);
sora_status catalog_sqlite_add_audit(struct catalog *catalog, struct sora_audit *record,
                                     struct sora_error *err);
sora_status catalog_sqlite_list_audit(struct catalog *catalog, int64_t after, int32_t limit,
                                      struct sora_audit **records, int32_t *record_count,
                                      struct sora_error *err);
sora_status catalog_sqlite_stored(struct catalog *catalog, const char *tenant, const char *digest,
                                  int64_t *bytes, bool *has_digest, struct sora_error *err);

#define CATALOG_SQLITE_ACCESS_OPS                                                   \
    .add_key = catalog_sqlite_add_key, .revoke_key = catalog_sqlite_revoke_key,     \
    .list_keys = catalog_sqlite_list_keys, .set_limits = catalog_sqlite_set_limits, \
    .list_limits = catalog_sqlite_list_limits, .stamp = catalog_sqlite_stamp,       \
    .add_audit = catalog_sqlite_add_audit, .list_audit = catalog_sqlite_list_audit, \
    .stored = catalog_sqlite_stored

#endif

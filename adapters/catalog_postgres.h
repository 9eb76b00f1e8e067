// SPDX-License-Identifier: Apache-2.0
// What the files of the PostgreSQL catalog share. A catalog is one connection, one thread at a
// time. It is made anew when it was lost: by the next call, after a pause that grows while that
// fails and ends when another one could be made.
#ifndef ADAPTERS_CATALOG_POSTGRES_H
#define ADAPTERS_CATALOG_POSTGRES_H

#include <libpq-fe.h>

#include "adapters/catalog.h"

struct catalog_postgres {
    struct catalog base;
    PGconn *conn;        // NULL: not connected
    char *url;           // with the password, if it has one
    char *password;      // what must be in no text; NULL: none known
    char shown[256];     // "postgresql://user@host:port/database"
    bool create;         // the tables, when there are none
    int64_t failed_us;   // when the last try that failed began
    int64_t retry_at_us; // when a lost one may be tried again
    int32_t pause_ms;
    char reason[256];  // why there is none
    char identity[40]; // of the database's tables, as found at the last connect
    char followed[40]; // and at the last look for changes
    bool listening;    // this connection is told of changes
    bool told;         // and has been since somebody last looked
};

static inline struct catalog_postgres *catalog_postgres_of(struct catalog *catalog)
{
    return (struct catalog_postgres *)catalog;
}

// --- catalog_postgres_link.c: the connection ---

// Reads the URL into the struct's texts.
SORA_CHECKED sora_status catalog_postgres_read_url(struct catalog_postgres *c, const char *url,
                                                   struct sora_error *err);
// Makes sure of a connection: SORA_UNAVAILABLE when there is none.
SORA_CHECKED sora_status catalog_postgres_connect(struct catalog_postgres *c,
                                                  struct sora_error *err);
void catalog_postgres_disconnect(struct catalog_postgres *c);
// Takes in what the database has told; notes notifications.
void catalog_postgres_listen_in(struct catalog_postgres *c);
// Runs statements without parameters; *result (may be NULL) is the last one's, to be cleared.
SORA_CHECKED sora_status catalog_postgres_run(struct catalog_postgres *c, const char *sql,
                                              PGresult **result, struct sora_error *err);
// Runs one statement with its parameters $1... in the order of `kinds`: 't' a const char *, 'n' an
// int64_t, 'b' a const void * and a size_t. The result's columns are text.
SORA_CHECKED sora_status catalog_postgres_query(struct catalog_postgres *c, PGresult **result,
                                                struct sora_error *err, const char *sql,
                                                const char *kinds, ...);
// As above, for one column of bytes as they are.
SORA_CHECKED sora_status catalog_postgres_query_bytes(struct catalog_postgres *c, PGresult **result,
                                                      struct sora_error *err, const char *sql,
                                                      const char *kinds, ...);
// A change: a statement whose result is of no interest.
SORA_CHECKED sora_status catalog_postgres_change(struct catalog_postgres *c, struct sora_error *err,
                                                 const char *sql, const char *kinds, ...);
// The number in the first row and column; `otherwise` when there is none.
SORA_CHECKED sora_status catalog_postgres_number(struct catalog_postgres *c, int64_t otherwise,
                                                 int64_t *number, struct sora_error *err,
                                                 const char *sql, const char *kinds, ...);

// A transaction that changes something. They follow one another, on all servers: each begins with
// a lock on the one row of sora_state.
SORA_CHECKED sora_status catalog_postgres_begin(struct catalog_postgres *c, struct sora_error *err);
// Commits when all went well so far; otherwise, or when that fails, nothing has happened.
SORA_CHECKED sora_status catalog_postgres_finish(struct catalog_postgres *c, sora_status status,
                                                 struct sora_error *err);

int64_t catalog_postgres_int(const PGresult *result, int row, int column);
bool catalog_postgres_bool(const PGresult *result, int row, int column);
// A column's text, cut to fit, always terminated.
void catalog_postgres_text(const PGresult *result, int row, int column, char *out,
                           size_t out_bytes);
// All rows in a malloc'ed array that read_row fills.
SORA_CHECKED sora_status
catalog_postgres_rows(const struct catalog_postgres *c, const PGresult *result, size_t row_bytes,
                      void (*read_row)(const PGresult *result, int row, void *out), void **rows,
                      int32_t *row_count, struct sora_error *err);

// --- catalog_postgres_schema.c ---

// Makes the tables if wanted, and refuses what a newer program made.
SORA_CHECKED sora_status catalog_postgres_prepare(struct catalog_postgres *c,
                                                  struct sora_error *err);

// --- catalog_postgres_blob.c ---

// Inside a transaction or as one of its own.
SORA_CHECKED sora_status catalog_postgres_add_blob(struct catalog_postgres *c,
                                                   const struct catalog_put *put,
                                                   struct sora_error *err);
SORA_CHECKED sora_status catalog_postgres_send_blob(struct catalog_postgres *c,
                                                    const struct catalog_put *put,
                                                    struct sora_error *err);
sora_status catalog_postgres_fetch(struct catalog *catalog, const char *digest, uint8_t **bytes,
                                   size_t *byte_count, struct sora_error *err);

// --- catalog_postgres_feed.c ---

sora_status catalog_postgres_changes(struct catalog *catalog, int64_t since,
                                     struct sora_store_changes *changes, struct sora_error *err);
sora_status catalog_postgres_wait(struct catalog *catalog, int32_t timeout_ms, bool *changed,
                                  struct sora_error *err);
// Asks the database to tell this connection of changes.
SORA_CHECKED sora_status catalog_postgres_listen(struct catalog_postgres *c,
                                                 struct sora_error *err);

// --- catalog_postgres_names.c ---

#define CATALOG_POSTGRES_ENTRY_COLUMNS                                                \
    "SELECT v.name, v.version, v.digest, v.bytes, v.created_s, v.version = a.active," \
    " a.pinned"                                                                       \
    " FROM sora_version v JOIN sora_adapter a ON a.name = v.name"
void catalog_postgres_read_entry(const PGresult *result, int row, void *out); // sora_store_entry

sora_status catalog_postgres_put(struct catalog *catalog, const struct catalog_put *put,
                                 struct sora_store_entry *entry, bool *created,
                                 struct sora_error *err);
sora_status catalog_postgres_activate(struct catalog *catalog, const char *name, int32_t version,
                                      struct sora_store_entry *entry, struct sora_error *err);
sora_status catalog_postgres_pin(struct catalog *catalog, const char *name, bool pinned,
                                 struct sora_error *err);
sora_status catalog_postgres_remove(struct catalog *catalog, const char *name,
                                    struct catalog_digest **orphans, int32_t *orphan_count,
                                    struct sora_error *err);
sora_status catalog_postgres_list(struct catalog *catalog, const char *name,
                                  struct sora_store_entry **entries, int32_t *entry_count,
                                  struct sora_error *err);
sora_status catalog_postgres_uses(struct catalog *catalog, const char *digest, bool *used,
                                  struct sora_error *err);

// --- catalog_postgres_access.c ---

sora_status catalog_postgres_add_key(struct catalog *catalog, const struct sora_key *key,
                                     struct sora_error *err);
sora_status catalog_postgres_revoke_key(struct catalog *catalog, const char *id, int64_t now_s,
                                        struct sora_error *err);
sora_status catalog_postgres_list_keys(struct catalog *catalog, struct sora_key **keys,
                                       int32_t *key_count, struct sora_error *err);
sora_status catalog_postgres_set_limits(struct catalog *catalog,
                                        const struct sora_tenant_limits *limits, int64_t now_s,
                                        struct sora_error *err);
sora_status catalog_postgres_list_limits(struct catalog *catalog,
                                         struct sora_tenant_limits **limits, int32_t *limits_count,
                                         struct sora_error *err);
sora_status catalog_postgres_stamp(struct catalog *catalog, int64_t *stamp, struct sora_error *err);
sora_status catalog_postgres_add_audit(struct catalog *catalog, struct sora_audit *record,
                                       struct sora_error *err);
sora_status catalog_postgres_list_audit(struct catalog *catalog, int64_t after, int32_t limit,
                                        struct sora_audit **records, int32_t *record_count,
                                        struct sora_error *err);
sora_status catalog_postgres_stored(struct catalog *catalog, const char *tenant, const char *digest,
                                    int64_t *bytes, bool *has_digest, struct sora_error *err);

#endif

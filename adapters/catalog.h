// SPDX-License-Identifier: Apache-2.0
// Names and versions of adapters: which digest each means; and API keys, limits of tenants and the
// record of changes. One backend is a file beside the blobs (SQLite); the other is a PostgreSQL
// that several servers share and that keeps the adapters' bytes as well. Every call is one
// transaction, durable when it returns. Owned by a store or by a sora_access, which serialises the
// calls; other processes may have the same catalog open.
//
// A shared catalog that cannot be reached gives SORA_UNAVAILABLE at once or within the timeouts of
// limits.h, and is tried again by later calls. A change that fails so while it is being committed
// may have been made: the same call again tells, and is safe.
#ifndef ADAPTERS_CATALOG_H
#define ADAPTERS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/access.h"
#include "sora/status.h"
#include "sora/store.h"

struct catalog;

struct catalog_digest {
    char text[65];
};

struct catalog_put {
    const char *name, *digest;
    const char *if_match; // NULL, or the digest that the active version must have
    const void *data;     // [bytes]: for a catalog that keeps the files, too
    size_t bytes;
    int64_t created_s;
    bool activate;
};

struct catalog_ops {
    void (*close)(struct catalog *catalog);
    // The contract of sora_store_put, for names and numbers.
    sora_status (*put)(struct catalog *catalog, const struct catalog_put *put,
                       struct sora_store_entry *entry, bool *created, struct sora_error *err);
    sora_status (*activate)(struct catalog *catalog, const char *name, int32_t version,
                            struct sora_store_entry *entry, struct sora_error *err);
    // Of the name, not of a version; a name that is removed is not pinned any more.
    sora_status (*pin)(struct catalog *catalog, const char *name, bool pinned,
                       struct sora_error *err);
    // *orphans (malloc'ed): digests that no version of any name has any more.
    sora_status (*remove)(struct catalog *catalog, const char *name,
                          struct catalog_digest **orphans, int32_t *orphan_count,
                          struct sora_error *err);
    // By name, then version; name NULL: all. malloc'ed.
    sora_status (*list)(struct catalog *catalog, const char *name,
                        struct sora_store_entry **entries, int32_t *entry_count,
                        struct sora_error *err);
    sora_status (*uses)(struct catalog *catalog, const char *digest, bool *used,
                        struct sora_error *err);

    // The contracts of sora/access.h. Each change of keys or limits also changes the stamp, and
    // leaves a record of its own.
    sora_status (*add_key)(struct catalog *catalog, const struct sora_key *key,
                           struct sora_error *err);
    sora_status (*revoke_key)(struct catalog *catalog, const char *id, int64_t now_s,
                              struct sora_error *err);
    sora_status (*list_keys)(struct catalog *catalog, struct sora_key **keys, int32_t *key_count,
                             struct sora_error *err);
    sora_status (*set_limits)(struct catalog *catalog, const struct sora_tenant_limits *limits,
                              int64_t now_s, struct sora_error *err);
    sora_status (*list_limits)(struct catalog *catalog, struct sora_tenant_limits **limits,
                               int32_t *limits_count, struct sora_error *err);
    sora_status (*stamp)(struct catalog *catalog, int64_t *stamp, struct sora_error *err);
    sora_status (*add_audit)(struct catalog *catalog, struct sora_audit *record,
                             struct sora_error *err);
    sora_status (*list_audit)(struct catalog *catalog, int64_t after, int32_t limit,
                              struct sora_audit **records, int32_t *record_count,
                              struct sora_error *err);
    sora_status (*stored)(struct catalog *catalog, const char *tenant, const char *digest,
                          int64_t *bytes, bool *has_digest, struct sora_error *err);

    // Of a shared catalog; NULL where nobody else changes names.

    // The file of a digest, malloc'ed; not checked. SORA_NOT_FOUND when there is none.
    sora_status (*fetch)(struct catalog *catalog, const char *digest, uint8_t **bytes,
                         size_t *byte_count, struct sora_error *err);
    // The contracts of sora/store.h.
    sora_status (*changes)(struct catalog *catalog, int64_t since,
                           struct sora_store_changes *changes, struct sora_error *err);
    sora_status (*wait)(struct catalog *catalog, int32_t timeout_ms, bool *changed,
                        struct sora_error *err);
};

// First member of every backend's struct.
struct catalog {
    const struct catalog_ops *ops;
};

// Opens or creates the file. A schema of a newer version: SORA_UNSUPPORTED.
SORA_CHECKED sora_status catalog_sqlite_open(const char *path, struct catalog **catalog,
                                             struct sora_error *err);
// Connects by a postgresql:// URL and makes the tables when there are none; without `create` that
// is SORA_NOT_FOUND. The URL's password is in no error text. A newer schema: SORA_UNSUPPORTED.
SORA_CHECKED sora_status catalog_postgres_open(const char *url, bool create,
                                               struct catalog **catalog, struct sora_error *err);

#endif

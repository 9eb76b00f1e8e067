// SPDX-License-Identifier: Apache-2.0
// Names and versions of adapters: which digest each means. One backend is a file beside the blobs
// (SQLite); a shared one can stand beside it. A catalog knows nothing of files. Every call is one
// transaction, durable when it returns. Owned by a store, which serialises the calls.
#ifndef ADAPTERS_CATALOG_H
#define ADAPTERS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"
#include "sora/store.h"

struct catalog;

struct catalog_digest {
    char text[65];
};

struct catalog_put {
    const char *name, *digest;
    const char *if_match; // NULL, or the digest that the active version must have
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
};

// First member of every backend's struct.
struct catalog {
    const struct catalog_ops *ops;
};

// Opens or creates the file. A schema of a newer version: SORA_UNSUPPORTED.
SORA_CHECKED sora_status catalog_sqlite_open(const char *path, struct catalog **catalog,
                                             struct sora_error *err);

#endif

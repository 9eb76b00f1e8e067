// SPDX-License-Identifier: Apache-2.0
// The adapters on disk: content-addressed files and a catalog of names and versions. What a call
// acknowledged survives a crash: file, then folder, then catalog are synced before it returns.
// Any thread may call; calls that change the catalog are serialised inside.
#ifndef SORA_STORE_H
#define SORA_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

typedef struct sora_store sora_store;

// One version of one name, as the catalog knows it.
struct sora_store_entry {
    char name[SORA_STORED_NAME_BYTES_MAX + 1]; // of sora/tenant.h: "name" or "tenant~name"
    int32_t version;                           // from 1, never reused
    char digest[65];
    size_t bytes;
    int64_t created_s; // Unix time
    bool active;       // the version that the bare name means
};

// Opens or creates the folder and its catalog. Errors: not writable, full, of a newer version.
SORA_CHECKED sora_status sora_store_open(const char *folder, sora_store **store,
                                         struct sora_error *err);
void sora_store_close(sora_store *store);

// 1 to 128 of [A-Za-z0-9._:/-], not beginning with . or /, no "..": anything else is
// SORA_MALFORMED and says so. ('@' separates a version.)
SORA_CHECKED sora_status sora_store_check_name(const char *name, struct sora_error *err);

// Names from here on are stored names of sora/tenant.h.

// Writes the bytes under their digest (once, whatever the number of names) and adds a version of
// the name. Bytes equal to the newest version's: no new version, *created is false.
// if_match: NULL, or the digest the active version must have (SORA_PRECONDITION otherwise).
// activate: whether the bare name means it from now on.
SORA_CHECKED sora_status sora_store_put(sora_store *store, const char *name, const void *bytes,
                                        size_t byte_count, const char *digest, const char *if_match,
                                        bool activate, struct sora_store_entry *entry,
                                        bool *created, struct sora_error *err);
// Makes an existing version the active one.
SORA_CHECKED sora_status sora_store_activate(sora_store *store, const char *name, int32_t version,
                                             struct sora_store_entry *entry,
                                             struct sora_error *err);
// Removes a name with all its versions; files that no other version names are deleted.
// *freed_bytes: bytes of the deleted files.
SORA_CHECKED sora_status sora_store_remove(sora_store *store, const char *name, size_t *freed_bytes,
                                           struct sora_error *err);
// All versions of all names, or of one; malloc'ed, by name, then version.
SORA_CHECKED sora_status sora_store_list(sora_store *store, const char *name,
                                         struct sora_store_entry **entries, int32_t *entry_count,
                                         struct sora_error *err);
// The file of a digest, read whole and checked against it; malloc'ed.
SORA_CHECKED sora_status sora_store_read(sora_store *store, const char *digest, uint8_t **bytes,
                                         size_t *byte_count, struct sora_error *err);

#endif

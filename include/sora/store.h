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
// The same with names and files in a PostgreSQL that other servers share (docs/catalog.md); the
// folder keeps copies of the files. url: postgresql://...; its password is in no error text.
// SORA_UNAVAILABLE when it cannot be reached, from here and from every call below that changes or
// lists; reading a file that is in the folder works on.
SORA_CHECKED sora_status sora_store_open_shared(const char *folder, const char *url,
                                                sora_store **store, struct sora_error *err);
bool sora_store_is_shared(const sora_store *store);
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
// The file of a digest, read whole and checked against it; malloc'ed. One that is missing or
// damaged here is brought from the shared catalog, if there is one.
SORA_CHECKED sora_status sora_store_read(sora_store *store, const char *digest, uint8_t **bytes,
                                         size_t *byte_count, struct sora_error *err);

// --- shared stores only: what other servers do ---

struct sora_store_name {
    char text[SORA_STORED_NAME_BYTES_MAX + 1];
};

// What is different since a revision, in one consistent view.
struct sora_store_changes {
    int64_t revision; // of the catalog in this view
    bool full;        // names is all there is: others are gone
    struct sora_store_name *names;
    int32_t name_count;
    struct sora_store_entry *entries; // all versions of those names, by name, then version
    int32_t entry_count;
};
// since 0: all. Free with sora_store_changes_free, also after a failure.
SORA_CHECKED sora_status sora_store_read_changes(sora_store *store, int64_t since,
                                                 struct sora_store_changes *changes,
                                                 struct sora_error *err);
void sora_store_changes_free(struct sora_store_changes *changes);
// Sleeps until another server has changed something, timeout_ms at most. *changed is also set when
// it may have been missed. One thread at a time with sora_store_read_changes.
SORA_CHECKED sora_status sora_store_wait(sora_store *store, int32_t timeout_ms, bool *changed,
                                         struct sora_error *err);
// Brings the file of a digest into the folder unless it is there.
SORA_CHECKED sora_status sora_store_fetch(sora_store *store, const char *digest,
                                          struct sora_error *err);
// Deletes the folder's copy, which no version names any more.
void sora_store_drop_copy(sora_store *store, const char *digest);

#endif

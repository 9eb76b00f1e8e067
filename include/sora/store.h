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
typedef struct sora_upload sora_upload;

// One version of one name, as the catalog knows it.
struct sora_store_entry {
    char name[SORA_STORED_NAME_BYTES_MAX + 1]; // of sora/tenant.h: "name" or "tenant~name"
    int32_t version;                           // from 1, never reused
    char digest[65];
    size_t bytes;
    int64_t created_s; // Unix time
    bool active;       // the version that the bare name means
    bool pinned;       // of the name: its active version is to stay in memory
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
// Bytes of files from here on; 0: no limit but the disk's. What is there already stays. SORA_FULL,
// with the numbers, for what would exceed it.
void sora_store_set_limit(sora_store *store, size_t bytes_max);
// Bytes of the files there are, and the limit.
void sora_store_usage(sora_store *store, size_t *bytes, size_t *bytes_max);

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
// The same of a finished upload, whose file becomes the store's.
SORA_CHECKED sora_status sora_store_put_upload(sora_store *store, const char *name,
                                               sora_upload *upload, const char *if_match,
                                               bool activate, struct sora_store_entry *entry,
                                               bool *created, struct sora_error *err);
// Makes an existing version the active one.
SORA_CHECKED sora_status sora_store_activate(sora_store *store, const char *name, int32_t version,
                                             struct sora_store_entry *entry,
                                             struct sora_error *err);
// Notes whether the name's active version is to stay in memory.
SORA_CHECKED sora_status sora_store_pin(sora_store *store, const char *name, bool pinned,
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
// The same, mapped: nothing is copied, and what is not looked at again costs no memory.
SORA_CHECKED sora_status sora_store_map(sora_store *store, const char *digest,
                                        const uint8_t **bytes, size_t *byte_count,
                                        struct sora_error *err);
void sora_store_unmap(const uint8_t *bytes, size_t byte_count); // accepts NULL

// --- a file on its way in: on disk as it comes, digested on the way, nobody's until it is put ---

// expected_bytes: as announced, 0 when not; refused at once when they alone exceed the limit.
// One thread; a crash leaves a file that the next sora_store_open sweeps.
SORA_CHECKED sora_status sora_upload_open(sora_store *store, size_t expected_bytes,
                                          sora_upload **upload, struct sora_error *err);
SORA_CHECKED sora_status sora_upload_write(sora_upload *upload, const void *bytes,
                                           size_t byte_count, struct sora_error *err);
// All of it is there and synced; from here on it can be read, and be put.
SORA_CHECKED sora_status sora_upload_finish(sora_upload *upload, struct sora_error *err);
const uint8_t *sora_upload_bytes(const sora_upload *upload, size_t *byte_count);
const char *sora_upload_digest(const sora_upload *upload);
void sora_upload_close(sora_upload *upload); // and what was not put is gone; accepts NULL

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

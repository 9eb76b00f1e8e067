// SPDX-License-Identifier: Apache-2.0
// Who may do what: API keys, limits of tenants, and the record of who changed which adapter. They
// live in the store's catalog, or in the one that several servers share. A sora_access is a
// connection of its own to it, so that `sora-server keys` works while a server holds the store. Any
// thread may call; one mutex inside.
//
// Keys are 256 random bits, so one SHA-256 of them is a sound thing to keep: there is no word list
// to try, and nothing that a slow password hash would make slower. The key itself is kept nowhere.
#ifndef SORA_ACCESS_H
#define SORA_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

typedef struct sora_access sora_access;

enum sora_scope {
    SORA_SCOPE_INFER = 1,    // completions, chats, models, tokens
    SORA_SCOPE_ADAPTERS = 2, // bring in, change, delete and fetch the tenant's own adapters
    SORA_SCOPE_ADMIN = 4,    // everything, of every tenant
    SORA_SCOPE_ALL = 7
};
// Reads "infer,adapters" and adds its scopes to *scopes.
SORA_CHECKED sora_status sora_scopes_parse(const char *text, uint32_t *scopes,
                                           struct sora_error *err);
#define SORA_SCOPES_BYTES 32
const char *sora_scopes_print(uint32_t scopes, char out[SORA_SCOPES_BYTES]); // "infer,adapters"

#define SORA_KEY_ID_BYTES 24
struct sora_key {
    char id[SORA_KEY_ID_BYTES]; // "key-0123456789ab": for lists and logs
    char hash[65];              // SHA-256 of the key, in hex
    uint32_t scopes;
    char tenant[SORA_TENANT_BYTES_MAX + 1];         // "": none; it works on what is shared
    char name[SORA_KEY_NAME_BYTES_MAX + 1];         // a note on whose it is
    char adapters[SORA_KEY_ADAPTERS_BYTES_MAX + 1]; // "a,b": only these; "": any
    int64_t created_s, revoked_s;                   // Unix time; 0: not revoked
};
// Fills id and hash from the key's text.
SORA_CHECKED sora_status sora_key_identify(const char *text, size_t bytes, struct sora_key *key,
                                           struct sora_error *err);
// Whether the text is a list of adapter names.
SORA_CHECKED sora_status sora_key_check_adapters(const char *adapters, struct sora_error *err);
// Whether the key's list lets it see an adapter of this bare name.
bool sora_key_allows(const char *adapters, const char *name);

struct sora_tenant_limits {
    char tenant[SORA_TENANT_BYTES_MAX + 1];
    // Each 0: no limit.
    int64_t requests_per_minute, tokens_per_minute, concurrent_requests, stored_bytes;
};

struct sora_audit {
    int64_t number;                 // from 1, in order; filled by the catalog
    int64_t time_s;                 // Unix time
    char key_id[SORA_KEY_ID_BYTES]; // who; "": no key was asked for
    char tenant[SORA_TENANT_BYTES_MAX + 1];
    char request_id[65];
    char action[24]; // "adapter.publish", "key.revoke"
    char object[SORA_STORED_NAME_BYTES_MAX + 1];
    int32_t version;                                // 0: none
    char digest[65];                                // "": none
    char outcome[SORA_AUDIT_OUTCOME_BYTES_MAX + 1]; // "begun", "done", or what went wrong
};

// Opens the catalog in a store's folder. With `create`, makes both when they are not there; without
// it that is SORA_NOT_FOUND.
SORA_CHECKED sora_status sora_access_open(const char *folder, bool create, sora_access **access,
                                          struct sora_error *err);
// The same in a shared catalog, by its postgresql:// URL. SORA_UNAVAILABLE when it cannot be
// reached, from here and from every call below.
SORA_CHECKED sora_status sora_access_open_shared(const char *url, bool create, sora_access **access,
                                                 struct sora_error *err);
void sora_access_close(sora_access *access); // accepts NULL

// Makes a key of the scopes, tenant, name and adapters in *key and fills in the rest. Its text,
// "sora-" and 43 characters, goes into `text` and nowhere else.
#define SORA_KEY_TEXT_BYTES 49
SORA_CHECKED sora_status sora_access_make_key(sora_access *access, struct sora_key *key,
                                              char text[SORA_KEY_TEXT_BYTES],
                                              struct sora_error *err);
// SORA_NOT_FOUND when there is no such key; revoking twice is no error.
SORA_CHECKED sora_status sora_access_revoke_key(sora_access *access, const char *id,
                                                struct sora_error *err);
// All keys ever made, by time; malloc'ed.
SORA_CHECKED sora_status sora_access_list_keys(sora_access *access, struct sora_key **keys,
                                               int32_t *key_count, struct sora_error *err);

SORA_CHECKED sora_status sora_access_set_limits(sora_access *access,
                                                const struct sora_tenant_limits *limits,
                                                struct sora_error *err);
// Of all tenants that have any, by name; malloc'ed.
SORA_CHECKED sora_status sora_access_list_limits(sora_access *access,
                                                 struct sora_tenant_limits **limits,
                                                 int32_t *limits_count, struct sora_error *err);
// A number that changes when keys or limits have changed, whoever changed them.
SORA_CHECKED sora_status sora_access_stamp(sora_access *access, int64_t *stamp,
                                           struct sora_error *err);

// Durable when it returns. number and time are filled in.
SORA_CHECKED sora_status sora_access_add_audit(sora_access *access, struct sora_audit *record,
                                               struct sora_error *err);
// Records behind number `after`, oldest first, at most `limit` (1 to SORA_AUDIT_PAGE_MAX).
SORA_CHECKED sora_status sora_access_list_audit(sora_access *access, int64_t after, int32_t limit,
                                                struct sora_audit **records, int32_t *record_count,
                                                struct sora_error *err);

// Bytes of the distinct files that a tenant's versions name ("": that shared ones name), and
// whether one of them has this digest (may be NULL).
SORA_CHECKED sora_status sora_access_stored(sora_access *access, const char *tenant,
                                            const char *digest, int64_t *bytes, bool *has_digest,
                                            struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Who a request comes from. The keys of the catalog and of --api-key-file are kept as one table of
// hashes; a thread of its own looks every SORA_ACCESS_POLL_US whether either has changed, so that
// keys made or revoked while the server runs hold within a second. Any thread may ask.
//
// A server without any key is open: whoever reaches it may do everything. It stops being open with
// the first key that is made, and never becomes open again, also when all keys are revoked.
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/api_error.h"
#include "server/rate_limit.h"
#include "sora/access.h"

struct auth;

// The caller of one request; a copy, which outlives the key's revocation.
struct auth_caller {
    char key_id[SORA_KEY_ID_BYTES]; // "": the server is open
    uint32_t scopes;                // of enum sora_scope
    char tenant[SORA_TENANT_BYTES_MAX + 1];
    char adapters[SORA_KEY_ADAPTERS_BYTES_MAX + 1];
    struct rate_tenant *rate; // the tenant's limits; NULL: nobody was identified
};

struct auth_options {
    const char *store_path;
    const char *catalog_url; // NULL: the store's own catalog
    const char *key_file;    // NULL: none
    bool loopback;           // only this machine can reach the server
    // When it is true, also set from a signal handler, everything is read anew at the next look.
    // Borrowed; NULL: nobody asks.
    atomic_bool *reload;
};

// Opens the catalog's keys and reads the file; says in the log whether the server is open.
SORA_CHECKED sora_status auth_start(const struct auth_options *options, struct auth **auth,
                                    struct sora_error *err);
void auth_stop(struct auth *auth); // accepts NULL

// Finds the caller by "Authorization: Bearer KEY" or by "X-Api-Key: KEY" (each may be NULL).
// Refused: SORA_MALFORMED with error filled for a 401; the key is in no text.
SORA_CHECKED sora_status auth_identify(struct auth *auth, const char *authorization,
                                       const char *api_key, struct auth_caller *caller,
                                       struct api_error *error);
bool auth_is_admin(const struct auth_caller *caller);

// The connection to the catalog, for records and stored bytes.
sora_access *auth_access(struct auth *auth);

#endif

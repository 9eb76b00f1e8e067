// SPDX-License-Identifier: Apache-2.0
// What a caller means by the name of an adapter, and which adapters it may see (sora/tenant.h). Its
// own come first, then those that everyone shares; another tenant's are as if they were not there.
// An admin reaches all of them, as "tenant~name". Any thread.
#ifndef SERVER_NAMES_H
#define SERVER_NAMES_H

#include <stdbool.h>

#include "server/auth.h"
#include "sora/registry.h"

#define NAMES_BYTES (SORA_STORED_NAME_BYTES_MAX + 16) // with "@version"

// The stored name that "name" or "name@version" means to the caller, into out. False: there is none
// that it may see. *changeable (may be NULL): whether the caller may change it; a shared one is
// changed by admins, and by keys of no tenant.
bool names_resolve(sora_registry *registry, const struct auth_caller *caller, const char *name,
                   char out[NAMES_BYTES], bool *changeable);
// The stored name that an upload as "name" goes to. SORA_MALFORMED with `error` filled otherwise.
SORA_CHECKED sora_status names_target(sora_registry *registry, const struct auth_caller *caller,
                                      const char *name, char out[NAMES_BYTES],
                                      struct api_error *error);
// Whether the adapter belongs in the caller's lists.
bool names_visible(sora_registry *registry, const struct auth_caller *caller, const char *stored);
// The name by which the caller knows it: the bare one of its own adapters; a part of `stored`.
const char *names_shown(const struct auth_caller *caller, const char *stored);
// The same within the text of an error.
void names_show_in(const struct auth_caller *caller, char *text);
// Takes out of a card what would tell a tenant of others: that one has the same file in memory, or
// how much they use an adapter that all share.
void names_mask(const struct auth_caller *caller, int64_t started_s,
                struct sora_registry_card *card);

#endif

// SPDX-License-Identifier: Apache-2.0
// Who an adapter belongs to. The store and the registry know one flat space of names; a tenant's
// adapter is in it as "tenant~name", an adapter that everyone shares as "name". No client can type
// the '~', so a tenant's names are its own: two may use the same one and neither learns of it.
// Pure functions on borrowed text, any thread.
#ifndef SORA_TENANT_H
#define SORA_TENANT_H

#include <stdbool.h>

#include "sora/limits.h"
#include "sora/status.h"

// 1 to SORA_TENANT_BYTES_MAX of [A-Za-z0-9._-], beginning with a letter or digit.
SORA_CHECKED sora_status sora_tenant_check(const char *tenant, struct sora_error *err);
// "name" or "tenant~name", each part valid (sora_store_check_name for the name).
SORA_CHECKED sora_status sora_tenant_check_stored(const char *stored, struct sora_error *err);

// "tenant~name" into out, or "name" when the tenant is "". False: too long, out is "".
bool sora_tenant_join(const char *tenant, const char *name,
                      char out[SORA_STORED_NAME_BYTES_MAX + 1]);
// The part behind the '~', or all of it.
const char *sora_tenant_bare(const char *stored);
// The part before the '~' into out; "" when it is shared.
void sora_tenant_of(const char *stored, char out[SORA_TENANT_BYTES_MAX + 1]);
// Whether it belongs to this tenant; "" owns what is shared.
bool sora_tenant_owns(const char *tenant, const char *stored);

#endif

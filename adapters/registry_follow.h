// SPDX-License-Identifier: Apache-2.0
// Bringing a registry's table after a shared catalog: one name at a time, without locks or I/O.
// Called under the registry's mutex.
#ifndef ADAPTERS_REGISTRY_FOLLOW_H
#define ADAPTERS_REGISTRY_FOLLOW_H

#include "adapters/registry_table.h"

// Digests of versions that have gone; one may be there twice.
struct registry_gone {
    struct registry_gone_digest {
        char text[65];
    } * items;
    int32_t count, capacity;
};

// Makes the name's record have these versions, all there are, and no others; none: no record.
// Running requests keep what they have pinned.
SORA_CHECKED sora_status registry_follow_name(struct registry_table *table, const char *name,
                                              const struct sora_store_entry *entries,
                                              int32_t entry_count, struct registry_gone *gone,
                                              struct sora_error *err);
// The names of the table that are not among those of the changes, malloc'ed.
SORA_CHECKED sora_status registry_follow_others(const struct registry_table *table,
                                                const struct sora_store_changes *changes,
                                                struct sora_store_name **names, int32_t *name_count,
                                                struct sora_error *err);

#endif

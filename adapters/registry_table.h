// SPDX-License-Identifier: Apache-2.0
// What the registry knows, without locks, I/O or waiting: names with their versions, and for each
// distinct digest at most one adapter in memory. Owned by a registry, whose mutex covers every
// call.
#ifndef ADAPTERS_REGISTRY_TABLE_H
#define ADAPTERS_REGISTRY_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "adapters/registry_map.h"
#include "adapters/registry_memory.h"
#include "sora/adapter.h"
#include "sora/registry.h"
#include "sora/store.h"

// A load under way: who comes later waits for its end and takes its result.
struct registry_load {
    int32_t refs; // the loader and those who wait
    bool done;
    sora_status status;
    struct sora_error err;
};

struct registry_version {
    int32_t version;
    struct registry_blob *blob;
    size_t bytes;
    int64_t created_s, in_flight, last_used_s;
};

// One name. Outlives its removal while pins refer to it.
struct registry_record {
    char name[SORA_STORED_NAME_BYTES_MAX + 1];
    struct registry_version *versions; // ascending
    int32_t version_count, version_capacity;
    int32_t active; // index, -1: none
    int32_t refs;   // the table and pins
    bool pinned;    // its active version is ordered to stay in memory
    bool pin_asked; // the store says so; not carried out while there is no room
    int64_t requests;
    atomic_llong tokens;
};

struct registry_table {
    struct registry_map records; // name -> registry_record
    struct registry_map blobs;   // digest -> registry_blob
    struct registry_memory memory;
};

void registry_table_init(struct registry_table *table);
void registry_table_deinit(struct registry_table *table); // no pins may be left

// Adds the version if it is new, and makes it the active one if the entry says so. *index: of the
// version in the record.
SORA_CHECKED sora_status registry_table_apply(struct registry_table *table,
                                              const struct sora_store_entry *entry,
                                              struct registry_record **record, int32_t *index,
                                              struct sora_error *err);
struct registry_record *registry_table_find(const struct registry_table *table, const char *name);
int32_t registry_table_find_version(const struct registry_record *record, int32_t version);
void registry_table_remove(struct registry_table *table, struct registry_record *record);

// A pin keeps record and blob; the blob's adapter stays in memory once it is there.
void registry_table_hold(struct registry_table *table, struct registry_record *record,
                         struct registry_blob *blob);
void registry_table_release(struct registry_table *table, struct registry_record *record,
                            struct registry_blob *blob);

// Orders the name's active version to stay in memory, or no longer; also those that follow it.
void registry_table_pin(struct registry_table *table, struct registry_record *record, bool pinned);
// The adapters to be freed, now the caller's.
struct registry_resident *registry_table_take_doomed(struct registry_table *table);
size_t registry_table_free_doomed(struct registry_resident *doomed); // their bytes in memory

void registry_table_fill_card(const struct registry_record *record, int32_t index,
                              struct sora_registry_card *card);

#endif

// SPDX-License-Identifier: Apache-2.0
// What the files of the registry share. `mutex` covers the table and all below it and is held for
// pointer swaps only; `change` is held, around I/O, by the one caller that publishes, rolls back,
// pins, removes or follows other servers, so that the store and the table change in one order.
// `change` is taken first.
#ifndef ADAPTERS_REGISTRY_INTERNAL_H
#define ADAPTERS_REGISTRY_INTERNAL_H

#include <pthread.h>

#include "adapters/registry_table.h"

// Somebody who waits for room in memory. On its thread's stack.
struct registry_ticket {
    struct registry_ticket *next;
};

struct sora_registry {
    sora_store *store; // borrowed
    struct sora_base base;
    char *base_name;
    struct sora_registry_memory options;
    pthread_mutex_t mutex, change;
    pthread_cond_t moved; // a load has ended, or there may be room
    int64_t revision;     // of the shared catalog that the table knows; covered by `change`
    struct registry_table table;
    int64_t pin_count;
    struct registry_ticket *first, *last; // in the order of their coming
    bool starved;                         // the first one finds all memory in use
    int32_t waiting;                      // threads that wait for room, or for a load
    int32_t packing;                      // loads that compute
};

void registry_lock(sora_registry *registry);
// Unlocks, then frees what nothing uses any more; returns its bytes.
size_t registry_unlock(sora_registry *registry);
// Whoever waits may look again. Locked.
void registry_moved(sora_registry *registry);

SORA_CHECKED sora_status registry_check_name(const sora_registry *registry, const char *name,
                                             struct sora_error *err);

// --- registry_load.c ---

// An adapter of these bytes, whose digest is known.
SORA_CHECKED sora_status registry_parse(const sora_registry *registry, const void *bytes,
                                        size_t byte_count, const char *digest,
                                        struct registry_resident **out, struct sora_error *err);
// SORA_LIMIT, with the numbers, when an adapter of this size can never be in memory beside what is
// pinned (blob: what is left out of that; may be NULL). Locked.
SORA_CHECKED sora_status registry_check_fits(const sora_registry *registry, size_t packed_bytes,
                                             const struct registry_blob *blob,
                                             struct sora_error *err);
// Brings a held blob into memory, by this thread or by the one that is already at it. SORA_BUSY
// when there was no room until until_us. Locked on entry and on return.
SORA_CHECKED sora_status registry_make_resident(sora_registry *registry, struct registry_blob *blob,
                                                int64_t until_us, struct sora_error *err);
// Waits behind those who wait already. Locked on entry and on return; the caller holds nothing.
SORA_CHECKED sora_status registry_wait_turn(sora_registry *registry, int64_t until_us,
                                            struct sora_error *err);

#endif

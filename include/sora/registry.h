// SPDX-License-Identifier: Apache-2.0
// Names (stored names of sora/tenant.h) to adapters while the server runs. A request pins the
// version that its name means at admission and unpins it after its last token; update, rollback and
// delete never touch a pinned version. Any thread may call. One mutex, held for pointer swaps,
// never across I/O: an adapter is read, checked and packed by the calling thread (an HTTP worker),
// never by the engine thread.
#ifndef SORA_REGISTRY_H
#define SORA_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/adapter.h"
#include "sora/store.h"

typedef struct sora_registry sora_registry;
typedef struct sora_pin sora_pin; // one pinned version

// Takes over every name in the store (borrowed, outlives the registry); adapters are loaded at
// first use. `base` is copied; `base_name` is refused as an adapter's name.
SORA_CHECKED sora_status sora_registry_create(sora_store *store, const struct sora_base *base,
                                              const char *base_name, sora_registry **registry,
                                              struct sora_error *err);
// Memory for adapters. Those that no request uses and nobody has pinned leave it, the least
// recently used first, and come back when they are asked for. When requests use all of it, others
// wait in the order of their coming.
struct sora_registry_memory {
    size_t bytes_max;    // of packed adapters; 0: no bound
    bool int8;           // they are packed in 8 bits, see sora_adapter_parse_as
    int64_t wait_us;     // a request's longest wait for room
    int64_t patience_us; // wait after which those for adapters in memory queue up behind it
    // Told of every load, without a lock and from any thread; may be NULL.
    void (*loaded)(void *context, int64_t elapsed_us);
    void *context;
};
// Before anything else is called.
void sora_registry_set_memory(sora_registry *registry, const struct sora_registry_memory *memory);
// Brings the pinned adapters of the store in. One that cannot be (no room, a bad file) is logged
// and not pinned while this registry lives; the store goes on knowing that it was.
void sora_registry_load_pinned(sora_registry *registry);
// Every pin must have been given back.
void sora_registry_destroy(sora_registry *registry);

// The state of one version.
struct sora_registry_card {
    struct sora_store_entry entry; // the version described
    int32_t version_count;
    bool resident;       // packed in memory
    int64_t in_flight;   // pins held now
    int64_t requests;    // pins ever taken through this name since start
    int64_t tokens;      // counted with sora_registry_count_tokens
    int64_t last_used_s; // Unix time, 0: never
    double load_ms;      // of its last load, 0: never loaded
};
// Validates, stores and publishes. The reply is the card of the new version. *created as in
// sora_store_put. SORA_LIMIT when it could never be in memory, or not be pinned as its name is. It
// is in memory at once if there is room, otherwise when it is first asked for.
SORA_CHECKED sora_status sora_registry_publish(sora_registry *registry, const char *name,
                                               const void *bytes, size_t byte_count,
                                               const char *if_match, bool activate,
                                               struct sora_registry_card *card, bool *created,
                                               struct sora_error *err);
// The same of a finished upload, whose file becomes the store's.
SORA_CHECKED sora_status sora_registry_publish_upload(sora_registry *registry, const char *name,
                                                      sora_upload *upload, const char *if_match,
                                                      bool activate,
                                                      struct sora_registry_card *card,
                                                      bool *created, struct sora_error *err);
SORA_CHECKED sora_status sora_registry_rollback(sora_registry *registry, const char *name,
                                                int32_t version, struct sora_registry_card *card,
                                                struct sora_error *err);
// The name is unknown from here on; versions in use live until their last unpin. *freed_bytes: of
// deleted files and of memory freed at once; what running requests hold is freed as they end.
SORA_CHECKED sora_status sora_registry_remove(sora_registry *registry, const char *name,
                                              size_t *freed_bytes, struct sora_error *err);

// With a shared store: takes over what other servers have changed since the last call; a pin never
// meets half of a change. Names that this base does not allow are left out, with a line in the log.
SORA_CHECKED sora_status sora_registry_follow(sora_registry *registry, struct sora_error *err);
// Orders the name's active version, and those that follow it, to be in memory at all times (or no
// longer), also after a restart. SORA_LIMIT when what is pinned would exceed the memory.
SORA_CHECKED sora_status sora_registry_set_pinned(sora_registry *registry, const char *name,
                                                  bool pinned, struct sora_registry_card *card,
                                                  struct sora_error *err);
// Takes the active version out of memory, at once or with its last request; it comes back when it
// is asked for. A pinned one is SORA_PRECONDITION.
SORA_CHECKED sora_status sora_registry_unload(sora_registry *registry, const char *name,
                                              size_t *freed_bytes, struct sora_error *err);

// "name" (active version) or "name@version". SORA_NOT_FOUND when unknown. Loads when needed; a
// second caller for the same version waits for that load. SORA_LIMIT when it can never be in
// memory, SORA_BUSY when there was no room for too long.
SORA_CHECKED sora_status sora_registry_pin(sora_registry *registry, const char *name,
                                           sora_pin **pin, struct sora_error *err);
void sora_registry_unpin(sora_registry *registry, sora_pin *pin);
const struct sora_lora *sora_pin_lora(const sora_pin *pin);
const struct sora_adapter_info *sora_pin_info(const sora_pin *pin);
const char *sora_pin_name(const sora_pin *pin);
int32_t sora_pin_version(const sora_pin *pin);
void sora_registry_count_tokens(sora_registry *registry, const sora_pin *pin, int64_t tokens);

// Whether there is an adapter of this name, without a version.
bool sora_registry_has(sora_registry *registry, const char *name);

// Cards of all active versions by name, malloc'ed; or all versions of one name.
SORA_CHECKED sora_status sora_registry_list(sora_registry *registry,
                                            struct sora_registry_card **cards, int32_t *card_count,
                                            struct sora_error *err);
SORA_CHECKED sora_status sora_registry_versions(sora_registry *registry, const char *name,
                                                struct sora_registry_card **cards,
                                                int32_t *card_count, struct sora_error *err);

struct sora_registry_stats {
    int32_t registered; // names
    int32_t resident;   // versions in memory
    size_t resident_bytes;
    size_t bytes_max; // 0: no bound
    size_t pinned_bytes;
    int32_t waiting; // requests that wait for a load or for room
    int64_t loads;
    int64_t evictions;
    double load_seconds;
};
struct sora_registry_stats sora_registry_get_stats(sora_registry *registry);

#endif

// SPDX-License-Identifier: Apache-2.0
// A hash map from text to pointers with open addressing. Keys are borrowed and live as long as
// their values. Not thread-safe; owned by a registry table.
#ifndef ADAPTERS_REGISTRY_MAP_H
#define ADAPTERS_REGISTRY_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct registry_map_slot {
    const char *key; // NULL: free
    void *value;
    uint64_t hash;
};

struct registry_map {
    struct registry_map_slot *slots; // [capacity], a power of two, at most 3/4 full
    size_t capacity, count;
    uint64_t seed; // random, so that strangers cannot choose names that collide
};

void registry_map_init(struct registry_map *map);
void registry_map_deinit(struct registry_map *map);
void *registry_map_find(const struct registry_map *map, const char *key); // NULL: none
// The key must not be there.
SORA_CHECKED sora_status registry_map_insert(struct registry_map *map, const char *key, void *value,
                                             struct sora_error *err);
// The key must be there.
void registry_map_remove(struct registry_map *map, const char *key);

#endif

// SPDX-License-Identifier: Apache-2.0
// Open addressing with linear probing; removal moves later entries back, so there are no
// tombstones. Not thread-safe; owned by a registry table.
#include "adapters/registry_map.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"

#define CAPACITY_MIN 64

void registry_map_init(struct registry_map *map)
{
    memset(map, 0, sizeof *map);
    rng_system(&map->seed, sizeof map->seed);
}

void registry_map_deinit(struct registry_map *map)
{
    free(map->slots);
    memset(map, 0, sizeof *map);
}

// FNV-1a from a random start, finished with the mixer of splitmix64.
static uint64_t hash_of(const struct registry_map *map, const char *key)
{
    uint64_t h = map->seed ^ 0xcbf29ce484222325u;
    for (const unsigned char *p = (const unsigned char *)key; *p; p++)
        h = (h ^ *p) * 0x100000001b3u;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

// The slot of the key, or the free slot where it belongs.
static struct registry_map_slot *slot_of(const struct registry_map *map, const char *key,
                                         uint64_t hash)
{
    size_t mask = map->capacity - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct registry_map_slot *slot = &map->slots[i];
        if (!slot->key || (slot->hash == hash && strcmp(slot->key, key) == 0))
            return slot;
    }
}

void *registry_map_find(const struct registry_map *map, const char *key)
{
    if (map->count == 0)
        return NULL;
    return slot_of(map, key, hash_of(map, key))->value;
}

static sora_status grow(struct registry_map *map, struct sora_error *err)
{
    struct registry_map larger = *map;
    larger.capacity = map->capacity ? 2 * map->capacity : CAPACITY_MIN;
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a map of %zu names", larger.capacity);
    for (size_t i = 0; i < map->capacity; i++) {
        const struct registry_map_slot *slot = &map->slots[i];
        if (slot->key)
            *slot_of(&larger, slot->key, slot->hash) = *slot;
    }
    free(map->slots);
    *map = larger;
    return SORA_OK;
}

sora_status registry_map_insert(struct registry_map *map, const char *key, void *value,
                                struct sora_error *err)
{
    if (4 * (map->count + 1) > 3 * map->capacity) {
        sora_status status = grow(map, err);
        if (status != SORA_OK)
            return status;
    }
    uint64_t hash = hash_of(map, key);
    struct registry_map_slot *slot = slot_of(map, key, hash);
    ASSERT(!slot->key && value);
    *slot = (struct registry_map_slot){key, value, hash};
    map->count++;
    return SORA_OK;
}

void registry_map_remove(struct registry_map *map, const char *key)
{
    ASSERT(map->count > 0);
    struct registry_map_slot *slot = slot_of(map, key, hash_of(map, key));
    ASSERT(slot->key);
    size_t mask = map->capacity - 1, hole = (size_t)(slot - map->slots);
    for (size_t i = (hole + 1) & mask; map->slots[i].key; i = (i + 1) & mask) {
        // An entry may fill the hole unless its own place lies between the hole and it.
        size_t home = map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct registry_map_slot){NULL, NULL, 0};
    map->count--;
}

// SPDX-License-Identifier: Apache-2.0
// The registry: pins and changes over a registry_table. Any thread may call.
#include "sora/registry.h"

#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_load.h"
#include "adapters/registry_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "sora/tenant.h"

struct sora_pin {
    struct registry_record *record;
    struct registry_blob *blob;
    const sora_adapter *adapter;
    int32_t version;
};

void registry_lock(sora_registry *registry)
{
    pthread_mutex_lock(&registry->mutex);
}

size_t registry_unlock(sora_registry *registry)
{
    struct registry_resident *doomed = registry_table_take_doomed(&registry->table);
    pthread_mutex_unlock(&registry->mutex);
    return registry_table_free_doomed(doomed);
}

void registry_moved(sora_registry *registry)
{
    if (registry->waiting > 0)
        pthread_cond_broadcast(&registry->moved);
}

sora_status registry_check_name(const sora_registry *registry, const char *name,
                                struct sora_error *err)
{
    sora_status status = sora_tenant_check_stored(name, err);
    if (status == SORA_OK && strcmp(sora_tenant_bare(name), registry->base_name) == 0)
        return sora_fail(err, SORA_MALFORMED,
                         "adapter name \"%s\" is the base model's: requests for it mean the base",
                         name);
    return status;
}

static sora_status fill_table(sora_registry *registry, struct sora_error *err)
{
    struct sora_store_entry *entries = NULL;
    int32_t entry_count = 0;
    sora_status status = sora_store_list(registry->store, NULL, &entries, &entry_count, err);
    for (int32_t i = 0; status == SORA_OK && i < entry_count; i++) {
        struct registry_record *record;
        int32_t index;
        status = registry_check_name(registry, entries[i].name, err);
        if (status == SORA_OK)
            status = registry_table_apply(&registry->table, &entries[i], &record, &index, err);
    }
    free(entries);
    return status;
}

// Durations are of the clock that nobody sets.
static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

sora_status sora_registry_create(sora_store *store, const struct sora_base *base,
                                 const char *base_name, sora_registry **registry,
                                 struct sora_error *err)
{
    *registry = NULL;
    sora_registry *made = calloc(1, sizeof *made);
    if (!made)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a registry");
    made->store = store;
    made->base = *base;
    made->base_name = strdup(base_name);
    made->options.wait_us = SORA_ADAPTER_WAIT_US;
    made->options.patience_us = SORA_ADAPTER_PATIENCE_US;
    pthread_mutex_init(&made->mutex, NULL);
    pthread_mutex_init(&made->change, NULL);
    init_cond(&made->moved);
    registry_table_init(&made->table);
    sora_status status;
    if (!made->base_name)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a registry");
    else if (sora_store_is_shared(store))
        status = sora_registry_follow(made, err);
    else
        status = fill_table(made, err);
    if (status != SORA_OK) {
        sora_registry_destroy(made);
        return status;
    }
    *registry = made;
    return SORA_OK;
}

void sora_registry_set_memory(sora_registry *registry, const struct sora_registry_memory *memory)
{
    registry_lock(registry);
    registry->options = *memory;
    registry->table.memory.bytes_max = memory->bytes_max;
    registry_unlock(registry);
}

void sora_registry_destroy(sora_registry *registry)
{
    if (!registry)
        return;
    ASSERT(registry->pin_count == 0);
    registry_table_deinit(&registry->table);
    pthread_cond_destroy(&registry->moved);
    pthread_mutex_destroy(&registry->change);
    pthread_mutex_destroy(&registry->mutex);
    free(registry->base_name);
    free(registry);
}

// --- pins ---

// Splits "name@version"; *version 0 for a bare name, -1 for a version that no file can have.
static sora_status split_name(const char *text, char name[SORA_STORED_NAME_BYTES_MAX + 1],
                              int32_t *version, struct sora_error *err)
{
    const char *at = strrchr(text, '@');
    size_t bytes = at ? (size_t)(at - text) : strlen(text);
    if (bytes == 0 || bytes > SORA_STORED_NAME_BYTES_MAX)
        return sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%.160s\"", text);
    memcpy(name, text, bytes);
    name[bytes] = 0;
    *version = 0;
    if (!at)
        return SORA_OK;
    size_t digits = strspn(at + 1, "0123456789");
    if (digits == 0 || digits > 9 || at[1 + digits] || at[1] == '0')
        return sora_fail(err, SORA_NOT_FOUND,
                         "no adapter named \"%.160s\": \"%.20s\" is no version", text, at + 1);
    *version = (int32_t)strtol(at + 1, NULL, 10);
    return SORA_OK;
}

// Locked. The record and version that a request's text means.
static sora_status find(const sora_registry *registry, const char *name, int32_t version,
                        struct registry_record **record, int32_t *index, struct sora_error *err)
{
    *record = registry_table_find(&registry->table, name);
    if (!*record)
        return sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\"", name);
    *index = version ? registry_table_find_version(*record, version) : (*record)->active;
    if (*index >= 0)
        return SORA_OK;
    if (version)
        return sora_fail(err, SORA_NOT_FOUND, "adapter \"%s\" has no version %d", name,
                         (int)version);
    return sora_fail(err, SORA_NOT_FOUND, "adapter \"%s\" has no active version", name);
}

// Locked on entry and on return. The same, once nobody has waited long for its place in memory:
// who waits holds nothing, so the name may mean another version afterwards.
static sora_status find_in_turn(sora_registry *registry, const char *name, int32_t version,
                                int64_t until_us, struct registry_record **record, int32_t *index,
                                struct sora_error *err)
{
    for (;;) {
        sora_status status = find(registry, name, version, record, index, err);
        if (status != SORA_OK || !(*record)->versions[*index].blob->yields)
            return status;
        status = registry_wait_turn(registry, until_us, err);
        if (status != SORA_OK)
            return status;
    }
}

// Locked on entry and on return.
static sora_status take_pin(sora_registry *registry, struct registry_record *record, int32_t index,
                            int64_t until_us, sora_pin *pin, struct sora_error *err)
{
    struct registry_blob *blob = record->versions[index].blob;
    int32_t version = record->versions[index].version;
    registry_table_hold(&registry->table, record, blob);
    sora_status status = registry_make_resident(registry, blob, until_us, err);
    if (status != SORA_OK) {
        registry_table_release(&registry->table, record, blob);
        return status;
    }
    // A version that is asked for by its number is wanted though it is not the active one.
    blob->asked = blob->asked || record->active != index;
    record->requests++;
    index = registry_table_find_version(record, version); // others may have come while it waited
    record->versions[index].in_flight++;
    record->versions[index].last_used_s = clock_unix_s();
    registry->pin_count++;
    *pin = (struct sora_pin){record, blob, blob->resident->adapter, version};
    return SORA_OK;
}

sora_status sora_registry_pin(sora_registry *registry, const char *name, sora_pin **pin,
                              struct sora_error *err)
{
    char bare[SORA_STORED_NAME_BYTES_MAX + 1];
    struct registry_record *record = NULL;
    int32_t version = 0, index = -1;
    int64_t until_us = clock_now_us() + registry->options.wait_us;
    *pin = NULL;
    sora_status status = split_name(name, bare, &version, err);
    if (status != SORA_OK)
        return status;
    sora_pin *made = malloc(sizeof *made);
    if (!made)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to pin adapter \"%s\"", bare);
    registry_lock(registry);
    status = find_in_turn(registry, bare, version, until_us, &record, &index, err);
    if (status == SORA_OK)
        status = take_pin(registry, record, index, until_us, made, err);
    registry_unlock(registry);
    if (status != SORA_OK && status != SORA_NOT_FOUND)
        status = sora_fail_within(err, status, "adapter \"%s\"", bare);
    if (status != SORA_OK) {
        free(made);
        return status;
    }
    *pin = made;
    return SORA_OK;
}

void sora_registry_unpin(sora_registry *registry, sora_pin *pin)
{
    if (!pin)
        return;
    registry_lock(registry);
    ASSERT(registry->pin_count > 0);
    registry->pin_count--;
    int32_t index = registry_table_find_version(pin->record, pin->version);
    pin->record->versions[index].in_flight--;
    registry_table_release(&registry->table, pin->record, pin->blob);
    registry_moved(registry);
    registry_unlock(registry);
    free(pin);
}

const struct sora_lora *sora_pin_lora(const sora_pin *pin)
{
    return sora_adapter_get_lora(pin->adapter);
}

const struct sora_adapter_info *sora_pin_info(const sora_pin *pin)
{
    return sora_adapter_get_info(pin->adapter);
}

const char *sora_pin_name(const sora_pin *pin)
{
    return pin->record->name;
}

int32_t sora_pin_version(const sora_pin *pin)
{
    return pin->version;
}

void sora_registry_count_tokens(sora_registry *registry, const sora_pin *pin, int64_t tokens)
{
    (void)registry;
    atomic_fetch_add(&pin->record->tokens, tokens);
}

// --- cards ---

static int compare_cards(const void *a, const void *b)
{
    const struct sora_registry_card *left = a, *right = b;
    return strcmp(left->entry.name, right->entry.name);
}

sora_status sora_registry_list(sora_registry *registry, struct sora_registry_card **cards,
                               int32_t *card_count, struct sora_error *err)
{
    *card_count = 0;
    registry_lock(registry);
    const struct registry_map *records = &registry->table.records;
    *cards = calloc(records->count + 1, sizeof **cards);
    for (size_t i = 0; *cards && i < records->capacity; i++) {
        const struct registry_record *record = records->slots[i].value;
        if (record && record->active >= 0)
            registry_table_fill_card(record, record->active, &(*cards)[(*card_count)++]);
    }
    registry_unlock(registry);
    if (!*cards)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to list adapters");
    if (*card_count > 1)
        qsort(*cards, (size_t)*card_count, sizeof **cards, compare_cards);
    return SORA_OK;
}

sora_status sora_registry_versions(sora_registry *registry, const char *name,
                                   struct sora_registry_card **cards, int32_t *card_count,
                                   struct sora_error *err)
{
    sora_status status = SORA_OK;
    *cards = NULL;
    *card_count = 0;
    registry_lock(registry);
    const struct registry_record *record = registry_table_find(&registry->table, name);
    if (!record) {
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%.160s\"", name);
    } else {
        *cards = calloc((size_t)record->version_count + 1, sizeof **cards);
        if (!*cards)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory to list versions");
        for (int32_t i = 0; *cards && i < record->version_count; i++)
            registry_table_fill_card(record, i, &(*cards)[(*card_count)++]);
    }
    registry_unlock(registry);
    return status;
}

bool sora_registry_has(sora_registry *registry, const char *name)
{
    registry_lock(registry);
    bool found = registry_table_find(&registry->table, name) != NULL;
    registry_unlock(registry);
    return found;
}

struct sora_registry_stats sora_registry_get_stats(sora_registry *registry)
{
    registry_lock(registry);
    const struct registry_memory *memory = &registry->table.memory;
    struct sora_registry_stats stats = {
        .registered = (int32_t)registry->table.records.count,
        .resident = memory->resident,
        .resident_bytes = memory->bytes,
        .bytes_max = memory->bytes_max,
        .pinned_bytes = memory->pinned_bytes,
        .waiting = registry->waiting,
        .loads = memory->loads,
        .evictions = memory->evictions,
        .load_seconds = memory->load_seconds,
    };
    registry_unlock(registry);
    return stats;
}

// SPDX-License-Identifier: Apache-2.0
// Names, versions and blobs, and the rule of what stays in memory. Owned by a registry, whose
// mutex covers every call.
#include "adapters/registry_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

void registry_table_init(struct registry_table *table)
{
    memset(table, 0, sizeof *table);
    registry_map_init(&table->records);
    registry_map_init(&table->blobs);
}

// Drops from memory what nothing keeps there, and the blob itself when nothing refers to it.
static void settle(struct registry_table *table, struct registry_blob *blob)
{
    blob->asked = blob->asked && blob->refs > 0;
    registry_memory_settle(&table->memory, blob);
    if (blob->refs > 0)
        return;
    ASSERT(!blob->load && !blob->resident && blob->orders == 0);
    registry_map_remove(&table->blobs, blob->digest);
    free(blob);
}

static sora_status find_or_add_blob(struct registry_table *table, const char *digest,
                                    struct registry_blob **out, struct sora_error *err)
{
    *out = registry_map_find(&table->blobs, digest);
    if (*out)
        return SORA_OK;
    struct registry_blob *blob = calloc(1, sizeof *blob);
    if (!blob)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to register an adapter");
    memcpy(blob->digest, digest, sizeof blob->digest);
    sora_status status = registry_map_insert(&table->blobs, blob->digest, blob, err);
    if (status != SORA_OK) {
        free(blob);
        return status;
    }
    *out = blob;
    return SORA_OK;
}

static sora_status find_or_add_record(struct registry_table *table, const char *name,
                                      struct registry_record **out, struct sora_error *err)
{
    *out = registry_map_find(&table->records, name);
    if (*out)
        return SORA_OK;
    struct registry_record *record = calloc(1, sizeof *record);
    if (!record)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to register an adapter");
    memcpy(record->name, name, strlen(name) + 1);
    record->active = -1;
    record->refs = 1;
    sora_status status = registry_map_insert(&table->records, record->name, record, err);
    if (status != SORA_OK) {
        free(record);
        return status;
    }
    *out = record;
    return SORA_OK;
}

// In its place among the ascending: another server's version may be heard of after a later one.
static sora_status add_version(struct registry_table *table, struct registry_record *record,
                               const struct sora_store_entry *entry, int32_t *index,
                               struct sora_error *err)
{
    struct registry_blob *blob = NULL;
    if (record->version_count == record->version_capacity) {
        int32_t capacity = record->version_capacity ? 2 * record->version_capacity : 1;
        struct registry_version *more =
            reallocarray(record->versions, (size_t)capacity, sizeof *record->versions);
        if (!more)
            return sora_fail(err, SORA_NO_MEMORY, "no memory for a version");
        record->versions = more;
        record->version_capacity = capacity;
    }
    sora_status status = find_or_add_blob(table, entry->digest, &blob, err);
    if (status != SORA_OK)
        return status;
    blob->refs++;
    int32_t at = record->version_count;
    for (; at > 0 && record->versions[at - 1].version > entry->version; at--)
        record->versions[at] = record->versions[at - 1];
    record->version_count++;
    record->active += record->active >= at;
    record->versions[at] = (struct registry_version){
        .version = entry->version,
        .blob = blob,
        .bytes = entry->bytes,
        .created_s = entry->created_s,
    };
    *index = at;
    return SORA_OK;
}

// The new blob is counted before the old one is let go: they may be the same.
static void set_active(struct registry_table *table, struct registry_record *record, int32_t index)
{
    int32_t old = record->active;
    if (old == index)
        return;
    record->active = index;
    if (index >= 0) {
        struct registry_blob *blob = record->versions[index].blob;
        blob->actives++;
        if (record->pinned)
            registry_memory_order(&table->memory, blob, true);
    }
    if (old >= 0) {
        struct registry_blob *blob = record->versions[old].blob;
        blob->actives--;
        blob->asked = false; // by those who ask for it from now on
        if (record->pinned)
            registry_memory_order(&table->memory, blob, false);
        settle(table, blob);
    }
}

void registry_table_pin(struct registry_table *table, struct registry_record *record, bool pinned)
{
    record->pin_asked = pinned;
    if (record->pinned == pinned)
        return;
    record->pinned = pinned;
    if (record->active >= 0)
        registry_memory_order(&table->memory, record->versions[record->active].blob, pinned);
}

int32_t registry_table_find_version(const struct registry_record *record, int32_t version)
{
    int32_t low = 0, high = record->version_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (record->versions[middle].version < version)
            low = middle + 1;
        else
            high = middle;
    }
    return low < record->version_count && record->versions[low].version == version ? low : -1;
}

struct registry_record *registry_table_find(const struct registry_table *table, const char *name)
{
    return registry_map_find(&table->records, name);
}

sora_status registry_table_apply(struct registry_table *table, const struct sora_store_entry *entry,
                                 struct registry_record **record, int32_t *index,
                                 struct sora_error *err)
{
    sora_status status = find_or_add_record(table, entry->name, record, err);
    if (status != SORA_OK)
        return status;
    *index = registry_table_find_version(*record, entry->version);
    if (*index < 0)
        status = add_version(table, *record, entry, index, err);
    if (status == SORA_OK)
        (*record)->pin_asked = entry->pinned;
    if (status == SORA_OK && entry->active)
        set_active(table, *record, *index);
    // A name without versions must not stay behind.
    if (status != SORA_OK && (*record)->version_count == 0)
        registry_table_remove(table, *record);
    return status;
}

static void release_record(struct registry_record *record)
{
    if (--record->refs > 0)
        return;
    free(record->versions);
    free(record);
}

void registry_table_remove(struct registry_table *table, struct registry_record *record)
{
    registry_map_remove(&table->records, record->name);
    set_active(table, record, -1);
    for (int32_t i = 0; i < record->version_count; i++) {
        struct registry_blob *blob = record->versions[i].blob;
        record->versions[i].blob = NULL;
        blob->refs--;
        settle(table, blob);
    }
    release_record(record);
}

void registry_table_hold(struct registry_table *table, struct registry_record *record,
                         struct registry_blob *blob)
{
    record->refs++;
    blob->refs++;
    blob->pins++;
    registry_memory_settle(&table->memory, blob);
}

void registry_table_release(struct registry_table *table, struct registry_record *record,
                            struct registry_blob *blob)
{
    ASSERT(blob->pins > 0 && blob->refs > 0 && record->refs > 0);
    blob->pins--;
    blob->refs--;
    settle(table, blob);
    release_record(record);
}

struct registry_resident *registry_table_take_doomed(struct registry_table *table)
{
    struct registry_resident *doomed = table->memory.doomed;
    table->memory.doomed = NULL;
    return doomed;
}

size_t registry_table_free_doomed(struct registry_resident *doomed)
{
    size_t bytes = 0;
    while (doomed) {
        struct registry_resident *next = doomed->next;
        bytes += sora_adapter_get_info(doomed->adapter)->packed_bytes;
        sora_adapter_destroy(doomed->adapter);
        free(doomed);
        doomed = next;
    }
    return bytes;
}

void registry_table_deinit(struct registry_table *table)
{
    for (size_t i = 0; i < table->records.capacity;) {
        struct registry_record *record = table->records.slots[i].value;
        if (!record) {
            i++;
            continue;
        }
        ASSERT(record->refs == 1);
        registry_table_remove(table, record); // may move another record into this slot
    }
    ASSERT(table->blobs.count == 0);
    registry_table_free_doomed(registry_table_take_doomed(table));
    registry_map_deinit(&table->records);
    registry_map_deinit(&table->blobs);
}

void registry_table_fill_card(const struct registry_record *record, int32_t index,
                              struct sora_registry_card *card)
{
    const struct registry_version *version = &record->versions[index];
    memset(card, 0, sizeof *card);
    memcpy(card->entry.name, record->name, sizeof card->entry.name);
    memcpy(card->entry.digest, version->blob->digest, sizeof card->entry.digest);
    card->entry.version = version->version;
    card->entry.bytes = version->bytes;
    card->entry.created_s = version->created_s;
    card->entry.active = record->active == index;
    card->entry.pinned = record->pinned;
    card->version_count = record->version_count;
    card->resident = version->blob->resident != NULL;
    card->in_flight = version->in_flight;
    card->requests = record->requests;
    card->tokens = atomic_load(&((struct registry_record *)record)->tokens);
    card->last_used_s = version->last_used_s;
    card->load_ms = version->blob->load_ms;
}

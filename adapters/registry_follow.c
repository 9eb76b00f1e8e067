// SPDX-License-Identifier: Apache-2.0
// See registry_follow.h.
#include "adapters/registry_follow.h"

#include <stdlib.h>
#include <string.h>

static bool has_entry(const struct sora_store_entry *entries, int32_t entry_count,
                      const struct registry_version *version)
{
    for (int32_t i = 0; i < entry_count; i++)
        if (entries[i].version == version->version)
            return strcmp(entries[i].digest, version->blob->digest) == 0;
    return false;
}

// Whether the name was removed since, or was another catalog's.
static bool is_stale(const struct registry_record *record, const struct sora_store_entry *entries,
                     int32_t entry_count)
{
    for (int32_t i = 0; i < record->version_count; i++)
        if (!has_entry(entries, entry_count, &record->versions[i]))
            return true;
    return entry_count == 0;
}

static sora_status note_gone(struct registry_gone *gone, const struct registry_record *record,
                             struct sora_error *err)
{
    int32_t needed = gone->count + record->version_count;
    if (needed > gone->capacity) {
        struct registry_gone_digest *more =
            reallocarray(gone->items, 2 * (size_t)needed, sizeof *gone->items);
        if (more == NULL)
            return sora_fail(err, SORA_NO_MEMORY, "no memory for %d digests", (int)needed);
        gone->items = more;
        gone->capacity = 2 * needed;
    }
    for (int32_t i = 0; i < record->version_count; i++)
        memcpy(gone->items[gone->count++].text, record->versions[i].blob->digest,
               sizeof gone->items->text);
    return SORA_OK;
}

sora_status registry_follow_name(struct registry_table *table, const char *name,
                                 const struct sora_store_entry *entries, int32_t entry_count,
                                 struct registry_gone *gone, struct sora_error *err)
{
    int32_t index;
    sora_status status = SORA_OK;
    struct registry_record *record = registry_table_find(table, name);
    if (record != NULL && is_stale(record, entries, entry_count)) {
        status = note_gone(gone, record, err);
        if (status == SORA_OK)
            registry_table_remove(table, record);
    }
    for (int32_t i = 0; status == SORA_OK && i < entry_count; i++)
        status = registry_table_apply(table, &entries[i], &record, &index, err);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    const struct sora_store_name *left = a, *right = b;
    return strcmp(left->text, right->text);
}

sora_status registry_follow_others(const struct registry_table *table,
                                   const struct sora_store_changes *changes,
                                   struct sora_store_name **names, int32_t *name_count,
                                   struct sora_error *err)
{
    const struct registry_map *records = &table->records;
    *name_count = 0;
    *names = calloc(records->count + 1, sizeof **names);
    if (*names == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu names", records->count);
    for (size_t i = 0; i < records->capacity; i++) {
        const struct registry_record *record = records->slots[i].value;
        if (record == NULL)
            continue;
        struct sora_store_name *name = &(*names)[*name_count];
        memcpy(name->text, record->name, sizeof name->text);
        if (changes->name_count == 0 || bsearch(name, changes->names, (size_t)changes->name_count,
                                                sizeof *name, compare_names) == NULL)
            (*name_count)++;
    }
    return SORA_OK;
}

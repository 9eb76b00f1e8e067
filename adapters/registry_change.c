// SPDX-License-Identifier: Apache-2.0
// Changes: publish, roll back, pin, unload, remove. Each is checked whole, then in the store, then
// in the table; running requests notice nothing. `change` is held from the store to the table.
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_load.h"
#include "adapters/registry_follow.h"
#include "adapters/registry_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sha256.h"

// A file to be published: bytes, in memory or in an upload's mapping.
struct source {
    const void *bytes;
    size_t byte_count;
    const char *digest;
    sora_upload *upload; // NULL: the bytes are the caller's
};

// --- memory ---

static sora_status refuse_pins(const sora_registry *registry, size_t pinned, struct sora_error *err)
{
    size_t bytes_max = registry->options.bytes_max;
    if (bytes_max == 0 || pinned <= bytes_max)
        return SORA_OK;
    return sora_fail(err, SORA_LIMIT,
                     "pinned adapters would take %zu bytes of the %zu there are for adapters "
                     "(--adapter-memory)",
                     pinned, bytes_max);
}

// Holds the name's active version and brings it into memory. On failure nothing is held.
static sora_status hold_active(sora_registry *registry, const char *name,
                               struct registry_record **record, struct registry_blob **blob,
                               struct sora_error *err)
{
    int64_t until_us = clock_now_us() + registry->options.wait_us;
    sora_status status = SORA_OK;
    registry_lock(registry);
    *record = registry_table_find(&registry->table, name);
    if (!*record || (*record)->active < 0)
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\" is active", name);
    if (status == SORA_OK) {
        *blob = (*record)->versions[(*record)->active].blob;
        registry_table_hold(&registry->table, *record, *blob);
        status = registry_make_resident(registry, *blob, until_us, err);
        if (status != SORA_OK)
            registry_table_release(&registry->table, *record, *blob);
    }
    registry_unlock(registry);
    return status;
}

static void release(sora_registry *registry, struct registry_record *record,
                    struct registry_blob *blob)
{
    registry_lock(registry);
    registry_table_release(&registry->table, record, blob);
    registry_moved(registry);
    registry_unlock(registry);
}

// A pinned name has a new active version: it is in memory before its change is answered, unless
// running requests leave no room for too long. False: it is not.
static bool bring_pinned_in(sora_registry *registry, const char *name)
{
    struct registry_record *record;
    struct registry_blob *blob;
    struct sora_error err;
    char quoted[LOG_QUOTE_BYTES];
    if (hold_active(registry, name, &record, &blob, &err) == SORA_OK) {
        release(registry, record, blob);
        return true;
    }
    log_warn("registry", "pinned_late", "adapter=%s error=%s", name, log_quote(quoted, err.text));
    return false;
}

// Finds out what a blob that was never loaded takes. Under `change`, so that it stays.
static sora_status measure(sora_registry *registry, struct registry_blob *blob,
                           struct sora_error *err)
{
    const uint8_t *bytes = NULL;
    size_t byte_count = 0, packed_bytes = 0;
    registry_lock(registry);
    bool known = blob->packed_bytes > 0;
    registry_unlock(registry);
    if (known)
        return SORA_OK;
    sora_status status = sora_store_map(registry->store, blob->digest, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = adapter_measure(bytes, byte_count, &registry->base, registry->options.int8,
                                 &packed_bytes, err);
    if (status == SORA_OK) {
        registry_lock(registry);
        registry_memory_measured(&registry->table.memory, blob, packed_bytes);
        registry_unlock(registry);
    }
    sora_store_unmap(bytes, byte_count);
    return status;
}

// --- publishing ---

// Refuses what could never be in memory before it packs anything.
static sora_status prepare(sora_registry *registry, const struct source *from,
                           struct registry_resident **resident, struct sora_error *err)
{
    size_t packed_bytes = 0;
    sora_status status = adapter_measure(from->bytes, from->byte_count, &registry->base,
                                         registry->options.int8, &packed_bytes, err);
    if (status != SORA_OK)
        return status;
    size_t bytes_max = registry->options.bytes_max;
    if (bytes_max > 0 && packed_bytes > bytes_max)
        return sora_fail(err, SORA_LIMIT,
                         "takes %zu bytes in memory, more than the %zu there are for adapters "
                         "(--adapter-memory)",
                         packed_bytes, bytes_max);
    return registry_parse(registry, from->bytes, from->byte_count, from->digest, resident, err);
}

// Under `change`: a pinned name's new version must fit among what is pinned.
static sora_status check_pinned_update(sora_registry *registry, const char *name,
                                       const struct source *from, size_t packed_bytes,
                                       struct sora_error *err)
{
    sora_status status = SORA_OK;
    registry_lock(registry);
    struct registry_memory *memory = &registry->table.memory;
    const struct registry_record *record = registry_table_find(&registry->table, name);
    if (record && record->pinned) {
        struct registry_blob *known = registry_map_find(&registry->table.blobs, from->digest);
        const struct registry_blob *old =
            record->active >= 0 ? record->versions[record->active].blob : NULL;
        if (known)
            registry_memory_measured(memory, known, packed_bytes);
        size_t pinned = registry_memory_pinned(memory, old, known) + (known ? 0 : packed_bytes);
        status = refuse_pins(registry, pinned, err);
    }
    registry_unlock(registry);
    return status;
}

// The active version stays in memory from the start when it takes nobody's place but that of the
// version before it, or is pinned. An upload of many names must not drive out those in use.
static void keep_if_room(sora_registry *registry, const struct registry_record *record,
                         int32_t index, bool replaces, struct registry_resident *resident,
                         double load_ms)
{
    struct registry_memory *memory = &registry->table.memory;
    struct registry_blob *blob = record->versions[index].blob;
    size_t packed_bytes = sora_adapter_get_info(resident->adapter)->packed_bytes;
    registry_memory_measured(memory, blob, packed_bytes);
    bool may_drive_out = replaces || blob->orders > 0;
    bool room = may_drive_out ? registry_memory_make_room(memory, packed_bytes)
                              : registry_memory_has_room(memory, packed_bytes);
    if (room && record->active == index && !blob->resident)
        registry_memory_attach(memory, blob, resident, load_ms);
    else
        registry_memory_doom(memory, resident);
}

static bool active_is_resident(const sora_registry *registry, const char *name)
{
    const struct registry_record *record = registry_table_find(&registry->table, name);
    return record && record->active >= 0 && record->versions[record->active].blob->resident;
}

// The change is in the store; brings the table after it. resident may be NULL.
static sora_status apply(sora_registry *registry, const struct sora_store_entry *entry,
                         struct registry_resident *resident, double load_ms,
                         struct sora_registry_card *card, struct sora_error *err)
{
    struct registry_record *record;
    int32_t index;
    registry_lock(registry);
    bool replaces = active_is_resident(registry, entry->name);
    sora_status status = registry_table_apply(&registry->table, entry, &record, &index, err);
    if (status == SORA_OK && resident) {
        keep_if_room(registry, record, index, replaces, resident, load_ms);
        resident = NULL;
    }
    if (status == SORA_OK)
        registry_table_fill_card(record, index, card);
    registry_moved(registry);
    registry_unlock(registry);
    registry_table_free_doomed(resident);
    return status;
}

static sora_status store_put(sora_registry *registry, const char *name, const struct source *from,
                             const char *if_match, bool activate, struct sora_store_entry *entry,
                             bool *created, struct sora_error *err)
{
    if (from->upload)
        return sora_store_put_upload(registry->store, name, from->upload, if_match, activate, entry,
                                     created, err);
    return sora_store_put(registry->store, name, from->bytes, from->byte_count, from->digest,
                          if_match, activate, entry, created, err);
}

static sora_status publish(sora_registry *registry, const char *name, const struct source *from,
                           const char *if_match, bool activate, struct sora_registry_card *card,
                           bool *created, struct sora_error *err)
{
    struct registry_resident *resident = NULL;
    struct sora_store_entry entry;
    int64_t start_us = clock_now_us();
    sora_status status = prepare(registry, from, &resident, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "adapter \"%s\"", name);
    double load_ms = (double)(clock_now_us() - start_us) / 1000.0;
    size_t packed_bytes = sora_adapter_get_info(resident->adapter)->packed_bytes;
    pthread_mutex_lock(&registry->change);
    if (activate)
        status = check_pinned_update(registry, name, from, packed_bytes, err);
    if (status == SORA_OK)
        status = store_put(registry, name, from, if_match, activate, &entry, created, err);
    if (status == SORA_OK)
        status = apply(registry, &entry, resident, load_ms, card, err);
    else
        registry_table_free_doomed(resident);
    pthread_mutex_unlock(&registry->change);
    if (status == SORA_OK && card->entry.active && card->entry.pinned && !card->resident)
        card->resident = bring_pinned_in(registry, name);
    return status;
}

sora_status sora_registry_publish(sora_registry *registry, const char *name, const void *bytes,
                                  size_t byte_count, const char *if_match, bool activate,
                                  struct sora_registry_card *card, bool *created,
                                  struct sora_error *err)
{
    char digest[65];
    struct source from = {bytes, byte_count, digest, NULL};
    *created = false;
    memset(card, 0, sizeof *card);
    sora_status status = registry_check_name(registry, name, err);
    if (status == SORA_OK)
        status = sha256_of(bytes, byte_count, digest, err);
    if (status == SORA_OK)
        status = publish(registry, name, &from, if_match, activate, card, created, err);
    return status;
}

sora_status sora_registry_publish_upload(sora_registry *registry, const char *name,
                                         sora_upload *upload, const char *if_match, bool activate,
                                         struct sora_registry_card *card, bool *created,
                                         struct sora_error *err)
{
    struct source from = {.digest = sora_upload_digest(upload), .upload = upload};
    from.bytes = sora_upload_bytes(upload, &from.byte_count);
    *created = false;
    memset(card, 0, sizeof *card);
    sora_status status = registry_check_name(registry, name, err);
    if (status == SORA_OK)
        status = publish(registry, name, &from, if_match, activate, card, created, err);
    return status;
}

// --- other changes ---

// Under `change`: a pinned name may go back to a version that was never loaded.
static sora_status check_pinned_rollback(sora_registry *registry, const char *name, int32_t version,
                                         struct sora_error *err)
{
    struct registry_blob *old = NULL, *next = NULL;
    registry_lock(registry);
    const struct registry_record *record = registry_table_find(&registry->table, name);
    int32_t index = record ? registry_table_find_version(record, version) : -1;
    if (index >= 0 && record->pinned && record->active >= 0) {
        old = record->versions[record->active].blob;
        next = record->versions[index].blob;
    }
    registry_unlock(registry);
    if (!next)
        return SORA_OK;
    sora_status status = measure(registry, next, err);
    if (status != SORA_OK)
        return status;
    registry_lock(registry);
    size_t pinned = registry_memory_pinned(&registry->table.memory, old, next);
    registry_unlock(registry);
    return refuse_pins(registry, pinned, err);
}

sora_status sora_registry_rollback(sora_registry *registry, const char *name, int32_t version,
                                   struct sora_registry_card *card, struct sora_error *err)
{
    struct sora_store_entry entry;
    memset(card, 0, sizeof *card);
    pthread_mutex_lock(&registry->change);
    sora_status status = check_pinned_rollback(registry, name, version, err);
    if (status == SORA_OK)
        status = sora_store_activate(registry->store, name, version, &entry, err);
    if (status == SORA_OK)
        status = apply(registry, &entry, NULL, 0.0, card, err);
    pthread_mutex_unlock(&registry->change);
    if (status == SORA_OK && card->entry.pinned && !card->resident)
        card->resident = bring_pinned_in(registry, name);
    return status;
}

sora_status sora_registry_remove(sora_registry *registry, const char *name, size_t *freed_bytes,
                                 struct sora_error *err)
{
    *freed_bytes = 0;
    pthread_mutex_lock(&registry->change);
    sora_status status = sora_store_remove(registry->store, name, freed_bytes, err);
    if (status == SORA_OK) {
        registry_lock(registry);
        struct registry_record *record = registry_table_find(&registry->table, name);
        if (record)
            registry_table_remove(&registry->table, record);
        registry_moved(registry);
        *freed_bytes += registry_unlock(registry);
    }
    pthread_mutex_unlock(&registry->change);
    return status;
}

// Under `change`: whether the name's active version can be pinned beside the others.
static sora_status check_pin(sora_registry *registry, const char *name, struct sora_error *err)
{
    struct registry_blob *blob = NULL;
    registry_lock(registry);
    const struct registry_record *record = registry_table_find(&registry->table, name);
    if (record && record->active >= 0)
        blob = record->versions[record->active].blob;
    registry_unlock(registry);
    if (!blob)
        return sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\" is active", name);
    sora_status status = measure(registry, blob, err);
    if (status != SORA_OK)
        return status;
    registry_lock(registry);
    size_t pinned = registry_memory_pinned(&registry->table.memory, NULL, blob);
    registry_unlock(registry);
    return refuse_pins(registry, pinned, err);
}

// stored: the store knows already.
static sora_status change_pin(sora_registry *registry, const char *name, bool pinned, bool stored,
                              struct sora_registry_card *card, struct sora_error *err)
{
    pthread_mutex_lock(&registry->change);
    sora_status status = pinned ? check_pin(registry, name, err) : SORA_OK;
    if (status == SORA_OK && !stored)
        status = sora_store_pin(registry->store, name, pinned, err);
    if (status == SORA_OK) {
        registry_lock(registry);
        struct registry_record *record = registry_table_find(&registry->table, name);
        if (record) { // with a shared store another server may have removed it just now
            registry_table_pin(&registry->table, record, pinned);
            registry_table_fill_card(record, record->active >= 0 ? record->active : 0, card);
        }
        registry_moved(registry);
        registry_unlock(registry);
    }
    pthread_mutex_unlock(&registry->change);
    return status;
}

// Holds it in memory first: what cannot be loaded cannot be pinned.
static sora_status pin_held(sora_registry *registry, const char *name, bool stored,
                            struct sora_registry_card *card, struct sora_error *err)
{
    struct registry_record *record;
    struct registry_blob *blob;
    sora_status status = hold_active(registry, name, &record, &blob, err);
    if (status != SORA_OK)
        return status;
    status = change_pin(registry, name, true, stored, card, err);
    release(registry, record, blob);
    if (status == SORA_OK && !card->resident) // updated meanwhile
        card->resident = bring_pinned_in(registry, name);
    return status;
}

sora_status sora_registry_set_pinned(sora_registry *registry, const char *name, bool pinned,
                                     struct sora_registry_card *card, struct sora_error *err)
{
    memset(card, 0, sizeof *card);
    sora_status status = pinned ? pin_held(registry, name, false, card, err)
                                : change_pin(registry, name, false, false, card, err);
    if (status == SORA_OK || status == SORA_NOT_FOUND)
        return status;
    return sora_fail_within(err, status, "adapter \"%s\"", name);
}

void sora_registry_load_pinned(sora_registry *registry)
{
    struct sora_store_entry *entries = NULL;
    struct sora_registry_card card;
    int32_t entry_count = 0;
    struct sora_error err;
    char quoted[LOG_QUOTE_BYTES];
    sora_status status = sora_store_list(registry->store, NULL, &entries, &entry_count, &err);
    if (status != SORA_OK)
        log_warn("registry", "pins_unknown", "error=%s", log_quote(quoted, err.text));
    for (int32_t i = 0; i < entry_count; i++) {
        const struct sora_store_entry *entry = &entries[i];
        if (!entry->pinned || !entry->active)
            continue;
        if (pin_held(registry, entry->name, true, &card, &err) != SORA_OK)
            log_warn("registry", "not_pinned", "adapter=%s error=%s", entry->name,
                     log_quote(quoted, err.text));
    }
    free(entries);
}

sora_status sora_registry_unload(sora_registry *registry, const char *name, size_t *freed_bytes,
                                 struct sora_error *err)
{
    sora_status status = SORA_OK;
    *freed_bytes = 0;
    registry_lock(registry);
    struct registry_record *record = registry_table_find(&registry->table, name);
    if (!record || record->active < 0) {
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\" is active", name);
    } else if (record->pinned) {
        status = sora_fail(err, SORA_PRECONDITION,
                           "adapter \"%s\" is pinned: it leaves memory once it is no longer", name);
    } else {
        struct registry_blob *blob = record->versions[record->active].blob;
        blob->leaves = blob->resident && blob->orders == 0;
        registry_memory_settle(&registry->table.memory, blob);
        registry_moved(registry);
    }
    *freed_bytes = registry_unlock(registry);
    return status;
}

// --- following other servers ---

// `change` is held.
static sora_status follow_name(sora_registry *registry, const char *name,
                               const struct sora_store_entry *entries, int32_t entry_count,
                               struct registry_gone *gone, struct sora_error *err)
{
    struct sora_error why;
    char quoted[LOG_QUOTE_BYTES];
    if (entry_count > 0 && registry_check_name(registry, name, &why) != SORA_OK) {
        log_warn("registry", "left_out", "why=%s", log_quote(quoted, why.text));
        return SORA_OK;
    }
    registry_lock(registry);
    sora_status status =
        registry_follow_name(&registry->table, name, entries, entry_count, gone, err);
    registry_moved(registry);
    registry_unlock(registry);
    return status;
}

static sora_status follow_all(sora_registry *registry, const struct sora_store_changes *changes,
                              struct registry_gone *gone, struct sora_error *err)
{
    struct sora_store_name *others = NULL;
    int32_t other_count = 0;
    sora_status status = SORA_OK;
    for (int32_t i = 0, at = 0; status == SORA_OK && i < changes->name_count; i++) {
        const char *name = changes->names[i].text;
        int32_t first = at;
        while (at < changes->entry_count && strcmp(changes->entries[at].name, name) == 0)
            at++;
        status = follow_name(registry, name, changes->entries + first, at - first, gone, err);
    }
    if (status == SORA_OK && changes->full) {
        registry_lock(registry);
        status = registry_follow_others(&registry->table, changes, &others, &other_count, err);
        registry_unlock(registry);
    }
    for (int32_t i = 0; status == SORA_OK && i < other_count; i++)
        status = follow_name(registry, others[i].text, NULL, 0, gone, err);
    free(others);
    return status;
}

// `change` is held. Copies of files that neither a name nor a running request refers to.
static void drop_copies(sora_registry *registry, const struct registry_gone *gone)
{
    for (int32_t i = 0; i < gone->count; i++) {
        registry_lock(registry);
        bool used = registry_map_find(&registry->table.blobs, gone->items[i].text) != NULL;
        registry_unlock(registry);
        if (!used)
            sora_store_drop_copy(registry->store, gone->items[i].text);
    }
}

// Pins of other servers hold here, too; the adapter comes in when it is first asked for.
static void follow_pins(sora_registry *registry, const struct sora_store_changes *changes)
{
    struct sora_registry_card card;
    struct sora_error err;
    char quoted[LOG_QUOTE_BYTES];
    for (int32_t i = 0; i < changes->name_count; i++) {
        const char *name = changes->names[i].text;
        registry_lock(registry);
        const struct registry_record *record = registry_table_find(&registry->table, name);
        bool differs = record && record->pinned != record->pin_asked;
        bool pinned = record && record->pin_asked;
        registry_unlock(registry);
        if (differs && change_pin(registry, name, pinned, true, &card, &err) != SORA_OK)
            log_warn("registry", "not_pinned", "adapter=%s error=%s", name,
                     log_quote(quoted, err.text));
    }
}

sora_status sora_registry_follow(sora_registry *registry, struct sora_error *err)
{
    struct sora_store_changes changes = {.revision = 0};
    struct registry_gone gone = {.count = 0};
    pthread_mutex_lock(&registry->change);
    sora_status status =
        sora_store_read_changes(registry->store, registry->revision, &changes, err);
    if (status == SORA_OK)
        status = follow_all(registry, &changes, &gone, err);
    if (status == SORA_OK)
        registry->revision = changes.revision;
    drop_copies(registry, &gone);
    pthread_mutex_unlock(&registry->change);
    if (status == SORA_OK)
        follow_pins(registry, &changes);
    free(gone.items);
    sora_store_changes_free(&changes);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// The registry: pins, loads and changes over a registry_table. Any thread may call. `mutex` covers
// the table and is held for pointer swaps only; `change` is held, around I/O, by the one caller
// that publishes, rolls back, removes or follows other servers, so that the store and the table
// change in one order.
#include "sora/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/registry_follow.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "sora/tenant.h"

struct sora_registry {
    sora_store *store; // borrowed
    struct sora_base base;
    char *base_name;
    pthread_mutex_t mutex, change;
    pthread_cond_t loaded; // some load has ended
    int64_t revision;      // of the shared catalog that the table knows; covered by `change`
    struct registry_table table;
    int64_t pin_count;
};

struct sora_pin {
    struct registry_record *record;
    struct registry_blob *blob;
    const sora_adapter *adapter;
    int32_t version;
};

static void lock(sora_registry *registry)
{
    pthread_mutex_lock(&registry->mutex);
}

// Unlocks, then frees what nothing uses any more; returns its bytes.
static size_t unlock(sora_registry *registry)
{
    struct registry_resident *doomed = registry_table_take_doomed(&registry->table);
    pthread_mutex_unlock(&registry->mutex);
    return registry_table_free_doomed(doomed);
}

static sora_status check_name(const sora_registry *registry, const char *name,
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
        status = check_name(registry, entries[i].name, err);
        if (status == SORA_OK)
            status = registry_table_apply(&registry->table, &entries[i], &record, &index, err);
    }
    free(entries);
    return status;
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
    pthread_mutex_init(&made->mutex, NULL);
    pthread_mutex_init(&made->change, NULL);
    pthread_cond_init(&made->loaded, NULL);
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

void sora_registry_destroy(sora_registry *registry)
{
    if (!registry)
        return;
    ASSERT(registry->pin_count == 0);
    registry_table_deinit(&registry->table);
    pthread_cond_destroy(&registry->loaded);
    pthread_mutex_destroy(&registry->change);
    pthread_mutex_destroy(&registry->mutex);
    free(registry->base_name);
    free(registry);
}

// --- loading ---

static sora_status parse_resident(const sora_registry *registry, const void *bytes,
                                  size_t byte_count, struct registry_resident **out,
                                  struct sora_error *err)
{
    *out = NULL;
    struct registry_resident *resident = calloc(1, sizeof *resident);
    if (!resident)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to load an adapter");
    sora_status status =
        sora_adapter_parse(bytes, byte_count, &registry->base, &resident->adapter, err);
    if (status != SORA_OK) {
        free(resident);
        return status;
    }
    *out = resident;
    return SORA_OK;
}

static sora_status read_resident(const sora_registry *registry, const char *digest,
                                 struct registry_resident **out, struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    *out = NULL;
    sora_status status = sora_store_read(registry->store, digest, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = parse_resident(registry, bytes, byte_count, out, err);
    free(bytes);
    return status;
}

static void release_load(struct registry_load *load)
{
    if (--load->refs == 0)
        free(load);
}

// Locked on entry and on return; unlocked while it waits.
static sora_status wait_for_load(sora_registry *registry, struct registry_load *load,
                                 struct sora_error *err)
{
    load->refs++;
    while (!load->done)
        pthread_cond_wait(&registry->loaded, &registry->mutex);
    sora_status status = load->status;
    if (status != SORA_OK && err)
        *err = load->err;
    release_load(load);
    return status;
}

// Locked on entry and on return; unlocked while it reads. The caller holds the blob.
static sora_status run_load(sora_registry *registry, struct registry_blob *blob,
                            struct sora_error *err)
{
    struct registry_resident *resident = NULL;
    struct registry_load *load = calloc(1, sizeof *load);
    if (!load)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to load an adapter");
    load->refs = 1;
    blob->load = load;
    pthread_mutex_unlock(&registry->mutex);
    int64_t start_us = clock_now_us();
    struct sora_error load_err = {SORA_OK, ""};
    sora_status status = read_resident(registry, blob->digest, &resident, &load_err);
    // A removal takes the file before the name: only between changes do store and table agree.
    bool between_changes = status == SORA_NOT_FOUND;
    if (between_changes) {
        pthread_mutex_lock(&registry->change);
        status = read_resident(registry, blob->digest, &resident, &load_err);
    }
    double load_ms = (double)(clock_now_us() - start_us) / 1000.0;
    lock(registry);
    if (between_changes)
        pthread_mutex_unlock(&registry->change);
    if (status == SORA_OK)
        registry_table_attach(&registry->table, blob, resident, load_ms);
    // Missing although a version still names it: the store's fault, not an unknown adapter; unless
    // another server has removed it and this one is about to hear so.
    if (status == SORA_NOT_FOUND && blob->refs > blob->pins &&
        !sora_store_is_shared(registry->store))
        status = sora_fail_within(&load_err, SORA_IO, "the store has lost the file");
    blob->load = NULL;
    load->status = status;
    load->err = load_err;
    load->done = true;
    pthread_cond_broadcast(&registry->loaded);
    release_load(load);
    if (status != SORA_OK && err)
        *err = load_err;
    return status;
}

// Brings a held blob into memory, by this thread or by the one that is already at it.
static sora_status make_resident(sora_registry *registry, struct registry_blob *blob,
                                 struct sora_error *err)
{
    sora_status status = SORA_OK;
    while (status == SORA_OK && !blob->resident)
        status =
            blob->load ? wait_for_load(registry, blob->load, err) : run_load(registry, blob, err);
    return status;
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
static sora_status resolve(const sora_registry *registry, const char *name, int32_t version,
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

// Locked on entry and on return.
static sora_status take_pin(sora_registry *registry, struct registry_record *record, int32_t index,
                            sora_pin *pin, struct sora_error *err)
{
    struct registry_blob *blob = record->versions[index].blob;
    int32_t version = record->versions[index].version;
    registry_table_hold(record, blob);
    sora_status status = make_resident(registry, blob, err);
    if (status != SORA_OK) {
        registry_table_release(&registry->table, record, blob);
        return status;
    }
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
    *pin = NULL;
    sora_status status = split_name(name, bare, &version, err);
    if (status != SORA_OK)
        return status;
    sora_pin *made = malloc(sizeof *made);
    if (!made)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to pin adapter \"%s\"", bare);
    lock(registry);
    status = resolve(registry, bare, version, &record, &index, err);
    if (status == SORA_OK) {
        status = take_pin(registry, record, index, made, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "adapter \"%s\"", bare);
    }
    unlock(registry);
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
    lock(registry);
    ASSERT(registry->pin_count > 0);
    registry->pin_count--;
    int32_t index = registry_table_find_version(pin->record, pin->version);
    pin->record->versions[index].in_flight--;
    registry_table_release(&registry->table, pin->record, pin->blob);
    unlock(registry);
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

// --- changes ---

// The change is in the store; brings the table after it. resident may be NULL.
static sora_status apply(sora_registry *registry, const struct sora_store_entry *entry,
                         struct registry_resident *resident, double load_ms,
                         struct sora_registry_card *card, struct sora_error *err)
{
    struct registry_record *record;
    int32_t index;
    lock(registry);
    sora_status status = registry_table_apply(&registry->table, entry, &record, &index, err);
    if (status == SORA_OK && resident) {
        registry_table_attach(&registry->table, record->versions[index].blob, resident, load_ms);
        resident = NULL;
    }
    if (status == SORA_OK)
        registry_table_fill_card(record, index, card);
    unlock(registry);
    registry_table_free_doomed(resident);
    return status;
}

sora_status sora_registry_publish(sora_registry *registry, const char *name, const void *bytes,
                                  size_t byte_count, const char *if_match, bool activate,
                                  struct sora_registry_card *card, bool *created,
                                  struct sora_error *err)
{
    struct registry_resident *resident = NULL;
    struct sora_store_entry entry;
    *created = false;
    memset(card, 0, sizeof *card);
    sora_status status = check_name(registry, name, err);
    if (status != SORA_OK)
        return status;
    int64_t start_us = clock_now_us();
    status = parse_resident(registry, bytes, byte_count, &resident, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "adapter \"%s\"", name);
    double load_ms = (double)(clock_now_us() - start_us) / 1000.0;
    const char *digest = sora_adapter_get_info(resident->adapter)->digest;
    pthread_mutex_lock(&registry->change);
    status = sora_store_put(registry->store, name, bytes, byte_count, digest, if_match, activate,
                            &entry, created, err);
    if (status == SORA_OK)
        status = apply(registry, &entry, resident, load_ms, card, err);
    else
        registry_table_free_doomed(resident);
    pthread_mutex_unlock(&registry->change);
    return status;
}

sora_status sora_registry_rollback(sora_registry *registry, const char *name, int32_t version,
                                   struct sora_registry_card *card, struct sora_error *err)
{
    struct sora_store_entry entry;
    memset(card, 0, sizeof *card);
    pthread_mutex_lock(&registry->change);
    sora_status status = sora_store_activate(registry->store, name, version, &entry, err);
    if (status == SORA_OK)
        status = apply(registry, &entry, NULL, 0.0, card, err);
    pthread_mutex_unlock(&registry->change);
    return status;
}

sora_status sora_registry_remove(sora_registry *registry, const char *name, size_t *freed_bytes,
                                 struct sora_error *err)
{
    *freed_bytes = 0;
    pthread_mutex_lock(&registry->change);
    sora_status status = sora_store_remove(registry->store, name, freed_bytes, err);
    if (status == SORA_OK) {
        lock(registry);
        struct registry_record *record = registry_table_find(&registry->table, name);
        if (record)
            registry_table_remove(&registry->table, record);
        *freed_bytes += unlock(registry);
    }
    pthread_mutex_unlock(&registry->change);
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
    if (entry_count > 0 && check_name(registry, name, &why) != SORA_OK) {
        log_warn("registry", "left_out", "why=%s", log_quote(quoted, why.text));
        return SORA_OK;
    }
    lock(registry);
    sora_status status =
        registry_follow_name(&registry->table, name, entries, entry_count, gone, err);
    unlock(registry);
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
        lock(registry);
        status = registry_follow_others(&registry->table, changes, &others, &other_count, err);
        unlock(registry);
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
        lock(registry);
        bool used = registry_map_find(&registry->table.blobs, gone->items[i].text) != NULL;
        unlock(registry);
        if (!used)
            sora_store_drop_copy(registry->store, gone->items[i].text);
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
    free(gone.items);
    sora_store_changes_free(&changes);
    return status;
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
    lock(registry);
    const struct registry_map *records = &registry->table.records;
    *cards = calloc(records->count + 1, sizeof **cards);
    for (size_t i = 0; *cards && i < records->capacity; i++) {
        const struct registry_record *record = records->slots[i].value;
        if (record && record->active >= 0)
            registry_table_fill_card(record, record->active, &(*cards)[(*card_count)++]);
    }
    unlock(registry);
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
    lock(registry);
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
    unlock(registry);
    return status;
}

bool sora_registry_has(sora_registry *registry, const char *name)
{
    lock(registry);
    bool found = registry_table_find(&registry->table, name) != NULL;
    unlock(registry);
    return found;
}

struct sora_registry_stats sora_registry_get_stats(sora_registry *registry)
{
    lock(registry);
    const struct registry_table *table = &registry->table;
    struct sora_registry_stats stats = {
        .registered = (int32_t)table->records.count,
        .resident = table->counts.resident,
        .resident_bytes = table->counts.resident_bytes,
        .loads = table->counts.loads,
        .evictions = table->counts.evictions,
        .load_seconds = table->counts.load_seconds,
    };
    unlock(registry);
    return stats;
}

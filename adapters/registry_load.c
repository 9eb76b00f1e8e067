// SPDX-License-Identifier: Apache-2.0
// Bringing adapters into memory. The thread that first asks for an adapter maps, checks and packs
// its file; those who ask meanwhile wait for that one load. Room is given in the order of asking:
// idle adapters leave for it, and when requests use all there is, the first in the row waits for
// them. Requests that come later for adapters in memory pass by, but not for ever: after a while
// those for the adapters that have been in use longest queue behind, so that the row moves on.
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_load.h"
#include "adapters/registry_internal.h"
#include "base/assert.h"
#include "base/clock.h"

struct mapped {
    const uint8_t *bytes;
    size_t byte_count;
};

sora_status registry_parse(const sora_registry *registry, const void *bytes, size_t byte_count,
                           const char *digest, struct registry_resident **out,
                           struct sora_error *err)
{
    *out = NULL;
    struct registry_resident *resident = calloc(1, sizeof *resident);
    if (!resident)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to load an adapter");
    sora_status status = adapter_parse_known(bytes, byte_count, &registry->base, digest,
                                             registry->options.int8, &resident->adapter, err);
    if (status != SORA_OK) {
        free(resident);
        return status;
    }
    *out = resident;
    return SORA_OK;
}

// --- waiting ---

// Bounds the threads that wait while all memory is in use.
static sora_status check_row(const sora_registry *registry, struct sora_error *err)
{
    if (!registry->starved || registry->waiting < SORA_ADAPTER_WAITERS_MAX)
        return SORA_OK;
    return sora_fail(err, SORA_BUSY,
                     "running requests use all of the %zu bytes for adapters, and %d requests wait "
                     "for room already: try again later",
                     registry->options.bytes_max, (int)registry->waiting);
}

// Sleeps until something moved or until_us; false: the time is over.
static bool sleep_until(sora_registry *registry, int64_t until_us)
{
    int64_t left_us = until_us - clock_now_us();
    if (left_us <= 0)
        return false;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + left_us % 1000000 * 1000;
    until.tv_sec += (time_t)(left_us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    registry->waiting++;
    (void)pthread_cond_timedwait(&registry->moved, &registry->mutex, &until);
    registry->waiting--;
    return true;
}

static void join_row(sora_registry *registry, struct registry_ticket *ticket)
{
    ticket->next = NULL;
    *(registry->last ? &registry->last->next : &registry->first) = ticket;
    registry->last = ticket;
}

static void leave_row(sora_registry *registry, struct registry_ticket *ticket)
{
    struct registry_ticket *before = NULL;
    for (struct registry_ticket *at = registry->first; at != ticket; at = at->next)
        before = at;
    if (!before) { // what the first one asked for is over
        registry->starved = false;
        registry_memory_forget_yields(&registry->table.memory);
    }
    *(before ? &before->next : &registry->first) = ticket->next;
    if (registry->last == ticket)
        registry->last = before;
    registry_moved(registry);
}

sora_status registry_wait_turn(sora_registry *registry, int64_t until_us, struct sora_error *err)
{
    struct registry_ticket ticket;
    sora_status status = check_row(registry, err);
    if (status != SORA_OK)
        return status;
    join_row(registry, &ticket);
    while (registry->first != &ticket && sleep_until(registry, until_us))
        continue;
    bool came = registry->first == &ticket;
    leave_row(registry, &ticket);
    return came ? SORA_OK
                : sora_fail(err, SORA_BUSY,
                            "others waited for room among the %zu bytes for adapters until the "
                            "time was over: try again later",
                            registry->options.bytes_max);
}

// --- room ---

sora_status registry_check_fits(const sora_registry *registry, size_t packed_bytes,
                                const struct registry_blob *blob, struct sora_error *err)
{
    const struct registry_memory *memory = &registry->table.memory;
    if (memory->bytes_max == 0)
        return SORA_OK;
    if (packed_bytes > memory->bytes_max)
        return sora_fail(err, SORA_LIMIT,
                         "takes %zu bytes in memory, more than the %zu there are for adapters "
                         "(--adapter-memory)",
                         packed_bytes, memory->bytes_max);
    size_t pinned = registry_memory_pinned(memory, blob, NULL);
    if (pinned >= memory->bytes_max || packed_bytes > memory->bytes_max - pinned)
        return sora_fail(err, SORA_LIMIT,
                         "takes %zu bytes in memory, but of the %zu there are for adapters "
                         "(--adapter-memory) %zu belong to pinned ones",
                         packed_bytes, memory->bytes_max, pinned);
    return SORA_OK;
}

// Takes room and a place among those who pack, if both are there.
static bool try_room(sora_registry *registry, size_t bytes)
{
    struct registry_memory *memory = &registry->table.memory;
    if (registry->packing >= SORA_ADAPTER_PACKERS_MAX)
        return false;
    registry->starved = !registry_memory_make_room(memory, bytes);
    if (registry->starved)
        return false;
    memory->reserved_bytes += bytes;
    registry->packing++;
    return true;
}

// The first in the row looks for room, and after a while has others wait behind it.
static bool look_for_room(sora_registry *registry, size_t bytes, int64_t patient_until_us)
{
    if (try_room(registry, bytes))
        return true;
    if (registry->starved && clock_now_us() >= patient_until_us)
        registry_memory_ask_to_yield(&registry->table.memory, bytes);
    return false;
}

static sora_status no_room(const sora_registry *registry, size_t bytes, struct sora_error *err)
{
    const struct registry_memory *memory = &registry->table.memory;
    return sora_fail(err, SORA_BUSY,
                     "needs %zu bytes, but running requests and pinned adapters held %zu of the "
                     "%zu for adapters until the time was over: try again later",
                     bytes, memory->bytes - memory->idle_bytes, memory->bytes_max);
}

// Locked on entry and on return. On SORA_OK give_back_room must follow.
static sora_status take_room(sora_registry *registry, const struct registry_blob *blob,
                             int64_t until_us, struct sora_error *err)
{
    struct registry_ticket ticket;
    size_t bytes = blob->packed_bytes;
    int64_t patient_until_us = clock_now_us() + registry->options.patience_us;
    sora_status status = check_row(registry, err);
    if (status == SORA_OK)
        status = registry_check_fits(registry, bytes, blob, err);
    if (status != SORA_OK)
        return status;
    join_row(registry, &ticket);
    for (;;) {
        bool first = registry->first == &ticket;
        if (first && look_for_room(registry, bytes, patient_until_us))
            break;
        status = registry_check_fits(registry, bytes, blob, err); // pins may have come
        if (status != SORA_OK)
            break;
        bool patient = first && clock_now_us() < patient_until_us && patient_until_us < until_us;
        if (!sleep_until(registry, patient ? patient_until_us : until_us) && !patient) {
            status = no_room(registry, bytes, err);
            break;
        }
    }
    leave_row(registry, &ticket);
    return status;
}

static void give_back_room(sora_registry *registry, size_t bytes)
{
    registry->table.memory.reserved_bytes -= bytes;
    registry->packing--;
    registry_moved(registry);
}

// --- loading ---

// A removal takes the file before the name: only between changes do store and table agree. A file
// that is missing although a version still names it is the store's fault, not an unknown adapter;
// unless another server has removed it and this one is about to hear so.
static sora_status map_between_changes(sora_registry *registry, const struct registry_blob *blob,
                                       struct mapped *file, struct sora_error *err)
{
    pthread_mutex_lock(&registry->change);
    sora_status status =
        sora_store_map(registry->store, blob->digest, &file->bytes, &file->byte_count, err);
    registry_lock(registry);
    bool named = blob->refs > blob->pins;
    registry_unlock(registry);
    pthread_mutex_unlock(&registry->change);
    if (status == SORA_NOT_FOUND && named && !sora_store_is_shared(registry->store))
        return sora_fail_within(err, SORA_IO, "the store has lost the file");
    return status;
}

// Unlocked. Maps and measures; the file is whole, as its digest says.
static sora_status map_file(sora_registry *registry, const struct registry_blob *blob,
                            struct mapped *file, size_t *packed_bytes, struct sora_error *err)
{
    sora_status status =
        sora_store_map(registry->store, blob->digest, &file->bytes, &file->byte_count, err);
    if (status == SORA_NOT_FOUND)
        status = map_between_changes(registry, blob, file, err);
    if (status == SORA_OK)
        status = adapter_measure(file->bytes, file->byte_count, &registry->base,
                                 registry->options.int8, packed_bytes, err);
    return status;
}

// Locked on entry and on return; unlocked while it reads, waits and packs.
static sora_status load(sora_registry *registry, struct registry_blob *blob, int64_t until_us,
                        struct sora_error *err)
{
    struct mapped file = {NULL, 0};
    struct registry_resident *resident = NULL;
    size_t packed_bytes = 0;
    registry_unlock(registry);
    int64_t read_us = clock_now_us();
    sora_status status = map_file(registry, blob, &file, &packed_bytes, err);
    int64_t elapsed_us = clock_now_us() - read_us;
    registry_lock(registry);
    if (status == SORA_OK)
        registry_memory_measured(&registry->table.memory, blob, packed_bytes);
    if (status == SORA_OK)
        status = take_room(registry, blob, until_us, err);
    if (status == SORA_OK) {
        registry_unlock(registry); // frees what left
        int64_t pack_us = clock_now_us();
        status =
            registry_parse(registry, file.bytes, file.byte_count, blob->digest, &resident, err);
        elapsed_us += clock_now_us() - pack_us;
        if (status == SORA_OK && registry->options.loaded)
            registry->options.loaded(registry->options.context, elapsed_us);
        registry_lock(registry);
        give_back_room(registry, blob->packed_bytes);
    }
    if (status == SORA_OK)
        registry_memory_attach(&registry->table.memory, blob, resident,
                               (double)elapsed_us / 1000.0);
    sora_store_unmap(file.bytes, file.byte_count);
    return status;
}

static void release_load(struct registry_load *load)
{
    if (--load->refs == 0)
        free(load);
}

// Locked on entry and on return; unlocked while it waits. SORA_BUSY only when the own time is over.
static sora_status wait_for_load(sora_registry *registry, struct registry_load *loading,
                                 int64_t until_us, struct sora_error *err)
{
    sora_status status = check_row(registry, err);
    if (status != SORA_OK)
        return status;
    loading->refs++;
    while (!loading->done && sleep_until(registry, until_us))
        continue;
    if (!loading->done)
        status = sora_fail(err, SORA_BUSY,
                           "another request's load found no room until the time was over: try "
                           "again later");
    else if (loading->status != SORA_BUSY)
        status = loading->status; // what it waited for is this one's to wait for now
    if (loading->done && status != SORA_OK && err)
        *err = loading->err;
    release_load(loading);
    return status;
}

// Locked on entry and on return. The caller holds the blob.
static sora_status run_load(sora_registry *registry, struct registry_blob *blob, int64_t until_us,
                            struct sora_error *err)
{
    struct registry_load *loading = calloc(1, sizeof *loading);
    if (!loading)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to load an adapter");
    loading->refs = 1;
    blob->load = loading;
    sora_status status = load(registry, blob, until_us, &loading->err);
    blob->load = NULL;
    loading->status = status;
    loading->done = true;
    registry_moved(registry);
    if (status != SORA_OK && err)
        *err = loading->err;
    release_load(loading);
    return status;
}

sora_status registry_make_resident(sora_registry *registry, struct registry_blob *blob,
                                   int64_t until_us, struct sora_error *err)
{
    sora_status status = SORA_OK;
    while (status == SORA_OK && !blob->resident)
        status = blob->load ? wait_for_load(registry, blob->load, until_us, err)
                            : run_load(registry, blob, until_us, err);
    return status;
}

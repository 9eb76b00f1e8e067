// SPDX-License-Identifier: Apache-2.0
// See registry_memory.h. Two lists: who may leave, in the order of leaving, and who may not.
#include "adapters/registry_memory.h"

#include "base/assert.h"

static void list_append(struct registry_blobs *list, struct registry_blob *blob)
{
    blob->list = list;
    blob->after = NULL;
    blob->before = list->last;
    *(list->last ? &list->last->after : &list->first) = blob;
    list->last = blob;
}

static void list_remove(struct registry_blob *blob)
{
    struct registry_blobs *list = blob->list;
    *(blob->before ? &blob->before->after : &list->first) = blob->after;
    *(blob->after ? &blob->after->before : &list->last) = blob->before;
    blob->list = NULL;
}

// Moves the blob to the end of a list, NULL for none.
static void move_to(struct registry_memory *memory, struct registry_blob *blob,
                    struct registry_blobs *list)
{
    if (blob->list == &memory->idle)
        memory->idle_bytes -= blob->packed_bytes;
    if (blob->list)
        list_remove(blob);
    if (list)
        list_append(list, blob);
    if (list == &memory->idle)
        memory->idle_bytes += blob->packed_bytes;
}

void registry_memory_doom(struct registry_memory *memory, struct registry_resident *resident)
{
    resident->next = memory->doomed;
    memory->doomed = resident;
}

static void forget_yield(struct registry_memory *memory, struct registry_blob *blob)
{
    memory->yielding -= blob->yields;
    blob->yields = false;
}

static void drop(struct registry_memory *memory, struct registry_blob *blob)
{
    move_to(memory, blob, NULL);
    forget_yield(memory, blob);
    memory->resident--;
    memory->bytes -= blob->packed_bytes;
    memory->evictions++;
    registry_memory_doom(memory, blob->resident);
    blob->resident = NULL;
    blob->leaves = false;
}

void registry_memory_settle(struct registry_memory *memory, struct registry_blob *blob)
{
    if (!blob->resident)
        return;
    bool stays = blob->pins > 0 || blob->orders > 0;
    bool wanted = (blob->actives > 0 || blob->asked) && !blob->leaves;
    if (!stays && !wanted)
        drop(memory, blob);
    else if (!stays)
        move_to(memory, blob, &memory->idle);
    else if (blob->list != &memory->busy)
        move_to(memory, blob, &memory->busy);
}

void registry_memory_measured(struct registry_memory *memory, struct registry_blob *blob,
                              size_t packed_bytes)
{
    if (blob->packed_bytes > 0)
        return;
    blob->packed_bytes = packed_bytes;
    if (blob->orders > 0)
        memory->pinned_bytes += packed_bytes;
}

void registry_memory_attach(struct registry_memory *memory, struct registry_blob *blob,
                            struct registry_resident *resident, double load_ms)
{
    size_t packed_bytes = sora_adapter_get_info(resident->adapter)->packed_bytes;
    memory->loads++;
    memory->load_seconds += load_ms / 1000.0;
    blob->load_ms = load_ms;
    registry_memory_measured(memory, blob, packed_bytes);
    ASSERT(blob->packed_bytes == packed_bytes);
    if (blob->resident) {
        registry_memory_doom(memory, resident);
        return;
    }
    blob->resident = resident;
    memory->resident++;
    memory->bytes += packed_bytes;
    registry_memory_settle(memory, blob);
}

void registry_memory_order(struct registry_memory *memory, struct registry_blob *blob, bool more)
{
    bool before = blob->orders > 0;
    ASSERT(more || before);
    blob->orders += more ? 1 : -1;
    blob->leaves = blob->leaves && !more;
    bool after = blob->orders > 0;
    if (after && !before)
        memory->pinned_bytes += blob->packed_bytes;
    if (before && !after)
        memory->pinned_bytes -= blob->packed_bytes;
    registry_memory_settle(memory, blob);
}

size_t registry_memory_pinned(const struct registry_memory *memory,
                              const struct registry_blob *less, const struct registry_blob *more)
{
    size_t bytes = memory->pinned_bytes;
    if (less == more)
        return bytes;
    if (less && less->orders == 1)
        bytes -= less->packed_bytes;
    if (more && more->orders == 0)
        bytes += more->packed_bytes;
    return bytes;
}

bool registry_memory_has_room(const struct registry_memory *memory, size_t bytes)
{
    return memory->bytes_max == 0 ||
           memory->bytes + memory->reserved_bytes + bytes <= memory->bytes_max;
}

bool registry_memory_make_room(struct registry_memory *memory, size_t bytes)
{
    size_t kept = memory->bytes - memory->idle_bytes + memory->reserved_bytes;
    if (memory->bytes_max > 0 && kept + bytes > memory->bytes_max)
        return false;
    while (!registry_memory_has_room(memory, bytes)) {
        ASSERT(memory->idle.first);
        drop(memory, memory->idle.first);
    }
    return true;
}

void registry_memory_ask_to_yield(struct registry_memory *memory, size_t bytes)
{
    size_t kept = memory->bytes - memory->idle_bytes + memory->reserved_bytes;
    for (struct registry_blob *blob = memory->busy.first; blob; blob = blob->after) {
        if (kept + bytes <= memory->bytes_max)
            return;
        if (blob->orders > 0)
            continue;
        kept -= blob->packed_bytes;
        memory->yielding += !blob->yields;
        blob->yields = true;
    }
}

static void forget_in(struct registry_memory *memory, struct registry_blobs *list)
{
    for (struct registry_blob *blob = list->first; blob && memory->yielding > 0; blob = blob->after)
        forget_yield(memory, blob);
}

void registry_memory_forget_yields(struct registry_memory *memory)
{
    forget_in(memory, &memory->busy);
    forget_in(memory, &memory->idle);
    ASSERT(memory->yielding == 0);
}

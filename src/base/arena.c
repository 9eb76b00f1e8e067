// SPDX-License-Identifier: Apache-2.0
// Arena memory in chunks, checked size arithmetic, and the guard that finds allocations inside a
// step. An arena has one owner at a time; the guard is per thread.
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define CHUNK_BYTES ((size_t)64 << 10)
#define ALIGNMENT 64u

// The payload starts ALIGNMENT bytes after the chunk.
struct arena_chunk {
    struct arena_chunk *next;
    size_t capacity, used;
};
_Static_assert(sizeof(struct arena_chunk) <= ALIGNMENT, "the header fits before the payload");

static _Thread_local int guard_depth;

void alloc_guard_enter(void)
{
    ++guard_depth;
}

void alloc_guard_leave(void)
{
    ASSERT(guard_depth > 0);
    --guard_depth;
}

bool alloc_guard_active(void)
{
    return guard_depth > 0;
}

bool checked_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool checked_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

// Bytes rounded up to whole cache lines, at least one; false on overflow.
static bool round_up(size_t bytes, size_t *out)
{
    if (!checked_add(bytes > 0 ? bytes : 1, ALIGNMENT - 1, out))
        return false;
    *out &= ~(size_t)(ALIGNMENT - 1);
    return true;
}

void *aligned_calloc(size_t count, size_t item_bytes)
{
    ASSERT(!alloc_guard_active());
    size_t bytes, rounded;
    if (!checked_mul(count, item_bytes, &bytes) || !round_up(bytes, &rounded))
        return NULL;
    void *memory = aligned_alloc(ALIGNMENT, rounded);
    if (memory != NULL)
        memset(memory, 0, rounded);
    return memory;
}

void arena_init(struct arena *arena, size_t bytes_max)
{
    *arena = (struct arena){.bytes_max = bytes_max};
}

void arena_deinit(struct arena *arena)
{
    while (arena->chunks != NULL) {
        struct arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->bytes_used = 0;
}

// A new chunk for `bytes`. A big one goes behind the head, which keeps its free rest in use.
static struct arena_chunk *chunk_add(struct arena *arena, size_t bytes)
{
    size_t capacity, total;
    if (!round_up(bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES, &capacity) ||
        !checked_add(capacity, ALIGNMENT, &total))
        return NULL;
    struct arena_chunk *chunk = aligned_calloc(1, total);
    if (chunk == NULL)
        return NULL;
    chunk->capacity = capacity;
    if (arena->chunks != NULL && capacity != CHUNK_BYTES) {
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
    } else {
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    return chunk;
}

static void *take(struct arena *arena, size_t bytes, size_t alignment)
{
    ASSERT(!alloc_guard_active());
    size_t used;
    if (!checked_add(arena->bytes_used, bytes, &used) || used > arena->bytes_max)
        return NULL;
    struct arena_chunk *chunk = arena->chunks;
    size_t start = 0;
    if (chunk != NULL)
        start = (chunk->used + alignment - 1) & ~(alignment - 1);
    // Zero bytes still get an address inside a chunk, hence "<".
    if (chunk == NULL || start >= chunk->capacity || chunk->capacity - start < bytes) {
        chunk = chunk_add(arena, bytes);
        start = 0;
    }
    if (chunk == NULL)
        return NULL;
    chunk->used = start + bytes;
    arena->bytes_used = used;
    return (char *)chunk + ALIGNMENT + start;
}

void *arena_alloc(struct arena *arena, size_t count, size_t item_bytes)
{
    size_t bytes;
    return checked_mul(count, item_bytes, &bytes) ? take(arena, bytes, ALIGNMENT) : NULL;
}

char *arena_strdup(struct arena *arena, const char *text, size_t bytes)
{
    size_t total;
    if (!checked_add(bytes, 1, &total))
        return NULL;
    char *copy = take(arena, total, 1);
    if (copy == NULL)
        return NULL;
    if (bytes > 0)
        memcpy(copy, text, bytes);
    copy[bytes] = 0;
    return copy;
}

// SPDX-License-Identifier: Apache-2.0
// One allocation family with one lifetime: allocate many, free all at once. Not thread-safe; the
// owner of the arena owns all that is in it.
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena_chunk;
struct arena {
    struct arena_chunk *chunks;
    size_t bytes_used, bytes_max;
};

// bytes_max: hard bound on the sum of all allocations.
void arena_init(struct arena *arena, size_t bytes_max);
void arena_deinit(struct arena *arena);
// Zeroed, 64-byte aligned; NULL when out of memory or over the bound.
void *arena_alloc(struct arena *arena, size_t count, size_t item_bytes);
char *arena_strdup(struct arena *arena, const char *text, size_t bytes);

// a * b into *out; false on overflow. For products of sizes that a file supplies.
bool checked_mul(size_t a, size_t b, size_t *out);
bool checked_add(size_t a, size_t b, size_t *out);

// 64-byte aligned heap memory, zeroed; NULL when out of memory. Freed with free().
void *aligned_calloc(size_t count, size_t item_bytes);

// Guard for "no allocation inside a step": between enter and leave, an allocation through this
// header by this thread aborts. Nests.
void alloc_guard_enter(void);
void alloc_guard_leave(void);
bool alloc_guard_active(void);

#endif

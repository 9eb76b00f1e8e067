// SPDX-License-Identifier: Apache-2.0
// See pages.h.
#include "base/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/arena.h"
#include "base/assert.h"

#define LARGE_PAGE_BYTES ((size_t)2 << 20)
#define CHUNK_BYTES ((size_t)64 << 20) // of addresses: untouched ones take no memory
#define ALIGNMENT ((size_t)64)

// Its memory begins ALIGNMENT bytes after it.
struct pages_chunk {
    struct pages_chunk *next;
    size_t bytes, used; // of all, the header with it
};
_Static_assert(sizeof(struct pages_chunk) <= ALIGNMENT, "the header fits before the memory");

void *pages_map(size_t bytes)
{
    ASSERT(!alloc_guard_active());
    if (bytes < LARGE_PAGE_BYTES)
        return aligned_calloc(bytes, 1);
    size_t mapped;
    if (!checked_add(bytes, LARGE_PAGE_BYTES, &mapped))
        return NULL;
    uint8_t *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    // What lies outside goes back; the ends of the mapping are whole pages.
    const uintptr_t page = 4096, first = (uintptr_t)memory;
    const uintptr_t start = (first + LARGE_PAGE_BYTES - 1) & ~(uintptr_t)(LARGE_PAGE_BYTES - 1);
    const uintptr_t end = (start + bytes + page - 1) & ~(page - 1);
    const uintptr_t mapped_end = (first + mapped + page - 1) & ~(page - 1);
    if (start > first)
        munmap(memory, start - first);
    if (mapped_end > end)
        munmap((void *)end, mapped_end - end);
    (void)madvise((void *)start, end - start, MADV_HUGEPAGE);
    return (void *)start;
}

void pages_unmap(void *memory, size_t bytes)
{
    if (bytes < LARGE_PAGE_BYTES)
        free(memory);
    else if (memory != NULL)
        munmap(memory, bytes);
}

static struct pages_chunk *chunk_with(struct pages_pool *pool, size_t bytes)
{
    struct pages_chunk *chunk = pool->chunks;
    if (chunk != NULL && chunk->bytes - chunk->used >= bytes)
        return chunk;
    size_t wanted;
    if (!checked_add(bytes, ALIGNMENT, &wanted))
        return NULL;
    if (wanted < CHUNK_BYTES)
        wanted = CHUNK_BYTES;
    chunk = pages_map(wanted);
    if (chunk == NULL)
        return NULL;
    *chunk = (struct pages_chunk){.next = pool->chunks, .bytes = wanted, .used = ALIGNMENT};
    pool->chunks = chunk;
    return chunk;
}

void *pages_pool_take(struct pages_pool *pool, size_t bytes)
{
    size_t rounded;
    if (!checked_add(bytes, ALIGNMENT - 1, &rounded))
        return NULL;
    rounded &= ~(ALIGNMENT - 1);
    struct pages_chunk *chunk = chunk_with(pool, rounded);
    if (chunk == NULL)
        return NULL;
    void *taken = (uint8_t *)chunk + chunk->used;
    chunk->used += rounded;
    return taken;
}

void pages_pool_deinit(struct pages_pool *pool)
{
    while (pool->chunks != NULL) {
        struct pages_chunk *next = pool->chunks->next;
        pages_unmap(pool->chunks, pool->chunks->bytes);
        pool->chunks = next;
    }
}

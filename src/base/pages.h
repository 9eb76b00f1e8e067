// SPDX-License-Identifier: Apache-2.0
// Memory in large pages, for what is read from end to end again and again: weights, adapters, keys
// and values. Small pages would cost an address translation, in a virtual machine a slow one, for
// every 4 KB. Zeroed, and only what is touched takes memory. Where the kernel refuses large pages
// nothing changes but time. A pool has one owner at a time.
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

// Aligned to 2 MB, below that size a piece of the heap aligned to 64 bytes; NULL: out of memory.
void *pages_map(size_t bytes);
void pages_unmap(void *memory, size_t bytes); // the size that was asked for; accepts NULL

// Pieces that live and end together, side by side in large pages.
struct pages_pool {
    struct pages_chunk *chunks;
};

void *pages_pool_take(struct pages_pool *pool, size_t bytes); // 64-byte aligned; NULL: no memory
void pages_pool_deinit(struct pages_pool *pool);

#endif

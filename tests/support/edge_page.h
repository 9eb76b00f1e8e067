// SPDX-License-Identifier: Apache-2.0
// Memory that ends at an unmapped page: a read or write one byte behind it kills the test.
#ifndef SUPPORT_EDGE_PAGE_H
#define SUPPORT_EDGE_PAGE_H

#include <stddef.h>

struct edge_page {
    void *data; // `bytes` bytes, zeroed, the last one beside the unmapped page
    size_t bytes;
    void *map;
    size_t map_bytes;
};

// Fails the running cmocka test when the system has no memory.
void edge_page_init(struct edge_page *page, size_t bytes);
// The same, filled with a copy.
void edge_page_copy(struct edge_page *page, const void *data, size_t bytes);
void edge_page_deinit(struct edge_page *page);

#endif

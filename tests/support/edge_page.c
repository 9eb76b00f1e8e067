// SPDX-License-Identifier: Apache-2.0
// Memory beside an unmapped page, for tests.
#include "edge_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
// cmocka.h needs the ones above.
#include <cmocka.h>

void edge_page_init(struct edge_page *page, size_t bytes)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t whole = (bytes + page_bytes - 1) / page_bytes * page_bytes;
    page->map_bytes = whole + page_bytes;
    page->map =
        mmap(NULL, page->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page->map == MAP_FAILED)
        fail_msg("no memory for %zu bytes", bytes);
    if (mprotect((char *)page->map + whole, page_bytes, PROT_NONE) != 0)
        fail_msg("the page behind %zu bytes cannot be closed", bytes);
    page->data = (char *)page->map + whole - bytes;
    page->bytes = bytes;
}

void edge_page_copy(struct edge_page *page, const void *data, size_t bytes)
{
    edge_page_init(page, bytes);
    if (bytes > 0)
        memcpy(page->data, data, bytes);
}

void edge_page_deinit(struct edge_page *page)
{
    munmap(page->map, page->map_bytes);
    *page = (struct edge_page){0};
}

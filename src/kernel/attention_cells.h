// SPDX-License-Identifier: Apache-2.0
// Where attention's bodies find a kv head's keys and values, and what they ask for ahead. Included
// by attention_body.h and attention_i16_body.h only.
#ifndef KERNEL_ATTENTION_CELLS_H
#define KERNEL_ATTENTION_CELLS_H

#include "kernel/dtype.h"
#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"

#define BLOCK_VECS (SORA_KV_BLOCK_TOKENS / VEC_LANES)

// The positions [first, end) of the chunk that its row sees.
LANES_FN void seen_positions(const struct attention_chunk *work, int32_t *first, int32_t *end)
{
    const int32_t start = attention_start(work->shape, work->row->pos), pos = work->row->pos;
    *first = start > work->first ? start : work->first;
    *end = pos + 1 < work->end ? pos + 1 : work->end;
}

// Where one kv head's part of a block begins, in elements.
LANES_FN size_t head_offset(enum sora_dtype dtype, const struct attention_chunk *work,
                            int32_t block, int32_t kv_head)
{
    return (size_t)block * work->cache->block_stride +
           (size_t)kv_head * attention_head_elements(dtype, work->shape->head_dim);
}

LANES_FN const uint8_t *head_cells(enum sora_dtype dtype, const struct attention_chunk *work,
                                   const void *cells, int32_t block, int32_t kv_head)
{
    return (const uint8_t *)cells + head_offset(dtype, work, block, kv_head) * dtype_bytes(dtype);
}

LANES_FN void prefetch_block(enum sora_dtype dtype, const struct attention_chunk *work,
                             const void *cells, int32_t block)
{
    const uint8_t *from = head_cells(dtype, work, cells, block, work->kv_head);
    const size_t bytes = attention_head_elements(dtype, work->shape->head_dim) * dtype_bytes(dtype);
    for (size_t line = 0; line < bytes; line += 64)
        __builtin_prefetch(from + line, 0, 3);
}

// Where what comes next has the cells that are read with block `number` of the row: a line of them
// is asked for with each line here, since many at once would hold up the loads. Or this block.
LANES_FN const uint8_t *next_cells(enum sora_dtype dtype, const struct attention_chunk *work,
                                   const void *cells, int32_t number, int32_t first)
{
    const int32_t i = number - first / SORA_KV_BLOCK_TOKENS;
    if (i < work->next_count)
        return head_cells(dtype, work, cells, work->next_blocks[i], work->next_kv_head);
    return head_cells(dtype, work, cells, work->row->blocks[number], work->kv_head);
}

#endif

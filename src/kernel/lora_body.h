// SPDX-License-Identifier: Apache-2.0
// The bodies of lora_shrink and lora_expand, compiled once per instruction set by lora_matmul.c
// and lora_matmul_avx2.c, which define LORA_SUFFIX.
// A dot product over d_in runs in 16 lanes (two vectors of 8): lane l sums k = l, l + 16, ... by
// fused multiply-adds, a ragged end is filled with zeros, then the lanes are summed in the order of
// vec_sum_of_16. How many ranks or rows are done side by side
// has no part in it.
#ifndef KERNEL_LORA_BODY_H
#define KERNEL_LORA_BODY_H

#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"

#define LORA_DOT_VALUES (2 * VEC_LANES)
_Static_assert(SORA_LORA_I8_COLUMNS == 4 * VEC_LANES, "a tile of an I8 module's columns");

#define LORA_PASTE_AGAIN(name, suffix) name##_##suffix
#define LORA_PASTE(name, suffix) LORA_PASTE_AGAIN(name, suffix)

// Adds the products of k .. k + 15 (or as many as there are) to acc [ranks][rows][2].
LANES_FN void dot_step(enum sora_dtype dtype, int ranks, int rows, const void *a, size_t a_first,
                       size_t d_in, const float *const *x, size_t k, int32_t left, vec *acc)
{
    LANES_UNROLL(2)
    for (int half = 0; half < 2; half++) {
        int32_t count = left - half * VEC_LANES;
        size_t at = k + (size_t)(half * VEC_LANES);
        if (count <= 0)
            return;
        vec each[2];
        LANES_UNROLL(2)
        for (int i = 0; i < rows; i++)
            each[i] = vec_load_part(x[i] + at, count);
        LANES_UNROLL(4)
        for (int r = 0; r < ranks; r++) {
            vec w = vec_load_part_as(dtype, a, a_first + (size_t)r * d_in + at, count);
            LANES_UNROLL(2)
            for (int i = 0; i < rows; i++) {
                vec *to = &acc[(r * rows + i) * 2 + half];
                *to = vec_fma(w, each[i], *to);
            }
        }
    }
}

// `ranks` (up to 4) dot products for each of `rows` (up to 2) rows.
LANES_FN void shrink_tile(enum sora_dtype dtype, int ranks, int rows,
                          const struct lora_shrink *work, int32_t rank, int32_t row)
{
    const size_t d_in = (size_t)work->d_in, a_first = (size_t)rank * d_in;
    const float *x[2];
    vec acc[8];
    LANES_UNROLL(2)
    for (int i = 0; i < rows; i++)
        x[i] = work->x + (size_t)work->part->rows[row + i] * d_in;
    LANES_UNROLL(8)
    for (int i = 0; i < 2 * ranks * rows; i++)
        acc[i] = vec_zero();
    size_t k = 0;
    for (; k + LORA_DOT_VALUES <= d_in; k += LORA_DOT_VALUES)
        dot_step(dtype, ranks, rows, work->part->a, a_first, d_in, x, k, LORA_DOT_VALUES, acc);
    dot_step(dtype, ranks, rows, work->part->a, a_first, d_in, x, k, (int32_t)(d_in - k), acc);
    LANES_UNROLL(8)
    for (int i = 0; i < ranks * rows; i++) {
        float *t = work->part->t + (size_t)(row + i % rows) * (size_t)work->part->rank;
        const float sum = vec_sum_of_16(&acc[2 * i]);
        const float scale = dtype == SORA_I8 ? work->part->scales[rank + i / rows] : 1.0f;
        t[rank + i / rows] = work->part->scale * scale * sum;
    }
}

LANES_FN void shrink_as(enum sora_dtype dtype, const struct lora_shrink *work, int32_t first,
                        int32_t end)
{
    int32_t row = 0;
    for (; row + 2 <= work->part->row_count; row += 2) {
        int32_t rank = first;
        for (; rank + 2 <= end; rank += 2)
            shrink_tile(dtype, 2, 2, work, rank, row);
        if (rank < end)
            shrink_tile(dtype, 1, 2, work, rank, row);
    }
    if (row == work->part->row_count)
        return;
    int32_t rank = first;
    for (; rank + 4 <= end; rank += 4)
        shrink_tile(dtype, 4, 1, work, rank, row);
    if (end - rank == 3)
        shrink_tile(dtype, 3, 1, work, rank, row);
    else if (end - rank == 2)
        shrink_tile(dtype, 2, 1, work, rank, row);
    else if (end - rank == 1)
        shrink_tile(dtype, 1, 1, work, rank, row);
}

void LORA_PASTE(lora_shrink, LORA_SUFFIX)(const struct lora_shrink *work, int32_t first,
                                          int32_t end)
{
    if (work->part->dtype == SORA_F32)
        shrink_as(SORA_F32, work, first, end);
    else if (work->part->dtype == SORA_F16)
        shrink_as(SORA_F16, work, first, end);
    else if (work->part->dtype == SORA_I8)
        shrink_as(SORA_I8, work, first, end);
    else
        shrink_as(SORA_BF16, work, first, end);
}

// One or two rows of a part, in registers: a vector's store may change whatever has an address.
struct expand_rows {
    const void *bt;
    size_t rank, rank_stored, d_out;
    const float *t[2];
    float *y[2];
};

LANES_FN struct expand_rows rows_of(const struct lora_expand *work, int rows, int32_t row)
{
    const struct lora_part *part = work->part;
    struct expand_rows of = {.bt = part->bt,
                             .rank = (size_t)part->rank,
                             .rank_stored = (size_t)part->rank_stored,
                             .d_out = (size_t)work->d_out};
    LANES_UNROLL(2)
    for (int i = 0; i < rows; i++) {
        of.t[i] = part->t + (size_t)(row + i) * of.rank;
        of.y[i] = work->y + (size_t)part->rows[row + i] * of.d_out;
    }
    return of;
}

// `vecs` vectors of outputs from o on, for each of `rows` rows; the last vector may be ragged. Row
// r of bt has them at place + r * stride.
LANES_FN void expand_tile(enum sora_dtype dtype, int vecs, int rows, const struct expand_rows *of,
                          size_t place, size_t stride, size_t o, int32_t left)
{
    vec acc[8];
    LANES_UNROLL(8)
    for (int i = 0; i < rows * vecs; i++) {
        int32_t at = i % vecs * VEC_LANES;
        acc[i] = vec_load_part(of->y[i / vecs] + o + at, left - at);
    }
    for (size_t r = 0; r < of->rank; r++, place += stride) {
        LANES_UNROLL(8)
        for (int v = 0; v < vecs; v++) {
            int32_t at = v * VEC_LANES;
            vec b = vec_load_part_as(dtype, of->bt, place + (size_t)at, left - at);
            LANES_UNROLL(2)
            for (int i = 0; i < rows; i++)
                acc[i * vecs + v] = vec_fma(vec_set1(of->t[i][r]), b, acc[i * vecs + v]);
        }
    }
    LANES_UNROLL(8)
    for (int i = 0; i < rows * vecs; i++) {
        int32_t at = i % vecs * VEC_LANES;
        vec_store_part(of->y[i / vecs] + o + at, acc[i], left - at);
    }
}

LANES_FN void expand_rows(enum sora_dtype dtype, int vecs, int rows, const struct lora_expand *work,
                          int32_t row, int32_t first, int32_t end)
{
    const struct expand_rows of = rows_of(work, rows, row);
    int32_t o = first;
    for (; o + vecs * VEC_LANES <= end; o += vecs * VEC_LANES)
        expand_tile(dtype, vecs, rows, &of, (size_t)o, of.d_out, (size_t)o, vecs * VEC_LANES);
    for (; vecs > 4 && o + 4 * VEC_LANES <= end; o += 4 * VEC_LANES)
        expand_tile(dtype, 4, rows, &of, (size_t)o, of.d_out, (size_t)o, 4 * VEC_LANES);
    for (; o < end; o += VEC_LANES)
        expand_tile(dtype, 1, rows, &of, (size_t)o, of.d_out, (size_t)o, end - o);
}

// Columns [first, end) of one tile of an I8 module, by vectors.
LANES_FN void expand_i8_columns(int rows, const struct expand_rows *of, size_t first, size_t end)
{
    const size_t tile = first / SORA_LORA_I8_COLUMNS * SORA_LORA_I8_COLUMNS;
    const size_t left = of->d_out - tile;
    const size_t width = left < SORA_LORA_I8_COLUMNS ? left : SORA_LORA_I8_COLUMNS;
    for (size_t o = first; o < end; o += VEC_LANES)
        expand_tile(SORA_I8, 1, rows, of, tile * of->rank_stored + (o - tile), width, o,
                    (int32_t)(end - o));
}

LANES_FN void expand_i8_rows(int rows, const struct lora_expand *work, int32_t row, size_t first,
                             size_t end)
{
    const struct expand_rows of = rows_of(work, rows, row);
    const size_t each = SORA_LORA_I8_COLUMNS;
    size_t o = (first + each - 1) / each * each; // where whole tiles begin
    if (first < o)
        expand_i8_columns(rows, &of, first, o < end ? o : end);
    for (; o + each <= end; o += each)
        expand_tile(SORA_I8, SORA_LORA_I8_COLUMNS / VEC_LANES, rows, &of, o * of.rank_stored, each,
                    o, (int32_t)each);
    if (o < end)
        expand_i8_columns(rows, &of, o, end);
}

LANES_FN void expand_as(enum sora_dtype dtype, const struct lora_expand *work, int32_t first,
                        int32_t end)
{
    int32_t row = 0;
    for (; row + 2 <= work->part->row_count; row += 2)
        expand_rows(dtype, 4, 2, work, row, first, end);
    if (row < work->part->row_count)
        expand_rows(dtype, 8, 1, work, row, first, end);
}

LANES_FN void expand_i8(const struct lora_expand *work, size_t first, size_t end)
{
    int32_t row = 0;
    for (; row + 2 <= work->part->row_count; row += 2)
        expand_i8_rows(2, work, row, first, end);
    if (row < work->part->row_count)
        expand_i8_rows(1, work, row, first, end);
}

void LORA_PASTE(lora_expand, LORA_SUFFIX)(const struct lora_expand *work, int32_t first,
                                          int32_t end)
{
    if (work->part->dtype == SORA_F32)
        expand_as(SORA_F32, work, first, end);
    else if (work->part->dtype == SORA_F16)
        expand_as(SORA_F16, work, first, end);
    else if (work->part->dtype == SORA_I8)
        expand_i8(work, (size_t)first, (size_t)end);
    else
        expand_as(SORA_BF16, work, first, end);
}

#endif

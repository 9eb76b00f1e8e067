// SPDX-License-Identifier: Apache-2.0
// The bodies of tile_product, compiled by tile_product_avx2.c and tile_product_avx512.c, which
// define TILE_SUFFIX. The accumulators of a tile are all of the registers but a few: 6 x 16 with
// AVX2 (12 x 8 for narrow products), 12 x 16 with AVX-512.
#ifndef KERNEL_TILE_PRODUCT_BODY_H
#define KERNEL_TILE_PRODUCT_BODY_H

#include "base/assert.h"
#include "kernel/lanes.h"
#include "kernel/tile_dispatch.h"

#define TILE_VECS (TILE_COLUMNS / VEC_LANES)
#define TILE_ACCUMULATORS 12
#define TILE_ROWS_MAX (TILE_ACCUMULATORS / TILE_VECS)
#define TILE_GROUP 3 // rows behind one pointer: strides of 0, 1 and 2 are addressing modes

#define TILE_PASTE_AGAIN(name, suffix) name##_##suffix
#define TILE_PASTE(name, suffix) TILE_PASTE_AGAIN(name, suffix)

// A vector of which `count` columns exist, maybe none. Not inlined: the rare edge of a matrix.
static __attribute__((noinline)) vec load_columns(const float *from, int32_t count)
{
    return count > 0 ? vec_load_part(from, count) : vec_zero();
}

static __attribute__((noinline)) void store_columns(float *to, vec value, int32_t count)
{
    if (count > 0)
        vec_store_part(to, value, count);
}

// One tile: the first `rows` rows of a product, `vecs` vectors wide; both are constants.
LANES_FN void run_tile(int rows, int vecs, const struct tile_product *product)
{
    vec acc[TILE_ACCUMULATORS];
    const int32_t columns = product->columns;
    float *const c = product->c;
    const size_t c_stride = product->c_stride;
    const bool whole = columns >= vecs * VEC_LANES;
    LANES_UNROLL(12)
    for (int i = 0; i < rows * vecs; i++) {
        const float *from = c + (size_t)(i / vecs) * c_stride + i % vecs * VEC_LANES;
        if (!product->add)
            acc[i] = vec_zero();
        else
            acc[i] = whole ? vec_load(from) : load_columns(from, columns - i % vecs * VEC_LANES);
    }
    const size_t a_stride = product->a_stride, b_stride = product->b_stride;
    const int32_t k_count = product->k_count;
    const float *a[TILE_ACCUMULATORS / TILE_GROUP], *b = product->b;
    LANES_UNROLL(4)
    for (int g = 0; g < TILE_ACCUMULATORS / TILE_GROUP; g++)
        a[g] = product->a + (g * TILE_GROUP < rows ? (size_t)(g * TILE_GROUP) * a_stride : 0);
    for (int32_t k = 0; k < k_count; k++, b += b_stride) {
        vec w[TILE_VECS];
        LANES_UNROLL(2)
        for (int v = 0; v < vecs; v++)
            w[v] = vec_load(b + v * VEC_LANES);
        LANES_UNROLL(12)
        for (int r = 0; r < rows; r++) {
            const vec each = vec_set1(a[r / TILE_GROUP][(size_t)(r % TILE_GROUP) * a_stride]);
            LANES_UNROLL(2)
            for (int v = 0; v < vecs; v++)
                acc[r * vecs + v] = vec_fma(each, w[v], acc[r * vecs + v]);
        }
        LANES_UNROLL(4)
        for (int g = 0; g < TILE_ACCUMULATORS / TILE_GROUP; g++)
            a[g]++;
    }
    LANES_UNROLL(12)
    for (int i = 0; i < rows * vecs; i++) {
        float *to = c + (size_t)(i / vecs) * c_stride + i % vecs * VEC_LANES;
        if (whole)
            vec_store(to, acc[i]);
        else
            store_columns(to, acc[i], columns - i % vecs * VEC_LANES);
    }
}

typedef void tile_fn(const struct tile_product *product);
#define TILE_ONE(rows)                                          \
    static void tile_##rows(const struct tile_product *product) \
    {                                                           \
        run_tile(rows, TILE_VECS, product);                     \
    }
TILE_ONE(1)
TILE_ONE(2)
TILE_ONE(3)
TILE_ONE(4)
TILE_ONE(5)
TILE_ONE(6)
#if TILE_VECS == 1
TILE_ONE(7)
TILE_ONE(8)
TILE_ONE(9)
TILE_ONE(10)
TILE_ONE(11)
TILE_ONE(12)
static tile_fn *const tiles[] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                 tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
#else
static tile_fn *const tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
// Up to one vector of columns: twice the rows.
#define TILE_NARROW(rows)                                         \
    static void narrow_##rows(const struct tile_product *product) \
    {                                                             \
        run_tile(rows, 1, product);                               \
    }
TILE_NARROW(1)
TILE_NARROW(2)
TILE_NARROW(3)
TILE_NARROW(4)
TILE_NARROW(5)
TILE_NARROW(6)
TILE_NARROW(7)
TILE_NARROW(8)
TILE_NARROW(9)
TILE_NARROW(10)
TILE_NARROW(11)
TILE_NARROW(12)
static tile_fn *const narrow_tiles[] = {narrow_1, narrow_2,  narrow_3,  narrow_4,
                                        narrow_5, narrow_6,  narrow_7,  narrow_8,
                                        narrow_9, narrow_10, narrow_11, narrow_12};
#endif

// All rows, in tiles of nearly equal height.
void TILE_PASTE(tile_product, TILE_SUFFIX)(const struct tile_product *product)
{
    tile_fn *const *of_rows = tiles;
    int32_t rows_max = TILE_ROWS_MAX;
#if TILE_VECS > 1
    if (product->columns <= VEC_LANES) {
        of_rows = narrow_tiles;
        rows_max = TILE_ACCUMULATORS;
    }
#endif
    struct tile_product tile = *product;
    const int32_t count = (product->rows + rows_max - 1) / rows_max;
    for (int32_t i = 0, row = 0; i < count; i++) {
        const int32_t rows = (product->rows - row) / (count - i);
        of_rows[rows - 1](&tile);
        tile.a += (size_t)rows * tile.a_stride;
        tile.c += (size_t)rows * tile.c_stride;
        row += rows;
    }
}

#endif

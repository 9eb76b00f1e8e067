// SPDX-License-Identifier: Apache-2.0
// See tile_product.h: dispatch, the portable path and the reference.
#include "kernel/tile_product.h"

#include <string.h>

#include "base/assert.h"
#include "kernel/sgemm.h"
#include "kernel/tile_dispatch.h"

void tile_product_portable(const struct tile_product *product)
{
    sgemm(SGEMM_PLAIN, SGEMM_PLAIN, product->rows, product->columns, product->k_count, 1.0f,
          product->a, (int32_t)product->a_stride, product->b, (int32_t)product->b_stride,
          product->add ? 1.0f : 0.0f, product->c, (int32_t)product->c_stride);
}

void tile_product(const struct tile_product *product)
{
    static tile_product_fn *const by_isa[] = {tile_product_portable, tile_product_avx2,
                                              tile_product_avx512, tile_product_avx512};
    ASSERT(product->columns >= 1 && product->columns <= TILE_COLUMNS);
    by_isa[cpu_isa()](product);
}

void tile_product_ref(const struct tile_product *product)
{
    for (int32_t i = 0; i < product->rows; i++) {
        for (int32_t j = 0; j < product->columns; j++) {
            float *c = product->c + (size_t)i * product->c_stride + j;
            double sum = product->add ? (double)*c : 0.0;
            for (int32_t k = 0; k < product->k_count; k++)
                sum += (double)product->a[(size_t)i * product->a_stride + (size_t)k] *
                       (double)product->b[(size_t)k * product->b_stride + (size_t)j];
            *c = (float)sum;
        }
    }
}

void tile_transpose_portable(const float *from, size_t from_stride, int32_t rows, int32_t columns,
                             float *to, size_t to_stride)
{
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < columns; c++)
            to[(size_t)c * to_stride + (size_t)r] = from[(size_t)r * from_stride + (size_t)c];
}

void tile_transpose(const float *from, size_t from_stride, int32_t rows, int32_t columns, float *to,
                    size_t to_stride)
{
    (cpu_isa() == CPU_PORTABLE ? tile_transpose_portable : tile_transpose_avx2)(
        from, from_stride, rows, columns, to, to_stride);
}

static void clear_columns(float *b, int32_t k_count, int32_t columns)
{
    if (columns < TILE_COLUMNS)
        for (int32_t k = 0; k < k_count; k++)
            memset(b + k * TILE_COLUMNS + columns, 0,
                   (size_t)(TILE_COLUMNS - columns) * sizeof(float));
}

void tile_pack(const float *from, size_t stride, int32_t k_count, int32_t columns, float *b)
{
    for (int32_t k = 0; k < k_count; k++)
        memcpy(b + k * TILE_COLUMNS, from + (size_t)k * stride, (size_t)columns * sizeof(float));
    clear_columns(b, k_count, columns);
}

void tile_pack_transposed(const float *from, size_t stride, int32_t k_count, int32_t columns,
                          float *b)
{
    tile_transpose(from, stride, columns, k_count, b, TILE_COLUMNS);
    clear_columns(b, k_count, columns);
}

// Columns [column, column + tile->columns) of k [k, k + tile->k_count): where they are, or packed.
static void place_b(const struct tile_matrices *matrices, int32_t column, int32_t k, float *packed,
                    struct tile_product *tile)
{
    const size_t stride = matrices->b_stride;
    tile->b = packed;
    tile->b_stride = TILE_COLUMNS;
    if (matrices->b_transposed) {
        tile_pack_transposed(matrices->b + (size_t)column * stride + k, stride, tile->k_count,
                             tile->columns, packed);
    } else if (tile->columns < TILE_COLUMNS) {
        tile_pack(matrices->b + (size_t)k * stride + column, stride, tile->k_count, tile->columns,
                  packed);
    } else {
        tile->b = matrices->b + (size_t)k * stride + column;
        tile->b_stride = stride;
    }
}

void tile_multiply(const struct tile_matrices *matrices)
{
    float packed[TILE_DEPTH * TILE_COLUMNS];
    for (int32_t column = 0; column < matrices->columns; column += TILE_COLUMNS) {
        struct tile_product tile = {.a_stride = matrices->a_stride,
                                    .c = matrices->c + column,
                                    .c_stride = matrices->c_stride,
                                    .rows = matrices->rows,
                                    .columns =
                                        tile_smaller(TILE_COLUMNS, matrices->columns - column),
                                    .add = matrices->add};
        for (int32_t k = 0; k < matrices->k_count; k += TILE_DEPTH) {
            tile.k_count = tile_smaller(TILE_DEPTH, matrices->k_count - k);
            tile.a = matrices->a + k;
            place_b(matrices, column, k, packed, &tile);
            tile_product(&tile);
            tile.add = true;
        }
    }
}
